//! `make demo`: a node dies, and its virtual IP moves to another. Who notices, and when? Once with
//! keepalived alone, once with vipherald as its hook, side by side.
//!
//! ```sh
//! demo PATH_OF_VIPHERALD PERCENT_OF_FRAMES_LOST
//! ```
//!
//! All times come from the hosts' own neighbour tables, and count from the new master's first
//! advertisement, by the kernel's time stamp.

use std::env;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use vipherald_lab::{Capture, Direction, Frame, Host, Keepalived, Lab, Mac, NeighbourWatch};

const VIP: &str = "10.9.0.100";
const INSTANCE: &str = "VI_1";
/// Clients whose links lose frames, and clients that are cut off for a while.
const LOSSY: usize = 12;
const CUT_OFF: usize = 4;
/// Rapid spanning tree takes a neighbour for dead after three hellos of 2 s (802.1D-2004, 17.14).
const CUT_OFF_FOR: Duration = Duration::from_secs(6);
/// A host that has its entry from just before the failover begins to doubt it after 15 s at the
/// earliest (half of base_reachable_time): until then all that it learns comes from the network.
const WATCHED: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_secs(20);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (program, percent) = match arguments.as_slice() {
        [program, percent] => (Path::new(program), percent.parse().ok()),
        _ => panic!("usage: demo PATH_OF_VIPHERALD PERCENT_OF_FRAMES_LOST"),
    };
    let percent: f64 = percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .unwrap_or_else(|| panic!("{} is no percentage", arguments[1]));
    introduce(percent);
    let (alone, with) = thread::scope(|scope| {
        let alone = scope.spawn(|| fail_over(None, percent));
        let with = scope.spawn(|| fail_over(Some(program), percent));
        let outcome = |run: thread::ScopedJoinHandle<'_, Outcome>| match run.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (outcome(alone), outcome(with))
    });
    print_timeline(&alone, &with);
    print_hosts(&alone, &with);
}

/// What one failover did. The hosts are node3, the lossy clients, and those that were cut off.
struct Outcome {
    node1: Mac,
    node2: Mac,
    power_cut: SystemTime,
    master: SystemTime,
    back: SystemTime,
    frames: usize,
    hosts: Vec<Followed>,
}

/// What one host had in its neighbour table for the VIP, and when it changed.
struct Followed {
    name: String,
    before: Option<Mac>,
    after: Option<Mac>,
    at: Option<SystemTime>,
    reaches: bool,
}

impl Outcome {
    fn since_master(&self, time: SystemTime) -> f64 {
        match time.duration_since(self.master) {
            Ok(after) => after.as_secs_f64(),
            Err(before) => -before.duration().as_secs_f64(),
        }
    }

    /// When a host began to follow, if it did and has not gone back. One whose kernel has given the
    /// entry up since, for want of answers on a lossy link, has not: it will ask anew.
    fn followed(&self, host: &Followed) -> Option<f64> {
        host.at
            .filter(|_| host.after == Some(self.node2) || host.after.is_none())
            .map(|at| self.since_master(at))
    }

    /// When the last of these hosts began to follow, if all do in the end.
    fn all_followed(&self, hosts: &[Followed]) -> Option<f64> {
        hosts.iter().try_fold(0.0_f64, |latest, host| {
            Some(latest.max(self.followed(host)?))
        })
    }

    fn owner(&self, mac: Option<Mac>) -> String {
        match mac {
            Some(mac) if mac == self.node1 => "node1's".to_owned(),
            Some(mac) if mac == self.node2 => "node2's".to_owned(),
            Some(mac) => mac.to_string(),
            None => "none".to_owned(),
        }
    }
}

