//! The broadcast rounds: which frame leaves when.
//!
//! No second has more than nine ARP frames for a VIP, also if the rounds start over: with the five of
//! keepalived, that stays below the 15 at which Dynamic ARP Inspection shuts a port down.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::sources::Sources;
use super::{Claim, Mode};
use crate::address::InterfaceIndex;
use crate::wire::{Arp, Frame, Ndp, Report};

/// When each round begins, counted from the first. A quick ramp makes up for lost frames; then rounds
/// are a second and more apart, because Linux peers ignore an oblique request within `locktime` (1 s)
/// of an entry's last change, out to 10 s for ports that begin to forward late.
const ROUNDS: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(600),
    Duration::from_millis(1050),
    Duration::from_millis(2000),
    Duration::from_millis(4000),
    Duration::from_millis(7000),
    Duration::from_millis(10_000),
];
const COUNT: usize = ROUNDS.len();
/// The round that only asks for other owners, after the second of the ramp.
const PROBE_ROUND: usize = 4;
/// The gap between two frames while no other host is heard.
const BEAT: Duration = Duration::from_millis(250);
/// One in this many beats is a whole round.
const BEATS_A_ROUND: u32 = 8;

/// ARP frames of the rounds in any second, at most.
const MOST_ARP_A_SECOND: usize = 9;

/// When the last ARP frames of a VIP's rounds left.
#[derive(Clone, Debug, Default)]
pub(super) struct RecentArp(VecDeque<Instant>);

impl RecentArp {
    /// A frame left.
    pub(super) fn sent(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > MOST_ARP_A_SECOND {
            self.0.pop_front();
        }
    }

    /// Until when the next frame has to wait.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let first = self
            .0
            .front()
            .filter(|_| self.0.len() == MOST_ARP_A_SECOND)?;
        Some(*first + Duration::from_secs(1)).filter(|until| *until > now)
    }
}

/// A step of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A round, counted from 0.
    Round(usize),
    /// While no other host is heard, once the ramp is over: hosts that nobody knows may be quiet, and a
    /// port may begin to forward at any time.
    Beat(u32),
}

impl Step {
    /// The next step and the gap before it; `None` after the last.
    fn next(self, is_silent: bool) -> Option<(Duration, Self)> {
        match self {
            Self::Round(round) if is_silent && round >= PROBE_ROUND => Some((BEAT, Self::Beat(1))),
            Self::Round(round) => {
                let (this, next) = (ROUNDS.get(round)?, ROUNDS.get(round + 1)?);
                Some((next.saturating_sub(*this), Self::Round(round + 1)))
            }
            Self::Beat(beat) if is_silent => Some((BEAT, Self::Beat(beat + 1))),
            Self::Beat(_) => None,
        }
    }

    fn forms(self, is_ipv4: bool) -> &'static [Form] {
        use Form::{Advertisement, Census, ListenerReport, Oblique, Probe, Reply, Request};
        match (self, is_ipv4) {
            (Self::Round(PROBE_ROUND), _) => &[Probe],
            (Self::Round(0 | 1), true) => &[Request, Oblique, Reply],
            (Self::Round(2), true) => &[Request, Oblique],
            (Self::Round(3), true) => &[Request],
            (Self::Beat(beat), _) if beat % BEATS_A_ROUND != 0 => match is_ipv4 {
                true => &[Oblique],
                false => &[Advertisement, Census],
            },
            (_, true) => &[Request, Oblique, Reply, Probe],
            (_, false) => &[Advertisement, ListenerReport, Census, Probe],
        }
    }
}

/// A frame of the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Gratuitous ARP. Some hosts accept only one of the two forms (RFC 5944 §4.6, RFC 5227 §3).
    Request,
    Reply,
    /// For hosts that ignore gratuitous ARP.
    Oblique,
    /// An unsolicited neighbour advertisement.
    Advertisement,
    /// So that switches deliver solicitations for the VIP.
    ListenerReport,
    /// An echo to all IPv6 nodes: finds hosts.
    Census,
    /// Does another host have the VIP?
    Probe,
}

/// A step, and one of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RoundPlace {
    step: Step,
    frame: usize,
}

impl RoundPlace {
    pub(super) const FIRST: Self = Self {
        step: Step::Round(0),
        frame: 0,
    };

    pub(super) fn is_in_first_round(&self) -> bool {
        self.step == Step::Round(0)
    }
}

/// What leaves at a place of the rounds.
pub(super) struct Broadcast {
    /// The frame, and the interface that it leaves on, if this host can send it.
    pub(super) frame: Option<(InterfaceIndex, Frame)>,
    /// Whether answers may arrive.
    pub(super) is_question: bool,
    /// Whether another owner would answer it.
    pub(super) probes: bool,
    /// The gap to the next frame, and its place; `None` after the last.
    pub(super) next: Option<(Duration, RoundPlace)>,
}

