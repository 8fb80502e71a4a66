//! How an announcement grows with its VIPs, its peers, and old entries of hosts that are gone: when the first frames are out, when all
//! is proven, how many frames that takes, how much of the processor, and how much memory.

use std::collections::HashSet;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};
use std::{io, thread};

use serde_json::Value;
use vipherald_lab::{Direction, Lab};

use crate::responders::{Responders, mac_of};
use crate::stopwatch::{self, quantile, time};
use crate::tools::{announced, batch, quiet, since};

/// VIPs, peers, and old entries.
const CASES: [(u32, u32, u32); 11] = [
    (1, 1, 0),
    (16, 1, 0),
    (256, 1, 0),
    (1024, 1, 0),
    (1, 30, 0),
    (1, 200, 0),
    (1, 1000, 0),
    (64, 30, 0),
    (1, 21, 5000),
    (1, 21, 20_000),
    (10, 21, 5000),
];
const TURNS: usize = 3;
/// Seconds after which a run ends: five of the eight rounds have begun by then.
const SECONDS: &str = "3";
/// Frames a second: the default, and one that holds nothing up.
const RATES: [u32; 2] = [2000, 100_000];

/// 10.20.0.1 is the owner.
const SUBNET: u32 = 0x0a14_0000;
const FIRST_PEER: u32 = SUBNET + 0x100;
const FIRST_VIP: u32 = SUBNET + 0x8000;
const FIRST_OLD: u32 = SUBNET + 0xa000;

/// What one turn took.
struct Run {
    /// When the last VIP had its first frame.
    first_frames: Duration,
    proven: usize,
    /// When the last peer was proven, by vipherald's own clock.
    last_proven: Duration,
    frames: u32,
    processor: Duration,
    /// Peak resident memory in KiB.
    memory: u64,
}

pub(crate) fn run(program: &Path) {
    println!("### How it grows, medians of {TURNS} turns of {SECONDS} s\n");
    println!(
        "| VIPs | peers | old entries | --rate | all have a first frame | proven | the last after | frames | \
         processor | a frame | memory |\n\
         |---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    let mut csv = String::from(
        "vips,peers,old_entries,rate,first_frames,proven,last_proven,frames,processor,memory_kib\n",
    );
    for rate in RATES {
        for (vips, peers, old) in CASES {
            let runs: Vec<_> = (0..TURNS)
                .map(|_| Run::of(program, vips, peers, old, rate))
                .collect();
            println!("| {vips} | {peers} | {old} | {rate} | {} |", row(&runs));
            for run in runs {
                csv += &format!("{vips},{peers},{old},{rate},{}\n", run.csv());
            }
        }
    }
    println!();
    fs::write("target/bench/scale.csv", csv).expect("target is writable");
}

fn row(runs: &[Run]) -> String {
    fn median<T: Copy + Ord>(runs: &[Run], of: impl Fn(&Run) -> T) -> T {
        let values: Vec<T> = runs.iter().map(of).collect();
        quantile(&values, 0.5).expect("there was a turn")
    }
    format!(
        "{} | {} | {} | {} | {} | {} | {} KiB",
        time(median(runs, |run| run.first_frames)),
        median(runs, |run| run.proven),
        time(median(runs, |run| run.last_proven)),
        median(runs, |run| run.frames),
        time(median(runs, |run| run.processor)),
        time(median(runs, |run| run.processor / run.frames.max(1))),
        median(runs, |run| run.memory)
    )
}

impl Run {
    fn of(program: &Path, vips: u32, peers: u32, old: u32, rate: u32) -> Self {
        let lab = Lab::new();
        let (owner, others) = (lab.host("owner"), lab.host("others"));
        let addresses = |first: u32, count| (first..first + count).map(Ipv4Addr::from);
        let (vips, all_peers) = (addresses(FIRST_VIP, vips), addresses(FIRST_PEER, peers));
        let range = FIRST_PEER.into()..(FIRST_PEER + peers).into();
        let _responders = Responders::start(&others, range);
        owner.run("ip addr add 10.20.0.1/16 dev eth0");
        batch(
            &owner,
            vips.clone()
                .map(|vip| format!("addr add {vip}/32 dev eth0")),
        );
        // What is marked as learned elsewhere does not count against the limit of 1,024 entries
        // that all tables of a machine share; an announcement asks it as any other.
        let entry = |ip, state| {
            let mac = mac_of(ip);
            format!("neigh add {ip} lladdr {mac} dev eth0 nud {state} extern_learn")
        };
        batch(&owner, all_peers.map(|ip| entry(ip, "reachable")));
        batch(
            &owner,
            addresses(FIRST_OLD, old).map(|ip| entry(ip, "stale")),
        );

        let report = lab.directory().join("report");
        let capture = others.capture();
        let mut command = owner.command(program);
        command
            .args(["announce", "--json", "--log", "stderr"])
            .args(["--timeout", SECONDS, "--rate", &rate.to_string()])
            .args(vips.clone().map(|vip| vip.to_string()));
        quiet(&mut command).stdout(File::create(&report).expect("the lab's directory is writable"));
        let (child, began) = stopwatch::start(&mut command);
        let memory = peak_memory(child.id());
        let ended = stopwatch::end(&child, began);

        let (mut missing, mut last): (HashSet<_>, SystemTime) = (vips.collect(), began);
        for frame in capture.frames() {
            if frame.direction == Direction::ToHost
                && announced(&frame).is_some_and(|vip| missing.remove(&vip))
            {
                last = frame.time;
            }
        }
        assert!(missing.is_empty(), "no frame for {missing:?}");
        let report = fs::read(&report).expect("it is there");
        let report: Value = serde_json::from_slice(&report).expect("--json gives JSON");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let proven: Vec<_> = list(&report["vips"])
            .iter()
            .flat_map(|vip| list(&vip["peers"]))
            .filter(|peer| peer["verdict"] == "proven")
            .filter_map(|peer| peer["after_ms"].as_f64())
            .collect();
        let frames = report["frames_sent"].as_u64().unwrap_or_default();
        Self {
            first_frames: since(began, last),
            proven: proven.len(),
            last_proven: Duration::from_secs_f64(proven.iter().copied().fold(0.0, f64::max) / 1e3),
            frames: u32::try_from(frames).expect("some thousands"),
            processor: ended.processor,
            memory,
        }
    }

    fn csv(&self) -> String {
        format!(
            "{:.6},{},{:.6},{},{:.6},{}",
            self.first_frames.as_secs_f64(),
            self.proven,
            self.last_proven.as_secs_f64(),
            self.frames,
            self.processor.as_secs_f64(),
            self.memory
        )
    }
}

/// Watches a process until it has ended, and gives its peak resident memory in KiB. What `wait4`
/// tells of it would count this process, too, whose copy it began as.
fn peak_memory(process: u32) -> u64 {
    let mut peak = 0;
    loop {
        let status = fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.unwrap_or_else(|e: io::Error| panic!("process {process}: {e}"));
        // One that has ended has no memory any more.
        let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
            return peak;
        };
        let kibibytes = line.trim().trim_end_matches(" kB");
        peak = kibibytes.parse().expect("a number");
        thread::sleep(Duration::from_millis(5));
    }
}
