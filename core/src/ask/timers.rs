//! Scheduled tasks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// What a task is worth: if several are due, the first of this list goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Worth {
    /// The first frame about a VIP: others wait, also those of VIPs that came earlier.
    First,
    /// Another frame of the rounds, or a probe for other owners.
    Broadcast,
    /// A question to a configured peer or a gateway.
    Required,
    /// A question to a host that exists.
    Likely,
    /// A question to one of the first hosts that are known by an old entry, or an address, only.
    Doubtful,
    /// A question to the rest of them.
    Unlikely,
    /// A question to a host that others only mentioned.
    Mentioned,
}

impl Worth {
    pub(crate) const ALL: [Self; 7] = [
        Self::First,
        Self::Broadcast,
        Self::Required,
        Self::Likely,
        Self::Doubtful,
        Self::Unlikely,
        Self::Mentioned,
    ];
}

/// Tasks by worth, then by due time, then in the order of scheduling. That order interleaves the VIPs.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heaps: [BinaryHeap<Reverse<(Instant, u64, T)>>; Worth::ALL.len()],
    scheduled: u64,
}

impl<T: Ord> Timers<T> {
    pub(crate) fn new() -> Self {
        Self {
            heaps: Worth::ALL.map(|_| BinaryHeap::new()),
            scheduled: 0,
        }
    }

    pub(crate) fn schedule(&mut self, due: Instant, worth: Worth, task: T) {
        self.heaps[worth as usize].push(Reverse((due, self.scheduled, task)));
        self.scheduled += 1;
    }

    /// When the next task of this worth is due.
    pub(crate) fn next_due(&self, worth: Worth) -> Option<Instant> {
        let heap = &self.heaps[worth as usize];
        heap.peek().map(|Reverse((due, ..))| *due)
    }

    /// The next task that is due, of the worths that may be served now.
    pub(crate) fn take_due(
        &mut self,
        now: Instant,
        may: impl Fn(Worth) -> bool,
    ) -> Option<(Worth, T)> {
        let due = |worth: &Worth| self.next_due(*worth).is_some_and(|due| due <= now);
        let worth = Worth::ALL.into_iter().find(|one| due(one) && may(*one))?;
        let Reverse((_, _, task)) = self.heaps[worth as usize].pop()?;
        Some((worth, task))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_worth_more_goes_first_once_it_is_due() {
        let now = Instant::now();
        let soon = now + Duration::from_millis(1);
        let mut timers = Timers::new();
        timers.schedule(now, Worth::Unlikely, 1);
        timers.schedule(now, Worth::Likely, 2);
        timers.schedule(now, Worth::Likely, 3);
        timers.schedule(soon, Worth::Broadcast, 4);
        let mut take = |at, least| timers.take_due(at, |worth| worth <= least);
        assert_eq!(take(now, Worth::Unlikely), Some((Worth::Likely, 2)));
        assert_eq!(take(now, Worth::Required), None);
        assert_eq!(take(soon, Worth::Unlikely), Some((Worth::Broadcast, 4)));
        assert_eq!(take(soon, Worth::Unlikely), Some((Worth::Likely, 3)));
        assert_eq!(take(soon, Worth::Unlikely), Some((Worth::Unlikely, 1)));
        assert_eq!(timers.next_due(Worth::Likely), None);
    }
}