/// Three nodes, clients, a node that loses its power, and what the others make of it.
fn fail_over(hook: Option<&Path>, percent: f64) -> Outcome {
    let lab = Lab::new();
    let nodes = lab.hosts("node", 3);
    let clients = lab.hosts("client", LOSSY + CUT_OFF);
    let (lossy, cut_off) = clients.split_at(LOSSY);
    let hooks = hook.map_or_else(String::new, |program| hooks(&lab.install_hook(program)));
    let mut keepalived: Vec<Keepalived> = nodes
        .iter()
        .zip([150, 120, 100])
        .map(|(node, priority)| node.keepalived(&instance(priority, &hooks)))
        .collect();
    for (node, state) in keepalived.iter_mut().zip(["MASTER", "BACKUP", "BACKUP"]) {
        node.wait_for_state(INSTANCE, state, SOON);
    }

    // Everybody has just talked with the VIP.
    let others: Vec<&Host> = nodes[2..].iter().chain(&clients).collect();
    let answered = ping(&others);
    assert!(answered.iter().all(|yes| *yes), "the VIP is silent");
    // Else node2's first answer to anyone would begin with a broadcast ARP request from the VIP,
    // from which all others learn.
    for host in &others {
        nodes[1].remember(host.ipv4(), host.mac());
    }
    let before: Vec<_> = others.iter().map(|host| host.cached(VIP)).collect();
    lab.loss(lossy, Direction::ToHost, percent);

    let watches: Vec<_> = others.iter().map(|host| host.watch_neighbours()).collect();
    let sent = nodes[1].capture();
    let cut = |percent| {
        for direction in [Direction::ToHost, Direction::FromHost] {
            lab.loss(cut_off, direction, percent);
        }
    };
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&watches, nodes[1].mac(), &over));
        let power_cut = SystemTime::now();
        keepalived.remove(0).kill9_all();
        lab.unplug(&nodes[0]);
        cut(100.0);
        let master = first_advertisement(&sent);
        sleep_until(master + CUT_OFF_FOR);
        cut(0.0);
        let back = SystemTime::now();
        sleep_until(master + WATCHED);
        over.store(true, Ordering::Relaxed);

        let after: Vec<_> = others.iter().map(|host| host.cached(VIP)).collect();
        let is_arp = |frame: &Frame| frame.ether_type() == 0x0806;
        let by_node2 = |frame: &Frame| frame.direction == Direction::FromHost;
        let frames = sent.frames();
        lab.loss(lossy, Direction::ToHost, 0.0);
        let reaches = ping(&others);
        let times = watcher.join().expect("the watcher does not panic");
        let hosts = others
            .iter()
            .zip(before)
            .zip(after)
            .zip(times)
            .zip(reaches)
            .map(|((((host, before), after), at), reaches)| Followed {
                name: host.name().to_owned(),
                before,
                after,
                at,
                reaches,
            })
            .collect();
        Outcome {
            node1: nodes[0].mac(),
            node2: nodes[1].mac(),
            power_cut,
            master,
            back,
            frames: frames.iter().filter(|f| is_arp(f) && by_node2(f)).count(),
            hosts,
        }
    })
}

fn instance(priority: u8, hooks: &str) -> String {
    format!(
        "vrrp_instance {INSTANCE} {{
            state BACKUP
            interface eth0
            virtual_router_id 51
            priority {priority}
            advert_int 1
            virtual_ipaddress {{
                {VIP}/24
            }}
            {hooks}
        }}"
    )
}

fn hooks(program: &Path) -> String {
    let hook = |event: &str, command: &str| {
        // The nodes share this machine's log daemon, which has nothing to do with them.
        let program = program.display();
        format!("{event} \"{program} {command} {VIP} --log stderr\"\n")
    };
    [
        hook("notify_master", "announce"),
        hook("notify_master_rx_lower_pri", "announce"),
        hook("notify_backup", "purge"),
        hook("notify_fault", "purge"),
        hook("notify_stop", "purge"),
    ]
    .concat()
}

/// Whether each host gets an answer from the VIP within a second.
fn ping(hosts: &[&Host]) -> Vec<bool> {
    let pings: Vec<_> = hosts
        .iter()
        .map(|host| {
            host.command("ping")
                .args(["-q", "-c", "1", "-W", "1", VIP])
                .stdout(Stdio::null())
                .spawn()
                .expect("ping can be started")
        })
        .collect();
    pings
        .into_iter()
        .map(|mut ping| ping.wait().is_ok_and(|status| status.success()))
        .collect()
}

/// When each watched table got the new MAC for the VIP.
fn watch(watches: &[NeighbourWatch], new: Mac, over: &AtomicBool) -> Vec<Option<SystemTime>> {
    let mut times = vec![None; watches.len()];
    while !over.load(Ordering::Relaxed) {
        for (host, event) in NeighbourWatch::wait_any(watches, Duration::from_millis(50)) {
            let entry = event.neighbour;
            if entry.ip.to_string() == VIP && entry.mac == Some(new) && !event.gone {
                times[host].get_or_insert(event.time);
            }
        }
    }
    times
}

