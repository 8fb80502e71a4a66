//! What many runs showed together.

use std::collections::BTreeMap;
use std::fmt;

use vipherald_core::ask::PeerVerdict;

use crate::scenario::Kind;

#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) runs: u64,
    pub(crate) frames: u64,
    /// Runs that their timeout ended.
    pub(crate) cut: u64,
    /// VIPs that left; that left and came back in time; and that were never where they count.
    pub(crate) left: u64,
    pub(crate) returned: u64,
    pub(crate) elsewhere: u64,
    /// VIPs with a conflict; with one that is over; and those whose other owners are watched.
    pub(crate) conflicts: u64,
    pub(crate) past_conflicts: u64,
    pub(crate) watched: u64,
    /// Hosts that have the VIP and were heard; those of them that were not known to have it; and
    /// those that were not heard, for they answer only one in so many questions.
    pub(crate) holders: u64,
    pub(crate) missed_holders: u64,
    pub(crate) silent_holders: u64,
    /// Other owners that were not known to answer for the VIP by an echo, too.
    pub(crate) owners_without_echo: u64,
    /// Peers that had to be proven; those of them that were not; and that were even called stale.
    pub(crate) honest: u64,
    pub(crate) unproven: u64,
    pub(crate) wrongly_stale: u64,
    /// Peers whose entry was wrong to the end; those of them that were not called stale.
    pub(crate) stale: u64,
    pub(crate) missed_stale: u64,
    pub(crate) required_silent: u64,
    pub(crate) most_frames: u32,
    verdicts: BTreeMap<(Kind, PeerVerdict), u64>,
}

impl Statistics {
    pub(crate) fn count(&mut self, kind: Kind, verdict: PeerVerdict) {
        *self.verdicts.entry((kind, verdict)).or_default() += 1;
    }

    /// How many peers of a kind got a verdict.
    pub(crate) fn of(&self, kind: Kind, verdict: PeerVerdict) -> u64 {
        self.verdicts.get(&(kind, verdict)).copied().unwrap_or(0)
    }

    /// Many runs must have shown all that can be: else a property was never put to the test.
    pub(crate) fn are_telling(&self) {
        for (kind, verdict) in [
            (Kind::Honest, PeerVerdict::Proven),
            (Kind::ArpIgnoring, PeerVerdict::Proven),
            (Kind::Permanent, PeerVerdict::Stale),
            (Kind::Permanent, PeerVerdict::Acknowledged),
            (Kind::EchoIgnoring, PeerVerdict::Acknowledged),
            (Kind::ResolutionDropping, PeerVerdict::Stale),
            (Kind::Deaf, PeerVerdict::Stale),
            (Kind::Rival, PeerVerdict::Silent),
            (Kind::Rival, PeerVerdict::Proven),
            (Kind::RealServer, PeerVerdict::Holder),
            (Kind::RealServer, PeerVerdict::Proven),
            (Kind::Dead, PeerVerdict::Silent),
        ] {
            assert!(
                self.of(kind, verdict) > 100,
                "few {kind:?} were {verdict:?}"
            );
        }
        for (what, count) in [
            ("left", self.left),
            ("came back", self.returned),
            ("were elsewhere", self.elsewhere),
            ("had conflicts", self.conflicts),
            ("had conflicts that are over", self.past_conflicts),
            ("were watched", self.watched),
            ("were in runs that were cut", self.cut),
        ] {
            assert!(count > 100, "few VIPs {what}: {count}");
        }
        // Where frames are lost, chance has a say: but only so much.
        assert!(
            self.unproven * 250 < self.honest,
            "{} unproven",
            self.unproven
        );
        assert!(
            self.wrongly_stale * 1000 < self.honest,
            "{} called stale",
            self.wrongly_stale
        );
        assert!(
            self.missed_holders * 250 < self.holders,
            "{} that have the VIP are not known to",
            self.missed_holders
        );
        assert!(
            self.silent_holders * 25 < self.holders,
            "{} that have the VIP were not heard",
            self.silent_holders
        );
        assert!(
            self.missed_stale * 100 < self.stale,
            "{} stale ones missed_stale",
            self.missed_stale
        );
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} of them cut; {} frames, at most {} for one peer",
            self.runs, self.cut, self.frames, self.most_frames
        )?;
        writeln!(
            f,
            "{} VIPs left, {} came back, {} were elsewhere; {} had conflicts, {} past ones, {} are watched",
            self.left,
            self.returned,
            self.elsewhere,
            self.conflicts,
            self.past_conflicts,
            self.watched
        )?;
        writeln!(
            f,
            "{} have the VIP, {} of them not known to; {} were not heard; {} other owners not by echo",
            self.holders, self.missed_holders, self.silent_holders, self.owners_without_echo
        )?;
        writeln!(
            f,
            "{} had to follow: {} unproven, {} of them called stale; {} stale: {} missed_stale",
            self.honest, self.unproven, self.wrongly_stale, self.stale, self.missed_stale
        )?;
        for ((kind, verdict), count) in &self.verdicts {
            writeln!(f, "{count:>8} {kind:?} {verdict:?}")?;
        }
        Ok(())
    }
}
