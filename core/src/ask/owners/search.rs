//! Asks for a VIP on a link: who answers, and who they are where their answers do not tell.
//!
//! Frames are lost, answers too. An owner that was not heard may be there all the same: probes are
//! sent until chance no longer explains its silence, given how many of them the owner that is heard
//! best has answered.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::identity::Identity;
use super::{AskedFrom, Claimants, VipVerdict};
use crate::address::{Mac, Vip};
use crate::ask::{LAST_ANSWER, PROBES_WITHOUT_LOSS, Refusal, probes_to_rule_out_chance};
use crate::wire::{Arp, ArpOperation, Frame, Ndp, NdpMessage, Payload};

/// Between two probes: within a second, as many leave as it takes where half of the frames are
/// lost both ways.
const GAP: Duration = Duration::from_millis(12);

/// What a search is about, and where it asks from.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The VIP.
    pub vip: Vip,
    /// Where it is asked from.
    pub from: AskedFrom,
    /// Whether probes come from that address, too, instead of 0.0.0.0 or `::`.
    pub probes_from_address: bool,
    /// The MACs of this host's interfaces, which are no other owners.
    pub own_macs: BTreeSet<Mac>,
    /// Addresses of the VIP's subnet that nobody has: who answers for them is a proxy.
    pub unused: Vec<IpAddr>,
    /// How long each of the two, owners and who they are, is asked for.
    pub wait: Duration,
}

/// One VIP, asked for on one link.
#[derive(Clone, Debug)]
pub struct OwnerSearch {
    subject: Subject,
    end_at: Instant,
    next_probe: Instant,
    last_probe: Option<Instant>,
    probes: u32,
    answers: Claimants,
    claimed: bool,
    refusal: Option<Refusal>,
    identity: Option<Identity>,
}

impl OwnerSearch {
    /// Asks who has the VIP, from now on.
    #[must_use]
    pub fn new(subject: Subject, now: Instant) -> Self {
        Self {
            end_at: now + subject.wait,
            subject,
            next_probe: now,
            last_probe: None,
            probes: 0,
            answers: Claimants::default(),
            claimed: false,
            refusal: None,
            identity: None,
        }
    }

    /// Asks only whether some MACs that claim the VIP are proxies.
    #[must_use]
    pub fn for_proxies(subject: Subject, claimants: &[Mac], now: Instant) -> Self {
        let mut search = Self::new(subject, now);
        search.end_at = now;
        let mut identity = search.identity(PROBES_WITHOUT_LOSS, now);
        for mac in claimants {
            identity.ask_for_unused(*mac, &search.subject.unused, now);
        }
        search.identity = Some(identity);
        search
    }

    fn identity(&self, enough: u32, now: Instant) -> Identity {
        let Subject {
            vip, from, wait, ..
        } = self.subject;
        Identity::new(vip, from, enough, wait, now)
    }

    /// Asks who they are that answered, where that does not tell: this host sends frames for the VIP
    /// to `cached`.
    pub fn identify(&mut self, cached: Option<Mac>, now: Instant) {
        let mut identity = self.identity(self.probes_to_rule_out_chance(), now);
        let unused = &self.subject.unused;
        match (self.verdict(cached), cached) {
            (VipVerdict::Stale, Some(cached)) if cached.is_unicast() => {
                identity.ask_for_vip(cached, now);
                for (owner, _) in self.answers() {
                    identity.introduce(owner, now);
                }
                identity.ask_for_echo(cached, now);
                identity.ask_for_unused(cached, unused, now);
            }
            (VipVerdict::Conflict, _) => {
                for (mac, _) in self.answers() {
                    identity.introduce(mac, now);
                    identity.ask_for_echo(mac, now);
                    identity.ask_for_unused(mac, unused, now);
                }
            }
            _ => {}
        }
        self.identity = Some(identity);
    }

    /// The frame that may leave now.
    #[must_use]
    pub fn poll_transmit(&self, now: Instant) -> Option<Frame> {
        if let Some(identity) = &self.identity {
            return identity.poll_transmit(now);
        }
        let Subject { vip, from, .. } = self.subject;
        let (ip, mac) = (self.probes_from(), from.mac);
        (self.wants_to_ask(now) && self.next_probe <= now).then(|| match (vip.ip(), ip) {
            (IpAddr::V4(vip), Some(IpAddr::V4(ip))) => Arp::directed_request(ip, mac, vip, None),
            (IpAddr::V4(vip), _) => Arp::probe(vip, mac),
            (IpAddr::V6(vip), Some(IpAddr::V6(ip))) => Ndp::probe(vip, mac, Some(ip)),
            (IpAddr::V6(vip), _) => Ndp::probe(vip, mac, None),
        })
    }

    fn probes_from(&self) -> Option<IpAddr> {
        let Subject { vip, from, .. } = self.subject;
        let any = vip.ip().is_ipv6() || self.subject.probes_from_address;
        from.ip.filter(|_| any)
    }

    /// The frame left.
    pub fn sent(&mut self, now: Instant) {
        if let Some(identity) = &mut self.identity {
            return identity.sent(now, true);
        }
        self.probes += 1;
        self.last_probe = Some(now);
        self.next_probe = now + GAP;
    }

    /// The frame could not leave; it is tried again.
    pub fn refused(&mut self, now: Instant, why: Refusal) {
        if let Some(identity) = &mut self.identity {
            return identity.sent(now, false);
        }
        self.refusal = Some(why);
        self.next_probe = now + GAP;
    }

