//! What a resident does when a VIP comes to this host or leaves it: the kernel reports that, whoever
//! did it, and keepalived's events for the same moves then call for nothing more.

mod doubts;
mod hosts;
mod unit;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use doubts::Doubts;
pub use doubts::{Claimed, Found};
pub use hosts::{Hosts, MOST_OBSERVED, Outcome};
pub use unit::Unit;
use unit::{Member, Presence};

use crate::address::{InterfaceIndex, Mac, Prefix, Vip};
use crate::ask::{AskedFrom, Asker, MOST_PAIRS, Observed, Refusal, Subject as Asked, Transmit};
use crate::event::{Call, Event, Subject};
use crate::host::{Address, HostSnapshot, Link, Place, PlacedVip, Usability, asking_address};
use crate::wire::{Advert, ArpOperation, Frame, NdpMessage, Payload};

/// An announcement that has just begun picks up the VIPs of its unit that come within this time: a
/// manager adds them one by one. It is less than [`COME_WITHIN`], for which the announcement waits.
const PICKED_UP_WITHIN: Duration = Duration::from_millis(500);
/// keepalived's event for a move comes within this time; a later one is about something else.
const EVENT_WITHIN: Duration = Duration::from_secs(10);
/// How long an announcement that a move began waits for the unit's other VIPs.
pub const COME_WITHIN: Duration = Duration::from_secs(1);
/// Nothing is due before this.
const IDLE: Duration = Duration::from_secs(3600);

/// What VIPs did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// They came to this host: they are to be announced.
    Came,
    /// They are here, and hosts are heard that the last announcement did not reach.
    AreAskedFor,
    /// They left it: what the kernel remembers of another owner is to be purged.
    Left,
}

/// VIPs of one unit that moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The unit's name.
    pub unit: String,
    /// What they did.
    pub how: Move,
    /// The hosts to ask; those with a MAC were reported by the old owner.
    pub peers: BTreeMap<IpAddr, Option<Mac>>,
    /// The VIPs; of those that came, also the unit's VIPs that are yet to come.
    pub vips: Vec<PlacedVip>,
}

/// Whether VIPs that are here from the start have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtStart {
    /// They have: nobody else says so.
    Came,
    /// They were here before: keepalived's events are about them.
    Here,
}

/// What the kernel's reports have made of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// What it calls for was done when the kernel reported the moves of its VIPs.
    Done,
    /// The kernel has yet to report VIPs, which are announced then: it reports an IPv6 address without
    /// duplicate address detection some time after it was added.
    Begun,
    /// It calls for something else.
    New,
}

/// Late hosts lead to one announcement of a unit at most in this time.
const LATE_AGAIN: Duration = Duration::from_secs(5);
/// The most hosts that reports add to the late ones of a VIP.
const MOST_REPORTED: usize = 64;
/// How long a search for the owner of a claimed VIP lasts.
const SEARCH: Duration = Duration::from_secs(1);

/// Where the VIPs of some units are, as the kernel reports it.
#[derive(Debug, Default)]
pub struct Watch {
    units: BTreeMap<String, Unit>,
    /// The VIPs with each address, and their units.
    vips: BTreeMap<IpAddr, BTreeSet<(PlacedVip, String)>>,
    links: BTreeMap<InterfaceIndex, Link>,
    /// The kernel's entries for the VIPs, by prefix length: an interface can have an address twice.
    entries: BTreeMap<(IpAddr, InterfaceIndex), BTreeMap<u8, Usability>>,
    /// Whether a link may now have VIPs whose addresses are not all known.
    is_outdated: bool,
    /// The addresses of the interfaces whose addresses are all known, the VIPs included.
    own: BTreeMap<InterfaceIndex, BTreeMap<(IpAddr, u8), Usability>>,
    /// Counts the moves.
    moves: u64,
    /// The units with moves that were not taken.
    moved: BTreeSet<String>,
    /// Who was heard, for the announcements in progress, too.
    hosts: Rc<RefCell<Hosts>>,
    /// Hosts that announcements did not reach and that are heard, by VIP.
    late: BTreeMap<Vip, BTreeMap<IpAddr, Option<Mac>>>,
    /// When late hosts may be asked.
    late_from: Option<Instant>,
    /// Claims of other hosts.
    doubts: Doubts,
    /// The moves before the last event of each instance or group.
    before_event: BTreeMap<(bool, String), u64>,
}

