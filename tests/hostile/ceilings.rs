//! What an attack may cost, in one place.

use std::fs;
use std::path::Path;
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) memory: u64,
    pub(crate) lines: usize,
    pub(crate) octets: usize,
    pub(crate) frames: u64,
    pub(crate) lasted: Duration,
}

/// The rounds, and questions to a few hosts.
pub(crate) const ANNOUNCE: Ceilings = Ceilings {
    memory: 8 << 10,
    lines: 60,
    octets: 64 << 10,
    frames: 200,
};

/// The rounds of 250 VIPs, at most at the configured rate, whose bucket is a second deep.
pub(crate) const ANNOUNCE_MANY: Ceilings = Ceilings {
    memory: 32 << 10,
    octets: 1 << 20,
    frames: 4_000,
    ..ANNOUNCE
};

/// The same with another rate, and peers that are not forged.
pub(crate) const ANNOUNCE_FULL: Ceilings = Ceilings {
    frames: 16_000,
    ..ANNOUNCE_MANY
};

/// Two answers a second to each sender, and what ARP or ND adds to that.
pub(crate) const LISTEN: Ceilings = Ceilings {
    memory: 8 << 10,
    lines: 60,
    octets: 64 << 10,
    frames: 10,
};

/// A worker and an announcement for each instance, and what the pipe holds.
pub(crate) const FIFO: Ceilings = Ceilings {
    memory: 12 << 10,
    frames: 2_000,
    ..LISTEN
};

/// An announcement, and the hosts that were heard. After its rounds each forged host is asked that may be
/// real, at the configured rate.
pub(crate) const WATCH: Ceilings = Ceilings {
    memory: 12 << 10,
    ..ANNOUNCE
};

/// A few questions.
pub(crate) const CHECK: Ceilings = ANNOUNCE;

impl Cost {
    /// What an attack cost, and what the command had logged at its end.
    pub(crate) fn of(lasted: Duration, memory: u64, frames: u64, logged: &Path) -> Self {
        let log = fs::read_to_string(logged).unwrap();
        Self {
            memory,
            frames,
            lines: log.lines().count(),
            octets: log.len(),
            lasted,
        }
    }

    /// What is over the ceilings of a command.
    pub(crate) fn excess(&self, most: &Ceilings) -> Option<String> {
        let seconds = self.lasted.as_secs() + 1;
        let over = self.memory > most.memory
            || self.lines > most.lines
            || self.octets > most.octets
            || self.frames > most.frames * seconds;
        over.then(|| format!("{self:?} is more than {most:?}"))
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

/// Counts from now on what programs of a host send from `eth0`, without what its kernel answers.
pub(crate) fn count_frames_of_programs(host: &Host) {
    host.nft(
        "add table netdev count\n\
         add chain netdev count out { type filter hook egress device eth0 priority 0; }\n\
         add rule netdev count out meta skgid 0 counter\n",
    );
}

/// What they have sent.
pub(crate) fn frames_of_programs(host: &Host) -> u64 {
    let shown: Value =
        serde_json::from_str(&host.run("nft -j list chain netdev count out")).unwrap();
    let parts = shown["nftables"].as_array().unwrap();
    let counters = parts
        .iter()
        .filter_map(|part| part["rule"]["expr"].as_array());
    let counter = counters
        .flatten()
        .find_map(|part| part["counter"]["packets"].as_u64());
    counter.unwrap()
}

/// Frames that a host has sent from `eth0`.
pub(crate) fn frames_sent(host: &Host) -> u64 {
    let shown: Value = serde_json::from_str(&host.run("ip -j -s link show dev eth0")).unwrap();
    shown[0]["stats64"]["tx"]["packets"].as_u64().unwrap()
}
