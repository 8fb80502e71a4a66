//! Who answers for a VIP that is not here: what to ask and when, and what the answers mean.
//!
//! Frames are lost, answers too. An owner that was not heard may be there all the same: so many
//! probes are sent that chance does not explain its silence, judged by how many of them the owner
//! that is heard best has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{LAST_ANSWER, Refusal, probes_to_rule_out_chance};
use crate::address::{Mac, Vip};
use crate::wire::{Arp, ArpOperation, Frame, Ndp, NdpMessage, Payload};

/// Between two probes: within a second, as many leave as it takes where half of the frames are
/// lost both ways.
const GAP: Duration = Duration::from_millis(12);

/// What was found out about a VIP, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VipVerdict {
    /// Two or more hosts have the VIP.
    Conflict,
    /// It could not be asked for.
    Failed,
    /// Nobody has it.
    Unowned,
    /// One host has it, and this one, or a peer, sends to another.
    Stale,
    /// Too few answers to tell.
    Unproven,
    /// One host has it, and nothing that was heard contradicts that.
    Ok,
}

impl VipVerdict {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Unowned => "unowned",
            Self::Stale => "stale",
            Self::Unproven => "unproven",
            Self::Ok => "ok",
        }
    }
}

/// What one MAC answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answers {
    count: u32,
    first: Instant,
    last: Instant,
}

/// One VIP, asked for on one interface.
#[derive(Clone, Debug)]
pub struct OwnerSearch {
    vip: Vip,
    mac: Mac,
    /// The own address that the VIP is asked for from; `None`: from 0.0.0.0 or `::`.
    from: Option<IpAddr>,
    own_macs: BTreeSet<Mac>,
    end_at: Instant,
    next_probe: Instant,
    last_probe: Option<Instant>,
    probes: u32,
    answers: BTreeMap<Mac, Answers>,
    claimed: bool,
    refusal: Option<Refusal>,
}

impl OwnerSearch {
    /// Asks for `vip` as `mac`, from an address of this host or from none, for `wait` at most.
    /// `own_macs`, those of this host's interfaces, are no owners.
    #[must_use]
    pub fn new(
        vip: Vip,
        mac: Mac,
        from: Option<IpAddr>,
        own_macs: BTreeSet<Mac>,
        wait: Duration,
        now: Instant,
    ) -> Self {
        Self {
            vip,
            mac,
            from,
            own_macs,
            end_at: now + wait,
            next_probe: now,
            last_probe: None,
            probes: 0,
            answers: BTreeMap::new(),
            claimed: false,
            refusal: None,
        }
    }

    /// The probe that may leave now.
    #[must_use]
    pub fn poll_transmit(&self, now: Instant) -> Option<Frame> {
        let from_v6 = match self.from {
            Some(IpAddr::V6(from)) => Some(from),
            _ => None,
        };
        (self.wants_to_ask(now) && self.next_probe <= now).then(|| {
            match (self.vip.ip(), self.from) {
                (IpAddr::V4(vip), Some(IpAddr::V4(from))) => {
                    Arp::directed_request(from, self.mac, vip, None)
                }
                (IpAddr::V4(vip), _) => Arp::probe(vip, self.mac),
                (IpAddr::V6(vip), _) => Ndp::probe(vip, self.mac, from_v6),
            }
        })
    }

    /// The probe left.
    pub fn sent(&mut self, now: Instant) {
        self.probes += 1;
        self.last_probe = Some(now);
        self.next_probe = now + GAP;
    }

    /// The probe could not leave; it is tried again.
    pub fn refused(&mut self, now: Instant, why: Refusal) {
        self.refusal = Some(why);
        self.next_probe = now + GAP;
    }

