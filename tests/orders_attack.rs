//! An attack on `listen`: datagrams of every kind that is not to be obeyed, as fast as they can be
//! sent, with genuine orders in between.
//!
//! `make test` sends 20,000 datagrams. ATTACK sets another number:
//!
//! ```sh
//! ATTACK=1000000 cargo --config 'target."cfg(unix)".runner="tests/lab/isolate"' \
//!     test --release --test orders_attack -- --nocapture
//! ```

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what was measured")]
#![allow(clippy::print_stderr, reason = "the counts are for people")]

mod common;
mod events;
#[path = "orders/mod.rs"]
mod helpers;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use vipherald_core::order::message::{Id, ORDER_LENGTH, PORT};
use vipherald_core::order::{Answer, Keys, Outcome};
use vipherald_lab::{Host, Lab, Mac, eventually};

use common::{OLD_MAC, SOON, VIP, give, old_mac};
use helpers::{Orders, activated, order_to, socket};

const DATAGRAMS: u64 = 20_000;
/// Genuine orders, each about an entry that is wrong.
const GENUINE: u64 = 30;
const GATEWAY: &str = "10.9.0.254";
/// Another address that the attacker would like to have purged.
const OTHER: &str = "10.9.0.101";
/// The window of the settings, in seconds: short, so that recorded orders get old.
const WINDOW: u64 = 2;

const KINDS: [&str; 13] = [
    "random",
    "truncated",
    "bits flipped",
    "sent again at once",
    "sent again after the window",
    "meant for another host",
    "wrong key",
    "wrong version",
    "from the future",
    "from the past",
    "about a gateway",
    "about the host's own address",
    "oversized, in fragments",
];

/// A generator of numbers that differ (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn octets(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    fn id(&mut self) -> Id {
        self.octets(16).try_into().unwrap()
    }
}

/// What systemd does with a socket unit: starts the service when a datagram is there, and again
/// when that has ended. Gives how often, and the most memory that one of them took.
struct SocketUnit<'a> {
    host: &'a Host,
    socket: UdpSocket,
    settings: &'a Path,
    log: &'a Path,
    ends: AtomicBool,
    /// Whether the service runs.
    serves: AtomicBool,
    starts: AtomicU32,
    /// KiB of memory of its own (`RssAnon`), at most.
    memory: AtomicU64,
    /// And with the program's pages (`VmHWM`).
    memory_in_all: AtomicU64,
}

impl SocketUnit<'_> {
    fn run(&self) {
        while !self.ends.load(Ordering::SeqCst) {
            if self.is_readable() {
                self.starts.fetch_add(1, Ordering::SeqCst);
                self.serves.store(true, Ordering::SeqCst);
                let mut service = self.start();
                while service.try_wait().unwrap().is_none() {
                    self.measure(service.id());
                    thread::sleep(Duration::from_millis(20));
                }
                assert!(service.wait().unwrap().success(), "{}", self.logged());
                self.serves.store(false, Ordering::SeqCst);
            }
        }
    }

    fn is_readable(&self) -> bool {
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, 50_u8) {
            Ok(count) => count > 0,
            Err(Errno::EINTR) => false,
            Err(errno) => panic!("{errno}"),
        }
    }

    fn start(&self) -> Child {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.log)
            .unwrap();
        let mut command = activated(self.host, self.socket.try_clone().unwrap());
        command
            .arg("--config")
            .arg(self.settings)
            .args(["listen", "--idle", "1"])
            .stderr(log);
        command.spawn().unwrap()
    }

    fn measure(&self, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // Before it has become the program, it is a shell.
        if !status.starts_with("Name:\tvipherald") {
            return;
        }
        let of = |what: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(what));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or(0)
        };
        self.memory.fetch_max(of("RssAnon:"), Ordering::SeqCst);
        self.memory_in_all.fetch_max(of("VmHWM:"), Ordering::SeqCst);
    }

    fn logged(&self) -> String {
        fs::read_to_string(self.log).unwrap_or_default()
    }
}

/// What the attacker has: all that passes the link, and a key of their own; and, for the kinds that
/// only a host with the key could send, that.
struct Attacker<'a> {
    random: Random,
    keys: &'a Keys,
    own_keys: Keys,
    victim: &'a Host,
    another: &'a Host,
    wrong: Mac,
    recorded: Vec<(Instant, Vec<u8>)>,
}