impl Claim {
    /// What leaves at a place of the rounds. `is_silent`: no other host is heard. `census` is the
    /// frame of a census, unless another VIP's rounds have it.
    pub(super) fn broadcast(
        &self,
        place: RoundPlace,
        is_silent: bool,
        census: impl FnOnce(&Sources) -> Option<(InterfaceIndex, Frame)>,
    ) -> Option<Broadcast> {
        let (mac, on) = (self.mac()?, self.interface());
        if self.mode == Mode::Check {
            let is_census = place.frame == 0 && self.vip.ip().is_ipv6();
            let frame = match is_census {
                true => census(&self.sources),
                false => self.probe().map(|frame| (on, frame)),
            };
            return Some(Broadcast {
                frame,
                is_question: true,
                probes: !is_census,
                next: is_census.then_some((Duration::ZERO, RoundPlace { frame: 1, ..place })),
            });
        }
        let here = |frame| Some((on, frame));
        let forms = place.step.forms(self.vip.ip().is_ipv4());
        let form = *forms.get(place.frame)?;
        let following = place.step.next(is_silent);
        let next = match forms.get(place.frame + 1) {
            Some(_) => {
                let frame = place.frame + 1;
                Some((Duration::ZERO, RoundPlace { frame, ..place }))
            }
            None => following.map(|(gap, step)| (gap, RoundPlace { step, frame: 0 })),
        };
        let frame = match (form, self.vip.ip()) {
            (Form::Request, IpAddr::V4(vip)) => here(Arp::gratuitous_request(vip, mac)),
            (Form::Reply, IpAddr::V4(vip)) => here(Arp::gratuitous_reply(vip, mac)),
            (Form::Oblique, IpAddr::V4(vip)) => {
                let nobody = self.sources.nobody.unwrap_or(Ipv4Addr::BROADCAST);
                here(Arp::oblique_request(vip, mac, nobody))
            }
            (Form::Advertisement, IpAddr::V6(vip)) => {
                let router = self.link.forwards_ipv6;
                here(Ndp::unsolicited_advertisement(vip, mac, router))
            }
            (Form::ListenerReport, IpAddr::V6(address)) => {
                let source = self.sources.link_local.map(|(_, source)| source);
                source.and_then(|source| here(Report { source, address }.frame(mac)))
            }
            (Form::Census, _) => census(&self.sources),
            // A second owner that is probed from `::` answers to all nodes, and they follow it until
            // the next round: so the last round has no such probe.
            (Form::Probe, IpAddr::V6(_))
                if self.asking_address().is_none() && following.is_none() =>
            {
                None
            }
            (Form::Probe, _) => self.probe().and_then(here),
            _ => None,
        };
        let probes = form == Form::Probe;
        Some(Broadcast {
            frame,
            is_question: probes
                || matches!(form, Form::Oblique | Form::ListenerReport | Form::Census),
            probes,
            next,
        })
    }

    /// The frames of all rounds, at most.
    #[must_use]
    pub fn planned_frames(&self) -> usize {
        let forms = |round| Step::Round(round).forms(self.vip.ip().is_ipv4()).len();
        (0..COUNT).map(forms).sum()
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

    /// The steps from the first one, and when each begins.
    fn steps(is_silent: bool) -> impl Iterator<Item = (Duration, Step)> {
        let first = (Duration::ZERO, Step::Round(0));
        std::iter::successors(Some(first), move |(at, step)| {
            let (gap, next) = step.next(is_silent)?;
            Some((*at + gap, next))
        })
    }

    #[test]
    fn the_rounds_take_ten_seconds_and_are_a_second_apart_after_the_ramp() {
        let at: Vec<_> = steps(false).map(|(at, _)| at).collect();
        assert_eq!(at, ROUNDS);
        assert_eq!(at.last(), Some(&Claim::planned_time()));
        let apart = |from: usize| {
            at[from..]
                .windows(2)
                .all(|two| two[1] - two[0] >= Duration::from_millis(1100))
        };
        assert!(apart(PROBE_ROUND + 1));
        let round = steps(false).find(|(_, step)| *step == Step::Round(PROBE_ROUND + 1));
        assert!(round.unwrap().0 >= at[2] + Duration::from_millis(1100));
    }

    #[test]
    fn no_second_has_more_than_nine_arp_frames() {
        for is_silent in [false, true] {
            let frames: Vec<_> = steps(is_silent)
                .take(100)
                .flat_map(|(at, step)| step.forms(true).iter().map(move |_| at))
                .collect();
            let most = frames
                .iter()
                .map(|from| {
                    let within =
                        |at: &&Duration| (*from..*from + Duration::from_secs(1)).contains(at);
                    frames.iter().filter(within).count()
                })
                .max();
            assert_eq!(most, Some(9));
        }
    }

    #[test]
    fn eight_frames_update_entries_within_a_fifth_of_a_second() {
        let early = steps(false).take_while(|(at, _)| *at <= Duration::from_millis(200));
        let forms: Vec<_> = early.flat_map(|(_, step)| step.forms(true)).collect();
        assert_eq!(forms.len(), 8);
        assert!(!forms.contains(&&Form::Probe));
    }

    #[test]
    fn while_nobody_is_heard_a_frame_leaves_every_quarter_second_and_a_round_every_two() {
        let beats: Vec<_> = steps(true).skip(PROBE_ROUND + 1).take(33).collect();
        assert!(beats.windows(2).all(|two| two[1].0 - two[0].0 == BEAT));
        let whole: Vec<_> = beats
            .iter()
            .filter(|(_, step)| step.forms(true).contains(&Form::Reply))
            .map(|(at, _)| *at)
            .collect();
        assert!(
            whole
                .windows(2)
                .all(|two| two[1] - two[0] == Duration::from_secs(2))
        );
        assert_eq!(whole.len(), 4);
        let oblique = |(_, step): &(Duration, Step)| step.forms(true).contains(&Form::Oblique);
        assert!(beats.iter().all(oblique));
    }
}
