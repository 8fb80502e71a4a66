//! The hosts of each link that were heard: whom to ask once a VIP comes here. Askers are those that asked
//! for a VIP, or that a VIP's owner asked; they use it. Anybody can forge senders, so the memory is
//! bounded, and no other host takes an asker's place, nor does one that only a VIP's owner mentioned: it
//! asks for hosts that are gone, too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::Observed;

/// The most hosts to remember on a link.
pub const MOST_OBSERVED: usize = 4096;
/// The most askers among them.
const MOST_ASKERS: usize = MOST_OBSERVED / 2;
/// The most that only a VIP's owner mentioned.
const MOST_MENTIONED: usize = 256;
/// The most links.
const MOST_LINKS: usize = 64;
/// The most (VIP, peer) pairs whose question stayed without an answer. Each takes some 150 octets.
const MOST_SILENT: usize = 16_384;
/// A peer that an announcement did not reach is asked if it is heard within this time.
const LATE: Duration = Duration::from_secs(3600);
/// One that is silent then, too, is asked again after this time, and after twice as long each time: some
/// hosts speak and never answer.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// A host that was heard within this time is there.
const RECENT: Duration = Duration::from_secs(600);

/// Hosts of one kind, the least recently heard first to go.
#[derive(Clone, Debug, Default)]
struct Level {
    hosts: BTreeMap<IpAddr, (Option<Mac>, Instant)>,
    by_age: BTreeSet<(Instant, IpAddr)>,
}

impl Level {
    /// Whether it is known. If so, it was heard now.
    fn refresh(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>) -> bool {
        let Some((known, at)) = self.hosts.get_mut(&ip) else {
            return false;
        };
        self.by_age.remove(&(*at, ip));
        self.by_age.insert((now, ip));
        (*known, *at) = (mac.or(*known), now);
        true
    }

    fn insert(&mut self, now: Instant, ip: IpAddr, mac: Option<Mac>) {
        self.hosts.insert(ip, (mac, now));
        self.by_age.insert((now, ip));
    }

    fn remove(&mut self, ip: IpAddr) -> Option<Mac> {
        let (mac, at) = self.hosts.remove(&ip)?;
        self.by_age.remove(&(at, ip));
        mac
    }

    fn shrink_to(&mut self, most: usize) {
        while self.hosts.len() > most
            && let Some((_, ip)) = self.by_age.pop_first()
        {
            self.hosts.remove(&ip);
        }
    }

    /// The most recently heard first.
    fn all(&self, now: Instant, asks: bool) -> impl Iterator<Item = Observed> + '_ {
        self.by_age.iter().rev().map(move |(at, ip)| Observed {
            ip: *ip,
            mac: self.hosts.get(ip).and_then(|(mac, _)| *mac),
            asks,
            is_recent: now.saturating_duration_since(*at) <= RECENT,
        })
    }
}

/// A peer that an announcement did not reach.
#[derive(Clone, Debug)]
struct Silent {
    /// The VIPs of the announcement that have the peer: one that may not exist was asked about the first
    /// alone.
    vips: Rc<[Vip]>,
    /// How long that counts.
    until: Instant,
    /// When it may be asked, if it is heard.
    ask_from: Instant,
    /// The gap after that.
    gap: Duration,
}

/// What an announcement found of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered.
    Reached,
    /// It did not.
    Silent,
    /// It did not, and was asked because it had been silent before.
    SilentAgain,
}

/// The hosts of one link.
#[derive(Clone, Debug, Default)]
struct OnLink {
    askers: Level,
    /// A VIP's owner asked for them, and they were not heard.
    mentioned: Level,
    others: Level,
}

/// The hosts of all links.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    heard: BTreeMap<InterfaceIndex, OnLink>,
    /// The peers of VIPs here that an announcement did not reach, by link, peer and VIP.
    silent: BTreeMap<(InterfaceIndex, IpAddr, IpAddr), Silent>,
    /// Until then none of them expires.
    all_silent_until: Option<Instant>,
}

