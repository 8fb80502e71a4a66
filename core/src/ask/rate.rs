//! The rate limit of sent frames.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A token bucket, one second deep: in any window of `w` seconds at most `rate` × (1 + w)
/// frames leave.
///
/// It stores only when the bucket is full again ("virtual scheduling"): no timer, no fractions.
#[derive(Debug)]
pub struct Bucket {
    per_frame: Duration,
    depth: Duration,
    full_at: Instant,
}

impl Bucket {
    /// A full bucket for `rate` frames per second.
    #[must_use]
    pub fn new(rate: NonZeroU32, now: Instant) -> Self {
        // Rounded up, so that the rate is never exceeded.
        let nanos = 1_000_000_000_u32.div_ceil(rate.get());
        let per_frame = Duration::from_nanos(nanos.into());
        Self {
            per_frame,
            depth: per_frame * rate.get(),
            full_at: now,
        }
    }

    /// When the next frame may leave.
    pub fn ready_at(&self) -> Instant {
        self.full_at + self.per_frame - self.depth
    }

    /// Takes a token, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let ready = self.ready_at() <= now;
        if ready {
            self.full_at = self.full_at.max(now) + self.per_frame;
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_within(rate: u32, window: Duration) -> u32 {
        let start = Instant::now();
        let mut bucket = Bucket::new(NonZeroU32::new(rate).unwrap(), start);
        let (mut now, mut sent) = (start, 0);
        while now <= start + window {
            while bucket.take(now) {
                sent += 1;
            }
            now = bucket.ready_at();
        }
        sent
    }

    #[test]
    fn a_full_bucket_holds_one_second() {
        for rate in [1, 7, 15, 2000, 1_000_000] {
            assert_eq!(sent_within(rate, Duration::ZERO), rate);
        }
    }

    #[test]
    fn the_rate_is_never_exceeded() {
        for rate in [1, 7, 15, 2000] {
            assert!(sent_within(rate, Duration::from_secs(9)) <= rate * 10);
            assert!(sent_within(rate, Duration::from_secs(9)) >= rate * 10 - rate / 100 - 1);
        }
    }

    #[test]
    fn no_idle_time_saves_up_more_than_one_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(NonZeroU32::new(10).unwrap(), start);
        let later = start + Duration::from_secs(3600);
        let sent = (0..100).filter(|_| bucket.take(later)).count();
        assert_eq!(sent, 10);
    }
}
