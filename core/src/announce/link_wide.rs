//! What concerns a whole link: whether anybody is heard on it, the census of its IPv6 hosts, and the
//! traffic that shows who follows.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use super::sources::Sources;
use super::{Announcement, Claim, State};
use crate::address::{InterfaceIndex, Mac};
use crate::ask::{Control, Listening, Peer, Source};
use crate::wire::{ALL_NODES, Echo, Frame, Header, Token};

/// The most hosts that a census adds to a link.
const MOST_FOUND: usize = 4_096;
/// The most hosts of which an answer to a census shows that they exist, and the most summed over the VIPs.
/// All hosts see the question, so that anybody can answer it in anybody's name.
const MOST_BELIEVED: usize = 256;
const MOST_BELIEVED_PAIRS: usize = 1_024;
/// The most hosts whose traffic is looked at, at a time: the kernel's filter compares each of them.
const MOST_WATCHED: usize = 64;
/// What the tokens of a census ask; those of peers' questions are smaller.
const CENSUS: u8 = 255;

impl Announcement {
    /// An interface received a frame of another host.
    pub(super) fn on_frame(&mut self, now: Instant, interface: InterfaceIndex, header: &Header) {
        if !header.source.is_unicast() || self.own_macs.contains_key(&header.source) {
            return;
        }
        self.path_is_alive(now, interface);
        if let Some(to) = header.wanted.filter(|to| self.vip_ips.contains(to)) {
            self.on_traffic(now, interface, header, to);
        }
    }

    /// A host sent a frame for a VIP to this host: it follows.
    fn on_traffic(&mut self, now: Instant, interface: InterfaceIndex, header: &Header, to: IpAddr) {
        let mut exist = Vec::new();
        for claim in &mut self.claims {
            let is_to = claim.interface() == interface
                && claim.vip.ip() == to
                && claim.mac() == Some(header.destination)
                && claim.state() == State::Ready;
            if !is_to {
                continue;
            }
            // Several addresses may have the MAC: their host follows with all or none.
            for at in 0..claim.confirmations().len() {
                let one = &claim.confirmations()[at];
                if one.peer.mac == Some(header.source) && one.wants_traffic() {
                    claim.confirmation_mut(at).on_traffic(now);
                    claim.answered(at);
                    self.traffic_changed.insert(interface);
                    exist.push(claim.confirmations()[at].peer.ip);
                }
            }
        }
        for ip in exist {
            self.exists(now, interface, ip);
        }
    }

    /// A peer with this MAC got a question, or answered one: whether to look at its traffic may change.
    pub(super) fn traffic_of(&mut self, interface: InterfaceIndex, mac: Option<Mac>, wanted: bool) {
        let known = self.listening.get(&interface);
        let watched = known.is_some_and(|known| mac.is_some_and(|mac| known.from.contains(&mac)));
        let has_room = known.is_none_or(|known| known.from.len() < MOST_WATCHED);
        if watched != wanted && (watched || has_room) {
            self.traffic_changed.insert(interface);
        }
    }

    /// What to receive besides answers, if that changed.
    pub(super) fn changed_listening(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
    ) -> Option<Listening> {
        let sends = !self.cards.contains_key(&interface)
            || self
                .claims
                .iter()
                .any(|claim| claim.interface() == interface);
        let any = sends && !self.paths.is_alive(interface);
        // Later traffic proves nothing about this move of the VIP.
        let lasts = |claim: &&Claim| {
            claim.interface() == interface
                && claim.state() == State::Ready
                && claim
                    .began
                    .is_some_and(|began| now < began + Claim::planned_time())
        };
        let known = self.listening.get(&interface);
        let same = known.is_some_and(|known| {
            known.any == any && (known.from.is_empty() || self.claims.iter().any(|one| lasts(&one)))
        });
        if !self.traffic_changed.remove(&interface) && same {
            return None;
        }
        let mut wanted = Listening {
            any,
            echoes: Some(self.run.identifier),
            ..Listening::default()
        };
        for claim in self.claims.iter().filter(lasts) {
            let awaited = claim
                .confirmations()
                .iter()
                .filter(|one| one.wants_traffic());
            let awaited: BTreeSet<_> = awaited
                .filter_map(|one| one.peer.mac)
                .take(MOST_WATCHED - wanted.from.len())
                .collect();
            if !awaited.is_empty() {
                wanted.to.insert(claim.vip.ip());
            }
            wanted.from.extend(awaited);
        }
        let changed = known != Some(&wanted);
        self.listening.insert(interface, wanted.clone());
        changed.then_some(wanted)
    }

