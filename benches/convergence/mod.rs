//! Who follows a virtual IP that has moved, and when? keepalived's own announcement, arping and
//! vipherald, side by side in one run, judged by the neighbour tables of kernel peers.
//!
//! ```sh
//! bench PATH_OF_VIPHERALD convergence [RUNS [WORD]]
//! ```
//!
//! It writes `target/bench/convergence.csv` and `docs/convergence.svg`, and prints a table. WORD
//! limits it to the cases that have it in their names; then it writes no files. Every peer begins
//! with a REACHABLE entry for the old owner. Times count from the program's exec; of keepalived,
//! from its first advertisement as master.
//!
//! Peers that the new owner's kernel does not know are left to keepalived with a `notify`, with the FIFO,
//! and with `watch` beside it, too. Each of them has asked for the VIPs once before, while those were
//! elsewhere.

mod plot;
// As `vipherald history --svg` draws.
#[path = "../../src/history/svg.rs"]
mod svg;

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use vipherald_lab::{Capture, Direction, Host, Keepalived, Lab, NeighbourWatch, State, eventually};

use svg::Panel;

use crate::stopwatch::{self, quantile, time};
use crate::tools::{SOON, batch, end, first_advertisement, quiet};

const OLD_MAC: &str = "02:00:00:00:00:99";
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// A resident hears other hosts within this time.
const STARTED_WITHIN: Duration = Duration::from_millis(500);
/// A port that nobody listens on.
const DISCARD: u16 = 9;

/// What makes following hard.
#[derive(Clone, Copy, PartialEq)]
enum Trouble {
    Nothing,
    /// This share of the frames to each peer is lost, and perhaps also of those from it.
    Loss {
        percent: f64,
        both_ways: bool,
    },
    /// The owner's switch port forwards nothing for this time at first.
    DeadPort(Duration),
    /// The peers drop gratuitous ARP, or unsolicited advertisements.
    Deaf,
    /// How many peers hold the old MAC in an entry that nothing on the wire changes.
    Permanent(usize),
}

/// One thing that is measured.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    trouble: Trouble,
    peers: usize,
    vips: usize,
    families: &'static [Family],
    /// Whether the owner's neighbour table has the peers.
    known: bool,
    /// How long vipherald may take for its verdicts; by then all of them stand.
    timeout: Duration,
    /// What it must reach, as a judgement of its outcome.
    must: &'static [Must],
}

const fn case(name: &'static str, trouble: Trouble, timeout: u64, must: &'static [Must]) -> Case {
    Case {
        name,
        trouble,
        peers: 30,
        vips: 1,
        families: &[Family::Ipv4, Family::Ipv6],
        known: true,
        timeout: Duration::from_secs(timeout),
        must,
    }
}

/// The same with peers that only the old owner knew.
const fn unknown(case: Case) -> Case {
    Case {
        known: false,
        ..case
    }
}

/// A promise.
enum Must {
    AllFollow,
    /// Nine in ten follow by then.
    NinetyPercentWithin(Duration),
    /// The last one follows by then; of a dead port: after it opened.
    LastWithin(Duration),
    /// In the median of all runs, the last one follows by then.
    MedianLastWithin(Duration),
    AllProven,
    /// All are proven by then, by vipherald's own clock.
    ProvenWithin(Duration),
    /// Exactly those with a permanent entry are stale, all others are proven, and it exits 3.
    ExactlyStale(usize),
}

use Must::{
    AllFollow, AllProven, ExactlyStale, LastWithin, MedianLastWithin, NinetyPercentWithin,
    ProvenWithin,
};

