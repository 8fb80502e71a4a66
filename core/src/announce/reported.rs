//! Hosts that others report: an old owner those that still send to it, a resident those that it heard.

use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim, Mode, State};
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{Control, MOST_PAIRS, Observed, Peer, Source};
use crate::watch::MOST_OBSERVED;

/// The most hosts that reports add to the peers of a VIP.
const MOST_REPORTED: usize = 64;

impl Announcement {
    /// Asks a host at once whether it follows: a VIP's old owner reports that it does not. Returns `false`
    /// if that has to wait until the VIP's peers are known.
    pub fn reported(&mut self, now: Instant, vip: Vip, ip: IpAddr, mac: Mac) -> bool {
        let of_vip = |claim: &Claim| claim.vip == vip && claim.mode == Mode::Announce;
        if self
            .claims
            .iter()
            .any(|claim| of_vip(claim) && claim.awaits_peers())
        {
            return false;
        }
        for index in 0..self.claims.len() {
            let claim = &self.claims[index];
            if !of_vip(claim) || claim.state() != State::Ready || self.own_macs.contains_key(&mac) {
                continue;
            }
            if let Some(at) = self.find_or_add_reported(index, ip, mac) {
                self.ask_again(now, index, at);
            }
        }
        true
    }

    /// Asks the hosts that a resident has heard on the interface of some VIPs, unless they are peers.
    pub fn observed(&mut self, now: Instant, interface: InterfaceIndex, hosts: &[Observed]) {
        let most = MOST_OBSERVED.min(MOST_PAIRS / self.vips.len().max(1));
        for index in 0..self.claims.len() {
            let claim = &self.claims[index];
            let is_on = claim.interface() == interface || claim.link.lower == Some(interface);
            if !is_on || claim.state() != State::Ready || claim.awaits_peers() {
                continue;
            }
            // Anybody can forge a sender: once one answers, it is asked about the other VIPs, too.
            if !self.background.begin(claim.neighbourhood(), index) {
                continue;
            }
            let on = self.claims[index].interface();
            let room = most.saturating_sub(self.claims[index].confirmations().len());
            let mut added = 0;
            for host in hosts {
                let is_own = host.mac.is_some_and(|mac| self.own_macs.contains_key(&mac));
                let is_known = self.claims[index].find_peer(host.ip).is_some();
                if added < room
                    && !is_own
                    && !is_known
                    && let Some(peer) = self.told_of(index, host.ip, host.mac, Source::Observed)
                {
                    added += 1;
                    self.background.add(on, &peer, index);
                    let at = self.claims[index].add_peer(peer);
                    self.ask_again(now, index, at);
                }
            }
        }
    }

    /// The peer that a report is about.
    fn find_or_add_reported(&mut self, index: usize, ip: IpAddr, mac: Mac) -> Option<usize> {
        let claim = &mut self.claims[index];
        if let Some(at) = claim.find_peer(ip) {
            let confirmation = claim.confirmation_mut(at);
            confirmation.peer.mac.get_or_insert(mac);
            if !matches!(
                confirmation.peer.source,
                Source::Configured | Source::Gateway
            ) {
                (confirmation.peer.source, confirmation.peer.doubtful) = (Source::Reported, false);
            }
            if confirmation.settled().is_some() {
                confirmation.doubt_proof();
            }
            return Some(at);
        }
        let peers = claim.confirmations().iter();
        let reported = peers.filter(|one| one.peer.source == Source::Reported);
        if reported.count() >= MOST_REPORTED {
            return None;
        }
        let peer = self.told_of(index, ip, Some(mac), Source::Reported)?;
        Some(self.claims[index].add_peer(peer))
    }

    /// A new peer of a VIP. A host behind a router is none.
    fn told_of(&self, index: usize, ip: IpAddr, mac: Option<Mac>, source: Source) -> Option<Peer> {
        let claim = &self.claims[index];
        let sources = &claim.sources;
        let is_near = sources.subnets.iter().any(|subnet| subnet.contains(ip));
        if !is_near || self.vip_ips.contains(&ip) {
            return None;
        }
        let control = sources.in_subnet.and_then(|(interface, own)| {
            Some(Control {
                ip: own,
                interface,
                mac: self.links.get(&interface)?.mac?,
                in_vips_subnet: true,
            })
        });
        Some(Peer {
            ip,
            mac,
            source,
            required: false,
            onlink: true,
            doubtful: source == Source::Observed,
            control,
        })
    }
}
