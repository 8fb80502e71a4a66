//! Who still sends to a VIP that has left this host. Anybody on the link can forge such frames, so all
//! of it is bounded, and nothing but a line and a report follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::address::{InterfaceIndex, Mac, Prefix, Vip};
use crate::ask::{Asker, Listening, Refusal, Transmit};
use crate::host::{Address, HostSnapshot, Link, Place, PlacedVip, Usability};
use crate::wire::{Frame, Header, NdpMessage, Payload};

/// The most stragglers of one VIP.
pub const MOST_STRAGGLERS: usize = 64;
/// The most senders of one VIP that are not named yet: beyond, it is a flood.
const MOST_SENDERS: usize = 1024;
/// The same for all VIPs together.
const MOST_SENDERS_OF_ALL: usize = 16 * MOST_SENDERS;
/// The most addresses behind one MAC: a gateway's has many.
const MOST_ADDRESSES: usize = 4;
/// How many frames to a VIP are read of one MAC.
const ENOUGH_FRAMES: u64 = 64;
/// The same for all VIPs together.
const ENOUGH_FRAMES_OF_ALL: u64 = 4 * ENOUGH_FRAMES;
/// The most hosts that claim a VIP one after the other.
const MOST_OWNERS: usize = 4;
/// The most VIPs: the socket's filter compares each frame with them.
const MOST_VIPS: usize = 512;
/// Who still sends this long after the VIP left may not follow: the new owner has announced it four times.
const FOLLOWS_WITHIN: Duration = Duration::from_millis(1200);
/// After the first claim of each other host, at least this much.
const HANDED_OVER: Duration = Duration::from_millis(500);
/// One frame may have been on its way, or be the last before its sender learns. Who sends again so long
/// after the first does not follow.
const SENDS_AGAIN: Duration = Duration::from_millis(700);
/// The packets of a probe for who holds a VIP go no further than this.
const PROBE_TTL: u8 = 1;

/// A host that still sends to a VIP here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Straggler {
    /// The VIP.
    pub vip: Vip,
    /// Where its frame came in.
    pub interface: InterfaceIndex,
    /// The source of its packet.
    pub ip: IpAddr,
    /// The source of its frame.
    pub mac: Mac,
    /// How long before the VIP left.
    pub after: Duration,
}

/// A VIP that left.
#[derive(Debug)]
struct Left {
    placed: PlacedVip,
    since: Instant,
    until: Instant,
    /// The other hosts that were heard to claim it, and when each first did.
    owners: BTreeMap<Mac, Instant>,
    /// Where frames may come in.
    on: BTreeSet<InterfaceIndex>,
    /// This host's subnets there.
    subnets: Vec<Prefix>,
    /// Who sent frames to it since that is certain.
    frames: BTreeMap<(Mac, IpAddr), Sent>,
    /// How many of them were named.
    named: usize,
    /// The MACs that were well known at some time.
    were_well_known: BTreeSet<Mac>,
}

/// The frames of a sender.
#[derive(Clone, Copy, Debug)]
struct Sent {
    first: Instant,
    frames: u64,
    known: Known,
}

/// What is known of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// One more frame may make it certain.
    Little,
    /// It was named.
    Named,
    /// It may use this host as its router, which forwards its packets to the new owner rightly.
    MayBeRouted,
}

impl Left {
    /// From when on its frames count. `None` while nobody is heard to claim the VIP: its clients have
    /// nobody else to send to. Nor does the new owner of a virtual MAC claim it with another one.
    fn certain_from(&self) -> Option<Instant> {
        let claimed = self.owners.values().max()?;
        Some((self.since + FOLLOWS_WITHIN).max(*claimed + HANDED_OVER))
    }

    /// Whether a sender's frames may come to this host because it is the sender's router: the sender is
    /// in one of this host's subnets, and the VIP is not in that one.
    fn may_route(&self, sender: IpAddr) -> bool {
        let vip = self.placed.vip.ip();
        let of_sender = self.subnets.iter().filter(|subnet| subnet.contains(sender));
        let mut with_vip = of_sender.map(|subnet| subnet.contains(vip)).peekable();
        with_vip.peek().is_some() && !with_vip.any(|with_vip| with_vip)
    }