impl Watch {
    /// Watches the VIPs of these units.
    #[must_use]
    pub fn new(units: BTreeMap<String, BTreeSet<PlacedVip>>) -> Self {
        let mut watch = Self::default();
        watch.set_units(units);
        watch
    }

    fn set_units(&mut self, units: BTreeMap<String, BTreeSet<PlacedVip>>) {
        let mut before = std::mem::take(&mut self.units);
        self.vips.clear();
        self.doubts.retain(|_, _| false);
        for (name, vips) in units {
            for placed in &vips {
                let with_its_address = self.vips.entry(placed.vip.ip()).or_default();
                with_its_address.insert((placed.clone(), name.clone()));
            }
            let mut unit = before.remove(&name).unwrap_or_default();
            unit.set_vips(vips);
            self.units.insert(name, unit);
        }
    }

    /// Watches the VIPs of these units from now on. Those that are here and were not watched have come.
    /// `host` is this host at this moment.
    pub fn units_are(
        &mut self,
        now: Instant,
        units: BTreeMap<String, BTreeSet<PlacedVip>>,
        host: &HostSnapshot,
    ) {
        self.set_units(units);
        self.host_is(now, host);
    }

    /// This host at the start.
    pub fn begin(&mut self, now: Instant, host: &HostSnapshot, at_start: AtStart) {
        self.host_is(now, host);
        if at_start == AtStart::Here {
            self.moved.clear();
            for unit in self.units.values_mut() {
                unit.nothing_moved();
            }
        }
    }

    /// What an announcement of these VIPs has to know of this host, if all of it is known here: the links
    /// that have them and those below, and their addresses.
    #[must_use]
    pub fn host_of(&self, vips: &[PlacedVip]) -> Option<HostSnapshot> {
        let on = vips.iter().flat_map(|placed| self.presence(placed).ready);
        let on: BTreeSet<_> = on.map(|(interface, _)| interface).collect();
        let lower = |on: &InterfaceIndex| self.links.get(on)?.lower;
        let all: BTreeSet<_> = on
            .iter()
            .copied()
            .chain(on.iter().filter_map(lower))
            .collect();
        let mut host = HostSnapshot::default();
        for interface in all {
            host.links.push(self.links.get(&interface)?.clone());
            let own = self.own.get(&interface)?.iter();
            host.addresses
                .extend(own.map(|((ip, prefix_len), usability)| Address {
                    ip: *ip,
                    interface,
                    prefix_len: *prefix_len,
                    usability: *usability,
                }));
        }
        Some(host)
    }

