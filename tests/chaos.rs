//! Chaos: the real keepalived on three nodes, and everything that can happen to them, at random.
//!
//! What holds all the time: a node speaks for a VIP only while it has it. What holds once quiet has
//! returned: one node has each VIP, every host follows that one, and nothing is left over.
//!
//! `make soak` runs it for long: `VIPHERALD_CHAOS_SECONDS` says how long, `VIPHERALD_CHAOS_SEED`
//! which chance.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was counted")]

#[path = "chaos/addresses.rs"]
mod addresses;
#[allow(dead_code, reason = "the tables of attacks use the rest")]
#[path = "hostile/ceilings.rs"]
mod ceilings;
mod common;
mod events;
#[allow(dead_code, reason = "the tables of attacks use the rest")]
#[path = "hostile/flood.rs"]
mod flood;
#[path = "orders/mod.rs"]
mod helpers;
#[path = "chaos/hooks.rs"]
mod hooks;
#[path = "chaos/lasting.rs"]
mod lasting;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "../core/tests/simulation/rng.rs"]
mod rng;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, File};
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use vipherald_core::order::message::PORT;
use vipherald_lab::{Capture, Direction, Frame, Host, Keepalived, Lab, State, eventually};

use addresses::Addresses;
use common::arp::{IPV6, is_sent};
use common::{OLD_MAC, SOON, VIP, VIP6, signal, since, vipherald};
use events::{fifo, file, is_about, with};
use flood::{Flooder, Forged};
use helpers::{Orders, wait_until_it_listens};
use hooks::{GROUP, Hooks, INSTANCES, configuration};
use lasting::{Lasting, MOST_TO_LISTEN, log_to};
use rng::{Rng, number};

/// The node whose events one process reads from a FIFO; the others have a hook for each.
const READER: usize = 1;
/// The node on which `watch` runs beside the hooks.
const WATCHED: usize = 2;
const NODES: usize = 3;
const CLIENTS: usize = 4;
const VIPS: [&str; 2] = [VIP, VIP6];
/// How long trouble lasts before quiet has to return.
const TROUBLE: Duration = Duration::from_secs(12);
/// How long keepalived may take to settle then, all hosts to follow, and hooks to end.
const QUIET: Duration = Duration::from_secs(30);
/// The longest flood.
const FLOOD: Duration = Duration::from_millis(500);
/// A run that is suspended between its last look at the kernel and its frame can be so late.
const ON_ITS_WAY: Duration = Duration::from_millis(50);

/// One node: its keepalived, if that runs, and what is remembered of it.
struct Node {
    host: Host,
    keepalived: Option<Keepalived>,
    configuration: String,
    capture: Capture,
    addresses: Addresses,
    unplugged: bool,
}

/// What happened, by name.
type Counts = BTreeMap<&'static str, u32>;

struct Chaos {
    lab: Lab,
    nodes: Vec<Node>,
    clients: Vec<Host>,
    attacker: Host,
    /// Frames that it has sent.
    forged: u64,
    rng: Rng,
    counts: Counts,
    log: PathBuf,
    events: PathBuf,
    /// There in times of trouble.
    trouble: PathBuf,
    lasting: Vec<Lasting>,
    /// The FIFO is never without one, as keepalived's is not.
    _writer: File,
    /// Of the frames that nodes sent after they had lost the VIP: how long after, and what it was.
    late: Vec<(Duration, String)>,
    frames: usize,
}

