//! Other cards of this host that answer for a VIP: hosts may follow those, and their replies come in there.
//! Anybody can claim a VIP in the name of such a card, so that only replies show who follows it.

use std::time::Instant;

use super::Announcement;
use crate::address::{InterfaceIndex, Mac};
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
            if self.cards.len() + cards.len() + with_mac.len() <= MOST_CARDS {
                cards.extend(with_mac);
            }
        }
        cards
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
        if let Some(mac) = self.cards.remove(&interface) {
            for claim in &mut self.claims {
                claim.lose_card(mac);
            }
        }
    }
}