    /// The links that a VIP may come to, or be claimed on.
    pub fn links(&self) -> impl Iterator<Item = &Link> + '_ {
        self.links.values()
    }

    /// Whether [`Self::host_is`] is due: an address came to a link that was of no concern before.
    #[must_use]
    pub fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// `host` is this host at this moment.
    pub fn host_is(&mut self, now: Instant, host: &HostSnapshot) {
        self.is_outdated = false;
        let needed: Vec<_> = host
            .links
            .iter()
            .filter(|link| self.needs(link, host))
            .collect();
        let lower = needed.iter().filter_map(|link| host.lower(link));
        let known = needed.iter().copied().chain(lower);
        self.links = known.map(|link| (link.index, link.clone())).collect();
        self.own = self.links.keys().map(|on| (*on, BTreeMap::new())).collect();
        self.replace(now, &host.addresses);
    }

    /// Whether a VIP may come to an interface: to have asked for it before saves the time when it does.
    fn needs(&self, link: &Link, host: &HostSnapshot) -> bool {
        let mut vips = self.units.values().flat_map(Unit::vips);
        let own = host
            .addresses
            .iter()
            .filter(|own| own.interface == link.index);
        let subnets: Vec<_> = own.map(Prefix::of).collect();
        vips.any(|placed| {
            placed.place.is_link(link, host.lower(link)) && placed.place != Place::Anywhere
                || subnets
                    .iter()
                    .any(|subnet| subnet.contains(placed.vip.ip()))
        })
    }

    /// The VIPs.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.vips.keys().copied()
    }

    /// The units' names.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.units.keys().map(String::as_str)
    }

    /// Whether this host holds a VIP.
    #[must_use]
    pub fn holds(&self, placed: &PlacedVip) -> bool {
        self.presence(placed).is_held
    }

    /// The VIPs of a unit that are here and did not come since the start.
    #[must_use]
    pub fn here_before(&self, unit: &str) -> Vec<PlacedVip> {
        let unit = self.units.get(unit);
        unit.into_iter()
            .flat_map(Unit::here_before)
            .cloned()
            .collect()
    }

    /// What moved since the last call.
    pub fn take_moves(&mut self, now: Instant) -> Vec<Moved> {
        let mut moves = Vec::new();
        for name in std::mem::take(&mut self.moved) {
            let Some(unit) = self.units.get_mut(&name) else {
                continue;
            };
            let moved = |how, vips: Vec<_>| Moved {
                unit: name.clone(),
                how,
                peers: BTreeMap::new(),
                vips,
            };
            let left = unit.take_left();
            if !left.is_empty() {
                moves.push(moved(Move::Left, left));
            }
            let came = unit.take_came(now, PICKED_UP_WITHIN);
            if !came.is_empty() {
                moves.push(moved(Move::Came, came));
            }
        }
        if self.late_from.is_none_or(|from| from <= now) && !self.late.is_empty() {
            self.late_from = Some(now + LATE_AGAIN);
            moves.extend(self.take_late());
        }
        moves
    }

    /// The hosts that were heard on a link: see [`Hosts::on`].
    #[must_use]
    pub fn heard_on(&self, interface: InterfaceIndex, now: Instant) -> Vec<Observed> {
        self.hosts.borrow().on(interface, now)
    }

    /// The old owner of a VIP that is here reports a host that still sends there.
    pub fn reported(&mut self, vip: Vip, ip: IpAddr, mac: Mac) {
        let late = self.late.entry(vip).or_default();
        if late.len() < MOST_REPORTED {
            late.insert(ip, Some(mac));
        }
    }

    /// The announcement in progress does not ask these hosts about these VIPs.
    pub fn are_late(&mut self, vips: &[PlacedVip], peers: &BTreeMap<IpAddr, Option<Mac>>) {
        for placed in vips {
            self.late.entry(placed.vip).or_default().extend(peers);
        }
    }

    /// The VIPs of each unit that late hosts are to be asked about.
    fn take_late(&mut self) -> Vec<Moved> {
        let late = std::mem::take(&mut self.late);
        let mut moves = Vec::new();
        for (name, unit) in &self.units {
            let is_late = |placed: &&PlacedVip| late.contains_key(&placed.vip);
            let vips = unit.vips().filter(is_late).filter(|vip| self.holds(vip));
            let vips: Vec<_> = vips.cloned().collect();
            let peers = vips.iter().flat_map(|placed| &late[&placed.vip]);
            let peers = peers.map(|(ip, mac)| (*ip, *mac)).collect();
            if !vips.is_empty() {
                moves.push(Moved {
                    unit: name.clone(),
                    how: Move::AreAskedFor,
                    peers,
                    vips,
                });
            }
        }
        moves
    }

    /// What the kernel's reports since the last event of this instance or group have made of an event.
    /// `members` are the units that it is about. An event that was read late may be about a move after
    /// which there were others.
    pub fn progress(
        &mut self,
        now: Instant,
        event: &Event,
        call: Call,
        members: &[String],
    ) -> Progress {
        let subject = (event.of == Subject::Group, event.name.clone());
        let number = self.before_event.get(&subject).copied().unwrap_or(0);
        let before = (number, now.checked_sub(EVENT_WITHIN));
        let known = members.iter().map(|name| self.units.get(name));
        let known: Option<Vec<_>> = known.collect();
        // The kernel did not report what else this event is about.
        let known = known.unwrap_or_default();
        let all = || known.iter().flat_map(|unit| unit.presences());
        let comes = call == Call::Announce && event.state == "MASTER";
        let moves: Option<Vec<_>> = match call {
            Call::Announce if comes => all().map(|one| one.came_after(before)).collect(),
            Call::Announce => None,
            Call::Purge => all().map(|one| one.left_after(before)).collect(),
        };
        let last = moves.and_then(|moves| moves.into_iter().max());
        let is_in_time = |one: &Member| !one.is_ready() || one.came_after(before).is_some();
        if last.is_none() && comes && all().next().is_some() && all().all(is_in_time) {
            return Progress::Begun;
        }
        self.before_event
            .insert(subject, last.unwrap_or(self.moves));
        match last {
            Some(_) => Progress::Done,
            None => Progress::New,
        }
    }

    /// Adds the hosts that it hears to these.
    #[must_use]
    pub fn adding_to(self, hosts: Rc<RefCell<Hosts>>) -> Self {
        Self { hosts, ..self }
    }

    /// A host with this address and MAC spoke, about `target` if it asked for that.
    fn on_host(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        (ip, mac): (IpAddr, Mac),
        target: Option<IpAddr>,
    ) {
        if self.links.values().any(|link| link.mac == Some(mac)) {
            return;
        }
        let is_vip = |ip: IpAddr| self.vips.contains_key(&ip);
        let hosts = Rc::clone(&self.hosts);
        let most = MOST_PAIRS / self.vips.len().max(1);
        for vip in hosts.borrow_mut().take_late(now, interface, ip) {
            let late = self.late.entry(vip).or_default();
            if late.len() < most {
                late.entry(ip).or_default();
            }
        }
        let mut hosts = hosts.borrow_mut();
        match target {
            // A VIP's owner asks for a host that uses it.
            Some(target) if is_vip(ip) && !is_vip(target) => {
                hosts.mentioned(now, interface, target);
            }
            _ if is_vip(ip) => {}
            target => hosts.heard(now, interface, (ip, mac), target.is_some_and(is_vip)),
        }
    }

    /// Claims to compare with the kernel's entries: see [`Self::entry_is`].
    pub fn take_claims(&mut self, now: Instant) -> Vec<Claimed> {
        self.doubts.take_claims(now)
    }

    /// The kernel's entry for a claimed VIP has this MAC. If that is not the claim's, the link is asked.
    pub fn entry_is(&mut self, now: Instant, claimed: &Claimed, cached: Option<Mac>) {
        let subject = self.subject(claimed);
        self.doubts.compare(now, claimed, cached, subject);
    }

    /// Who has the VIPs whose claims were right, or in doubt.
    pub fn take_found(&mut self, now: Instant) -> Vec<Found> {
        self.doubts.take_found(now)
    }

    /// The question about a claim: from an address of this host, because it may have had the VIP until
    /// just now, and a probe without one could be the owner's.
    fn subject(&self, claimed: &Claimed) -> Option<Asked> {
        let (vip, interface) = (claimed.placed.vip, claimed.interface);
        let own = self.own.get(&interface)?.iter();
        let own = own.map(|((ip, prefix_len), usability)| Address {
            ip: *ip,
            interface,
            prefix_len: *prefix_len,
            usability: *usability,
        });
        let own: Vec<_> = own.collect();
        let ip = asking_address(own.iter(), vip, |ip| self.vips.contains_key(&ip))?;
        Some(Asked {
            vip,
            from: AskedFrom {
                mac: self.links.get(&interface)?.mac?,
                ip: Some(ip),
                // No echo tells anything here.
                seed: 0,
            },
            probes_from_address: true,
            own_macs: self.links.values().filter_map(|link| link.mac).collect(),
            unused: Vec::new(),
            wait: SEARCH,
        })
    }

    /// A host claims that `ip` is at `mac`.
    fn on_claim(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr, mac: Mac) {
        if let Some(placed) = self.claimed(interface, ip, mac) {
            self.doubts.on_claim(now, &placed, interface, mac);
        }
    }

    /// The VIP that another host claims to have at `mac`, if it may be on this link and is not here: of
    /// what is here, an announcement says what other hosts' claims mean.
    fn claimed(&self, interface: InterfaceIndex, ip: IpAddr, mac: Mac) -> Option<PlacedVip> {
        let (vips, link) = (self.vips.get(&ip)?, self.links.get(&interface)?);
        let is_own = self.links.values().any(|link| link.mac == Some(mac));
        if is_own || !mac.can_own() || vips.iter().any(|(placed, _)| self.holds(placed)) {
            return None;
        }
        let lower = link.lower.and_then(|lower| self.links.get(&lower));
        let mut there = vips.iter().map(|(placed, _)| placed);
        there
            .find(|placed| placed.place.is_link(link, lower))
            .cloned()
    }

    fn presence(&self, placed: &PlacedVip) -> Presence {
        let ip = placed.vip.ip();
        let on = (ip, InterfaceIndex(0))..=(ip, InterfaceIndex(u32::MAX));
        let mut presence = Presence::default();
        for ((_, interface), entries) in self.entries.range(on) {
            let Some(link) = self.links.get(interface) else {
                continue;
            };
            let lower = link.lower.and_then(|lower| self.links.get(&lower));
            if !placed.is_held_on(link, lower) {
                continue;
            }
            presence.is_held = true;
            // An announcement says what it is when another host has the address.
            let is_decided = entries.values().any(|one| *one != Usability::Tentative);
            if is_decided && link.carrier {
                presence.ready.insert((*interface, link.mac));
            }
        }
        presence
    }

    /// Looks again at the VIPs with these addresses.
    fn look_at(&mut self, now: Instant, addresses: impl IntoIterator<Item = IpAddr>) {
        for ip in addresses {
            let vips = self.vips.get(&ip).into_iter().flatten();
            for (placed, name) in vips {
                let presence = self.presence(placed);
                let step = (self.moves + 1, now);
                let unit = self.units.get_mut(name);
                if unit.is_some_and(|unit| unit.is_now(placed, &presence, step)) {
                    self.moves += 1;
                    self.moved.insert(name.clone());
                }
                if presence.is_held {
                    self.doubts.retain(|vip, _| vip != placed.vip);
                }
            }
        }
    }

    fn add(&mut self, address: &Address) {
        if let Some(own) = self.own.get_mut(&address.interface) {
            own.insert((address.ip, address.prefix_len), address.usability);
        }
        if self.vips.contains_key(&address.ip) {
            let entries = self.entries.entry((address.ip, address.interface));
            entries
                .or_default()
                .insert(address.prefix_len, address.usability);
        }
    }

    fn replace(&mut self, now: Instant, addresses: &[Address]) {
        self.entries.clear();
        self.own.values_mut().for_each(BTreeMap::clear);
        for address in addresses {
            self.add(address);
        }
        let all: Vec<_> = self.vips.keys().copied().collect();
        self.look_at(now, all);
    }

    fn look_on(&mut self, now: Instant, interface: InterfaceIndex) {
        let links = &self.links;
        let is_near = |on: &InterfaceIndex| {
            *on == interface
                || links
                    .get(on)
                    .is_some_and(|link| link.lower == Some(interface))
        };
        let there = self.entries.keys().filter(|(_, on)| is_near(on));
        let there: BTreeSet<_> = there.map(|(ip, _)| *ip).collect();
        self.look_at(now, there);
    }
}