impl Chaos {
    fn new(seed: u64) -> Self {
        let lab = Lab::new();
        let hosts = lab.hosts("node", NODES);
        let clients = lab.hosts("client", CLIENTS);
        let attacker = lab.host("attacker");
        lab.learn_nothing_from(&attacker);
        let program = lab.install_hook(common::VIPHERALD);
        let orders = Orders::new(&lab, &hosts[0]);
        let addresses = |c: &Host| [c.ipv4().to_string(), c.ipv6().to_string()];
        let peers: Vec<_> = clients.iter().flat_map(addresses).collect();
        // A client that is cut off holds the runs up no longer than this.
        let settings = orders.settings(
            &lab,
            "vipherald.toml",
            // Nor does a hook stay for long that looks who still sends here.
            &format!("timeout = 12\nstraggler_watch = 5\npeers = {peers:?}"),
            "permanent = true",
        );
        let conf = lab.directory().join("keepalived.conf");
        let options = format!("--config {} {}", settings.display(), with(&conf, ""));
        let hooks = Hooks {
            lab: lab.directory(),
            program: &program,
            options: &options,
            log: &file(&lab, "log-of-hooks", ""),
            events: &file(&lab, "events-of-hooks", ""),
            trouble: &file(&lab, "trouble", ""),
        };
        let (fifo, writer) = fifo(&lab, "events");
        let each_event = lab.write_hook("hook", &hooks.each_event());
        let to_fifo = lab.write_hook("hook-of-the-reader", &hooks.to_fifo(&fifo));
        // Hooks need the names and addresses, which are the same on all nodes.
        fs::write(&conf, configuration(100, &each_event)).unwrap();
        let nodes: Vec<_> = hosts
            .into_iter()
            .zip([150, 120, 100])
            .enumerate()
            .map(|(number, (host, priority))| {
                mute_keepalived(&host);
                let hook = if number == READER {
                    &to_fifo
                } else {
                    &each_event
                };
                Node {
                    keepalived: None,
                    configuration: configuration(priority, hook),
                    capture: host.capture_sent(),
                    addresses: Addresses::watch(&host),
                    unplugged: false,
                    host,
                }
            })
            .collect();
        let mut lasting = vec![
            read_events(&nodes[READER].host, &hooks, &fifo),
            watch(&nodes[WATCHED].host, &hooks),
        ];
        lasting.extend(clients.iter().map(|client| listen(client, &hooks)));
        Self {
            rng: Rng::new(seed),
            counts: Counts::new(),
            log: hooks.log.to_owned(),
            events: hooks.events.to_owned(),
            trouble: hooks.trouble.to_owned(),
            lab,
            nodes,
            clients,
            attacker,
            forged: 0,
            lasting,
            _writer: writer,
            late: Vec::new(),
            frames: 0,
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// One thing that happens.
    fn trouble(&mut self) {
        for process in &mut self.lasting {
            process.measure();
        }
        let at = self.rng.index(NODES);
        let runs = self.nodes[at].keepalived.is_some();
        let node = &mut self.nodes[at];
        let host = node.host.clone();
        let what = match self.rng.below(23) {
            0 | 1 if runs => {
                let mut keepalived = node.keepalived.take().unwrap();
                keepalived.stop();
                "keepalived stopped"
            }
            2 if runs => {
                node.keepalived.take().unwrap().kill9_all();
                "keepalived killed, its VIPs left behind"
            }
            0..=3 if !runs => {
                node.keepalived = Some(host.keepalived(&node.configuration));
                "keepalived started"
            }
            3 => {
                let vrrp = node.keepalived.as_ref().unwrap().vrrp_pid();
                signal(vrrp, Signal::SIGSTOP);
                thread::sleep(self.rng.up_to(Duration::from_millis(1500)));
                signal(vrrp, Signal::SIGCONT);
                "keepalived suspended"
            }
            4 if runs => {
                let pid = node.keepalived.as_ref().unwrap().pid();
                signal(pid, Signal::SIGHUP);
                "keepalived reloaded"
            }
            5 | 6 => {
                node.unplugged = !node.unplugged;
                if node.unplugged {
                    self.lab.unplug(&host);
                } else {
                    self.lab.plug(&host);
                }
                "carrier lost or back"
            }
            7 => {
                let percent = self.rng.pick(&[0.0, 30.0, 60.0, 90.0]);
                let direction = self.rng.pick(&[Direction::ToHost, Direction::FromHost]);
                self.lab.loss([&host], direction, percent);
                "loss changed"
            }
            8 => {
                let client = self.clients[self.rng.index(CLIENTS)].clone();
                self.lab.blackout(&client);
                thread::sleep(self.rng.up_to(Duration::from_secs(1)));
                self.lab.restore(&client);
                "client cut off for a while"
            }
            9 | 10 => {
                let vip = self.rng.pick(&VIPS);
                remove(&host, vip);
                "VIP taken away by hand"
            }
            11 => {
                let vip = self.rng.pick(&VIPS);
                let length = if vip == VIP { "24" } else { "64 nodad" };
                host.try_run(&format!("ip addr add {vip}/{length} dev eth0"));
                "VIP given by hand, to whoever"
            }
            12 => {
                let last = self.rng.below(256);
                host.run(&format!(
                    "ip link set eth0 address 02:00:00:77:{at:02x}:{last:02x}"
                ));
                "MAC changed"
            }
            13 | 14 => {
                let hooks = self.hooks_of(&host);
                if !hooks.is_empty() {
                    // It may have ended by itself meanwhile.
                    let pid = self.rng.pick(&hooks);
                    let _ = kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL);
                }
                "hook killed"
            }
            15 => {
                // Less than a frame: the kernel answers ENOBUFS. With room for one it would wait
                // there, and leave after its VIP did.
                host.run("tc qdisc replace dev eth0 root tbf rate 8kbit burst 300 limit 40");
                thread::sleep(self.rng.up_to(Duration::from_secs(1)));
                host.run("tc qdisc del dev eth0 root");
                "no room in the queue for a while"
            }
            16 => {
                let client = &self.clients[self.rng.index(CLIENTS)];
                client.remember_as(self.rng.pick(&VIPS), OLD_MAC, State::Permanent);
                "client's entry nailed down"
            }
            17 => {
                host.run("ip neigh flush all nud all");
                "node forgets its neighbours"
            }
            18 => {
                let vip = self.rng.pick(&VIPS).parse().unwrap();
                self.flood(Forged::Claims(vip));
                "flood of forged claims"
            }
            19 => {
                let asked = self.rng.pick(&[host.ipv4().into(), host.ipv6().into()]);
                self.flood(Forged::Senders(asked));
                "flood of forged hosts"
            }
            20 => {
                self.flood(Forged::Junk);
                "flood of junk"
            }
            21 => {
                let vip = self.rng.pick(&VIPS).parse().unwrap();
                self.flood(Forged::Adverts(vip));
                "flood of forged adverts"
            }
            _ => {
                let vip = self.rng.pick(&VIPS);
                let ended = common::run(&host, &format!("purge {vip}"));
                assert!([0, 5].contains(&ended.status), "{ended:?}");
                "purge by hand"
            }
        };
        self.count(what);
    }

    /// Forged frames for a while, as fast as one processor sends them.
    fn flood(&mut self, forged: Forged) {
        let time = self.rng.up_to(FLOOD);
        let mut flooder = Flooder::on(&self.attacker, forged);
        self.forged += flooder.send_for(time, &AtomicBool::new(false));
    }

    /// Everything is mended, and the master stops: all follow the new one.
    fn quiet(&mut self) {
        for node in &mut self.nodes {
            if std::mem::take(&mut node.unplugged) {
                self.lab.plug(&node.host);
            }
            for direction in [Direction::ToHost, Direction::FromHost] {
                self.lab.loss([&node.host], direction, 0.0);
            }
            if node.keepalived.is_none() {
                node.keepalived = Some(node.host.keepalived(&node.configuration));
            }
        }
        fs::remove_file(&self.trouble).unwrap();
        let master = self.settled();
        // A host that learned a wrong MAC while nobody could correct it keeps that for up to a
        // minute: hooks act on events only.
        self.nodes[master].keepalived.take().unwrap().stop();
        let began = Instant::now();
        for vip in VIPS {
            while !self.follow(vip) {
                assert!(began.elapsed() < QUIET, "{}", self.described(vip));
                thread::sleep(Duration::from_millis(100));
            }
        }
        println!(
            "all follow {:?} after the master began to stop",
            began.elapsed()
        );
        self.count("clean failover, all follow");
        fs::write(&self.trouble, "").unwrap();
    }

    /// Waits until one node is master of both instances, the one with the highest priority, and no
    /// other has the VIPs, which may have been given to it by hand. Gives its position.
    fn settled(&self) -> usize {
        const MASTER: usize = 0;
        eventually("the first node is master", QUIET, || {
            let is = |node: &Node, state: &str| {
                let keepalived = node.keepalived.as_ref();
                INSTANCES.iter().all(|instance| {
                    keepalived
                        .and_then(|keepalived| keepalived.state(instance))
                        .as_deref()
                        == Some(state)
                })
            };
            let others = self.nodes.iter().skip(1);
            (is(&self.nodes[MASTER], "MASTER") && others.clone().all(|node| is(node, "BACKUP")))
                .then(|| {
                    for (node, vip) in others.flat_map(|node| VIPS.map(|vip| (node, vip))) {
                        remove(&node.host, vip);
                    }
                })
        });
        eventually("the master has the VIPs", QUIET, || {
            VIPS.iter()
                .all(|vip| self.nodes[MASTER].host.holds(vip))
                .then_some(())
        });
        MASTER
    }

    /// Whether one node has a VIP, and everyone else reaches that one.
    fn follow(&self, vip: &str) -> bool {
        let holders: Vec<_> = self
            .nodes
            .iter()
            .map(|node| &node.host)
            .filter(|host| host.holds(vip))
            .collect();
        let [holder] = holders.as_slice() else {
            return false;
        };
        let mac = holder.interface_mac("eth0");
        self.clients.iter().all(|client| {
            // A client without an entry asks, and may get a wrong answer.
            let ping = client.try_run(&format!("ping -c 1 -W 1 {vip}"));
            ping.status.success() && client.cached(vip) == Some(mac)
        })
    }

    /// Who has a VIP, and who follows whom.
    fn described(&self, vip: &str) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let keepalived = node.keepalived.as_ref();
            let states = INSTANCES.map(|instance| keepalived.and_then(|k| k.state(instance)));
            let (host, mac) = (node.host.name(), node.host.interface_mac("eth0"));
            format!("{host} {mac} holds: {}, {states:?}\n", node.host.holds(vip))
        });
        let clients = self.clients.iter().map(|client| {
            let entry = client.neighbour(vip);
            format!("{}: {entry:?}\n", client.name())
        });
        format!(
            "{vip} is not followed:\n{}",
            nodes.chain(clients).collect::<String>()
        )
    }

    /// Looks at all that was sent so far: nobody spoke for a VIP that it did not have.
    fn examine(&mut self) {
        let sent: Vec<_> = self
            .nodes
            .iter()
            .map(|node| node.capture.frames())
            .collect();
        // What was moved before the last of them left has been read by then.
        thread::sleep(Duration::from_millis(500));
        for (node, sent) in self.nodes.iter().zip(sent) {
            let moves = node.addresses.moves.lock().unwrap();
            for frame in sent {
                let Some(vip) = spoken_for(&frame) else {
                    continue;
                };
                self.frames += 1;
                let mut moves = moves.iter().filter(|told| told.vip == vip).peekable();
                let mut last = None;
                while let Some(earlier) = moves.next_if(|told| told.at <= frame.time) {
                    last = Some(earlier);
                }
                let lost = last.filter(|last| !last.here);
                // It was back already, and that was read only later. Of an IPv6 address without
                // duplicate address detection the kernel reports from a work queue, and not at all
                // if it has gone again by then.
                let back = moves.peek().is_some_and(|next| {
                    !next.here || since(frame.time, next.at) < Duration::from_secs(1)
                });
                if let Some(lost) = lost.filter(|_| !back) {
                    let delay = since(lost.at, frame.time);
                    let name = node.host.name();
                    let around: Vec<_> = moves.copied().take(2).collect();
                    let what =
                        format!("{name} {frame:?} at {:?}; {lost:?}, {around:?}", frame.time);
                    self.late.push((delay, what));
                }
            }
        }
        let seldom = self.frames / 1000 + 1;
        let in_time = self.late.iter().all(|(delay, _)| *delay < ON_ITS_WAY);
        assert!(
            in_time && self.late.len() <= seldom,
            "{} frames; after the VIP had left: {:?}",
            self.frames,
            self.late
        );
    }

    /// When all is over, and keepalived stopped: no process is left, no file, no VIP.
    fn end(&mut self, files: &BTreeSet<PathBuf>) {
        for node in &mut self.nodes {
            if let Some(mut keepalived) = node.keepalived.take() {
                keepalived.stop();
            }
        }
        eventually("no hook is left", QUIET, || {
            self.nodes
                .iter()
                .all(|node| self.hooks_of(&node.host).is_empty())
                .then_some(())
        });
        for node in &self.nodes {
            assert!(
                VIPS.iter().all(|vip| !node.host.holds(vip)),
                "{}",
                node.host.name()
            );
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains("exec: "), "a hook could not be run: {log}");
        let events = fs::read_to_string(&self.events).unwrap();
        let moves = self.nodes.iter().map(|node| {
            let moves = node.addresses.moves.lock().unwrap();
            moves.len()
        });
        println!(
            "{} events for hooks, {} lines of theirs; VIPs came or went {} times; {} frames for \
             VIPs, {} of them late; {} forged frames",
            events.lines().count(),
            log.lines().count(),
            moves.sum::<usize>(),
            self.frames,
            self.late.len(),
            self.forged
        );
        println!("{:?}", self.counts);
        for process in self.lasting.drain(..) {
            process.end();
        }
        // The history stays, bounded.
        let history = env::var("STATE_DIRECTORY").unwrap();
        let kept = files_in(Path::new(&history));
        let size: u64 = kept.iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(size <= 1024 * 1024, "{size}: {kept:?}");
        let mut expected = files.clone();
        expected.insert(history.into());
        assert_eq!(self.files(), expected, "a file was left over");
    }

    /// What lies where the program could leave something behind.
    fn files(&self) -> BTreeSet<PathBuf> {
        let mut files = files_in(Path::new("/run"));
        files.extend(files_in(self.lab.directory()));
        files
    }

    /// The hooks that run on a host.
    fn hooks_of(&self, host: &Host) -> Vec<u32> {
        let lasts = |pid: &u32| self.lasting.iter().any(|process| process.pid() == *pid);
        let mut hooks = host.processes("vipherald");
        hooks.retain(|pid| !lasts(pid));
        hooks
    }
}

