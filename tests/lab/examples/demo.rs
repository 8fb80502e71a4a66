//! `make demo`: a node dies, and its virtual IP moves to another. Who notices, and when? Once with
//! keepalived alone, once with vipherald as its hook, side by side.
//!
//! ```sh
//! demo PATH_OF_VIPHERALD
//! ```
//!
//! All times come from the hosts' own neighbour tables, and count from the new master's first
//! advertisement, by the kernel's time stamp.

use std::env;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use vipherald_lab::{
    Capture, Direction, Frame, Host, Keepalived, Lab, Mac, Manners, NeighbourWatch, Responder,
    State, eventually,
};

const VIP: [u8; 4] = [10, 9, 0, 100];
const GATEWAY: [u8; 4] = [10, 9, 0, 254];
/// Of the Hot Standby Router Protocol (RFC 2281).
const VIRTUAL_MAC: Mac = Mac([0, 0, 0x0c, 0x07, 0xac, 1]);
const INSTANCE: &str = "VI_1";
/// The clients of each kind. The first half are in node2's neighbour table.
const EACH: usize = 4;
/// How long the ports of some clients forward nothing.
const DEAD_FOR: Duration = Duration::from_secs(8);
/// A host that has its entry from just before the failover begins to doubt it after 15 s at the
/// earliest (half of base_reachable_time): until then all that it learns comes from the network.
const WATCHED: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_secs(20);

/// The hosts, in this order: how many, and what they are.
const CAST: [(usize, &str); 6] = [
    (EACH, "clients like any other"),
    (EACH, "clients that ignore gratuitous ARP"),
    (EACH, "clients behind a port that is dead for 8 s"),
    (1, "a client with a PERMANENT entry"),
    (1, "node3, which stays BACKUP"),
    (1, "a gateway with a virtual MAC (HSRP)"),
];

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [program] = arguments.as_slice() else {
        panic!("usage: demo PATH_OF_VIPHERALD");
    };
    introduce();
    let (alone, with) = thread::scope(|scope| {
        let alone = scope.spawn(|| fail_over(None));
        let with = scope.spawn(|| fail_over(Some(Path::new(program))));
        let outcome = |run: thread::ScopedJoinHandle<'_, Outcome>| match run.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (outcome(alone), outcome(with))
    });
    print_cast(&alone, &with);
    println!("  vipherald's log on node2:\n");
    for line in with.log.lines() {
        println!("    {line}");
    }
}

/// What one failover did. The hosts are in the order of [`CAST`].
struct Outcome {
    master: SystemTime,
    frames: usize,
    log: String,
    /// When each host's table got the new owner's MAC, if it has that in the end.
    hosts: Vec<Option<SystemTime>>,
}

/// Three nodes, clients, a gateway, a node that loses its power, and what the others make of it.
fn fail_over(hook: Option<&Path>) -> Outcome {
    let lab = Lab::new();
    let nodes = lab.hosts("node", 3);
    let clients = lab.hosts("client", 3 * EACH + 1);
    let router = lab.host("router");
    let (deaf, dead) = (&clients[EACH..2 * EACH], &clients[2 * EACH..3 * EACH]);
    let vip = Ipv4Addr::from(VIP);
    let manners = Manners::plain(GATEWAY.into(), VIRTUAL_MAC);
    let gateway = Responder::start(&router, manners);
    for host in deaf {
        host.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
    }
    nodes[1].run(&format!("ip route add default via {}", manners.ip));
    let log = lab.directory().join("vipherald.log");
    let hooks = hook.map_or_else(String::new, |program| hooks(&lab, program, &log));
    let mut keepalived: Vec<Keepalived> = nodes
        .iter()
        .zip([150, 120, 100])
        .map(|(node, priority)| {
            // The nodes share this folder: the log is node2's.
            let hooks = if priority == 120 { hooks.as_str() } else { "" };
            node.keepalived(&instance(priority, hooks))
        })
        .collect();
    for (node, state) in keepalived.iter_mut().zip(["MASTER", "BACKUP", "BACKUP"]) {
        node.wait_for_state(INSTANCE, state, SOON);
    }

    // Everybody has just talked with the VIP.
    let others: Vec<&Host> = clients.iter().chain([&nodes[2]]).collect();
    let answered = ping(&others);
    assert!(answered.iter().all(|yes| *yes), "the VIP is silent");
    nodes[0].run(&format!("ping -q -c 1 -W 2 -I {vip} {}", manners.ip));
    let permanent = &clients[3 * EACH];
    permanent.remember_as(vip, nodes[0].mac(), State::Permanent);
    for group in clients.chunks(EACH) {
        for host in &group[..group.len().div_ceil(2)] {
            nodes[1].remember(host.ipv4(), host.mac());
        }
    }

    let watches: Vec<_> = others.iter().map(|host| host.watch_neighbours()).collect();
    let sent = nodes[1].capture();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| watch(&watches, nodes[1].mac(), &over));
        dead.iter().for_each(|host| lab.blackout(host));
        keepalived.remove(0).kill9_all();
        lab.unplug(&nodes[0]);
        let master = first_advertisement(&sent);
        sleep_until(master + DEAD_FOR);
        dead.iter().for_each(|host| lab.restore(host));
        sleep_until(master + WATCHED);
        over.store(true, Ordering::Relaxed);

        let is_arp = |frame: &Frame| frame.ether_type() == 0x0806;
        let by_node2 = |frame: &Frame| frame.direction == Direction::FromHost;
        let frames = sent.frames();
        let has = |mac: Option<Mac>| mac == Some(nodes[1].mac());
        let follow: Vec<_> = others.iter().map(|host| has(host.cached(vip))).collect();
        let times = watcher.join().expect("the watcher does not panic");
        let mut hosts: Vec<_> = times
            .into_iter()
            .zip(follow)
            .map(|(at, follows)| at.filter(|_| follows))
            .collect();
        let entry = gateway.cached(vip).filter(|(mac, _)| has(Some(*mac)));
        hosts.push(entry.map(|(_, at)| at));
        Outcome {
            master,
            frames: frames.iter().filter(|f| is_arp(f) && by_node2(f)).count(),
            log: hook.map_or_else(String::new, |_| written(&log)),
            hosts,
        }
    })
}

