//! Peers that are ordered to purge: whom to order, and what their answers change.

use std::net::IpAddr;
use std::time::Instant;

use super::Announcement;
use super::claim::State;
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::order::{Fate, Outcome};

/// A peer that shall be ordered to purge what it has for a VIP other than a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueOrder {
    /// The peer.
    pub peer: IpAddr,
    /// The own address that it can answer to, if there is one that shares a subnet with it.
    pub from: Option<IpAddr>,
    /// The interface that holds the VIP.
    pub interface: InterfaceIndex,
    /// The VIP.
    pub vip: Vip,
    /// The MAC that it is announced with.
    pub mac: Mac,
    /// Whether the peer was found to follow a wrong one, or to be another owner.
    pub stale: bool,
}

impl Announcement {
    /// The peers that shall be ordered now, each told once: those that were configured, and those
    /// found stale or to be another owner.
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

    /// Whether frames for a VIP may leave an interface, with this MAC.
    #[must_use]
    pub fn announces(&self, interface: InterfaceIndex, vip: Vip, mac: Mac) -> bool {
        self.claims.iter().any(|claim| {
            claim.interface() == interface
                && claim.vip == vip
                && claim.mac() == Some(mac)
                && claim.state() == State::Ready
        })
    }

    /// A peer answered an order. If something was done, it is asked for proof again.
    pub fn order_answered(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        vip: Vip,
        peer: IpAddr,
        fate: &Fate,
    ) {
        let is_settled = fate.is_settled();
        let released = fate.outcome() == Some(Outcome::Released);
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.interface() != interface || claim.vip != vip {
                continue;
            }
            let at = claim.find_peer(peer);
            let had_rivals = claim.conflicts().next().is_some();
            let all_rivals = claim.known_rivals();
            if released {
                let mac = at.and_then(|at| claim.confirmations()[at].peer.mac);
                let hosts = &self.hosts;
                claim.forget_conflicts(|other| {
                    Some(other) == mac || hosts.get(&other) == Some(&peer)
                });
            }
            if claim.rounds_over && had_rivals && claim.conflicts().next().is_none() {
                self.conflict_is_over(now, index, all_rivals);
            }
            let Some(at) = at else {
                continue;
            };
            let confirmation = self.claims[index].confirmation_mut(at);
            confirmation.order = Some(fate.clone());
            if is_settled {
                confirmation.order_carried_out(released);
                self.ask_anew(now, index, at);
            }
        }
    }
}