fn remove(host: &Host, vip: &str) {
    // With whatever prefix length it was given.
    for length in if vip == VIP { [24, 32] } else { [64, 128] } {
        host.try_run(&format!("ip addr del {vip}/{length} dev eth0"));
    }
}

/// A resident, in the group of the hooks.
fn resident(host: &Host, hooks: &Hooks) -> Command {
    let mut command = host.command("setpriv");
    command
        .args(["--regid", GROUP, "--clear-groups"])
        .arg(hooks.program)
        .args(hooks.options.split_whitespace())
        .args(["--log", "stderr"]);
    command
}

/// Starts what answers the events that come through the FIFO.
fn read_events(host: &Host, hooks: &Hooks, fifo: &Path) -> Lasting {
    let mut command = resident(host, hooks);
    command.arg("fifo").arg(fifo);
    let run = log_to(command, hooks.log);
    eventually("it reads the FIFO", SOON, || {
        let comm = fs::read_to_string(format!("/proc/{}/comm", run.pid())).unwrap();
        let opened = fs::read_dir(format!("/proc/{}/fd", run.pid())).unwrap();
        let mut opened = opened.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        (comm.trim_end() == "vipherald" && opened.any(|path| path == fifo)).then_some(())
    });
    Lasting::new(
        format!("fifo on {}", host.name()),
        run,
        ceilings::FIFO.memory,
    )
}

