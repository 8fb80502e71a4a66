//! What an attack may cost, in one place.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use vipherald_lab::Host;

/// The most that a command may take while it is under attack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ceilings {
    /// KiB of memory of its own (`RssAnon`).
    pub(crate) memory: u64,
    /// Lines that it logs.
    pub(crate) lines: usize,
    /// Octets that it logs and prints.
    pub(crate) octets: usize,
    /// Frames that the attacked host sends, for each second of the attack.
    pub(crate) frames: u64,
}

/// What an attack did cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) memory: u64,
    pub(crate) lines: usize,
    pub(crate) octets: usize,
    pub(crate) frames: u64,
    pub(crate) lasted: Duration,
}

/// The ceilings of a command; those of any command that is not named here are the last ones.
pub(crate) fn of(command: &str) -> Ceilings {
    let general = Ceilings {
        memory: 8 << 10,
        lines: 60,
        octets: 64 << 10,
        frames: 2_000,
    };
    match command {
        // Two answers a second to each sender, and what ARP or ND adds to that.
        "listen" => Ceilings {
            frames: 10,
            ..general
        },
        // A worker and an announcement for each instance, and what the pipe holds.
        "fifo" => Ceilings {
            memory: 12 << 10,
            ..general
        },
        _ => general,
    }
}

impl Cost {
    /// What is over the ceilings of a command.
    pub(crate) fn excess(&self, command: &str) -> Option<String> {
        let most = of(command);
        let seconds = self.lasted.as_secs() + 1;
        let over = self.memory > most.memory
            || self.lines > most.lines
            || self.octets > most.octets
            || self.frames > most.frames * seconds;
        over.then(|| format!("{self:?} is more than {most:?}"))
    }

    /// Counts what was logged and printed.
    pub(crate) fn said(mut self, text: &str) -> Self {
        self.lines = text.lines().count();
        self.octets = text.len();
        self
    }
}

/// KiB of memory that a process has of its own; 0 before it is the program, and after its end.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if !status.starts_with("Name:\tvipherald") {
        return 0;
    }
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Frames that a host has sent from `eth0`.
pub(crate) fn frames_sent(host: &Host) -> u64 {
    let shown: Value = serde_json::from_str(&host.run("ip -j -s link show dev eth0")).unwrap();
    shown[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}