    /// A frame came in on the interface.
    pub fn received(&mut self, now: Instant, frame: &Frame) {
        let to_us = frame.destination == self.mac;
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match frame.payload {
            Payload::Arp(arp) if IpAddr::V4(arp.sender_ip) == self.vip.ip() => {
                let answers = arp.operation == ArpOperation::Reply
                    && IpAddr::V4(arp.target_ip) == self.from.unwrap_or(nobody)
                    && arp.target_mac == self.mac
                    && to_us;
                self.on_answer(now, arp.sender_mac, answers);
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Advertisement(na) if IpAddr::V6(na.target) == self.vip.ip() => {
                    let answers = match self.from {
                        Some(from) => na.solicited && IpAddr::V6(ndp.destination) == from && to_us,
                        // The answer to duplicate address detection goes to all nodes.
                        None => !na.solicited && ndp.destination.is_multicast(),
                    };
                    self.on_answer(now, na.target_lladdr.unwrap_or(frame.source), answers);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn on_answer(&mut self, now: Instant, mac: Mac, answers: bool) {
        if self.own_macs.contains(&mac) || !mac.is_unicast() {
            return;
        }
        if !answers {
            self.claimed = true;
        } else if self.probes > 0 {
            let known = self.answers.entry(mac).or_insert(Answers {
                count: 0,
                first: now,
                last: now,
            });
            known.count += 1;
            known.last = now;
        }
    }

    /// Whether so many probes left that nobody who answers went unheard by chance.
    fn is_certain(&self) -> bool {
        self.probes >= self.enough()
    }

    /// So many questions are not lost all by chance, as far as the answers so far tell.
    pub fn enough(&self) -> u32 {
        let best_heard = self.answers.values().map(|answers| answers.count).max();
        probes_to_rule_out_chance(best_heard.unwrap_or(0), self.probes)
    }

    fn wants_to_ask(&self, now: Instant) -> bool {
        now < self.end_at && !self.is_certain()
    }

    fn last_answer_until(&self) -> Option<Instant> {
        self.last_probe.map(|at| at + LAST_ANSWER)
    }

    /// Whether nothing more is asked, and no answer can come any more.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        !self.wants_to_ask(now) && self.last_answer_until().is_none_or(|until| until <= now)
    }

    /// When to look again if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        if self.wants_to_ask(now) {
            self.next_probe.min(self.end_at)
        } else {
            self.last_answer_until().unwrap_or(now)
        }
    }

    /// The MACs that answered, and how often.
    pub fn answers(&self) -> impl Iterator<Item = (Mac, u32)> + '_ {
        self.answers.iter().map(|(mac, heard)| (*mac, heard.count))
    }

    /// The probes that left.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// Why the last probe that could not leave was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether somebody said unasked that it has the VIP.
    #[must_use]
    pub fn heard_a_claim(&self) -> bool {
        self.claimed
    }

    /// What the answers mean, where this host sends frames for the VIP to `cached`.
    #[must_use]
    pub fn verdict(&self, cached: Option<Mac>) -> VipVerdict {
        let heard: Vec<_> = self.answers.values().collect();
        // One after the other is a VIP that moved; in turns, two that hold it.
        let in_turns = heard.iter().enumerate().any(|(at, one)| {
            let others = &heard[at + 1..];
            others
                .iter()
                .any(|other| one.first <= other.last && other.first <= one.last)
        });
        match self.answers.keys().next() {
            _ if in_turns => VipVerdict::Conflict,
            _ if heard.len() > 1 || !self.is_certain() => VipVerdict::Unproven,
            None => VipVerdict::Unowned,
            Some(owner) if cached.is_none_or(|cached| cached == *owner) => VipVerdict::Ok,
            Some(_) => VipVerdict::Stale,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::RngExt as _;
    use proptest::test_runner::{RngAlgorithm, TestRng};

    use super::*;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);
    const WAIT: Duration = Duration::from_secs(1);

    fn vip(text: &str) -> Vip {
        text.parse().unwrap()
    }

    fn answer_to(probe: &Frame, owner: Mac) -> Frame {
        let payload = match probe.payload {
            Payload::Arp(arp) => Payload::Arp(Arp {
                operation: ArpOperation::Reply,
                sender_mac: owner,
                sender_ip: arp.target_ip,
                target_mac: arp.sender_mac,
                target_ip: arp.sender_ip,
            }),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => Payload::Ndp(Ndp {
                    source: ns.target,
                    destination: ndp.source,
                    message: NdpMessage::Advertisement(crate::wire::Advertisement {
                        router: false,
                        solicited: true,
                        override_cached: true,
                        target: ns.target,
                        target_lladdr: Some(owner),
                    }),
                }),
                NdpMessage::Advertisement(_) => unreachable!("a probe asks"),
            },
            Payload::Echo(_) => unreachable!("a probe is no echo"),
        };
        Frame {
            destination: probe.source,
            source: owner,
            payload,
        }
    }