impl OnLink {
    fn shrink_others(&mut self) {
        let taken = self.askers.hosts.len() + self.mentioned.hosts.len();
        self.others.shrink_to(MOST_OBSERVED - taken);
    }
}

impl Hosts {
    /// A host was heard, and `asks` for a VIP or not.
    pub(super) fn heard(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        (ip, mac): (IpAddr, Mac),
        asks: bool,
    ) {
        let Some(on) = self.on_link(interface, ip).filter(|_| mac.is_unicast()) else {
            return;
        };
        let OnLink {
            askers,
            mentioned,
            others,
        } = on;
        if askers.refresh(now, ip, Some(mac)) {
            return;
        }
        let was_mentioned = mentioned.hosts.contains_key(&ip);
        if asks || was_mentioned {
            mentioned.remove(ip);
            others.remove(ip);
            askers.insert(now, ip, Some(mac));
            askers.shrink_to(MOST_ASKERS);
        } else if !others.refresh(now, ip, Some(mac)) {
            others.insert(now, ip, Some(mac));
        }
        on.shrink_others();
    }

    /// A VIP's owner asked for a host.
    pub(super) fn mentioned(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr) {
        let Some(on) = self.on_link(interface, ip) else {
            return;
        };
        if let Some(mac) = on.others.remove(ip) {
            on.askers.insert(now, ip, Some(mac));
            on.askers.shrink_to(MOST_ASKERS);
        } else if !on.askers.hosts.contains_key(&ip) && !on.mentioned.refresh(now, ip, None) {
            on.mentioned.insert(now, ip, None);
            on.mentioned.shrink_to(MOST_MENTIONED);
        }
        on.shrink_others();
    }

    /// Where to remember a host, if it can be one and there is room.
    fn on_link(&mut self, interface: InterfaceIndex, ip: IpAddr) -> Option<&mut OnLink> {
        let is_one = !ip.is_unspecified() && !ip.is_multicast();
        let has_room = self.heard.contains_key(&interface) || self.heard.len() < MOST_LINKS;
        (is_one && has_room).then(|| self.heard.entry(interface).or_default())
    }

    /// Forgets the hosts of links that are gone.
    pub(super) fn retain(&mut self, is_it: impl Fn(InterfaceIndex) -> bool) {
        self.heard.retain(|interface, _| is_it(*interface));
        self.silent.retain(|(interface, ..), _| is_it(*interface));
    }

    /// An announcement ended that asked a peer about the first of these VIPs. The hour of one that was
    /// silent before does not begin again: who forges hosts could have them asked without end.
    pub fn answered(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        (vips, peer): (&Rc<[Vip]>, IpAddr),
        outcome: Outcome,
    ) {
        let Some(first) = vips.first() else { return };
        let key = (interface, peer, first.ip());
        match outcome {
            Outcome::Reached => {
                self.silent.remove(&key);
                return;
            }
            Outcome::SilentAgain => return,
            Outcome::Silent => {}
        }
        if self.silent.contains_key(&key) || self.has_room_for_silent(now) {
            let silent = Silent {
                vips: Rc::clone(vips),
                until: now + LATE,
                ask_from: now,
                gap: ASK_AGAIN,
            };
            self.silent.insert(key, silent);
        }
    }

    fn has_room_for_silent(&mut self, now: Instant) -> bool {
        let may_expire = self.all_silent_until.is_none_or(|until| until <= now);
        if self.silent.len() >= MOST_SILENT && may_expire {
            self.silent.retain(|_, silent| now < silent.until);
            self.all_silent_until = self.silent.values().map(|silent| silent.until).min();
        }
        self.silent.len() < MOST_SILENT
    }

