//! The broadcast rounds: which frame leaves when.

use std::net::IpAddr;
use std::time::Duration;

use super::{Claim, Mode};
use crate::wire::{Arp, Frame, Ndp};

/// When each round begins, counted from the first. A quick ramp makes up for single lost frames;
/// then rounds are more than 1.1 s apart, because Linux peers ignore an update within `locktime`
/// (1 s) of the last one, out to 10 s for ports that begin to forward late.
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

const COUNT: usize = ROUNDS.len();

/// The gap after a round (counted from 0); `None` after the last.
fn gap_after(round: usize) -> Option<Duration> {
    let (this, next) = (ROUNDS.get(round)?, ROUNDS.get(round + 1)?);
    Some(next.saturating_sub(*this))
}

/// A round, and one of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundPlace {
    round: usize,
    frame: usize,
}

impl RoundPlace {
    pub(super) const FIRST: Self = Self { round: 0, frame: 0 };
}

/// A frame of the rounds.
pub(super) struct Broadcast {
    pub(super) frame: Frame,
    /// Whether another owner would answer it.
    pub(super) is_question: bool,
    /// The gap to the next frame, and its place; `None` after the last.
    pub(super) next: Option<(Duration, RoundPlace)>,
}

impl Claim {
    /// The frame at a place of the rounds.
    pub(super) fn broadcast(&self, place: RoundPlace) -> Option<Broadcast> {
        let mac = self.mac()?;
        if self.mode == Mode::Check {
            return Some(Broadcast {
                frame: self.probe()?,
                is_question: true,
                next: None,
            });
        }
        let router = self.link.forwards_ipv6;
        let following = gap_after(place.round);
        let probes = match self.vip.ip() {
            IpAddr::V4(_) => true,
            // A second owner that is probed from `::` answers to all nodes, and they follow it until
            // the next round: so the last round has no such probe.
            IpAddr::V6(_) => self.asking_address.is_some() || following.is_some(),
        };
        let (frame, announcements) = match (self.vip.ip(), place.frame) {
            // Some hosts accept only one of the two forms (RFC 5944 §4.6, RFC 5227 §3).
            (IpAddr::V4(vip), 0) => (Arp::gratuitous_request(vip, mac), 2),
            (IpAddr::V4(vip), 1) => (Arp::gratuitous_reply(vip, mac), 2),
            (IpAddr::V4(_), _) => (self.probe()?, 2),
            (IpAddr::V6(vip), 0) => (Ndp::unsolicited_advertisement(vip, mac, router), 1),
            (IpAddr::V6(_), _) => (self.probe()?, 1),
        };
        let next = if place.frame + 1 >= announcements + usize::from(probes) {
            let round = place.round + 1;
            following.map(|gap| (gap, RoundPlace { round, frame: 0 }))
        } else {
            let frame = place.frame + 1;
            Some((Duration::ZERO, RoundPlace { frame, ..place }))
        };
        Some(Broadcast {
            frame,
            is_question: place.frame == announcements,
            next,
        })
    }

    /// The frames of all rounds; one less leaves for an IPv6 VIP on a host without another address.
    #[must_use]
    pub fn planned_frames(&self) -> usize {
        let per_round = if self.vip.ip().is_ipv4() { 3 } else { 2 };
        COUNT * per_round
    }

    /// How long the rounds take.
    #[must_use]
    pub fn planned_time() -> Duration {
        ROUNDS[COUNT - 1]
    }
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
        assert_eq!(gaps.iter().sum::<Duration>(), Claim::planned_time());
    }
}
