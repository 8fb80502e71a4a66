//! Scheduled tasks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// Tasks by due time, then in the order of scheduling. That order interleaves the VIPs.
#[derive(Debug)]
pub(crate) struct Timers<T> {
    heap: BinaryHeap<Reverse<(Instant, u64, T)>>,
    scheduled: u64,
}

impl<T: Ord> Timers<T> {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            scheduled: 0,
        }
    }

    pub(crate) fn schedule(&mut self, due: Instant, task: T) {
        self.heap.push(Reverse((due, self.scheduled, task)));
        self.scheduled += 1;
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((due, ..))| *due)
    }

    pub(crate) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, task))| task)
    }
}
