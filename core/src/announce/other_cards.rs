//! Other cards of this host that answer for a VIP: hosts may follow those, and their replies come in there.
//! Anybody can claim a VIP in the name of such a card, so that only replies show who follows it.

use std::time::Instant;

use super::Announcement;
use crate::address::Mac;
use crate::host::Link;

/// The most such cards that a run receives at.
const MOST_CARDS: usize = 8;

impl Announcement {
    /// This host has this interface.
    pub(super) fn note_own(&mut self, link: &Link) {
        let Some(mac) = link.mac else {
            return;
        };
        let with_mac = self.own_macs.entry(mac).or_default();
        with_mac.retain(|known| known.index != link.index);
        with_mac.push(link.clone());
    }

    /// The cards to receive at from now on.
    pub(super) fn cards_to_hear(&mut self, now: Instant) -> Vec<Link> {
        let mut cards = Vec::new();
        for mac in std::mem::take(&mut self.answering_cards) {
            if self.cards.values().any(|heard| *heard == mac) {
                self.hear_card(now, mac);
                continue;
            }
            let room = MOST_CARDS.saturating_sub(self.cards.len() + cards.len());
            let with_mac = self.own_macs.get(&mac).into_iter().flatten();
            cards.extend(with_mac.take(room).cloned());
        }
        cards
    }

    /// This host receives at one of these cards.
    pub(super) fn receives_at_card(&mut self, now: Instant, card: &Link) {
        if let Some(mac) = card.mac {
            self.cards.insert(card.index, mac);
            self.hear_card(now, mac);
        }
    }

    fn hear_card(&mut self, now: Instant, mac: Mac) {
        for index in 0..self.claims.len() {
            for peer in self.claims[index].hear_card(mac) {
                self.ask_again(now, index, peer);
            }
        }
    }
}
