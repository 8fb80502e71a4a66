//! What many runs showed together.

use std::collections::BTreeMap;
use std::fmt;

use vipherald::announce::Verdict;

use crate::scenario::Kind;

#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) runs: u64,
    pub(crate) frames: u64,
    /// Runs that their timeout ended.
    pub(crate) cut: u64,
    /// VIPs that left, and VIPs with a conflict.
    pub(crate) left: u64,
    pub(crate) conflicts: u64,
    /// Peers that had to be proven; those of them that were not; and that were even called stale.
    pub(crate) honest: u64,
    pub(crate) unproven: u64,
    pub(crate) wronged: u64,
    /// Peers whose entry was wrong to the end; those of them that were not called stale.
    pub(crate) stale: u64,
    pub(crate) unnamed: u64,
    pub(crate) required_silent: u64,
    pub(crate) most_frames: u32,
    verdicts: BTreeMap<(Kind, Verdict), u64>,
}

impl Statistics {
    pub(crate) fn count(&mut self, kind: Kind, verdict: Verdict) {
        *self.verdicts.entry((kind, verdict)).or_default() += 1;
    }

    /// How many peers of a kind got a verdict.
    pub(crate) fn of(&self, kind: Kind, verdict: Verdict) -> u64 {
        self.verdicts.get(&(kind, verdict)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} of them cut; {} frames, at most {} for one peer; {} VIPs left, {} had conflicts",
            self.runs, self.cut, self.frames, self.most_frames, self.left, self.conflicts
        )?;
        writeln!(
            f,
            "{} had to follow: {} unproven, {} of them called stale; {} stale: {} unnamed",
            self.honest, self.unproven, self.wronged, self.stale, self.unnamed
        )?;
        for ((kind, verdict), count) in &self.verdicts {
            writeln!(f, "{count:>8} {kind:?} {verdict:?}")?;
        }
        Ok(())
    }
}