const fn loss(percent: f64) -> Trouble {
    Trouble::Loss {
        percent,
        both_ways: false,
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const CASES: [Case; 13] = [
    case("no loss", Trouble::Nothing, 1, &[AllFollow, AllProven]),
    case("30 % loss", loss(30.0), 4, &[AllFollow, AllProven]),
    case(
        "60 % loss",
        loss(60.0),
        6,
        &[
            AllFollow,
            NinetyPercentWithin(millis(150)),
            LastWithin(millis(2500)),
        ],
    ),
    case(
        "60 % loss both ways",
        Trouble::Loss {
            percent: 60.0,
            both_ways: true,
        },
        60,
        &[AllFollow, AllProven],
    ),
    case(
        "port dead for 8 s",
        Trouble::DeadPort(millis(8000)),
        10,
        &[AllFollow, LastWithin(millis(300))],
    ),
    case(
        "gratuitous ones dropped",
        Trouble::Deaf,
        1,
        &[AllFollow, LastWithin(millis(100))],
    ),
    case(
        "3 permanent entries",
        Trouble::Permanent(3),
        3,
        &[ExactlyStale(3)],
    ),
    unknown(case(
        "unknown, gratuitous ones dropped",
        Trouble::Deaf,
        2,
        &[AllFollow, LastWithin(millis(100))],
    )),
    unknown(case(
        "unknown, port dead for 12 s",
        Trouble::DeadPort(millis(12_000)),
        14,
        &[AllFollow, LastWithin(millis(300))],
    )),
    unknown(case(
        "unknown, 60 % loss",
        loss(60.0),
        6,
        &[AllFollow, MedianLastWithin(millis(300))],
    )),
    // Nobody finds hosts that are silent and follow nothing, for IPv4.
    Case {
        families: &[Family::Ipv6],
        ..unknown(case(
            "unknown, 3 permanent entries",
            Trouble::Permanent(3),
            3,
            &[ExactlyStale(3)],
        ))
    },
    Case {
        peers: 200,
        families: &[Family::Ipv4],
        ..case(
            "no loss, 200 peers",
            Trouble::Nothing,
            2,
            &[AllFollow, ProvenWithin(millis(250))],
        )
    },
    Case {
        vips: 64,
        families: &[Family::Ipv4],
        ..case(
            "no loss, 64 VIPs",
            Trouble::Nothing,
            4,
            &[AllFollow, ProvenWithin(millis(2000))],
        )
    },
];

/// The cases that the plot shows.
const PLOTTED: [&str; 3] = ["60 % loss", "port dead for 8 s", "gratuitous ones dropped"];

#[derive(Clone, Copy, PartialEq)]
enum Family {
    Ipv4,
    Ipv6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        })
    }
}

impl Family {
    /// The VIPs of a run.
    fn vips(self, count: usize) -> Vec<IpAddr> {
        (1..=u8::try_from(count).expect("few VIPs"))
            .map(|n| match self {
                Self::Ipv4 => [10, 9, 0, 255 - n].into(),
                Self::Ipv6 => [0xfd09, 0, 0, 0, 0, 0, 1, n.into()].into(),
            })
            .collect()
    }

