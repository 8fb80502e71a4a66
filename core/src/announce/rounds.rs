//! When the broadcast rounds are.

use std::time::Duration;

/// The rounds' moments, from the first one. A quick ramp, for single lost frames; then rounds
/// more than 1.1 s apart, because Linux peers ignore an update within `locktime` (1 s) of the
/// last one, out to 10 s, for ports that begin to forward late.
const ROUNDS: [Duration; 8] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
    Duration::from_millis(7000),
    Duration::from_millis(10_000),
];

/// How many rounds there are.
pub(super) const COUNT: usize = ROUNDS.len();

/// How long the rounds take in all.
pub(super) const LENGTH: Duration = ROUNDS[COUNT - 1];

/// From round `round` (counted from 0) to the one after it; `None` after the last.
pub(super) fn gap_after(round: usize) -> Option<Duration> {
    ROUNDS
        .get(round + 1)
        .zip(ROUNDS.get(round))
        .map(|(next, this)| next.saturating_sub(*this))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_ramp_rounds_are_farther_apart_than_locktime() {
        let gaps: Vec<_> = (0..COUNT).map_while(gap_after).collect();
        assert_eq!(gaps.len(), COUNT - 1);
        let ramp = gaps
            .iter()
            .take_while(|gap| **gap < Duration::from_millis(1100));
        assert_eq!(ramp.count(), 3);
        assert!(
            gaps[3..]
                .iter()
                .all(|gap| *gap >= Duration::from_millis(1100))
        );
        assert_eq!(gaps.iter().sum::<Duration>(), LENGTH);
    }
}
