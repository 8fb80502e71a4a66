//! From keepalived's becoming master to the hook's first frame, with the real keepalived.
//!
//! An instance is master from its first advertisement on. Nobody else is there: all instances take
//! over at once, when they have waited for a master in vain. keepalived's own gratuitous ARP tells
//! itself from the hook's by its target hardware address, which is all ones and not zero.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use vipherald_lab::{Direction, Frame, Host, Lab, eventually};

use crate::stopwatch::{quantile, time};
use crate::tools::{SOON, advertised, announced, batch, end, quiet, since};

const TURNS: usize = 10;
/// A resident watches within this time.
const STARTED_WITHIN: Duration = Duration::from_millis(200);
/// VIPs are numbered from 10.9.1.0.
const FIRST_VIP: u32 = 0x0a09_0100;

/// How the hook gets its events.
#[derive(Clone, Copy, PartialEq)]
enum Wiring {
    /// Each instance's `notify`.
    Instance,
    /// The `notify` of a sync group of all of them.
    Group,
    /// The FIFO.
    Fifo,
    /// `watch`, which keepalived does not start.
    Watch,
}

struct Case {
    name: &'static str,
    instances: u8,
    vips_each: u32,
    wiring: Wiring,
}

const fn case(name: &'static str, instances: u8, vips_each: u32, wiring: Wiring) -> Case {
    Case {
        name,
        instances,
        vips_each,
        wiring,
    }
}

const CASES: [Case; 11] = [
    case("1 VIP, notify", 1, 1, Wiring::Instance),
    case("1 VIP, FIFO", 1, 1, Wiring::Fifo),
    case("1 VIP, watch", 1, 1, Wiring::Watch),
    case("50 VIPs, notify", 1, 50, Wiring::Instance),
    case("250 VIPs, notify", 1, 250, Wiring::Instance),
    case("250 VIPs, FIFO", 1, 250, Wiring::Fifo),
    case("250 VIPs, watch", 1, 250, Wiring::Watch),
    case("50 instances, notify each", 50, 1, Wiring::Instance),
    case("50 instances, sync group's notify", 50, 1, Wiring::Group),
    case("50 instances, FIFO", 50, 1, Wiring::Fifo),
    case("50 instances, watch", 50, 1, Wiring::Watch),
];

/// The first frames for one VIP, from its instance's first advertisement.
struct First {
    keepalived: Duration,
    hook: Duration,
}

pub(crate) fn run(program: &Path) {
    println!("### From MASTER to the hook's first frame, {TURNS} turns\n");
    println!(
        "| | keepalived's own: median | its last VIP | the hook: median | its last VIP | \
         behind keepalived's own: median |\n|---|---|---|---|---|---|"
    );
    let mut csv = String::from("case,turn,keepalived,hook\n");
    for case in CASES {
        let turns = case.measure(program);
        println!("| {} | {} |", case.name, row(&turns));
        for (turn, first) in (1..)
            .zip(&turns)
            .flat_map(|(turn, all)| all.iter().map(move |one| (turn, one)))
        {
            let [keepalived, hook] = [first.keepalived, first.hook].map(|time| time.as_secs_f64());
            writeln!(csv, "\"{}\",{turn},{keepalived:.6},{hook:.6}", case.name)
                .expect("a String takes all");
        }
    }
    println!();
    fs::write("target/bench/failover.csv", csv).expect("target is writable");
}

/// Medians over all VIPs of all turns; of the last VIPs over the turns, with the worst.
fn row(turns: &[Vec<First>]) -> String {
    let of = |which: fn(&First) -> Duration| {
        let all: Vec<_> = turns.iter().flatten().map(which).collect();
        let last: Vec<_> = turns
            .iter()
            .filter_map(|turn| turn.iter().map(which).max())
            .collect();
        let at = |values: &[Duration], share| quantile(values, share).unwrap_or_default();
        (at(&all, 0.5), at(&last, 0.5), at(&last, 1.0))
    };
    let cells = |(median, last, worst)| {
        let [median, last, worst] = [median, last, worst].map(time);
        format!("{median} | {last}, at most {worst}")
    };
    let (keepalived, hook) = (of(|first| first.keepalived), of(|first| first.hook));
    let (behind, ..) = of(|first| first.hook.saturating_sub(first.keepalived));
    let (keepalived, hook, behind) = (cells(keepalived), cells(hook), time(behind));
    format!("{keepalived} | {hook} | {behind}")
}

