//! Other cards of this host that answer for a VIP: hosts may follow those, and their replies come in there.
//! Anybody can claim a VIP in the name of such a card, so that only replies show who follows it.

use std::time::Instant;

use super::{Announcement, Claim, State};
use crate::address::{InterfaceIndex, Mac};
use crate::ask::{Confirmation, PeerVerdict};
use crate::host::Link;

/// The most interfaces where a run receives because of that.
const MOST_CARDS: usize = 16;

impl Announcement {
    /// This host has this interface.
    pub(super) fn note_own(&mut self, link: &Link) {
        if let Some(mac) = link.mac {
            self.own_macs.insert(mac, link.name.clone());
        }
        let card = self.cards.get(&link.index);
        if card.is_some_and(|mac| Some(*mac) != link.mac) {
            self.lose_card(link.index);
        }
        self.own_links.insert(link.index, link.clone());
    }

    /// The interfaces to receive on from now on: all that have a MAC (a bridge has that of a port, a VLAN
    /// that of the interface below it), or none of them.
    pub(super) fn cards_to_hear(&mut self) -> Vec<Link> {
        let mut cards = Vec::new();
        for mac in std::mem::take(&mut self.answering_cards) {
            let with_mac: Vec<_> = self.with_mac(mac).cloned().collect();
            if with_mac.is_empty() {
                // One had it before: now nobody hears what goes there.
                self.forget_own_answers(mac);
            }
            let new = with_mac.iter();
            let new = new.filter(|link| !self.cards.contains_key(&link.index));
            if self.cards.len() + cards.len() + new.count() <= MOST_CARDS {
                cards.extend(with_mac);
            }
        }
        cards
    }

    fn forget_own_answers(&mut self, mac: Mac) {
        for claim in &mut self.claims {
            claim.forget_own_answer(mac);
        }
    }

    /// Whether a peer follows another card than that of a claim, and not because both have the VIP; or
    /// may do so where this host does not receive.
    #[must_use]
    pub fn may_follow_other_card(&self, claim: &Claim, one: &Confirmation) -> bool {
        let is_proven_there = |other: &Claim| {
            let proven = |at: usize| other.confirmations()[at].verdict() == PeerVerdict::Proven;
            let has_vip = other.vip == claim.vip && other.state() == State::Ready;
            has_vip && other.find_peer(one.peer.ip).is_some_and(proven)
        };
        let is_there = one.verdict() == PeerVerdict::Acknowledged && one.follows_other_card();
        let may_be = is_there || claim.may_follow_unheard_card(one);
        may_be && !self.claims.iter().any(is_proven_there)
    }

    fn with_mac(&self, mac: Mac) -> impl Iterator<Item = &Link> + '_ {
        self.own_links
            .values()
            .filter(move |link| link.mac == Some(mac))
    }

    /// This host receives on one of these interfaces.
    pub(super) fn receives_at_card(&mut self, now: Instant, card: &Link) {
        let Some(mac) = card.mac else { return };
        self.links.entry(card.index).or_insert_with(|| card.clone());
        self.cards.insert(card.index, mac);
        if !self
            .with_mac(mac)
            .all(|link| self.cards.contains_key(&link.index))
        {
            return;
        }
        for index in 0..self.claims.len() {
            for peer in self.claims[index].hear_card(mac) {
                self.ask_again(now, index, peer);
            }
        }
    }

    /// An interface is gone, or has another MAC.
    pub(super) fn lose_card(&mut self, interface: InterfaceIndex) {
        self.own_links.remove(&interface);
        if let Some(mac) = self.cards.remove(&interface)
            && self.with_mac(mac).next().is_none()
        {
            self.forget_own_answers(mac);
        }
    }
}
