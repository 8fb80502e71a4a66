//! What runs as long as the chaos does: a reader of events, and hosts that listen for orders. Their
//! memory and descriptors have to stay what they were.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use vipherald_lab::eventually;

use crate::common::{Run, SOON};

/// More than this, in KiB, none that listens for orders takes, whatever happened.
pub(crate) const MOST_TO_LISTEN: u64 = 2 * 1024;
/// More descriptors than this none of them keeps, whatever they inherited. One that closes nothing
/// soon has more: it opens three for each event.
const MOST_DESCRIPTORS: usize = 24;
/// How much more one may keep in the last third of a run than in the second, in KiB. What it keeps is the
/// least that it had: while it announces, and after a flood, it has more.
const DRIFT: u64 = 128;

/// How often it has to be measured before a third of a run shows drift.
const SETTLED: usize = 200;

/// The exit status after SIGTERM, as a shell has it.
const SIGTERMED: i32 = 128 + libc::SIGTERM;

/// A process that goes on, and what it took again and again.
pub(crate) struct Lasting {
    name: String,
    run: Run,
    /// The most memory that it may take.
    most: u64,
    /// Resident memory of its own (`RssAnon`), in KiB: without the pages of the program's file.
    memory: Vec<u64>,
}

impl Lasting {
    /// Takes a process that goes on.
    pub(crate) fn new(name: String, run: Run, most: u64) -> Self {
        Self {
            name,
            run,
            most,
            memory: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.run.pid()
    }

    /// Notes what it takes now.
    pub(crate) fn measure(&mut self) {
        assert!(!self.run.has_ended(), "{} has ended", self.name);
        self.memory.push(resident(self.run.pid()));
    }

    /// Ends it, when nothing is left for it to do.
    pub(crate) fn end(self) {
        let pid = self.run.pid();
        eventually("it has closed what it opened", SOON, || {
            (descriptors(pid) <= MOST_DESCRIPTORS).then_some(())
        });
        let third = self.memory.len() / 3;
        let all = self.memory.iter().max().copied().unwrap_or_default();
        let thirds = [0, 1, 2].map(|n| &self.memory[n * third..(n + 1) * third]);
        let [_, second, last] = thirds.map(|part| part.iter().min().copied());
        println!(
            "{}: at most {all} KiB of its own; by thirds {:?}",
            self.name,
            thirds.map(|part| (part.iter().min(), part.iter().max()))
        );
        assert!(all < self.most, "{}: {:?}", self.name, self.memory);
        // At first it grows to what it needs.
        if third >= SETTLED {
            assert!(
                last <= second.map(|second| second + DRIFT),
                "{}: {:?}",
                self.name,
                self.memory
            );
        }
        let (ended, _) = self.run.terminate();
        assert_eq!(ended.status, SIGTERMED, "{}: {ended:?}", self.name);
    }
}

/// Makes a process write what it says to a file.
pub(crate) fn log_to(mut command: Command, log: &Path) -> Run {
    let log = OpenOptions::new().append(true).create(true).open(log);
    command.stdout(Stdio::null()).stderr(log.unwrap());
    Run::start(command)
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .unwrap();
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_else(|_| panic!("{line}"))
}
