//! Finds the owners of a VIP on a link, and identifies them if their answers are ambiguous.
//!
//! Frames get lost, so a silent owner may exist. The search probes until chance no longer explains
//! such silence, given how many probes the most responsive owner answered.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::identity::Identity;
use super::{AskedFrom, Claimants, VipVerdict};
use crate::address::{Mac, Vip};
use crate::ask::{LAST_ANSWER, PROBES_WITHOUT_LOSS, Refusal, probes_to_rule_out_chance};
use crate::wire::{Arp, ArpOperation, Frame, Ndp, NdpMessage, Payload};

/// The gap between two probes: a second has room for as many as it takes where half of the frames are
/// lost in each direction.
const GAP: Duration = Duration::from_millis(12);
/// Unanswered IPv4 probes from 0.0.0.0 before the search asks from this host's address.
const ANONYMOUS: u32 = 12;

/// What to search for, and from where.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The VIP.
    pub vip: Vip,
    /// The source of all questions.
    pub from: AskedFrom,
    /// Whether all IPv4 probes come from that address instead of 0.0.0.0.
    pub probes_from_address: bool,
    /// The MACs of this host's interfaces: not owners.
    pub own_macs: BTreeSet<Mac>,
    /// Unused addresses of the VIP's subnet: only a proxy answers for them.
    pub unused: Vec<IpAddr>,
    /// How long the search may last, and then the identification.
    pub wait: Duration,
}

/// A search for the owners of one VIP on one link.
#[derive(Clone, Debug)]
pub struct OwnerSearch {
    subject: Subject,
    end_at: Instant,
    next_probe: Instant,
    last_probe: Option<Instant>,
    probes: u32,
    /// Whether IPv4 probes come from this host's address instead of 0.0.0.0.
    openly: bool,
    answers: Claimants,
    claimed: bool,
    refusal: Option<Refusal>,
    identity: Option<Identity>,
    ended: Option<&'static str>,
}

impl OwnerSearch {
    /// Begins a search.
    #[must_use]
    pub fn new(subject: Subject, now: Instant) -> Self {
        Self {
            end_at: now + subject.wait,
            openly: subject.probes_from_address,
            subject,
            next_probe: now,
            last_probe: None,
            probes: 0,
            answers: Claimants::default(),
            claimed: false,
            refusal: None,
            identity: None,
            ended: None,
        }
    }

    /// Only asks whether MACs that claim the VIP are proxies.
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