    /// The senders with a MAC, [`MOST_ADDRESSES`] at most.
    fn of_mac(&self, mac: Mac) -> impl Iterator<Item = &Sent> {
        // The least of all addresses.
        let from = (mac, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let frames = self.frames.range(from..);
        frames
            .take_while(move |((of, _), _)| *of == mac)
            .map(|(_, sent)| sent)
    }

    /// Whether a MAC needs no more frames, for now or for good.
    fn is_well_known(&self, mac: Mac, now: Instant) -> bool {
        let known = self.of_mac(mac).filter(|sent| sent.known != Known::Little);
        known.count() >= MOST_ADDRESSES || self.of_mac(mac).any(|sent| sent.is_enough(now))
    }

    /// Whether frames of further senders tell anything.
    fn is_open(&self, now: Instant) -> bool {
        self.certain_from().is_some_and(|from| from <= now)
            && self.frames.len() < MOST_SENDERS
            && self.named < MOST_STRAGGLERS
    }
}

impl Sent {
    /// From when on one more frame tells something.
    fn again_at(&self) -> Option<Instant> {
        (self.known == Known::Little).then(|| self.first + SENDS_AGAIN)
    }

    fn is_enough(&self, now: Instant) -> bool {
        self.frames >= ENOUGH_FRAMES && self.again_at().is_none_or(|again| now < again)
    }
}

/// The senders to all VIPs, counted as their frames come in: a flood makes no frame cost more.
#[derive(Debug, Default)]
struct Totals {
    senders: usize,
    of_mac: BTreeMap<Mac, Total>,
    /// The MACs of which all is known, and that sent so much to all VIPs that no more has to be received
    /// of them.
    too_much: BTreeSet<Mac>,
}

/// The senders with one MAC.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    senders: usize,
    /// Of how many little is known.
    little: usize,
    frames: u64,
}

impl Totals {
    fn is_full(&self) -> bool {
        self.senders >= MOST_SENDERS_OF_ALL
    }

    fn add(&mut self, mac: Mac, sent: &Sent) {
        self.senders += 1;
        let total = self.of_mac.entry(mac).or_default();
        total.senders += 1;
        total.little += usize::from(sent.known == Known::Little);
        total.frames += sent.frames;
        if total.little == 0 && total.frames >= ENOUGH_FRAMES_OF_ALL {
            self.too_much.insert(mac);
        } else {
            self.too_much.remove(&mac);
        }
    }

    /// Takes away what was added.
    fn remove(&mut self, mac: Mac, sent: &Sent) {
        let Some(total) = self.of_mac.get_mut(&mac) else {
            return;
        };
        self.senders -= 1;
        total.senders -= 1;
        total.little -= usize::from(sent.known == Known::Little);
        total.frames -= sent.frames;
        if total.senders == 0 {
            self.of_mac.remove(&mac);
            self.too_much.remove(&mac);
        }
    }
}

/// What to receive on an interface.
#[derive(Debug, Default)]
struct Wanted {
    listening: Listening,
    /// Whether anything happened since that may change it.
    is_stale: bool,
    /// When it may change though nothing happens.
    opens: Option<Instant>,
}

impl Wanted {
    fn holds(&self, now: Instant) -> bool {
        !self.is_stale && self.opens.is_none_or(|opens| now < opens)
    }
}

/// The VIPs that left, and who still sends to them.
#[derive(Debug, Default)]
pub struct Stragglers {
    left: BTreeMap<Vip, Left>,
    links: BTreeMap<InterfaceIndex, Link>,
    news: Vec<Straggler>,
    totals: Totals,
    /// When frames to a VIP come to count, and when they are received again of a sender that has sent
    /// enough for now.
    opens: BTreeSet<Instant>,
    wanted: BTreeMap<InterfaceIndex, Wanted>,
}

impl Stragglers {
    /// These VIPs left at `since`, unless `host` has them. Frames to them count until `until`.
    pub fn left(
        &mut self,
        since: Instant,
        until: Instant,
        vips: &[PlacedVip],
        host: &HostSnapshot,
    ) {
        for placed in vips {
            let on = near(placed, host);
            // It may also hold it as a real server of the new owner, which forwards all clients' packets.
            let is_here = host.addresses.iter().any(|own| own.ip == placed.vip.ip());
            if is_here || on.is_empty() || self.left.len() >= MOST_VIPS {
                continue;
            }
            for link in &on {
                self.links.insert(link.index, (*link).clone());
            }
            let left = Left {
                placed: placed.clone(),
                since,
                until,
                owners: BTreeMap::new(),
                on: on.iter().map(|link| link.index).collect(),
                subnets: subnets(&on, host),
                frames: BTreeMap::new(),
                named: 0,
                were_well_known: BTreeSet::new(),
            };
            self.forget(placed.vip);
            self.left.insert(placed.vip, left);
        }
    }