/// The moment of the first advertisement that a host sends: it is the master.
fn first_advertisement(capture: &Capture) -> SystemTime {
    // IPv4, and in its header protocol 112.
    let is_vrrp = |frame: &Frame| frame.ether_type() == 0x0800 && frame.payload()[9] == 112;
    capture
        .wait_for(SOON, |frame| {
            frame.direction == Direction::FromHost && is_vrrp(frame)
        })
        .expect("node2 becomes the master")
        .time
}

fn sleep_until(time: SystemTime) {
    if let Ok(left) = time.duration_since(SystemTime::now()) {
        thread::sleep(left);
    }
}

fn introduce(percent: f64) {
    let all = LOSSY + CUT_OFF;
    let last_lossy = format!("client1-{LOSSY}");
    let last_cut_off = format!("client{}-{all}", LOSSY + 1);
    let cut_off_for = CUT_OFF_FOR.as_secs();
    println!("A virtual IP (VIP) moves: who follows it, and when?\n");
    println!("  network   node1, node2, node3 with keepalived; client1-{all}; one switch");
    println!("  before    node1 holds the VIP {VIP}; every host has just talked with it;");
    println!("            node2 has every host in its own table");
    println!("  failover  node1 loses power; node2 becomes MASTER");
    println!("  trouble   the links to {last_lossy} lose {percent} % of all frames");
    println!("            {last_cut_off} are cut off until {cut_off_for} s after the failover");
    println!("  runs      two, at once: keepalived as it is, and with vipherald as its hook\n");
}

fn print_timeline(alone: &Outcome, with: &Outcome) {
    let row = |what: &str, tell: &dyn Fn(&Outcome) -> String| {
        println!("  {what:<36}{:>18}{:>24}", tell(alone), tell(with));
    };
    let of_all = |count: usize, all: usize| format!("{count} of {all}");
    println!(
        "  {:<36}{:>18}{:>24}",
        "TIMELINE", "keepalived alone", "keepalived + vipherald"
    );
    row("node1 loses power", &|run| {
        time(run.since_master(run.power_cut))
    });
    row("node2 becomes MASTER", &|_| time(0.0));
    row("all with lossy links follow", &|run| {
        time_or_never(run.all_followed(&run.hosts[..=LOSSY]))
    });
    row("the hosts cut off are back", &|run| {
        time(run.since_master(run.back))
    });
    row("all that were cut off follow", &|run| {
        time_or_never(run.all_followed(&run.hosts[1 + LOSSY..]))
    });
    row("hosts that follow", &|run| {
        let follow = |host: &&Followed| run.followed(host).is_some();
        of_all(run.hosts.iter().filter(follow).count(), run.hosts.len())
    });
    row("hosts that the VIP answers", &|run| {
        let reach = run.hosts.iter().filter(|host| host.reaches).count();
        of_all(reach, run.hosts.len())
    });
    row("ARP frames that node2 sent", &|run| run.frames.to_string());
    println!();
}

fn print_hosts(alone: &Outcome, with: &Outcome) {
    println!("  VIP's MAC in each host's table:");
    println!(
        "  {:<9}{:<9}{:<8}{:>9}{:>10}   {:<8}{:>9}{:>10}",
        "HOST", "before", "after", "followed", "pings VIP", "after", "followed", "pings VIP"
    );
    for (left, right) in alone.hosts.iter().zip(&with.hosts) {
        let after = |run: &Outcome, host: &Followed| {
            let followed = time_or_never(run.followed(host));
            let reaches = if host.reaches { "yes" } else { "no" };
            format!("{:<8}{followed:>9}{reaches:>10}", run.owner(host.after))
        };
        println!(
            "  {:<9}{:<9}{}   {}",
            left.name,
            alone.owner(left.before),
            after(alone, left),
            after(with, right)
        );
    }
    println!(
        "\n  node1's MAC is {}, node2's {}. \"never\": not within {} s.",
        alone.node1,
        alone.node2,
        WATCHED.as_secs()
    );
    let gave_up = |run: &Outcome| run.hosts.iter().any(|host| host.after.is_none());
    if gave_up(alone) || gave_up(with) {
        println!(
            "  \"none\": all answers to its kernel's check got lost; it asks anew when it has to."
        );
    }
}

/// A time since the new master's first advertisement.
fn time(seconds: f64) -> String {
    if seconds.abs() < 1.0 && seconds != 0.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

fn time_or_never(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), time)
}