    /// Nothing more can be asked, and why.
    pub fn end(&mut self, now: Instant, why: Refusal) {
        self.refusal = Some(why);
        self.end_at = now;
        self.identity = None;
    }

    /// A frame came in on the interface.
    pub fn received(&mut self, now: Instant, frame: &Frame) {
        if let Some(identity) = &mut self.identity {
            return identity.received(frame);
        }
        let Subject { vip, from, .. } = self.subject;
        let to_us = frame.destination == from.mac;
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match frame.payload {
            Payload::Arp(arp) if IpAddr::V4(arp.sender_ip) == vip.ip() => {
                let answers = arp.operation == ArpOperation::Reply
                    && IpAddr::V4(arp.target_ip) == self.probes_from().unwrap_or(nobody)
                    && arp.target_mac == from.mac
                    && to_us;
                self.on_claim(now, arp.sender_mac, answers);
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Advertisement(na) if IpAddr::V6(na.target) == vip.ip() => {
                    let answers = match self.probes_from() {
                        Some(ip) => na.solicited && IpAddr::V6(ndp.destination) == ip && to_us,
                        // The answer to duplicate address detection goes to all nodes.
                        None => !na.solicited && ndp.destination.is_multicast(),
                    };
                    self.on_claim(now, na.target_lladdr.unwrap_or(frame.source), answers);
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn on_claim(&mut self, now: Instant, mac: Mac, answers: bool) {
        if self.subject.own_macs.contains(&mac) || !mac.is_unicast() {
            return;
        }
        if !answers {
            self.claimed = true;
        } else if self.probes > 0 {
            self.answers.heard(now, mac);
        }
    }

    /// Whether the silence of others is no chance any more.
    fn is_certain(&self) -> bool {
        self.probes >= self.probes_to_rule_out_chance()
    }

    fn probes_to_rule_out_chance(&self) -> u32 {
        let best_heard = self.answers().map(|(_, count)| count).max();
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
        match &self.identity {
            Some(identity) => identity.is_over(now),
            None => {
                let answered = self.last_answer_until().is_none_or(|until| until <= now);
                !self.wants_to_ask(now) && answered
            }
        }
    }

    /// When to look again if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        match &self.identity {
            Some(identity) => identity.next_deadline(now),
            None if self.wants_to_ask(now) => self.next_probe.min(self.end_at),
            None => self.last_answer_until().unwrap_or(now),
        }
    }

    /// The VIP.
    #[must_use]
    pub fn vip(&self) -> Vip {
        self.subject.vip
    }

    /// Where it is asked from.
    #[must_use]
    pub fn from(&self) -> AskedFrom {
        self.subject.from
    }

    /// The MACs that answered, and how often.
    pub fn answers(&self) -> impl Iterator<Item = (Mac, u32)> + '_ {
        self.answers.present().map(|(mac, one)| (mac, one.count))
    }

    /// Answers by more MACs than are remembered.
    #[must_use]
    pub fn more_answers(&self) -> u64 {
        self.answers.more()
    }

    /// The probes that left.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// All frames that left.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.probes + self.identity.as_ref().map_or(0, Identity::frames)
    }

    /// Why the last frame that could not leave was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether somebody said unasked that it has the VIP.
    #[must_use]
    pub fn heard_a_claim(&self) -> bool {
        self.claimed
    }

    /// The MAC that answered for the VIP when `to` itself was asked for it.
    #[must_use]
    pub fn answered_for_vip(&self, to: Mac) -> Option<Mac> {
        self.identity.as_ref()?.answered_for_vip(to)
    }

    /// The MAC that the echo from the VIP came from when it was asked for behind `to`.
    #[must_use]
    pub fn echoed(&self, to: Mac) -> Option<Mac> {
        self.identity.as_ref()?.echoed(to)
    }

    /// Whether a MAC answers for addresses that nobody has.
    #[must_use]
    pub fn is_proxy(&self, mac: Mac) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| identity.is_proxy(mac))
    }

    /// What the answers mean, where this host sends frames for the VIP to `cached`.
    #[must_use]
    pub fn verdict(&self, cached: Option<Mac>) -> VipVerdict {
        let mut answers = self.answers();
        match (answers.next(), answers.next()) {
            _ if self.answers.has_second_owner(false) => VipVerdict::Conflict,
            (_, Some(_)) => VipVerdict::Unproven,
            _ if !self.is_certain() => VipVerdict::Unproven,
            (None, None) => VipVerdict::Unowned,
            (Some((owner, _)), None) => match cached {
                Some(cached) if cached != owner => VipVerdict::Stale,
                _ => VipVerdict::Ok,
            },
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

    fn search(vip: Vip, from: Option<IpAddr>, own_macs: &[Mac], now: Instant) -> OwnerSearch {
        let subject = Subject {
            vip,
            from: AskedFrom {
                mac: OWN,
                ip: from,
                identifier: 7,
            },
            probes_from_address: false,
            own_macs: own_macs.iter().copied().collect(),
            unused: Vec::new(),
            wait: WAIT,
        };
        OwnerSearch::new(subject, now)
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
        let mut search = search(vip, from, &[OWN], start);
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
        let mut search = search(vip("10.0.0.10"), None, &[OWN], start);
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
        let mut search = search(asked, None, &[OWN, B], now);
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
            let mut asked = search(vip("fd00::10"), from, &[OWN], now);
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
