//! Hosts that may not exist: which VIP asks them, and what follows once they are heard.

use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim, State};
use crate::address::InterfaceIndex;
use crate::ask::{MOST_PAIRS, Peer};

impl Announcement {
    /// A host that may not exist does: it becomes a peer of all VIPs of its neighbourhood, like others.
    pub(super) fn exists(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr) {
        let Some(first) = self.background.heard(now, interface, ip) else {
            return;
        };
        let claim = &mut self.claims[first];
        let neighbourhood = claim.neighbourhood();
        let Some(at) = claim.find_peer(ip) else {
            return;
        };
        let peer = Peer {
            doubtful: false,
            ..claim.confirmations()[at].peer.clone()
        };
        let mut room = self.room_for_pairs();
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let is_near = claim.neighbourhood() == neighbourhood;
            let known = claim.find_peer(ip);
            if let Some(at) = known {
                claim.confirmation_mut(at).peer.doubtful = false;
                self.ask_again(now, index, at);
            } else if is_near && claim.state() == State::Ready {
                self.add_if_room(now, index, &peer, &mut room);
            }
        }
    }

    /// How many more (VIP, host) pairs may come.
    fn room_for_pairs(&self) -> usize {
        let pairs = self.claims.iter().map(|claim| claim.confirmations().len());
        MOST_PAIRS.saturating_sub(pairs.sum())
    }

    fn add_if_room(&mut self, now: Instant, index: usize, peer: &Peer, room: &mut usize) {
        let claim = &mut self.claims[index];
        if *room == 0 {
            claim.left_out += 1;
            return;
        }
        *room -= 1;
        let at = claim.add_peer(peer.clone());
        self.ask_again(now, index, at);
    }

    /// A claim's peers are found. Hosts that had answered about another VIP by then exist.
    pub(super) fn add_existing(&mut self, now: Instant, index: usize) {
        let claim = &self.claims[index];
        let first = self.background.first(&claim.neighbourhood());
        let Some(first) = first.filter(|first| *first != index) else {
            return;
        };
        let peers = self.claims[first].confirmations().iter();
        let peers = peers.map(|one| &one.peer);
        let missing = peers.filter(|peer| !peer.doubtful && claim.find_peer(peer.ip).is_none());
        let missing: Vec<_> = missing.cloned().collect();
        let mut room = self.room_for_pairs();
        for peer in missing {
            self.add_if_room(now, index, &peer, &mut room);
        }
    }

    /// Where the claim is gone that asks the hosts that may not exist, another one asks them.
    pub(super) fn hand_over_doubts(&mut self, now: Instant) {
        let is_gone = |index: &usize| {
            let state = self.claims[*index].state();
            !matches!(state, State::Ready | State::Waiting(_))
        };
        let gone: Vec<_> = self.background.firsts().filter(is_gone).collect();
        for from in gone {
            let interface = self.claims[from].interface();
            let ready =
                |claim: &Claim| claim.interface() == interface && claim.state() == State::Ready;
            if !self.claims.iter().any(ready) {
                continue;
            }
            let neighbourhood = self.claims[from].neighbourhood();
            // They may leave in this order, too.
            let mut claims = self.claims.iter();
            let heir =
                claims.rposition(|claim| ready(claim) && claim.neighbourhood() == neighbourhood);
            let Some(to) = heir else { continue };
            self.background.hand_over(from, to);
            let peers = self.claims[from].confirmations().iter();
            let doubtful = peers.map(|one| &one.peer).filter(|peer| peer.doubtful);
            let doubtful: Vec<_> = doubtful.cloned().collect();
            let mut room = self.room_for_pairs();
            for peer in doubtful {
                match self.claims[to].find_peer(peer.ip) {
                    Some(at) => self.ask_again(now, to, at),
                    None => self.add_if_room(now, to, &peer, &mut room),
                }
            }
        }
    }
}
