//! The results of many runs.

use std::collections::BTreeMap;
use std::fmt;

use vipherald_core::ask::PeerVerdict;

use crate::scenario::Kind;

#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) runs: u64,
    pub(crate) frames: u64,
    /// Runs ended by their timeout.
    pub(crate) cut: u64,
    /// VIPs that left; that left and returned in time; that were never where they count.
    pub(crate) left: u64,
    pub(crate) returned: u64,
    pub(crate) elsewhere: u64,
    /// VIPs with a conflict; with a past one; with a watch for other owners.
    pub(crate) conflicts: u64,
    pub(crate) past_conflicts: u64,
    pub(crate) watched: u64,
    /// Hosts with the VIP that answered a control echo; those among them without the verdict
    /// `Holder`; those that answered none, because of losses.
    pub(crate) holders: u64,
    pub(crate) missed_holders: u64,
    pub(crate) silent_holders: u64,
    /// Other owners that answered no echo to the VIP.
    pub(crate) owners_without_echo: u64,
    /// Peers that had to be proven; those not proven; those even called stale.
    pub(crate) honest: u64,
    pub(crate) unproven: u64,
    pub(crate) wrongly_stale: u64,
    /// The same of those that may not exist: they get few questions.
    pub(crate) doubtful: u64,
    pub(crate) doubtful_unproven: u64,
    /// Peers whose entry was wrong to the end; those not called stale.
    pub(crate) stale: u64,
    pub(crate) missed_stale: u64,
    /// Peers whose reply was forwarded; proven by traffic; with a virtual MAC and proven.
    pub(crate) forwarded: u64,
    pub(crate) by_traffic: u64,
    pub(crate) virtual_macs: u64,
    /// Hosts that nobody knew, and that had to follow.
    pub(crate) unknown: u64,
    /// VIPs whose frames were dropped on the way out, and several hosts showed that.
    pub(crate) blocked: u64,
    /// The most frames to one peer.
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

    /// Checks that many runs had every result often: else they did not test every property.
    pub(crate) fn are_complete(&self) {
        for (kind, verdict) in [
            (Kind::Honest, PeerVerdict::Proven),
            (Kind::ArpIgnoring, PeerVerdict::Proven),
            (Kind::Permanent, PeerVerdict::Stale),
            (Kind::Permanent, PeerVerdict::Acknowledged),
            (Kind::EchoIgnoring, PeerVerdict::Acknowledged),
            (Kind::ResolutionDropping, PeerVerdict::Stale),
            (Kind::Deaf, PeerVerdict::Proven),
            (Kind::OtherOwner, PeerVerdict::Silent),
            (Kind::OtherOwner, PeerVerdict::Proven),
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
            ("were forwarded", self.forwarded),
            ("were proven by traffic", self.by_traffic),
            ("had virtual MACs", self.virtual_macs),
            ("were unknown", self.unknown),
            ("were blocked", self.blocked),
            ("were in runs that were cut", self.cut),
        ] {
            assert!(count > 100, "few VIPs or peers {what}: {count}");
        }
        // Losses may cause a few wrong verdicts.
        for (what, count, least, of) in [
            ("unproven", self.unproven, 250, self.honest),
            (
                "doubtful and unproven",
                self.doubtful_unproven,
                25,
                self.doubtful,
            ),
            ("called stale", self.wrongly_stale, 1000, self.honest),
            ("holders missed", self.missed_holders, 250, self.holders),
            ("holders silent", self.silent_holders, 25, self.holders),
            ("stale missed", self.missed_stale, 75, self.stale),
        ] {
            assert!(count * least < of, "{what}: {count} of {of}");
        }
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
            "{} VIPs left, {} came back, {} were elsewhere; {} had conflicts, {} past ones, {} a watch",
            self.left,
            self.returned,
            self.elsewhere,
            self.conflicts,
            self.past_conflicts,
            self.watched
        )?;
        writeln!(
            f,
            "{} have the VIP, {} of them missed; {} were silent; {} other owners without echo",
            self.holders, self.missed_holders, self.silent_holders, self.owners_without_echo
        )?;
        writeln!(
            f,
            "{} had to follow: {} unproven, {} of them called stale; {} stale: {} missed",
            self.honest, self.unproven, self.wrongly_stale, self.stale, self.missed_stale
        )?;
        writeln!(
            f,
            "{} of doubtful existence had to follow: {} unproven",
            self.doubtful, self.doubtful_unproven
        )?;
        writeln!(
            f,
            "{} forwarded, {} proven by traffic, {} with a virtual MAC, {} unknown; {} VIPs blocked",
            self.forwarded, self.by_traffic, self.virtual_macs, self.unknown, self.blocked
        )?;
        for ((kind, verdict), count) in &self.verdicts {
            writeln!(f, "{count:>8} {kind:?} {verdict:?}")?;
        }
        Ok(())
    }
}
