//! What is to be done, and when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Tasks in the order in which they fall due; of those due at the same moment, the one noted
/// first comes first. That is what interleaves the VIPs.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, u64, T)>>,
    noted: u64,
}

impl<T: Ord> Timers<T> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            noted: 0,
        }
    }

    pub(crate) fn note(&mut self, due: Instant, task: T) {
        self.heap.push(Reverse((due, self.noted, task)));
        self.noted += 1;
    }

    /// When the next task falls due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    /// Takes the next task, if it is due.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, task))| task)
    }
}