    fn address_of(self, host: &Host) -> IpAddr {
        match self {
            Self::Ipv4 => host.ipv4().into(),
            Self::Ipv6 => host.ipv6().into(),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    Keepalived,
    Arping,
    Vipherald,
    /// keepalived, with vipherald wired to it.
    Wired(Wiring),
}

#[derive(Clone, Copy, PartialEq)]
enum Wiring {
    Notify,
    Fifo,
    Watch,
}

const METHODS: [Method; 6] = [
    Method::Keepalived,
    Method::Arping,
    Method::Vipherald,
    Method::Wired(Wiring::Notify),
    Method::Wired(Wiring::Fifo),
    Method::Wired(Wiring::Watch),
];

impl Method {
    fn is_for(self, case: &Case, family: Family) -> bool {
        match self {
            Self::Keepalived | Self::Vipherald => true,
            // It knows no IPv6.
            Self::Arping => family == Family::Ipv4,
            // Whom the kernel knows, all of them ask.
            Self::Wired(_) => !case.known,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Keepalived => "keepalived",
            Self::Arping => "arping",
            Self::Vipherald => "vipherald",
            Self::Wired(Wiring::Notify) => "notify",
            Self::Wired(Wiring::Fifo) => "FIFO",
            Self::Wired(Wiring::Watch) => "watch",
        })
    }
}

/// What came of one method in one case, over all its runs.
struct Outcome {
    case: Case,
    family: Family,
    method: Method,
    runs: Vec<Run>,
}

/// One run: when each peer began to follow each VIP.
struct Run {
    followed: Vec<Option<Duration>>,
    /// When the dead port opened.
    opened: Duration,
    /// What vipherald said of it.
    told: Option<Told>,
}

struct Told {
    status: Option<i32>,
    /// Each peer of each VIP: its MAC, its verdict, and when that was reached.
    verdicts: Vec<(String, String, f64)>,
}

pub(crate) fn run(program: &Path, arguments: &[String]) {
    let (runs, word) = match arguments {
        [] => (3, None),
        [runs, rest @ ..] => {
            let runs = runs.parse().expect("RUNS is a number");
            (runs, rest.first().map(String::as_str))
        }
    };
    let program = program.to_str().expect("a path that is text");
    let mut outcomes = Vec::new();
    for case in CASES
        .iter()
        .filter(|case| word.is_none_or(|word| case.name.contains(word)))
    {
        for family in case.families {
            let stage = Stage::new(case, *family);
            for method in METHODS {
                if method.is_for(case, *family) {
                    let runs = (0..runs).map(|_| stage.run(method, program)).collect();
                    outcomes.push(Outcome {
                        case: *case,
                        family: *family,
                        method,
                        runs,
                    });
                }
            }
            print_case(&outcomes, case, *family);
        }
    }
    print_promises(&outcomes);
    if word.is_none() {
        fs::write("target/bench/convergence.csv", csv(&outcomes)).expect("target is writable");
        fs::write("docs/convergence.svg", plot::draw(&panels(&outcomes)))
            .expect("docs is writable");
        println!("\nwritten: target/bench/convergence.csv, docs/convergence.svg");
    }
}

/// A lab for one case.
struct Stage<'a> {
    lab: Lab,
    owner: Host,
    peers: Vec<Host>,
    vips: Vec<IpAddr>,
    family: Family,
    case: &'a Case,
}

impl<'a> Stage<'a> {
    fn new(case: &'a Case, family: Family) -> Self {
        let lab = Lab::new();
        let owner = lab.host("owner");
        let peers = lab.hosts("peer", case.peers);
        Self {
            lab,
            owner,
            peers,
            vips: family.vips(case.vips),
            family,
            case,
        }
    }

    fn run(&self, method: Method, program: &str) -> Run {
        self.clear();
        let wired = match method {
            Method::Wired(wiring) => Some(Wired::start(self, wiring, program)),
            _ => None,
        };
        self.set_up();
        let watches: Vec<_> = self.peers.iter().map(Host::watch_neighbours).collect();
        let mut running = match method {
            Method::Keepalived => Running::keepalived(self),
            Method::Arping => Running::arping(self),
            Method::Vipherald => Running::vipherald(self, program),
            Method::Wired(_) => wired.expect("it was started").running(),
        };
        let mut run = Run {
            followed: vec![None; self.peers.len() * self.vips.len()],
            opened: Duration::ZERO,
            told: None,
        };
        let began = running.began;
        let now = || SystemTime::now().duration_since(began).unwrap_or_default();
        loop {
            for (peer, event) in NeighbourWatch::wait_any(&watches, 5 * MILLISECOND) {
                let entry = event.neighbour;
                let vip = self.vips.iter().position(|vip| *vip == entry.ip);
                if let Some(vip) = vip.filter(|_| entry.mac == Some(self.owner.mac())) {
                    let after = event.time.duration_since(began).unwrap_or_default();
                    run.followed[peer * self.vips.len() + vip].get_or_insert(after);
                }
            }
            if let Trouble::DeadPort(dead_for) = self.case.trouble
                && run.opened.is_zero()
                && now() >= dead_for
            {
                self.lab.restore(&self.owner);
                run.opened = now();
            }
            let all = run.followed.iter().all(Option::is_some);
            if running.is_over(all, now(), self.case) {
                break;
            }
        }
        run.told = running.end();
        self.check(&run);
        run
    }