    /// The links where frames may come in.
    pub fn links(&self) -> impl Iterator<Item = &Link> + '_ {
        self.links.values()
    }

    /// The VIPs, and where frames to them may come in.
    pub fn places(&self) -> impl Iterator<Item = (Vip, InterfaceIndex)> + '_ {
        let all = self.left.iter();
        all.flat_map(|(vip, left)| left.on.iter().map(|on| (*vip, *on)))
    }

    /// Another run cares for a VIP.
    pub fn forget(&mut self, vip: Vip) {
        let Some(left) = self.left.remove(&vip) else {
            return;
        };
        for ((mac, _), sent) in &left.frames {
            self.totals.remove(*mac, sent);
        }
        self.all_may_change();
    }

    fn forget_all(&mut self, are: impl Fn(&Left) -> bool) {
        let gone = self.left.iter().filter(|(_, left)| are(left));
        let gone: Vec<Vip> = gone.map(|(vip, _)| *vip).collect();
        gone.into_iter().for_each(|vip| self.forget(vip));
    }

    /// What to receive may change on all interfaces.
    fn all_may_change(&mut self) {
        self.wanted.values_mut().for_each(|one| one.is_stale = true);
    }

    /// The stragglers that were found since the last call.
    pub fn take(&mut self) -> Vec<Straggler> {
        // The VIP may have come back meanwhile.
        let mut news = std::mem::take(&mut self.news);
        news.retain(|one| self.left.contains_key(&one.vip));
        news
    }

    fn listening(&self, now: Instant, interface: InterfaceIndex) -> Listening {
        let there = self.left.values();
        let there = there.filter(|left| left.on.contains(&interface));
        // Until then a busy host pays nothing.
        let open = there.filter(|left| left.is_open(now) && !self.totals.is_full());
        let open: Vec<&Left> = open.collect();
        let least = open.iter().min_by_key(|left| left.were_well_known.len());
        let from_all_but = least.map(|least| {
            let macs = least.were_well_known.iter();
            // What is well known as sender to one VIP may be news about another.
            let macs = macs.filter(|mac| open.iter().all(|left| left.is_well_known(**mac, now)));
            let owners = self.left.values().flat_map(|left| left.owners.keys());
            let all = macs.chain(&self.totals.too_much).chain(owners);
            all.copied().collect()
        });
        Listening {
            from_all_but,
            to: open.iter().map(|left| left.placed.vip.ip()).collect(),
            ..Listening::default()
        }
    }

    /// When more frames come to tell something.
    fn opens_after(&self, now: Instant) -> Option<Instant> {
        let mut later = self.opens.range((Bound::Excluded(now), Bound::Unbounded));
        later.next().copied()
    }

    fn on_claim(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr, mac: Mac) {
        let is_own = self.links.values().any(|link| link.mac == Some(mac));
        let Ok(vip) = Vip::try_from(ip) else { return };
        if let Some(left) = self.left.get_mut(&vip)
            && left.on.contains(&interface)
            && !is_own
            && mac.can_own()
            && left.owners.len() < MOST_OWNERS
            && !left.owners.contains_key(&mac)
        {
            left.owners.insert(mac, now);
            self.opens.extend(left.certain_from());
            self.all_may_change();
        }
    }

    /// This host may have an address again.
    fn may_be_back(&mut self, address: &Address) {
        let link = self.links.get(&address.interface);
        let is_it = |left: &Left| {
            let is_there = match link {
                Some(link) => {
                    let lower = link.lower.and_then(|lower| self.links.get(&lower));
                    left.placed.is_held_on(link, lower)
                }
                // keepalived has made a new interface.
                None => matches!(left.placed.place, Place::Vmac { .. }),
            };
            is_there && address.usability != Usability::DadFailed
        };
        if let Ok(vip) = Vip::try_from(address.ip)
            && self.left.get(&vip).is_some_and(is_it)
        {
            self.forget(vip);
        }
    }
}

/// The links where a VIP may have been.
fn near<'a>(placed: &PlacedVip, host: &'a HostSnapshot) -> Vec<&'a Link> {
    let links = host.links.iter();
    let is_near = |link: &&Link| {
        let own = host.addresses.iter();
        let mut own = own.filter(|own| own.interface == link.index);
        placed.place.is_link(link, host.lower(link))
            && link.is_askable()
            && (placed.place != Place::Anywhere
                || own.any(|own| Prefix::of(own).contains(placed.vip.ip())))
    };
    links.filter(is_near).collect()
}

/// This host's subnets on these links.
fn subnets(links: &[&Link], host: &HostSnapshot) -> Vec<Prefix> {
    let own = host.addresses.iter();
    let there = own.filter(|own| links.iter().any(|link| link.index == own.interface));
    there.map(Prefix::of).collect()
}