impl Asker for Watch {
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        let (interface, frame) = self.doubts.poll_transmit(now)?;
        Some(Transmit {
            interface,
            frame,
            is_question: true,
            at: 0,
        })
    }

    fn sent(&mut self, now: Instant, _: &Transmit) {
        self.doubts.sent(now);
    }

    fn put_off(&mut self, _: Instant, _: &Transmit) {}

    fn over_budget(&mut self, now: Instant, _: &Transmit, until: Instant) {
        self.doubts.wait(now, until);
    }

    fn refused(&mut self, now: Instant, _: &Transmit, why: Refusal) {
        self.doubts.refused(now, why);
    }

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        match &frame.payload {
            Payload::Arp(arp) => {
                let (ip, mac) = (arp.sender_ip.into(), arp.sender_mac);
                let asks = arp.operation == ArpOperation::Request;
                self.on_host(
                    now,
                    interface,
                    (ip, mac),
                    asks.then_some(arp.target_ip.into()),
                );
                self.on_claim(now, interface, ip, mac);
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => {
                    let (ip, mac) = (ndp.source.into(), ns.source_lladdr.unwrap_or(frame.source));
                    self.on_host(now, interface, (ip, mac), Some(ns.target.into()));
                    self.on_claim(now, interface, ip, mac);
                }
                NdpMessage::Advertisement(na) => {
                    let mac = na.target_lladdr.unwrap_or(frame.source);
                    self.on_host(now, interface, (na.target.into(), mac), None);
                    self.on_claim(now, interface, na.target.into(), mac);
                }
            },
            Payload::Echo(_) | Payload::Mld(_) => {}
        }
        self.doubts.received(now, interface, frame);
    }

    fn advertised(&mut self, now: Instant, interface: InterfaceIndex, advert: &Advert) {
        let count = u32::try_from(advert.addresses.len()).unwrap_or(u32::MAX);
        for ip in &advert.addresses {
            if let Some(placed) = self.claimed(interface, *ip, advert.source) {
                self.doubts
                    .on_advert(now, &placed, interface, advert.source, count);
            }
        }
    }

    fn is_over(&self, _: Instant) -> bool {
        false
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let late = self.late_from.filter(|_| !self.late.is_empty());
        let due = self.doubts.next_deadline(now).into_iter().chain(late);
        due.min().unwrap_or(now + IDLE)
    }

    fn link(&self, interface: InterfaceIndex) -> Option<&Link> {
        self.links.get(&interface)
    }

    fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    fn unknown_link_of(&self, address: &Address) -> Option<InterfaceIndex> {
        if !self.vips.contains_key(&address.ip) {
            return None;
        }
        match self.links.get(&address.interface) {
            None => Some(address.interface),
            Some(link) => link.lower.filter(|lower| !self.links.contains_key(lower)),
        }
    }

    fn link_changed(&mut self, now: Instant, link: &Link) {
        let before = self.links.insert(link.index, link.clone());
        if before.as_ref() != Some(link) {
            self.look_on(now, link.index);
        }
    }

    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex) {
        self.links.remove(&interface);
        self.doubts.retain(|_, on| on != interface);
        self.hosts.borrow_mut().retain(|on| on != interface);
        self.own.remove(&interface);
        let gone = |(_, on): &(IpAddr, InterfaceIndex)| *on == interface;
        let there = self
            .entries
            .keys()
            .filter(|key| gone(key))
            .map(|(ip, _)| *ip);
        let there: BTreeSet<_> = there.collect();
        self.entries.retain(|key, _| !gone(key));
        self.look_at(now, there);
    }

    fn address_changed(&mut self, now: Instant, address: &Address) {
        let subnet = Prefix::of(address);
        let is_near = || self.vips.keys().any(|vip| subnet.contains(*vip));
        self.is_outdated |= !self.own.contains_key(&address.interface) && is_near();
        self.add(address);
        self.look_at(now, [address.ip]);
    }

    fn address_gone(&mut self, now: Instant, address: &Address) {
        if let Some(own) = self.own.get_mut(&address.interface) {
            own.remove(&(address.ip, address.prefix_len));
        }
        let key = (address.ip, address.interface);
        if let Some(entries) = self.entries.get_mut(&key) {
            entries.remove(&address.prefix_len);
            if entries.is_empty() {
                self.entries.remove(&key);
            }
            self.look_at(now, [address.ip]);
        }
    }

    fn addresses_are(&mut self, now: Instant, addresses: &[Address]) {
        self.replace(now, addresses);
    }
}

#[cfg(test)]
mod tests;