    /// Begins to identify the owners if their answers are ambiguous, and no more than
    /// [`MOST_CLAIMANTS`](crate::ask::MOST_CLAIMANTS). This host sends frames for the VIP
    /// to the MAC `cached`.
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
            // Who they are makes no difference if they are a flood.
            (VipVerdict::Conflict, _) if self.more_answers() > 0 => {}
            (VipVerdict::Conflict, _) => {
                for (mac, _) in self.answers() {
                    identity.introduce(mac, now);
                    identity.ask_for_echo(mac, now);
                    identity.ask_for_unused(mac, unused, now);
                }
            }
            // A proxy answers only such probes.
            _ if self.asks_for_suppression() => {
                for (mac, _) in self.answers() {
                    identity.ask_for_unused(mac, unused, now);
                }
            }
            _ => {}
        }
        self.identity = Some(identity);
    }

    fn asks_for_suppression(&self) -> bool {
        self.openly && !self.subject.probes_from_address
    }

    /// The next frame that may leave now.
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

    /// The source of probes.
    fn probes_from(&self) -> Option<IpAddr> {
        let Subject { vip, from, .. } = self.subject;
        from.ip.filter(|_| vip.ip().is_ipv6() || self.openly)
    }

    /// No frame may leave until then.
    pub(crate) fn wait(&mut self, now: Instant, until: Instant) {
        match &mut self.identity {
            Some(identity) => identity.wait(now, until),
            None => self.next_probe = until,
        }
    }

    /// The frame left.
    pub fn sent(&mut self, now: Instant) {
        if let Some(identity) = &mut self.identity {
            return identity.sent(now, true);
        }
        self.probes += 1;
        self.last_probe = Some(now);
        self.next_probe = now + GAP;
        // A switch with ARP suppression drops probes from 0.0.0.0.
        let nobody = self.answers().next().is_none();
        self.openly |= nobody && self.probes >= ANONYMOUS && self.subject.from.ip.is_some();
    }

    /// The frame could not leave: the search tries again.
    pub fn refused(&mut self, now: Instant, why: Refusal) {
        if let Some(identity) = &mut self.identity {
            return identity.sent(now, false);
        }
        self.refusal = Some(why);
        self.next_probe = now + GAP;
    }

    /// Ends the search early: no frame leaves any more, and what was not found out stays unproven.
    pub(super) fn end(&mut self, why: &'static str) {
        self.ended = Some(why);
        self.identity = None;
    }

    /// Why the search ended early, as a clause after the interface's name.
    #[must_use]
    pub fn ended(&self) -> Option<&'static str> {
        self.ended
    }

    /// The interface received a frame.
    pub fn received(&mut self, now: Instant, frame: &Frame) {
        if let Some(identity) = &mut self.identity {
            return identity.received(frame);
        }
        let Subject { vip, from, .. } = self.subject;
        let to_us = frame.destination == from.mac;
        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match frame.payload {
            Payload::Arp(arp) if IpAddr::V4(arp.sender_ip) == vip.ip() => {
                let target = IpAddr::V4(arp.target_ip);
                let answers = arp.operation == ArpOperation::Reply
                    && arp.target_mac == from.mac
                    // RFC 5227 §2.6: an answer may go to all.
                    && (to_us || !frame.destination.is_unicast())
                    && (target == nobody || self.openly && Some(target) == from.ip);
                self.on_claim(now, arp.sender_mac, answers);
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Advertisement(na) if IpAddr::V6(na.target) == vip.ip() => {
                    let answers = match self.probes_from() {
                        Some(ip) => na.solicited && IpAddr::V6(ndp.destination) == ip && to_us,
                        // Answers to duplicate address detection go to all nodes.
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
        if self.subject.own_macs.contains(&mac) || !mac.can_own() {
            return;
        }
        if !answers {
            self.claimed = true;
        } else if self.probes > 0 {
            self.answers.on_claim(now, mac);
        }
    }

    /// Whether there were enough probes to rule out another owner.
    fn is_certain(&self) -> bool {
        self.probes >= self.probes_to_rule_out_chance()
    }

    fn probes_to_rule_out_chance(&self) -> u32 {
        let best = self.answers().map(|(_, count)| count).max();
        probes_to_rule_out_chance(best.unwrap_or(0), self.probes)
    }

    fn wants_to_ask(&self, now: Instant) -> bool {
        now < self.end_at && self.ended.is_none() && !self.is_certain()
    }

    fn last_answer_until(&self) -> Option<Instant> {
        self.last_probe.map(|at| at + LAST_ANSWER)
    }

    /// Whether no question is left, and no answer can come.
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

    /// When to poll again if nothing happens earlier.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        match &self.identity {
            Some(identity) => identity.next_deadline(now),
            None if self.wants_to_ask(now) => self.next_probe.min(self.end_at),
            None => self.last_answer_until().unwrap_or(now),
        }
    }

    /// The source of its questions.
    #[must_use]
    pub fn from(&self) -> AskedFrom {
        self.subject.from
    }

    /// The MACs that answered, and how many times.
    pub fn answers(&self) -> impl Iterator<Item = (Mac, u32)> + '_ {
        self.answers.present().map(|(mac, one)| (mac, one.count))
    }

    /// Answers by MACs beyond [`MOST_CLAIMANTS`](crate::ask::MOST_CLAIMANTS).
    #[must_use]
    pub fn more_answers(&self) -> u64 {
        self.answers.more()
    }

    /// Sent probes.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.probes
    }

    /// All sent frames.
    #[must_use]
    pub fn frames(&self) -> u32 {
        self.probes + self.identity.as_ref().map_or(0, Identity::frames)
    }

    /// The last refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Whether a host claimed the VIP unsolicited.
    #[must_use]
    pub fn has_seen_claim(&self) -> bool {
        self.claimed
    }

    /// The MAC that answered a unicast request for the VIP to `to`.
    #[must_use]
    pub fn answered_for_vip(&self, to: Mac) -> Option<Mac> {
        self.identity.as_ref()?.answered_for_vip(to)
    }

    /// The MAC that answered an echo request to the VIP, sent to `to`.
    #[must_use]
    pub fn echoed(&self, to: Mac) -> Option<Mac> {
        self.identity.as_ref()?.echoed(to)
    }

    /// Whether a MAC answers for unused addresses.
    #[must_use]
    pub fn is_proxy(&self, mac: Mac) -> bool {
        let identity = self.identity.as_ref();
        identity.is_some_and(|identity| identity.is_proxy(mac))
    }

    /// The verdict. This host sends frames for the VIP to the MAC `cached`.
    #[must_use]
    pub fn verdict(&self, cached: Option<Mac>) -> VipVerdict {
        let mut answers = self.answers();
        match (answers.next(), answers.next()) {
            _ if self.ended.is_some() => VipVerdict::Unproven,
            _ if self.answers.has_second_owner(false) => VipVerdict::Conflict,
            (_, Some(_)) => VipVerdict::Unproven,
            _ if !self.is_certain() => VipVerdict::Unproven,
            (None, None) => VipVerdict::Unowned,
            (Some((proxy, _)), None) if self.asks_for_suppression() && self.is_proxy(proxy) => {
                VipVerdict::Unowned
            }
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
    use crate::ask::testing::{A, B, OWN, reply};

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
                seed: 7,
            },
            probes_from_address: false,
            own_macs: own_macs.iter().copied().collect(),
            unused: Vec::new(),
            wait: WAIT,
        };
        OwnerSearch::new(subject, now)
    }

    /// Plays a search to its end. `gets_through` decides for each probe and owner whether the answer
    /// arrives.
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
                        let then = now + Duration::from_micros(delay);
                        search.received(then, &reply(&probe, *owner));
                    }
                }
            }
            now = search.next_deadline(now).max(now);
        }
        (search, now - start)
    }

    /// The frames of an identification would leave with a MAC that is no more, and without it a stale
    /// entry may be the owner's second card.
    #[test]
    fn a_search_that_ended_early_asks_nothing_more_and_accuses_nobody() {
        const C: Mac = Mac::new([2, 0, 0, 0, 0, 0xc]);
        for (owners, verdict) in [
            (&[A][..], VipVerdict::Stale),
            (&[A, C], VipVerdict::Conflict),
        ] {
            let (mut search, _) = play(vip("10.0.0.10"), owners, |_, _| true);
            assert_eq!(search.verdict(Some(B)), verdict);
            let later = Instant::now() + WAIT;
            let mut identified = search.clone();
            identified.identify(Some(B), later);
            // Without an own address it can ask only a stale entry's MAC.
            let asks = identified.poll_transmit(later).is_some();
            assert_eq!(asks, verdict == VipVerdict::Stale);
            search.end("is gone");
            search.identify(Some(B), later);
            assert!(search.poll_transmit(later).is_none() && search.is_over(later));
            assert_eq!(search.verdict(Some(B)), VipVerdict::Unproven);
        }
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
    fn a_gap_follows_a_sent_probe_and_a_refused_one() {
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
    fn a_vip_is_unowned_only_after_many_probes() {
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
            "a late answer is too little"
        );
    }

    #[test]
    fn a_vip_that_moves_during_the_search_is_no_conflict() {
        let (search, _) = play(vip("10.0.0.10"), &[A, B], |asked, owner| {
            (owner == A) == (asked.probes() < 5)
        });
        assert_eq!(search.verdict(Some(A)), VipVerdict::Unproven);
    }

    #[test]
    fn only_answers_to_this_search_count() {
        let now = Instant::now();
        let asked = vip("10.0.0.10");
        let mut search = search(asked, None, &[OWN, B], now);
        let probe = search.poll_transmit(now).unwrap();
        let good = reply(&probe, A);
        search.received(now, &good);
        search.sent(now);
        search.received(now, &reply(&probe, B));
        search.received(now, &reply(&probe, Mac::BROADCAST));
        let mut other = good.clone();
        if let Payload::Arp(arp) = &mut other.payload {
            arp.target_mac = A;
        }
        search.received(now, &other);
        assert_eq!(search.answers().count(), 0);
        assert!(
            search.has_seen_claim(),
            "the last frame still claims the VIP"
        );
        search.received(now, &good);
        let mut to_all = good.clone();
        to_all.destination = Mac::BROADCAST;
        search.received(now, &to_all);
        assert_eq!(search.answers().collect::<Vec<_>>(), [(A, 2)]);
    }

    #[test]
    fn an_advertisement_counts_only_as_answer_to_the_solicitation() {
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
            let from = from.map(|from| IpAddr::V6(ip(from)));
            let mut asked = search(vip("fd00::10"), from, &[OWN], now);
            asked.sent(now);
            let solicitation = Ndp::probe(ip(target), to, Some(ip("fd00::1")));
            let mut advertisement = reply(&solicitation, A);
            if let Payload::Ndp(ndp) = &mut advertisement.payload
                && let NdpMessage::Advertisement(na) = &mut ndp.message
            {
                (ndp.destination, na.solicited) = (ip(destination), solicited);
            }
            asked.received(now, &advertisement);
            let result = (asked.answers().count(), asked.has_seen_claim());
            assert_eq!(result, (counts, claims), "{advertisement:?}");
        }
    }

    /// Whatever share of the probes gets answers, the verdict is true or `Unproven`.
    #[test]
    fn under_loss_no_verdict_is_wrong() {
        const RUNS: u32 = 20_000;
        let mut true_verdicts = 0;
        for run in 0..RUNS {
            let mut seed = [0; 32];
            seed[..4].copy_from_slice(&run.to_be_bytes());
            let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
            // From half of the frames lost in each direction to none.
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
            let verdict = search.verdict(cached);
            let true_or_none = verdict == truth || verdict == VipVerdict::Unproven;
            assert!(true_or_none, "run {run}: {verdict:?} for {truth:?}");
            assert!(lasted <= WAIT + LAST_ANSWER);
            true_verdicts += u32::from(verdict == truth);
        }
        assert!(true_verdicts > RUNS / 100 * 98, "{true_verdicts}");
    }
}