/// Starts what follows the kernel.
fn watch(host: &Host, hooks: &Hooks) -> Lasting {
    let mut command = resident(host, hooks);
    command.args(["watch", "--all"]);
    let run = log_to(command, hooks.log);
    run.wait_until_it_waits();
    Lasting::new(
        format!("watch on {}", host.name()),
        run,
        ceilings::FIFO.memory,
    )
}

/// Starts what carries out orders on a host.
fn listen(host: &Host, hooks: &Hooks) -> Lasting {
    const DAY: &str = "86400";
    let arguments = format!("{} listen --bind [::]:{PORT} --idle {DAY}", hooks.options);
    let run = log_to(vipherald(host, &arguments), hooks.log);
    wait_until_it_listens(host, &run);
    Lasting::new(format!("listen on {}", host.name()), run, MOST_TO_LISTEN)
}

/// Drops what keepalived announces itself: what is left is what the hooks and the kernel say. The
/// class of a late frame shows whether a hook or the kernel sent it.
fn mute_keepalived(host: &Host) {
    host.nft(
        "add table netdev mute\n\
         add chain netdev mute out { type filter hook egress device eth0 priority 0; }\n\
         add rule netdev mute out meta skgid 0 ether type arp drop\n\
         add rule netdev mute out meta skgid 0 icmpv6 type nd-neighbor-advert drop\n\
         add rule netdev mute out meta skgid 1 ip6 dscp set cs1\n",
    );
}