    /// The VIPs that a host that is heard now is to be asked about, as far as they are here, because their
    /// announcement did not reach it.
    pub(super) fn take_late(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Vec<Vip> {
        const LEAST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let about_it = self.silent.range_mut((interface, ip, LEAST)..);
        let about_it = about_it.take_while(|((on, peer, _), _)| (*on, *peer) == (interface, ip));
        let mut due = Vec::new();
        for (_, silent) in about_it {
            if now < silent.until && silent.ask_from <= now {
                (silent.ask_from, silent.gap) = (now + silent.gap, silent.gap * 2);
                due.extend(silent.vips.iter());
            }
        }
        due
    }

    /// The hosts of a link: askers first, then those that a VIP's owner mentioned, and then who was heard
    /// last.
    #[must_use]
    pub fn on(&self, interface: InterfaceIndex, now: Instant) -> Vec<Observed> {
        let Some(on) = self.heard.get(&interface) else {
            return Vec::new();
        };
        let askers = on.askers.all(now, true);
        askers
            .chain(on.mentioned.all(now, true))
            .chain(on.others.all(now, false))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETH: InterfaceIndex = InterfaceIndex(2);

    fn ip(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn mac(number: u32) -> Mac {
        let [_, a, b, c] = number.to_be_bytes();
        Mac::new([2, 0, 0, a, b, c])
    }

    #[test]
    fn a_flood_of_forged_senders_evicts_no_asker_and_takes_bounded_memory() {
        let start = Instant::now();
        let mut hosts = Hosts::default();
        for number in 1..=100 {
            hosts.heard(start, ETH, (ip(number), mac(number)), true);
        }
        for number in 1000..100_000 {
            let now = start + Duration::from_micros(number.into());
            hosts.heard(now, ETH, (ip(number), mac(number)), false);
        }
        let all = hosts.on(ETH, start);
        assert_eq!(all.len(), MOST_OBSERVED);
        assert!(all[..100].iter().all(|one| one.asks));
        assert!(all[100..].iter().all(|one| !one.asks));
        // The least recently heard have gone.
        assert_eq!(all[100].ip, ip(99_999));
        for number in 200_000..300_000 {
            hosts.heard(start, ETH, (ip(number), mac(number)), true);
        }
        let all = hosts.on(ETH, start);
        assert_eq!(all.len(), MOST_OBSERVED);
        assert_eq!(all.iter().filter(|one| one.asks).count(), MOST_ASKERS);
    }

    #[test]
    fn a_flood_of_mentions_evicts_no_asker_and_one_that_is_heard_is_an_asker() {
        let start = Instant::now();
        let mut hosts = Hosts::default();
        for number in 1..=100 {
            hosts.heard(start, ETH, (ip(number), mac(number)), true);
        }
        for number in 1000..100_000 {
            hosts.mentioned(start, ETH, ip(number));
        }
        let all = hosts.on(ETH, start);
        assert_eq!(all.len(), 100 + MOST_MENTIONED);
        assert!(all[..100].iter().all(|one| one.mac.is_some()));
        assert!(all[100..].iter().all(|one| one.mac.is_none()));
        hosts.heard(start, ETH, (ip(99_999), mac(1)), false);
        let all = hosts.on(ETH, start);
        assert_eq!(all.len(), 100 + MOST_MENTIONED);
        let heard = all.iter().find(|one| one.ip == ip(99_999)).unwrap();
        assert_eq!((heard.mac, heard.asks), (Some(mac(1)), true));
    }

    #[test]
    fn a_peer_that_was_silent_is_late_for_an_hour() {
        let start = Instant::now();
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let alone = Rc::from([vip]);
        let mut hosts = Hosts::default();
        hosts.answered(start, ETH, (&alone, ip(1)), Outcome::Silent);
        hosts.answered(start, ETH, (&alone, ip(2)), Outcome::Reached);
        hosts.answered(start, ETH, (&alone, ip(3)), Outcome::Silent);
        assert_eq!(hosts.take_late(start, ETH, ip(1)), [vip]);
        for number in [1, 2] {
            assert_eq!(hosts.take_late(start, ETH, ip(number)), []);
        }
        assert_eq!(hosts.take_late(start + LATE, ETH, ip(3)), []);
        for number in 0..100_000 {
            hosts.answered(start, ETH, (&alone, ip(number)), Outcome::Silent);
        }
        assert_eq!(hosts.silent.len(), MOST_SILENT);
        hosts.answered(start, ETH, (&alone, ip(5)), Outcome::Reached);
        assert_eq!(hosts.take_late(start, ETH, ip(5)), []);
        // What has expired makes room.
        hosts.answered(start, ETH, (&alone, ip(100_000)), Outcome::Silent);
        let later = start + LATE;
        for _ in 0..2 {
            hosts.answered(later, ETH, (&alone, ip(100_001)), Outcome::Silent);
        }
        assert_eq!(hosts.silent.len(), 1);
        let other: Vip = "10.0.0.11".parse().unwrap();
        // One that may not exist was asked about the first of its VIPs alone.
        let both = Rc::from([other, vip]);
        hosts.answered(later, ETH, (&both, ip(1)), Outcome::Silent);
        assert_eq!(hosts.take_late(later, ETH, ip(1)), [other, vip]);
    }

    #[test]
    fn one_that_speaks_and_never_answers_is_asked_less_and_less_often() {
        let start = Instant::now();
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let alone = Rc::from([vip]);
        let mut hosts = Hosts::default();
        hosts.answered(start, ETH, (&alone, ip(1)), Outcome::Silent);
        let mut asked = Vec::new();
        for second in 0..7200 {
            let now = start + Duration::from_secs(second);
            if !hosts.take_late(now, ETH, ip(1)).is_empty() {
                asked.push(second / 60);
                hosts.answered(now, ETH, (&alone, ip(1)), Outcome::SilentAgain);
            }
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31]);
    }

    #[test]
    fn a_run_for_late_hosts_that_ends_after_their_hour_does_not_begin_it_again() {
        let start = Instant::now();
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let alone = Rc::from([vip]);
        let mut hosts = Hosts::default();
        hosts.answered(start, ETH, (&alone, ip(1)), Outcome::Silent);
        let last = start + LATE - Duration::from_secs(1);
        assert_eq!(hosts.take_late(last, ETH, ip(1)), [vip]);
        let later = start + LATE + Duration::from_secs(10);
        hosts.answered(later, ETH, (&alone, ip(1)), Outcome::SilentAgain);
        assert_eq!(hosts.take_late(later, ETH, ip(1)), []);
        // Its silence in a new announcement counts.
        hosts.answered(later, ETH, (&alone, ip(1)), Outcome::Silent);
        assert_eq!(hosts.take_late(later, ETH, ip(1)), [vip]);
    }

    #[test]
    fn what_is_heard_later_adds_to_what_is_known() {
        let start = Instant::now();
        let mut hosts = Hosts::default();
        hosts.heard(start, ETH, (ip(1), mac(1)), false);
        // A VIP's owner asks for it.
        hosts.mentioned(start, ETH, ip(1));
        let later = start + RECENT + Duration::from_secs(1);
        let known = hosts.on(ETH, later);
        assert_eq!(
            (known.len(), known[0].mac, known[0].asks),
            (1, Some(mac(1)), true)
        );
        assert!(!known[0].is_recent);
        hosts.heard(later, ETH, (ip(1), mac(2)), false);
        let known = hosts.on(ETH, later);
        assert_eq!((known[0].mac, known[0].is_recent), (Some(mac(2)), true));
        for nobody in ["0.0.0.0", "::", "224.0.0.1"] {
            let nobody = nobody.parse().unwrap();
            hosts.heard(later, ETH, (nobody, mac(9)), true);
            hosts.mentioned(later, ETH, nobody);
        }
        assert_eq!(hosts.on(ETH, later).len(), 1);
        hosts.retain(|_| false);
        assert_eq!(hosts.on(ETH, later), []);
    }
}