    /// The network is good, and the owner has no VIP.
    fn clear(&self) {
        self.lab.restore(&self.owner);
        for direction in [Direction::ToHost, Direction::FromHost] {
            self.lab.loss(&self.peers, direction, 0.0);
        }
        self.owner.run("ip addr flush dev eth0 scope global");
        let (ipv4, ipv6) = (self.owner.ipv4(), self.owner.ipv6());
        batch(
            &self.owner,
            [
                format!("addr add {ipv4}/24 dev eth0"),
                format!("addr add {ipv6}/64 dev eth0 nodad"),
            ],
        );
    }

    /// Each peer uses the VIPs: its kernel asks all hosts for them.
    fn use_vips(&self) {
        for peer in &self.peers {
            let from = self.family.address_of(peer);
            let socket = peer.enter(|| UdpSocket::bind((from, 0)));
            let socket = socket.expect("the address is the host's own");
            for vip in &self.vips {
                socket.send_to(&[0], (*vip, DISCARD)).expect("it is queued");
            }
        }
    }

    /// Everyone remembers the old owner, and the network is as bad as the case wants it.
    fn set_up(&self) {
        self.owner.run("ip neigh flush dev eth0");
        let known = self.peers.iter().filter(|_| self.case.known).map(|peer| {
            let (ip, mac) = (self.family.address_of(peer), peer.mac());
            format!("neigh replace {ip} lladdr {mac} dev eth0 nud reachable")
        });
        batch(&self.owner, known);
        for (number, peer) in self.peers.iter().enumerate() {
            let state = match self.case.trouble {
                Trouble::Permanent(count) if number < count => State::Permanent,
                _ => State::Reachable,
            };
            let state = state.to_string().to_lowercase();
            // All tables of a machine share one limit of 1,024 entries, which what is marked as
            // learned elsewhere does not count against. It follows the wire as any other does.
            let mark = if self.vips.len() > 1 {
                " extern_learn"
            } else {
                ""
            };
            let entries = self.vips.iter().map(|vip| {
                format!("neigh replace {vip} lladdr {OLD_MAC} dev eth0 nud {state}{mark}")
            });
            batch(peer, entries);
            if self.case.trouble == Trouble::Deaf {
                peer.sysctl("net/ipv4/conf/eth0/drop_gratuitous_arp", "1");
                peer.sysctl("net/ipv6/conf/eth0/drop_unsolicited_na", "1");
            }
        }
        match self.case.trouble {
            Trouble::Loss { percent, both_ways } => {
                self.lab.loss(&self.peers, Direction::ToHost, percent);
                if both_ways {
                    self.lab.loss(&self.peers, Direction::FromHost, percent);
                }
            }
            Trouble::DeadPort(_) => self.lab.blackout(&self.owner),
            _ => {}
        }
        // A kernel ignores requests that are not gratuitous within `locktime` of an entry's change.
        thread::sleep(SECOND + 100 * MILLISECOND);
    }

    /// The owner takes the VIPs.
    fn give_vips(&self) {
        let vips = self.vips.iter().map(|vip| match vip {
            IpAddr::V4(_) => format!("addr add {vip}/32 dev eth0"),
            IpAddr::V6(_) => format!("addr add {vip}/128 dev eth0 nodad"),
        });
        batch(&self.owner, vips);
    }

    /// The watches agree with the tables in the end: the old MAC, or not. An entry
    /// that followed may be FAILED by then: a kernel that uses it verifies it after 5 s, and
    /// gives it up where three frames in a row are lost.
    fn check(&self, run: &Run) {
        let old = OLD_MAC.parse().ok();
        for (peer, followed) in self.peers.iter().zip(run.followed.chunks(self.vips.len())) {
            let table = peer.neighbours();
            for (vip, followed) in self.vips.iter().zip(followed) {
                let entry = table.iter().find(|entry| entry.ip == *vip);
                let is_old = entry.is_some_and(|entry| entry.mac == old);
                assert_eq!(is_old, followed.is_none(), "{}: {entry:?}", peer.name());
            }
        }
    }
}