    /// Plays an search to its end. `gets_through(owner)` says for each probe whether that owner's
    /// answer arrives.
    fn play(
        vip: Vip,
        owners: &[Mac],
        mut gets_through: impl FnMut(&OwnerSearch, Mac) -> bool,
    ) -> (OwnerSearch, Duration) {
        let start = Instant::now();
        let from = vip.ip().is_ipv6().then(|| "fd00::1".parse().unwrap());
        let mut search = OwnerSearch::new(vip, OWN, from, [OWN].into(), WAIT, start);
        let mut now = start;
        while !search.is_over(now) {
            if let Some(probe) = search.poll_transmit(now) {
                search.sent(now);
                for (owner, delay) in owners.iter().zip(1..) {
                    if gets_through(&search, *owner) {
                        let heard = now + Duration::from_micros(delay);
                        search.received(heard, &answer_to(&probe, *owner));
                    }
                }
            }
            now = search.next_deadline(now).max(now);
        }
        (search, now - start)
    }

    #[test]
    fn without_loss_twelve_probes_are_enough() {
        for text in ["10.0.0.10", "fd00::10"] {
            for (owners, cached, verdict) in [
                (&[A][..], None, VipVerdict::Ok),
                (&[A], Some(A), VipVerdict::Ok),
                (&[A], Some(B), VipVerdict::Stale),
                (&[A, B], Some(A), VipVerdict::Conflict),
                (&[A, B], None, VipVerdict::Conflict),
            ] {
                let (search, lasted) = play(vip(text), owners, |_, _| true);
                assert_eq!(search.verdict(cached), verdict);
                assert_eq!(search.probes(), 12);
                assert!(lasted < Duration::from_millis(400), "{lasted:?}");
            }
        }
    }