    /// An echo to all IPv6 nodes, from a link-local address of this host: each link has one a round, by
    /// its first VIP.
    pub(super) fn census(
        &self,
        claim: usize,
        sources: &Sources,
    ) -> Option<(InterfaceIndex, Frame)> {
        let (interface, source) = sources.link_local.filter(|_| self.pace.census)?;
        let mac = self.links.get(&interface)?.mac?;
        let on = self.claims[claim].interface();
        let is_first = |one: &Claim| {
            one.interface() == on && one.vip.ip().is_ipv6() && one.state() == State::Ready
        };
        if self.claims.iter().position(is_first) != Some(claim) {
            return None;
        }
        let token = self.census_token(source, self.censuses);
        let to = (ALL_NODES.0.into(), ALL_NODES.1);
        Some((interface, Echo::request((source.into(), mac), to, token)))
    }

    fn census_token(&self, source: Ipv6Addr, number: u32) -> Token {
        let about = (CENSUS, source.into(), ALL_NODES.0.into());
        self.run.token(about, number)
    }

    pub(super) fn is_census_reply(&self, interface: InterfaceIndex, echo: &Echo) -> bool {
        let IpAddr::V6(own) = echo.destination else {
            return false;
        };
        let ours = Some((interface, own));
        let is_source = |claim: &Claim| claim.sources.link_local == ours;
        self.claims.iter().any(is_source)
            && self
                .run
                .number(echo.token)
                .is_some_and(|number| self.census_token(own, number) == echo.token)
    }

    /// Whether a host's answer to a census shows that it exists. Otherwise it has to answer a question that
    /// only it sees, before it is asked about every VIP.
    pub(super) fn believes(&mut self, ip: IpAddr) -> bool {
        let share = MOST_BELIEVED_PAIRS / self.claims.len().max(1);
        let most = share.clamp(1, MOST_BELIEVED);
        self.believed.contains(&ip) || self.believed.len() < most && self.believed.insert(ip)
    }

    /// A host answers a census: it becomes a peer of the link's IPv6 VIPs.
    pub(super) fn on_census_reply(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        mac: Mac,
        ip: IpAddr,
    ) {
        if !mac.is_unicast() || ip.is_multicast() || self.own_macs.contains_key(&mac) {
            return;
        }
        self.path_is_alive(now, interface);
        // Its entry may come from the census itself.
        for claim in &mut self.claims {
            if let Some(at) = claim
                .find_peer(ip)
                .filter(|_| claim.interface() == interface)
            {
                let peer = &mut claim.confirmation_mut(at).peer;
                if peer.source == Source::Learned {
                    peer.source = Source::Census;
                }
            }
        }
        if self.believes(ip) {
            self.exists(now, interface, ip);
        }
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let asks = claim
                .sources
                .link_local
                .is_some_and(|(on, _)| on == interface)
                && claim.vip.ip().is_ipv6()
                && claim.state() == State::Ready;
            if !asks {
                continue;
            }
            if claim.awaits_peers() {
                if claim.found_early.len() < MOST_FOUND {
                    claim.found_early.insert(ip, mac);
                }
            } else {
                self.add_found(now, index, mac, ip);
            }
        }
    }

    /// Adds a host that a census found to the peers of a claim, unless it is one.
    pub(super) fn add_found(&mut self, now: Instant, index: usize, mac: Mac, ip: IpAddr) {
        let claim = &mut self.claims[index];
        if self.own_macs.contains_key(&mac) {
            return;
        }
        // One question a host is enough.
        if claim.find_peer(ip).is_some() || claim.has_peer_at(mac) {
            return;
        }
        if claim.found >= MOST_FOUND {
            claim.left_out += 1;
            return;
        }
        let (on, neighbourhood) = (claim.interface(), claim.neighbourhood());
        let doubtful = !self.believes(ip);
        if doubtful && !self.background.begin(neighbourhood, index) {
            return;
        }
        let claim = &mut self.claims[index];
        claim.found += 1;
        // Who answers an address of the VIP's subnet has a route to that.
        let sources = claim.sources.clone();
        let in_subnet = sources.in_subnet;
        let link_local = sources.link_local.map(|(on, own)| (on, own.into()));
        let control = in_subnet.or(link_local).and_then(|(interface, own)| {
            Some(Control {
                ip: own,
                interface,
                mac: self.links.get(&interface)?.mac?,
                in_vips_subnet: in_subnet.is_some(),
            })
        });
        let peer = Peer {
            ip,
            mac: Some(mac),
            source: Source::Census,
            required: false,
            onlink: true,
            doubtful,
            control,
        };
        if doubtful {
            self.background.add(on, &peer, index);
        }
        let at = self.claims[index].add_peer(peer);
        self.ask_again(now, index, at);
    }
}