/// Something that announces, and since when.
struct Running {
    began: SystemTime,
    program: Program,
}

enum Program {
    // Dropped, it is killed.
    Keepalived(#[expect(dead_code, reason = "it only has to live")] Keepalived),
    Arping(Child),
    /// With the file for its report: nobody reads a pipe while it runs.
    Vipherald(Child, PathBuf),
    Wired(Wired),
}

/// keepalived with its hook, and `watch` if that is beside it.
struct Wired {
    owner: Host,
    // Dropped, it is killed.
    keepalived: Keepalived,
    watch: Option<Child>,
    sent: Capture,
}

impl Wired {
    /// Starts it, and has it hear who uses the VIPs before it becomes the master.
    fn start(stage: &Stage<'_>, wiring: Wiring, program: &str) -> Self {
        let program = stage.lab.install_hook(program);
        let copy = stage.lab.directory().join("keepalived.conf");
        let hook = format!("{} --keepalived-conf {}", program.display(), copy.display());
        let fifo = stage.lab.directory().join("fifo");
        let (global, more) = match wiring {
            Wiring::Notify => (String::new(), format!("notify \"{hook} notify\"")),
            Wiring::Fifo => {
                let fifo = fifo.display();
                let lines = format!(
                    "global_defs {{\n vrrp_notify_fifo {fifo}\n \
                     vrrp_notify_fifo_script \"{hook} fifo\"\n}}\n"
                );
                (lines, String::new())
            }
            Wiring::Watch => Default::default(),
        };
        // Master after six seconds: nobody has to hurry.
        let configuration = global + &stage.instance(2.0, &more);
        fs::write(&copy, &configuration).expect("the lab's directory is writable");
        let sent = stage.owner.capture();
        let watch = (wiring == Wiring::Watch).then(|| {
            let mut command = stage.owner.command(&program);
            command.arg("--keepalived-conf").arg(&copy);
            let watch = quiet(command.args(["watch", "--all"])).spawn();
            watch.expect("it was just built")
        });
        let keepalived = stage.owner.keepalived(&configuration);
        thread::sleep(STARTED_WITHIN);
        stage.use_vips();
        Self {
            owner: stage.owner.clone(),
            keepalived,
            watch,
            sent,
        }
    }

    /// It becomes the master.
    fn running(self) -> Running {
        let ready = SystemTime::now();
        let began = first_advertisement(&self.sent);
        assert!(began > ready, "it became the master too early");
        Running {
            began,
            program: Program::Wired(self),
        }
    }

    fn end(self) {
        drop(self.keepalived);
        if let Some(watch) = self.watch {
            end(watch);
        }
        eventually("no hook is left", SOON, || {
            self.owner.processes("vipherald").is_empty().then_some(())
        });
    }
}

impl Stage<'_> {
    /// An instance with the VIPs, and lines of its own.
    fn instance(&self, advert_int: f32, more: &str) -> String {
        let mut vips = String::new();
        for vip in &self.vips {
            let length = if vip.is_ipv4() { 24 } else { 64 };
            writeln!(vips, "{vip}/{length}").expect("a String takes all");
        }
        format!(
            "vrrp_instance VI {{\n interface eth0\n state BACKUP\n virtual_router_id 51\n \
             version 3\n priority 100\n advert_int {advert_int}\n \
             virtual_ipaddress {{\n {vips} }}\n {more}\n}}\n"
        )
    }
}

impl Running {
    /// keepalived as it comes: it adds the VIPs and announces them by itself.
    fn keepalived(stage: &Stage<'_>) -> Self {
        let sent = stage.owner.capture();
        let keepalived = stage.owner.keepalived(&stage.instance(0.1, ""));
        Self {
            began: first_advertisement(&sent),
            program: Program::Keepalived(keepalived),
        }
    }

