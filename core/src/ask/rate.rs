//! The rate limit of sent frames.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// A token bucket. One that is one second deep lets at most `rate` × (1 + w) frames leave in any window
/// of `w` seconds.
///
/// It stores only when the bucket is full again ("virtual scheduling"): no timer, no fractions.
#[derive(Debug)]
pub struct Bucket {
    per_frame: Duration,
    depth: Duration,
    full_at: Instant,
}

impl Bucket {
    /// A full bucket for `rate` frames per second, one second deep.
    #[must_use]
    pub fn new(rate: NonZeroU32, now: Instant) -> Self {
        Self::with_depth(rate, rate.get(), now)
    }

    /// A full bucket for `rate` frames per second and bursts of `depth` frames.
    #[must_use]
    pub fn with_depth(rate: NonZeroU32, depth: u32, now: Instant) -> Self {
        // Rounded up, so that the rate is never exceeded.
        let nanos = 1_000_000_000_u32.div_ceil(rate.get());
        let per_frame = Duration::from_nanos(nanos.into());
        Self {
            per_frame,
            depth: per_frame * depth,
            full_at: now,
        }
    }

    /// When the next frame may leave.
    pub fn ready_at(&self) -> Instant {
        self.ready_above(0)
    }

    /// When the next frame may leave that must not take the last `reserve` tokens.
    pub(crate) fn ready_above(&self, reserve: u32) -> Instant {
        self.full_at + self.per_frame * reserve.saturating_add(1) - self.depth
    }

    /// Gives a token back.
    pub(crate) fn refund(&mut self, now: Instant) {
        self.full_at = (self.full_at - self.per_frame).max(now);
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

/// The budget of ARP frames on a link: at most a number of them in any second, as switches count.
///
/// Times are nanoseconds of a clock that all processes of the host share, because all share the budget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArpBudget {
    /// When the frames of the last second left, the oldest first.
    sent: VecDeque<u64>,
}

impl ArpBudget {
    /// The window: a second, and a little for a switch that sees the frames closer together than they
    /// left.
    pub const WINDOW: u64 = 1_020_000_000;

    /// A budget with these frames already used.
    #[must_use]
    pub fn used(sent: impl IntoIterator<Item = u64>) -> Self {
        let mut sent: Vec<_> = sent.into_iter().collect();
        sent.sort_unstable();
        Self { sent: sent.into() }
    }

    /// The frames that still count, the oldest first.
    pub fn frames(&self) -> impl Iterator<Item = u64> + '_ {
        self.sent.iter().copied()
    }

    /// Uses the budget for one frame.
    ///
    /// # Errors
    /// If `rate` frames left within the last second: when the next one may leave.
    pub fn take(&mut self, now: u64, rate: NonZeroU32) -> Result<(), u64> {
        // A time in the future is from another boot, or no time at all.
        self.sent
            .retain(|at| *at <= now && now - *at < Self::WINDOW);
        let rate = usize::try_from(rate.get()).unwrap_or(usize::MAX);
        if self.sent.len() >= rate {
            let frees = self.sent[self.sent.len() - rate];
            return Err(frees + Self::WINDOW);
        }
        self.sent.push_back(now);
        Ok(())
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

    #[test]
    fn a_reserve_is_left_for_others() {
        let start = Instant::now();
        let mut bucket = Bucket::with_depth(NonZeroU32::new(100).unwrap(), 10, start);
        let mut taken = 0;
        while bucket.ready_above(4) <= start && bucket.take(start) {
            taken += 1;
        }
        assert_eq!(taken, 6);
        bucket.refund(start);
        assert!(bucket.ready_above(4) <= start);
        let more = (0..100).filter(|_| bucket.take(start)).count();
        assert_eq!(more, 5);
    }

    #[test]
    fn no_second_has_more_arp_frames_than_the_budget() {
        let rate = NonZeroU32::new(15).unwrap();
        let mut budget = ArpBudget::default();
        let (mut now, mut sent) = (5_000_000_000, Vec::new());
        while sent.len() < 200 {
            match budget.take(now, rate) {
                Ok(()) => sent.push(now),
                Err(next) => {
                    assert!(next > now);
                    now = next;
                }
            }
            now += 1_000_000;
            budget = ArpBudget::used(budget.frames());
        }
        assert!(sent.windows(16).all(|of| of[15] - of[0] > 1_000_000_000));
        assert!(now < 5_000_000_000 + 14 * ArpBudget::WINDOW);
        // Times from the future count for nothing.
        let mut odd = ArpBudget::used([u64::MAX; 15]);
        assert_eq!(odd.take(now, rate), Ok(()));
    }
}
