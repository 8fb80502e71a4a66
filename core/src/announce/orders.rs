//! Which peers to order to purge, and what their answers change.

use std::net::IpAddr;
use std::time::Instant;

use super::Announcement;
use super::claim::State;
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::order::{Fate, Outcome};

/// An order to send: the peer must purge any entry for `vip` whose MAC is not `mac`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueOrder {
    /// The peer.
    pub peer: IpAddr,
    /// An own address in a subnet of the peer, to which it can answer.
    pub from: Option<IpAddr>,
    /// The interface that holds the VIP.
    pub interface: InterfaceIndex,
    /// The VIP.
    pub vip: Vip,
    /// The announced MAC.
    pub mac: Mac,
    /// Whether the peer has a wrong entry, or is another owner.
    pub stale: bool,
}

impl Announcement {
    /// Takes the orders that are due: to configured peers, stale peers and other owners, once each.
    pub fn take_due_orders(&mut self) -> Vec<DueOrder> {
        let mut due = Vec::new();
        for claim in &mut self.claims {
            let (interface, vip) = (claim.interface(), claim.vip);
            let Some(mac) = claim.mac().filter(|_| claim.state() == State::Ready) else {
                continue;
            };
            for (at, stale) in claim.take_due_orders() {
                let peer = &claim.confirmations()[at].peer;
                due.push(DueOrder {
                    peer: peer.ip,
                    from: peer.control.map(|control| control.ip),
                    interface,
                    vip,
                    mac,
                    stale,
                });
            }
        }
        due
    }

    /// Whether this run announces a VIP on an interface with this MAC.
    #[must_use]
    pub fn announces(&self, interface: InterfaceIndex, vip: Vip, mac: Mac) -> bool {
        let claim = self.find_claim(vip, interface).map(|at| &self.claims[at]);
        claim.is_some_and(|claim| claim.mac() == Some(mac) && claim.state() == State::Ready)
    }

    /// A peer answered an order. If that settled it, the run makes the peer prove itself again.
    pub fn order_answered(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        vip: Vip,
        peer: IpAddr,
        fate: &Fate,
    ) {
        let Some(index) = self.find_claim(vip, interface) else {
            return;
        };
        let claim = &mut self.claims[index];
        let at = claim.find_peer(peer);
        let had_other_owners = claim.conflicts().next().is_some();
        let known_other_owners: Vec<_> = claim.known_other_owners().collect();
        let released = fate.outcome() == Some(Outcome::Released);
        if released {
            let mac = at.and_then(|at| claim.confirmations()[at].peer.mac);
            let hosts = &self.hosts;
            claim.forget_conflicts(|other| Some(other) == mac || hosts.get(&other) == Some(&peer));
        }
        if had_other_owners && claim.conflicts().next().is_none() {
            if claim.rounds_over {
                self.conflict_is_over(now, index, known_other_owners);
            } else {
                // The other rounds do not reach hosts that ignore broadcasts. They may have followed the
                // other owner since they proved that they follow.
                for peer in claim.doubt_proofs() {
                    self.ask_again(now, index, peer);
                }
            }
        }
        let Some(at) = at else {
            return;
        };
        let confirmation = self.claims[index].confirmation_mut(at);
        confirmation.order = Some(fate.clone());
        if fate.is_settled() {
            confirmation.order_settled(released);
            self.ask_again(now, index, at);
        }
    }
}