fn instance(priority: u8, hooks: &str) -> String {
    let vip = Ipv4Addr::from(VIP);
    format!(
        "vrrp_instance {INSTANCE} {{
            state BACKUP
            interface eth0
            virtual_router_id 51
            priority {priority}
            advert_int 1
            virtual_ipaddress {{
                {vip}/24
            }}
            {hooks}
        }}"
    )
}

/// node2's hook. The nodes share this machine's log daemon, which has nothing to do with them.
fn hooks(lab: &Lab, program: &Path, log: &Path) -> String {
    let program = lab.install_hook(program);
    let (program, log) = (program.display(), log.display());
    let vip = Ipv4Addr::from(VIP);
    let body = format!("exec {program} --log stderr announce {vip} 2>>{log}");
    let hook = lab.write_hook("announce", &body);
    format!("notify_master \"{}\"\n", hook.display())
}

/// What vipherald logged; it does so when it ends.
fn written(log: &Path) -> String {
    let text = || fs::read_to_string(log).ok().filter(|text| !text.is_empty());
    eventually("vipherald ends", 3 * SOON, text)
}

/// Whether each host gets an answer from the VIP within a second.
fn ping(hosts: &[&Host]) -> Vec<bool> {
    let pings: Vec<_> = hosts
        .iter()
        .map(|host| {
            host.command("ping")
                .args(["-q", "-c", "1", "-W", "1"])
                .arg(Ipv4Addr::from(VIP).to_string())
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
            if entry.ip == IpAddr::from(VIP) && entry.mac == Some(new) && !event.gone {
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

fn introduce() {
    let vip = Ipv4Addr::from(VIP);
    println!("A virtual IP (VIP) moves: who follows it, and when?\n");
    println!("  network   node1, node2, node3 with keepalived; clients and a gateway; one switch");
    println!("  before    node1 holds the VIP {vip}; every host has just talked with it;");
    println!("            node2 has half of each kind of clients in its own table");
    println!("  failover  node1 loses power; node2 becomes MASTER");
    println!("  runs      two, at once: keepalived as it is, and with vipherald as its hook\n");
}

fn print_cast(alone: &Outcome, with: &Outcome) {
    println!(
        "  {:<44}{:>20}{:>26}",
        "", "keepalived alone", "keepalived + vipherald"
    );
    println!(
        "  {:<44}{:>10}{:>10}{:>16}{:>10}",
        "WHO FOLLOWS", "", "the last", "", "the last"
    );
    let mut from = 0;
    for (count, what) in CAST {
        let of = |run: &Outcome| {
            let hosts = &run.hosts[from..from + count];
            let times: Vec<_> = hosts.iter().flatten().collect();
            let last = times.iter().max().filter(|_| times.len() == count);
            let last = last.map_or_else(|| "never".to_owned(), |last| since(run.master, **last));
            (format!("{} of {count}", times.len()), last)
        };
        let (left, right) = (of(alone), of(with));
        let what = match count {
            1 => what.to_owned(),
            count => format!("{count} {what}"),
        };
        println!(
            "  {what:<44}{:>10}{:>10}{:>16}{:>10}",
            left.0, left.1, right.0, right.1
        );
        from += count;
    }
    println!(
        "  {:<44}{:>10}{:>26}",
        "ARP FRAMES OF NODE2", alone.frames, with.frames
    );
    println!(
        "\n  \"never\": not within {} s. Times count from node2's first advertisement.\n",
        WATCHED.as_secs()
    );
}

/// A time since the new master's first advertisement.
fn since(master: SystemTime, time: SystemTime) -> String {
    let after = time
        .duration_since(master)
        .unwrap_or_default()
        .as_secs_f64();
    if after < 1.0 {
        format!("{:.1} ms", after * 1e3)
    } else {
        format!("{after:.2} s")
    }
}