impl Asker for Stragglers {
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.forget_all(|left| left.until <= now);
        while self.opens.first().is_some_and(|opens| *opens <= now) {
            self.opens.pop_first();
        }
        None
    }

    fn sent(&mut self, _: Instant, _: &Transmit) {}

    fn put_off(&mut self, _: Instant, _: &Transmit) {}

    fn over_budget(&mut self, _: Instant, _: &Transmit, _: Instant) {}

    fn refused(&mut self, _: Instant, _: &Transmit, _: Refusal) {}

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        match &frame.payload {
            Payload::Arp(arp) => {
                self.on_claim(now, interface, arp.sender_ip.into(), arp.sender_mac);
            }
            Payload::Ndp(ndp) => {
                if let NdpMessage::Advertisement(na) = ndp.message {
                    let mac = na.target_lladdr.unwrap_or(frame.source);
                    self.on_claim(now, interface, na.target.into(), mac);
                }
            }
            Payload::Echo(_) | Payload::Mld(_) => {}
        }
    }

    fn heard(&mut self, now: Instant, interface: InterfaceIndex, header: &Header) {
        let (Some(ip), Some((sender, ttl))) = (header.wanted, header.sender) else {
            return;
        };
        let own = self.links.get(&interface).and_then(|link| link.mac);
        let Some(left) = Vip::try_from(ip)
            .ok()
            .and_then(|vip| self.left.get_mut(&vip))
        else {
            return;
        };
        // A host's kernel solicits from its link-local address; its packets have another one.
        let is_kernel =
            Vip::try_from(sender).is_ok_and(Vip::is_link_local) && !left.placed.vip.is_link_local();
        let is_host = header.source.is_unicast()
            && !sender.is_unspecified()
            && !sender.is_multicast()
            && !is_kernel;
        let is_owner = left.owners.contains_key(&header.source);
        if own != Some(header.destination)
            || !left.on.contains(&interface)
            || !is_host
            || is_owner
            || ttl <= PROBE_TTL
            || !left.is_open(now)
            || self.totals.is_full()
        {
            return;
        }
        let mac = header.source;
        let has_room = left.of_mac(mac).count() < MOST_ADDRESSES;
        let key = (mac, sender);
        if !has_room && !left.frames.contains_key(&key) {
            return;
        }
        let known = match left.may_route(sender) {
            true => Known::MayBeRouted,
            false => Known::Little,
        };
        let was_well_known = left.is_well_known(mac, now);
        let was_too_much = self.totals.too_much.contains(&mac);
        let mut sent = Sent {
            first: now,
            frames: 0,
            known,
        };
        if let Some(before) = left.frames.get(&key) {
            self.totals.remove(mac, before);
            sent = *before;
        }
        sent.frames += 1;
        if sent.again_at().is_some_and(|again| again <= now) {
            sent.known = Known::Named;
            left.named += 1;
            self.news.push(Straggler {
                vip: left.placed.vip,
                interface,
                ip: sender,
                mac,
                after: now.saturating_duration_since(left.since),
            });
        }
        self.totals.add(mac, &sent);
        left.frames.insert(key, sent);
        let is_well_known = left.is_well_known(mac, now);
        if is_well_known {
            left.were_well_known.insert(mac);
        }
        if sent.is_enough(now) {
            self.opens.extend(sent.again_at());
        }
        let is_too_much = self.totals.too_much.contains(&mac);
        if was_too_much != is_too_much || self.totals.is_full() {
            self.all_may_change();
        } else if was_well_known != is_well_known || !left.is_open(now) {
            let there = self.wanted.iter_mut();
            let there = there.filter(|(interface, _)| left.on.contains(interface));
            there.for_each(|(_, wanted)| wanted.is_stale = true);
        }
    }

    fn listening_changed(&mut self, now: Instant, interface: InterfaceIndex) -> Option<Listening> {
        let before = self.wanted.get(&interface);
        if before.is_some_and(|wanted| wanted.holds(now)) {
            return None;
        }
        let listening = self.listening(now, interface);
        let changed = before.is_none_or(|wanted| wanted.listening != listening);
        let wanted = Wanted {
            listening: listening.clone(),
            is_stale: false,
            opens: self.opens_after(now),
        };
        self.wanted.insert(interface, wanted);
        changed.then_some(listening)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.left.values().all(|left| left.until <= now)
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let ends = self.left.values().map(|left| left.until);
        ends.chain(self.opens_after(now)).min().unwrap_or(now)
    }

    fn link(&self, interface: InterfaceIndex) -> Option<&Link> {
        self.links.get(&interface)
    }

    fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    fn link_changed(&mut self, _: Instant, link: &Link) {
        self.links.insert(link.index, link.clone());
    }

    fn link_gone(&mut self, _: Instant, interface: InterfaceIndex) {
        self.links.remove(&interface);
        self.wanted.remove(&interface);
        for left in self.left.values_mut() {
            left.on.remove(&interface);
        }
        self.forget_all(|left| left.on.is_empty());
    }

    fn address_changed(&mut self, _: Instant, address: &Address) {
        self.may_be_back(address);
    }

    fn addresses_are(&mut self, _: Instant, addresses: &[Address]) {
        addresses
            .iter()
            .for_each(|address| self.may_be_back(address));
    }
}

#[cfg(test)]
mod tests;