impl Attacker<'_> {
    /// A datagram of a kind, if there is one by now.
    fn make(&mut self, kind: &str) -> Option<Vec<u8>> {
        let id = self.random.id();
        let order = |vip: &str| order_to(self.victim, id, vip, self.wrong);
        let genuine = order(OTHER);
        let ago = Duration::from_secs(2 * WINDOW) + Duration::from_millis(500);
        Some(match kind {
            "random" => {
                let length = self.random.below(ORDER_LENGTH.1 + 100);
                self.random.octets(length)
            }
            "truncated" => {
                let whole = genuine.to_bytes(self.keys);
                let length = self.random.below(whole.len());
                whole[..length].to_vec()
            }
            "bits flipped" => {
                let whole = genuine.to_bytes(self.keys);
                let mut changed = whole.clone();
                for _ in 0..=self.random.below(3) {
                    let at = self.random.below(whole.len());
                    changed[at] ^= 1 << self.random.below(8);
                }
                // Two flips of the same bit are none.
                (changed != whole).then_some(changed)?
            }
            "sent again at once" => self.recorded.last()?.1.clone(),
            "sent again after the window" => {
                let old = self.recorded.iter();
                old.rev().find(|(at, _)| at.elapsed() > ago)?.1.clone()
            }
            "meant for another host" => {
                let mut other = genuine;
                other.to = self.another.ipv4().into();
                // Who holds the key sends a few, which are recorded and sent here.
                if self.random.below(20) > 0 {
                    return None;
                }
                other.to_bytes(self.keys)
            }
            "wrong key" => genuine.to_bytes(&self.own_keys),
            "wrong version" => {
                let mut whole = genuine.to_bytes(self.keys);
                whole[4] = 1;
                whole
            }
            "from the future" | "from the past" => {
                let mut order = genuine;
                let off = 3_600_000 + self.random.next() % 1_000_000;
                order.time = match kind {
                    "from the past" => order.time - off,
                    _ => order.time + off,
                };
                order.to_bytes(self.keys)
            }
            // Few: who holds the key may fill the memory of ids, and is then refused.
            "about a gateway" | "about the host's own address" if self.random.below(20) > 0 => {
                return None;
            }
            "about a gateway" => order(GATEWAY).to_bytes(self.keys),
            "about the host's own address" => {
                order(&self.victim.ipv4().to_string()).to_bytes(self.keys)
            }
            _ => {
                let length = 2000 + self.random.below(30_000);
                self.random.octets(length)
            }
        })
    }
}

