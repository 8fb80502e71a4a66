//! Log limits: what an attacker can trigger is logged a few times a minute and counted beyond
//! that.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts events by kind, for a log line at most once a minute.
#[derive(Debug)]
pub struct LogLimiter<K> {
    counts: BTreeMap<K, u64>,
    logged: Option<Instant>,
}

impl<K> Default for LogLimiter<K> {
    fn default() -> Self {
        Self {
            counts: BTreeMap::new(),
            logged: None,
        }
    }
}

impl<K: Ord> LogLimiter<K> {
    /// Counts one event.
    pub fn count(&mut self, what: K) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// When to log the counts; `None` if there are none.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let due = self.logged.map_or(now, |logged| logged + MINUTE);
        (!self.counts.is_empty()).then_some(due)
    }

    /// The counts since the last log line, if the next one is due.
    pub fn take_due(&mut self, now: Instant) -> Option<BTreeMap<K, u64>> {
        self.due(now).filter(|due| *due <= now)?;
        self.logged = Some(now);
        Some(self.take())
    }

    /// The counts that were not logged yet.
    pub fn take(&mut self) -> BTreeMap<K, u64> {
        std::mem::take(&mut self.counts)
    }
}

/// Permits a number of events per minute or second.
#[derive(Debug)]
pub struct RateLimit {
    most: u32,
    per: Duration,
    left: u32,
    began: Option<Instant>,
}

impl RateLimit {
    /// At most `most` events a minute.
    #[must_use]
    pub fn a_minute(most: u32) -> Self {
        Self::new(most, MINUTE)
    }

    /// At most `most` events a second.
    #[must_use]
    pub fn a_second(most: u32) -> Self {
        Self::new(most, Duration::from_secs(1))
    }

    fn new(most: u32, per: Duration) -> Self {
        Self {
            most,
            per,
            left: most,
            began: None,
        }
    }

    /// Whether the last event of this time was taken.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Takes one event; `false` if none is left in this minute or second.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.began.is_none_or(|began| now >= began + self.per) {
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
    fn a_flood_is_logged_once_a_minute() {
        let start = Instant::now();
        let mut limiter = LogLimiter::default();
        let mut logged = Vec::new();
        assert_eq!(limiter.due(start), None);
        for millis in 0..130_000 {
            let now = start + Duration::from_millis(millis);
            limiter.count("junk");
            logged.extend(limiter.take_due(now).map(|counts| counts["junk"]));
        }
        assert_eq!(logged, [1, 60_000, 60_000]);
        assert_eq!(limiter.take()["junk"], 9_999);
    }

    #[test]
    fn a_rate_limit_starts_afresh_each_minute() {
        let start = Instant::now();
        let mut limit = RateLimit::a_minute(10);
        let mut taken = |seconds| {
            let now = start + Duration::from_secs(seconds);
            (0..100).filter(|_| limit.take(now)).count()
        };
        assert_eq!([taken(0), taken(59), taken(60)], [10, 0, 10]);
    }
}