    #[test]
    fn between_two_probes_there_is_a_gap_also_when_the_first_could_not_leave() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut search = OwnerSearch::new(vip("10.0.0.10"), OWN, None, [OWN].into(), WAIT, start);
        let asks = |search: &OwnerSearch, at| search.poll_transmit(at).is_some();
        assert!(asks(&search, start));
        search.sent(start);
        assert!(!asks(&search, after(11)) && asks(&search, after(12)));
        search.refused(after(12), Refusal::Other(String::new()));
        assert!(!asks(&search, after(23)) && asks(&search, after(24)));
        assert_eq!((search.probes(), search.refusal().is_some()), (1, true));
        assert_eq!(search.next_deadline(after(20)), after(24));
        assert_eq!(search.next_deadline(after(990)), after(24));
        assert!(!asks(&search, start + WAIT));
    }

    #[test]
    fn nobody_is_believed_to_be_there_only_after_many_probes() {
        let (search, lasted) = play(vip("10.0.0.10"), &[], |_, _| true);
        assert_eq!(
            (search.verdict(Some(A)), search.probes()),
            (VipVerdict::Unowned, 48)
        );
        assert!(lasted < WAIT);
        let (cut, _) = play(vip("10.0.0.10"), &[A], |asked, _| asked.probes() == 40);
        assert_eq!(
            cut.verdict(None),
            VipVerdict::Unproven,
            "heard late and seldom"
        );
    }

    #[test]
    fn a_vip_that_moved_meanwhile_is_no_conflict() {
        let (search, _) = play(vip("10.0.0.10"), &[A, B], |asked, owner| {
            (owner == A) == (asked.probes() < 5)
        });
        assert_eq!(search.verdict(Some(A)), VipVerdict::Unproven);
    }

    #[test]
    fn what_is_no_answer_to_this_inquiry_counts_for_nothing() {
        let now = Instant::now();
        let asked = vip("10.0.0.10");
        let mut search = OwnerSearch::new(asked, OWN, None, [OWN, B].into(), WAIT, now);
        let probe = search.poll_transmit(now).unwrap();
        let good = answer_to(&probe, A);
        search.received(now, &good);
        search.sent(now);
        search.received(now, &answer_to(&probe, B));
        search.received(now, &answer_to(&probe, Mac::BROADCAST));
        let mut other = good.clone();
        other.destination = A;
        search.received(now, &other);
        assert_eq!(search.answers().count(), 0);
        assert!(
            search.heard_a_claim(),
            "the last one claims it all the same"
        );
        search.received(now, &good);
        assert_eq!(search.answers().collect::<Vec<_>>(), [(A, 1)]);
    }

    #[test]
    fn an_advertisement_counts_only_as_the_answer_that_was_asked_for() {
        let now = Instant::now();
        let ip = |text: &str| text.parse::<Ipv6Addr>().unwrap();
        for (from, to, destination, solicited, target, counts, claims) in [
            (Some("fd00::1"), OWN, "fd00::1", true, "fd00::10", 1, false),
            (Some("fd00::1"), A, "fd00::1", true, "fd00::10", 0, true),
            (Some("fd00::1"), OWN, "fd00::2", true, "fd00::10", 0, true),
            (Some("fd00::1"), OWN, "fd00::1", false, "fd00::10", 0, true),
            (Some("fd00::1"), OWN, "fd00::1", true, "fd00::11", 0, false),
            (None, OWN, "ff02::1", false, "fd00::10", 1, false),
            (None, OWN, "ff02::1", true, "fd00::10", 0, true),
            (None, OWN, "fd00::1", false, "fd00::10", 0, true),
        ] {
            let from = from.map(ip);
            let from = from.map(IpAddr::V6);
            let mut asked = OwnerSearch::new(vip("fd00::10"), OWN, from, [OWN].into(), WAIT, now);
            asked.sent(now);
            let advertisement = Frame {
                destination: to,
                source: A,
                payload: Payload::Ndp(Ndp {
                    source: ip(target),
                    destination: ip(destination),
                    message: NdpMessage::Advertisement(crate::wire::Advertisement {
                        router: false,
                        solicited,
                        override_cached: true,
                        target: ip(target),
                        target_lladdr: Some(A),
                    }),
                }),
            };
            asked.received(now, &advertisement);
            let heard = (asked.answers().count(), asked.heard_a_claim());
            assert_eq!(heard, (counts, claims), "{advertisement:?}");
        }
    }

    /// Whatever share of the probes is answered: a verdict that is given is true.
    #[test]
    fn under_loss_no_verdict_is_wrong() {
        const RUNS: u32 = 20_000;
        let mut told_truly = 0;
        for run in 0..RUNS {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&run.to_be_bytes());
            let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            // From half of the frames lost both ways to none.
            let answered = rng.random_range(0.25..=1.0);
            let owners = [&[][..], &[A], &[A, B]][rng.random_range(0..3)];
            let cached = [None, Some(A), Some(B)][rng.random_range(0..3)];
            let (search, lasted) = play(vip("10.0.0.10"), owners, |_, _| rng.random_bool(answered));
            let truth = match (owners.len(), cached) {
                (0, _) => VipVerdict::Unowned,
                (1, None | Some(A)) => VipVerdict::Ok,
                (1, _) => VipVerdict::Stale,
                _ => VipVerdict::Conflict,
            };
            let told = search.verdict(cached);
            let true_or_none = told == truth || told == VipVerdict::Unproven;
            assert!(true_or_none, "run {run}: {told:?} for {truth:?}");
            assert!(lasted <= WAIT + LAST_ANSWER);
            told_truly += u32::from(told == truth);
        }
        assert!(told_truly > RUNS / 100 * 98, "{told_truly}");
    }
}
