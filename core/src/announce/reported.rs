//! Hosts that the old owner has reported: they still send to it.

use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim, Mode, State};
use crate::address::{Mac, Vip};
use crate::ask::{Control, Peer, Source};

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

    /// The peer that a report is about. A host behind a router is none.
    fn find_or_add_reported(&mut self, index: usize, ip: IpAddr, mac: Mac) -> Option<usize> {
        let claim = &mut self.claims[index];
        if let Some(at) = claim.find_peer(ip) {
            let confirmation = claim.confirmation_mut(at);
            confirmation.peer.mac.get_or_insert(mac);
            if !matches!(confirmation.peer.source, Source::Configured | Source::Gateway) {
                (confirmation.peer.source, confirmation.peer.doubtful) = (Source::Reported, false);
            }
            if confirmation.settled().is_some() {
                confirmation.doubt_proof();
            }
            return Some(at);
        }
        let sources = &claim.sources;
        let is_near = sources.subnets.iter().any(|subnet| subnet.contains(ip));
        let is_reported = |peer: &Peer| peer.source == Source::Reported;
        let peers = claim.confirmations().iter();
        let reported = peers.filter(|one| is_reported(&one.peer)).count();
        if !is_near || reported >= MOST_REPORTED {
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
        Some(claim.add_peer(Peer {
            ip,
            mac: Some(mac),
            source: Source::Reported,
            required: false,
            onlink: true,
            doubtful: false,
            control,
        }))
    }
}