impl Case {
    fn measure(&self, program: &Path) -> Vec<Vec<First>> {
        let lab = Lab::new();
        let owner = lab.host("owner");
        let program = lab.install_hook(program);
        let copy = lab.directory().join("keepalived.conf");
        let hook = format!("{} --keepalived-conf {}", program.display(), copy.display());
        let configuration = self.configuration(&hook, &lab.directory().join("fifo"));
        fs::write(&copy, &configuration).expect("the lab's directory is writable");
        let watch = || {
            let mut watch = owner.command(&program);
            watch
                .arg("--keepalived-conf")
                .arg(&copy)
                .args(["watch", "--all"]);
            quiet(&mut watch);
            let child = watch.spawn().expect("it starts");
            thread::sleep(STARTED_WITHIN);
            child
        };
        (0..TURNS)
            .map(|_| {
                let watch = (self.wiring == Wiring::Watch).then(watch);
                self.turn(&owner, &configuration, watch)
            })
            .collect()
    }

    fn turn(&self, owner: &Host, configuration: &str, watch: Option<Child>) -> Vec<First> {
        let capture = owner.capture();
        let keepalived = owner.keepalived(configuration);
        let mut seen = Seen::default();
        let deadline = Instant::now() + SOON;
        let all = usize::from(self.instances) * self.vips_each as usize;
        while seen.hook.len() < all || seen.keepalived.len() < all {
            assert!(
                Instant::now() < deadline,
                "{}: {}",
                self.name,
                keepalived.log()
            );
            capture.wait_for(Duration::from_millis(100), |_| true);
            for frame in capture.frames() {
                seen.see(&frame);
            }
        }
        // keepalived is killed, and its hooks with it; what it left behind goes by hand.
        drop(keepalived);
        if let Some(watch) = watch {
            end(watch);
        }
        eventually("no hook is left", SOON, || {
            owner.processes("vipherald").is_empty().then_some(())
        });
        let vips = (0..self.instances).flat_map(|instance| self.vips(instance));
        batch(owner, vips.map(|vip| format!("addr del {vip}/32 dev eth0")));

        let firsts = (0..self.instances).flat_map(|instance| {
            let began = seen.master[&(instance + 1)];
            let seen = &seen;
            self.vips(instance).map(move |vip| First {
                keepalived: since(began, seen.keepalived[&vip]),
                hook: since(began, seen.hook[&vip]),
            })
        });
        firsts.collect()
    }

    fn vips(&self, instance: u8) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let first = FIRST_VIP + u32::from(instance) * self.vips_each;
        (first..first + self.vips_each).map(Ipv4Addr::from)
    }

    fn configuration(&self, hook: &str, fifo: &Path) -> String {
        let notify = format!("notify \"{hook} notify\"");
        let on = |wiring| {
            if self.wiring == wiring {
                notify.as_str()
            } else {
                ""
            }
        };
        let mut text = String::new();
        for instance in 0..self.instances {
            let vips: String = self
                .vips(instance)
                .map(|vip| format!("  {vip}/32\n"))
                .collect();
            let (id, notify) = (instance + 1, on(Wiring::Instance));
            write!(
                text,
                "vrrp_instance VI_{id} {{\n interface eth0\n state BACKUP\n version 3\n \
                 virtual_router_id {id}\n priority 100\n advert_int 0.2\n \
                 virtual_ipaddress {{\n{vips} }}\n {notify}\n}}\n"
            )
            .expect("a String takes all");
        }
        match self.wiring {
            Wiring::Instance | Wiring::Watch => {}
            Wiring::Group => {
                let members: String = (1..=self.instances)
                    .map(|id| format!("  VI_{id}\n"))
                    .collect();
                let notify = on(Wiring::Group);
                write!(
                    text,
                    "vrrp_sync_group VG {{\n group {{\n{members} }}\n {notify}\n}}\n"
                )
                .expect("a String takes all");
            }
            Wiring::Fifo => {
                let fifo = fifo.display();
                write!(
                    text,
                    "global_defs {{\n vrrp_notify_fifo {fifo}\n \
                     vrrp_notify_fifo_script \"{hook} fifo\"\n}}\n"
                )
                .expect("a String takes all");
            }
        }
        text
    }
}

/// When each instance advertised itself, and each VIP was announced, for the first time.
#[derive(Default)]
struct Seen {
    master: HashMap<u8, SystemTime>,
    keepalived: HashMap<Ipv4Addr, SystemTime>,
    hook: HashMap<Ipv4Addr, SystemTime>,
}

impl Seen {
    fn see(&mut self, frame: &Frame) {
        if frame.direction != Direction::FromHost {
            return;
        }
        if let Some(id) = advertised(frame) {
            self.master.entry(id).or_insert(frame.time);
        }
        if let Some(vip) = announced(frame) {
            let of = match frame.payload()[18..24] {
                [0xff, ..] => &mut self.keepalived,
                _ => &mut self.hook,
            };
            of.entry(vip).or_insert(frame.time);
        }
    }
}