    /// One arping for each VIP, all at once.
    fn arping(stage: &Stage<'_>) -> Self {
        stage.give_vips();
        let commands: String = stage
            .vips
            .iter()
            .map(|vip| format!("arping -q -U -c 5 -I eth0 {vip} & "))
            .collect();
        let mut command = match &stage.vips[..] {
            [vip] => {
                let mut command = stage.owner.command("arping");
                command.args(["-q", "-U", "-c", "5", "-I", "eth0", &vip.to_string()]);
                command
            }
            _ => {
                let mut command = stage.owner.command("sh");
                command.args(["-c", &format!("{commands} wait")]);
                command
            }
        };
        let (child, began) = stopwatch::start(quiet(&mut command));
        Self {
            began,
            program: Program::Arping(child),
        }
    }

    fn vipherald(stage: &Stage<'_>, program: &str) -> Self {
        stage.give_vips();
        let mut command = stage.owner.command(program);
        command
            .args(["announce", "--json", "--log", "stderr", "--timeout"])
            .arg(stage.case.timeout.as_secs().to_string())
            .args(stage.vips.iter().map(ToString::to_string));
        let path = stage.lab.directory().join("report");
        let file = File::create(&path).expect("the lab's directory is writable");
        let (child, began) = stopwatch::start(quiet(&mut command).stdout(file));
        Self {
            began,
            program: Program::Vipherald(child, path),
        }
    }

    /// Whether nothing more can come of it.
    fn is_over(&mut self, all_follow: bool, after: Duration, case: &Case) -> bool {
        // Each is watched for 2 s after a dead port has opened.
        let dead = match case.trouble {
            Trouble::DeadPort(dead_for) => after < dead_for + 2 * SECOND,
            _ => false,
        };
        match &mut self.program {
            // Its second and last burst comes after 5 s.
            Program::Keepalived(_) => all_follow || !dead && after > 7 * SECOND,
            Program::Arping(child) => all_follow || !dead && has_ended(child),
            Program::Vipherald(child, _) => has_ended(child),
            // Its last round begins after 10 s.
            Program::Wired(_) => all_follow || !dead && after > 11 * SECOND,
        }
    }

    fn end(self) -> Option<Told> {
        match self.program {
            Program::Keepalived(_) => None,
            Program::Arping(mut child) => {
                // It may have ended by itself.
                let _ = child.kill();
                child.wait().expect("one's own child can be waited for");
                None
            }
            Program::Vipherald(child, path) => Some(Told::by(child, &path)),
            Program::Wired(wired) => {
                wired.end();
                None
            }
        }
    }
}

impl Told {
    fn by(mut child: Child, path: &Path) -> Self {
        let status = child.wait().expect("one's own child can be waited for");
        let text = fs::read(path).expect("it was there when the run began");
        let report: Value = serde_json::from_slice(&text).expect("--json gives JSON");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let verdicts = list(&report["vips"])
            .iter()
            .flat_map(|vip| list(&vip["peers"]))
            .map(|peer| {
                let text = |key: &str| peer[key].as_str().unwrap_or_default().to_owned();
                let after = peer["after_ms"].as_f64().unwrap_or(f64::INFINITY);
                (text("mac"), text("verdict"), after)
            })
            .collect();
        Self {
            status: status.code(),
            verdicts,
        }
    }

    fn count(&self, verdict: &str) -> usize {
        self.verdicts
            .iter()
            .filter(|(_, other, _)| other == verdict)
            .count()
    }

    /// When the last peer was proven.
    fn proven_after(&self) -> Duration {
        let last = self
            .verdicts
            .iter()
            .map(|(.., after)| *after)
            .fold(0.0, f64::max);
        Duration::try_from_secs_f64(last / 1e3).unwrap_or(Duration::MAX)
    }
}

fn has_ended(child: &mut Child) -> bool {
    child
        .try_wait()
        .expect("one's own child can be waited for")
        .is_some()
}

impl Outcome {
    fn followed(&self) -> Vec<Duration> {
        let of_all = self.runs.iter().flat_map(|run| &run.followed);
        of_all.flatten().copied().collect()
    }