#[test]
fn an_attack_changes_nothing_and_delays_nobody() {
    let count = std::env::var("ATTACK").map_or(DATAGRAMS, |text| text.parse().unwrap());
    let lab = Lab::new();
    let (owner, victim) = (lab.host("owner"), lab.host("victim"));
    let (attacker, another) = (lab.host("attacker"), lab.host("another"));
    let orders = Orders::new(&lab, &owner);
    let more = format!("window = {WINDOW}");
    let settings = orders.settings(&lab, "settings", "", &more);
    let log = lab.directory().join("log");
    give(&owner, VIP, "eth0");
    victim.run(&format!("ip route add default via {GATEWAY}"));
    let wrong: Mac = old_mac();
    for ip in [GATEWAY, OTHER] {
        victim.remember_as(ip, OLD_MAC, vipherald_lab::State::Permanent);
        victim.remember(ip, OLD_MAC);
    }
    let own = (victim.ipv4(), PORT);
    let unit = SocketUnit {
        host: &victim,
        socket: victim.enter(|| UdpSocket::bind(own)).unwrap(),
        settings: &settings,
        log: &log,
        ends: AtomicBool::new(false),
        serves: AtomicBool::new(false),
        starts: AtomicU32::new(0),
        memory: AtomicU64::new(0),
        memory_in_all: AtomicU64::new(0),
    };
    let watch = victim.watch_neighbours();
    let from = socket(&attacker);
    from.set_nonblocking(true).unwrap();
    let genuine = socket(&owner);
    let mut evil = Attacker {
        random: Random(1),
        keys: &orders.keys,
        own_keys: Keys::from_octets(&[7; 32], "").unwrap(),
        victim: &victim,
        another: &another,
        wrong: Mac([2, 0, 0, 0, 0, 0x66]),
        recorded: Vec::new(),
    };
    let mut sent: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut answered, mut answers_to_attacker) = (0, 0);
    let mut gone: Vec<String> = Vec::new();
    let began = Instant::now();
    let (before, after) = thread::scope(|scope| {
        scope.spawn(|| unit.run());
        let mut number: u64 = 0;
        let recorded = |evil: &mut Attacker<'_>, number: u64| {
            // A genuine order, made by the owner, about an entry that is wrong.
            victim.remember(VIP, OLD_MAC);
            let mut id = Id::default();
            id[..8].copy_from_slice(&number.to_be_bytes());
            id[15] = 1;
            let order = order_to(&victim, id, VIP, owner.mac());
            let mut datagram = order.to_bytes(&orders.keys);
            let mut made = Instant::now();
            let mut buffer = [0; 1000];
            let answer = eventually("a genuine order is answered", 3 * SOON, || {
                // As the outbox does: a new one before the window is over.
                if made.elapsed() > Duration::from_secs(1) {
                    id[14] += 1;
                    let anew = order_to(&victim, id, VIP, owner.mac());
                    datagram = anew.to_bytes(&orders.keys);
                    made = Instant::now();
                }
                let _ = genuine.send_to(&datagram, own);
                evil.recorded.push((Instant::now(), datagram.clone()));
                let (length, _) = genuine.recv_from(&mut buffer).ok()?;
                let answer = Answer::read(&buffer[..length], &orders.keys)?;
                (answer.id == id).then_some(answer)
            });
            let done = answer.done[0].outcome;
            assert!(matches!(done, Outcome::Purged | Outcome::Right), "{done:?}");
            assert_eq!(victim.cached(VIP), Some(owner.mac()));
        };
        while number < count {
            if number.is_multiple_of((count / GENUINE).max(1)) && answered < GENUINE {
                recorded(&mut evil, answered);
                answered += 1;
            }
            let kind = KINDS[evil.random.below(KINDS.len())];
            if let Some(datagram) = evil.make(kind) {
                // The sender's queue may be full for a moment.
                while from.send_to(&datagram, own).is_err() {
                    thread::yield_now();
                }
                *sent.entry(kind).or_default() += 1;
                number += 1;
            }
            // On a busy machine the kernel's queue would hold nothing but the newest.
            if number.is_multiple_of(64) {
                while let Ok((_, to)) = from.recv_from(&mut [0; 1000]) {
                    assert_eq!(to.ip(), own.0);
                    answers_to_attacker += 1;
                }
                gone.extend(purged(&watch));
                thread::yield_now();
            }
        }
        for _ in 0..100 {
            let kind = KINDS[4];
            let datagram = eventually("what was recorded is old", SOON, || evil.make(kind));
            while from.send_to(&datagram, own).is_err() {
                thread::yield_now();
            }
            *sent.entry(kind).or_default() += 1;
        }
        // The unit is there for the next one: the service ends, and is started again.
        let before = unit.starts.load(Ordering::SeqCst);
        eventually("the service has ended", 3 * SOON, || {
            (!unit.serves.load(Ordering::SeqCst)).then_some(())
        });
        recorded(&mut evil, answered);
        answered += 1;
        let after = unit.starts.load(Ordering::SeqCst);
        unit.ends.store(true, Ordering::SeqCst);
        (before, after)
    });
    gone.extend(purged(&watch));
    let lasted = began.elapsed();
    let text = fs::read_to_string(&log).unwrap_or_default();
    let (memory, in_all) = (
        unit.memory.load(Ordering::SeqCst),
        unit.memory_in_all.load(Ordering::SeqCst),
    );
    for (kind, number) in &sent {
        eprintln!("{number:>8} {kind}");
    }
    eprintln!(
        "{:>8} in {lasted:.1?}; {answered} genuine orders, all answered; {answers_to_attacker} \
         refusals to the attacker; {after} starts; {memory} KiB of its own, {in_all} KiB in all; \
         {} lines:\n{text}",
        sent.values().sum::<u64>(),
        text.lines().count(),
    );
    assert_eq!(sent.len(), KINDS.len(), "{sent:?}");
    assert!(after > before, "the unit is alive");
    // Only the VIP's entry went, and only for genuine orders.
    assert!(gone.iter().all(|ip| ip == VIP), "{gone:?}");
    assert!(gone.len() as u64 <= answered, "{} purges", gone.len());
    for ip in [GATEWAY, OTHER] {
        assert_eq!(victim.cached(ip), Some(wrong), "{ip}");
    }
    assert!(memory <= 8 * 1024, "{memory} KiB");
    // Six lines about orders a minute at most, and two with numbers; each start begins anew.
    let minutes = usize::try_from(lasted.as_secs() / 60).unwrap() + 2;
    let most = 8 * minutes + 8 * after as usize;
    assert!(text.lines().count() <= most, "{text}");
}

/// The addresses whose entries were deleted since the last look.
fn purged(watch: &vipherald_lab::NeighbourWatch) -> Vec<String> {
    let gone = watch.events().into_iter().filter(|event| event.gone);
    // What the kernel itself keeps for groups comes and goes.
    gone.filter(|event| !event.neighbour.ip.is_multicast())
        .map(|event| event.neighbour.ip.to_string())
        .collect()
}
