//! What is said of events that anybody may cause: at most so much a minute, and the rest as a
//! number.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts by what happened, told at most once a minute.
#[derive(Debug)]
pub struct LogLimiter<K> {
    counts: BTreeMap<K, u64>,
    told: Option<Instant>,
}

impl<K> Default for LogLimiter<K> {
    fn default() -> Self {
        Self {
            counts: BTreeMap::new(),
            told: None,
        }
    }
}

impl<K: Ord> LogLimiter<K> {
    /// It happened once more.
    pub fn count(&mut self, what: K) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// When the counts are to be told, if there are any.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.told.map_or(now, |told| told + MINUTE);
        (!self.counts.is_empty()).then_some(due)
    }

    /// The counts since the last time, if it is time to tell them.
    pub fn take_due(&mut self, now: Instant) -> Option<BTreeMap<K, u64>> {
        self.due(now).filter(|due| *due <= now)?;
        self.told = Some(now);
        Some(self.take())
    }

    /// What was not told yet.
    pub fn take(&mut self) -> BTreeMap<K, u64> {
        std::mem::take(&mut self.counts)
    }
}

/// So many times in a minute, and not more.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    left: u32,
    began: Option<Instant>,
}

impl RateLimit {
    /// At most this many a minute.
    #[must_use]
    pub fn a_minute(most: u32) -> Self {
        Self {
            most,
            left: most,
            began: None,
        }
    }

    /// Whether the last one of this minute was taken.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes one, if one is left in this minute.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now >= began + MINUTE) {
            self.began = Some(now);
            self.left = self.most;
        }
        let taken = self.left > 0;
        self.left -= u32::from(taken);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_a_million_times_is_told_once_a_minute() {
        let start = Instant::now();
        let mut tally = LogLimiter::default();
        let mut told = Vec::new();
        assert_eq!(tally.due(start), None);
        for millis in 0..130_000 {
            let now = start + Duration::from_millis(millis);
            tally.count("junk");
            told.extend(tally.take_due(now).map(|counts| counts["junk"]));
        }
        assert_eq!(told, [1, 60_000, 60_000]);
        assert_eq!(tally.take()["junk"], 9_999);
    }

    #[test]
    fn an_allowance_comes_back_with_the_minute() {
        let start = Instant::now();
        let mut allowance = RateLimit::a_minute(10);
        let mut taken = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter(|_| allowance.take(now)).count()
        };
        assert_eq!([taken(0), taken(59), taken(60)], [10, 0, 10]);
    }
}