    fn expected(&self) -> usize {
        self.runs.iter().map(|run| run.followed.len()).sum()
    }

    /// By when a share of all peers followed; `None`: never.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let all = self.runs.iter().flat_map(|run| &run.followed);
        // Those that never follow come last.
        let all: Vec<_> = all.map(|after| after.unwrap_or(Duration::MAX)).collect();
        quantile(&all, share).filter(|after| *after < Duration::MAX)
    }

    /// By when the last peer followed in a share of all runs; of a dead port: after it opened.
    fn last(&self, share: f64) -> Option<Duration> {
        let of_run = |run: &Run| {
            let all = run.followed.iter();
            let last = all.map(|after| after.unwrap_or(Duration::MAX)).max();
            last.unwrap_or(Duration::MAX).saturating_sub(run.opened)
        };
        let all: Vec<_> = self.runs.iter().map(of_run).collect();
        quantile(&all, share).filter(|found| *found < Duration::from_secs(1 << 30))
    }

    /// Whether a promise was kept in all runs, and the figures that show it.
    fn judge(&self, must: &Must) -> (String, bool, String) {
        let told = || self.runs.iter().filter_map(|run| run.told.as_ref());
        match must {
            AllFollow => {
                let (follow, all) = (self.followed().len(), self.expected());
                (
                    "all follow".into(),
                    follow == all,
                    format!("{follow} of {all}"),
                )
            }
            NinetyPercentWithin(limit) => {
                let found = self.quantile(0.9);
                let holds = found.is_some_and(|found| found <= *limit);
                (
                    format!("p90 ≤ {}", time(*limit)),
                    holds,
                    time_or_never(found),
                )
            }
            LastWithin(limit) => {
                let found = self.last(1.0);
                let holds = found.is_some_and(|found| found <= *limit);
                let since = match self.case.trouble {
                    Trouble::DeadPort(_) => " after it opened",
                    _ => "",
                };
                let words = format!("last ≤ {}{since}", time(*limit));
                (words, holds, time_or_never(found))
            }
            MedianLastWithin(limit) => {
                let found = self.last(0.5);
                let holds = found.is_some_and(|found| found <= *limit);
                let words = format!("last ≤ {}, median", time(*limit));
                (words, holds, time_or_never(found))
            }
            AllProven => {
                let count = |verdict| told().map(|told| told.count(verdict)).sum::<usize>();
                let (proven, all) = (count("proven"), self.expected());
                let others = ["acknowledged", "stale", "silent"]
                    .map(|verdict| format!("{} {verdict}", count(verdict)))
                    .join(", ");
                let figures = format!("{proven} of {all}; {others}");
                ("all proven".into(), proven == all, figures)
            }
            ProvenWithin(limit) => {
                let proven: usize = told().map(|told| told.count("proven")).sum();
                let last = told()
                    .map(Told::proven_after)
                    .max()
                    .unwrap_or(Duration::MAX);
                let holds = proven == self.expected() && last <= *limit;
                let figures = format!("{proven} of {}, {}", self.expected(), time(last));
                (format!("all proven ≤ {}", time(*limit)), holds, figures)
            }
            ExactlyStale(count) => {
                // The peers are numbered after the owner; the first ones are permanent.
                let is_permanent =
                    |mac: &str| (2..2 + count).any(|n| mac == format!("02:00:00:09:00:{n:02x}"));
                let right = |told: &Told| {
                    told.status == Some(3)
                        && told.count("stale") == *count
                        && told.verdicts.iter().all(|(mac, verdict, _)| {
                            verdict == if is_permanent(mac) { "stale" } else { "proven" }
                        })
                };
                let counts: Vec<_> = told()
                    .map(|told| (told.count("proven"), told.count("stale"), told.status))
                    .collect();
                let words = format!("exactly those {count} stale, all others proven, exit 3");
                (
                    words,
                    told().all(right),
                    format!("(proven, stale, exit): {counts:?}"),
                )
            }
        }
    }
}

fn time_or_never(duration: Option<Duration>) -> String {
    duration.map_or("never".into(), time)
}