/// The VIP that a host itself speaks for in a frame.
fn spoken_for(frame: &Frame) -> Option<&'static str> {
    if !is_sent(frame) {
        return None;
    }
    let body = frame.payload();
    let vip6 = VIP6.parse::<Ipv6Addr>().unwrap().octets();
    let for_vip6 = frame.ether_type() == IPV6
        && (body[8..24] == vip6 || (body[6] == 58 && body[40] == 136 && body[48..64] == vip6));
    if is_about(frame, VIP) {
        Some(VIP)
    } else {
        for_vip6.then_some(VIP6)
    }
}

/// What lies in a directory, but for what keepalived's processes write for themselves.
fn files_in(directory: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("keepalived-")
        })
        .collect()
}

#[test]
fn whatever_happens_only_holders_speak_for_a_vip_and_all_follow_in_the_end() {
    let seconds = number("VIPHERALD_CHAOS_SECONDS").unwrap_or(25);
    let seed = number("VIPHERALD_CHAOS_SEED").unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        now.unwrap().as_secs()
    });
    println!("VIPHERALD_CHAOS_SEED={seed}");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut chaos = Chaos::new(seed);
    let files = chaos.files();
    while Instant::now() < end {
        let calm = Instant::now() + TROUBLE;
        while Instant::now() < calm {
            chaos.trouble();
            let pause = chaos.rng.up_to(Duration::from_millis(800));
            thread::sleep(pause);
        }
        chaos.quiet();
        chaos.examine();
    }
    chaos.end(&files);
}