/// How many times as long another takes as vipherald.
fn ratio(ours: Option<Duration>, other: Option<Duration>) -> String {
    match (ours, other) {
        (Some(ours), Some(other)) => {
            format!("{:.1} x", other.as_secs_f64() / ours.as_secs_f64())
        }
        (Some(_), None) => "∞".into(),
        (None, _) => "-".into(),
    }
}

fn print_case(outcomes: &[Outcome], case: &Case, family: Family) {
    let of_case: Vec<_> = outcomes
        .iter()
        .filter(|outcome| outcome.case.name == case.name && outcome.family == family)
        .collect();
    let ours = of_case
        .iter()
        .find(|outcome| outcome.method == Method::Vipherald);
    println!("\n{}, {family}, {} peers", case.name, case.peers);
    println!(
        "  {:<12}{:>12}{:>12}{:>12}{:>12}   as long as vipherald: 90 %, all",
        "", "follow", "half by", "90 % by", "all by"
    );
    for outcome in &of_case {
        let follow = format!("{}/{}", outcome.followed().len(), outcome.expected());
        let by = |share| time_or_never(outcome.quantile(share));
        let against = |share| match ours {
            Some(ours) if outcome.method != Method::Vipherald => {
                ratio(ours.quantile(share), outcome.quantile(share))
            }
            _ => String::new(),
        };
        println!(
            "  {:<12}{follow:>12}{:>12}{:>12}{:>12}{:>28}{:>9}",
            outcome.method,
            by(0.5),
            by(0.9),
            by(1.0),
            against(0.9),
            against(1.0)
        );
    }
}

fn print_promises(outcomes: &[Outcome]) {
    println!("\nWhat vipherald must reach, over all runs:");
    for outcome in outcomes
        .iter()
        .filter(|outcome| outcome.method == Method::Vipherald)
    {
        for must in outcome.case.must {
            let (words, holds, figures) = outcome.judge(must);
            let holds = if holds { "holds" } else { "DOES NOT HOLD" };
            let case = format!("{}, {}", outcome.case.name, outcome.family);
            println!("  {case:<32}{words:<28} {holds}: {figures}");
        }
    }
}

fn csv(outcomes: &[Outcome]) -> String {
    let mut csv = String::from("case,family,method,run,peer,vip,seconds\n");
    for Outcome {
        case,
        family,
        method,
        runs,
    } in outcomes
    {
        for (number, run) in (1..).zip(runs) {
            for (index, followed) in run.followed.iter().enumerate() {
                let (peer, vip) = (index / case.vips + 1, index % case.vips + 1);
                let seconds = followed.map(|after| format!("{:.6}", after.as_secs_f64()));
                writeln!(
                    csv,
                    "\"{}\",{family},{method},{number},{peer},{vip},{}",
                    case.name,
                    seconds.unwrap_or_default()
                )
                .expect("a String takes all");
            }
        }
    }
    csv
}

/// What the plot shows: a row for each family, a column for each case.
fn panels(outcomes: &[Outcome]) -> Vec<Vec<Panel>> {
    let panel = |family: Family, name: &str| Panel {
        title: match (name, family) {
            ("gratuitous ones dropped", Family::Ipv4) => "peers drop gratuitous ARP".to_owned(),
            ("gratuitous ones dropped", Family::Ipv6) => "peers drop unsolicited NAs".to_owned(),
            ("60 % loss", _) => "60 % of all frames are lost".to_owned(),
            _ => "the owner's switch port is dead for 8 s".to_owned(),
        },
        shaded_until: (name == PLOTTED[1]).then_some(millis(8000)),
        axis: plot::axis(),
        lines: outcomes
            .iter()
            .filter(|outcome| outcome.case.name == name && outcome.family == family)
            .map(|outcome| plot::curve(outcome.method, outcome.followed(), outcome.expected()))
            .collect(),
    };
    [Family::Ipv4, Family::Ipv6]
        .map(|family| PLOTTED.map(|name| panel(family, name)).into())
        .into()
}
