//! Received frames: answers, proofs, other owners. An answer counts only if it matches a question of
//! this run exactly.

use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim};
use crate::address::{InterfaceIndex, Mac};
use crate::ask::{Control, Question};
use crate::wire::{Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage};

impl Announcement {
    pub(super) fn on_arp(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        frame: &Frame,
        arp: &Arp,
    ) {
        self.on_claim(now, interface, arp.sender_ip.into(), arp.sender_mac);
        let to_us = |claim: &Claim| {
            claim.asks_peers_from() == Some(arp.target_ip.into())
                && claim.mac() == Some(arp.target_mac)
                && claim.mac() == Some(frame.destination)
        };
        if arp.operation == ArpOperation::Reply && arp.sender_mac == frame.source {
            self.on_answer(now, interface, arp.sender_ip.into(), frame.source, to_us);
        }
    }

    pub(super) fn on_ndp(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        frame: &Frame,
        ndp: &Ndp,
    ) {
        match ndp.message {
            NdpMessage::Solicitation(ns) => {
                let mac = ns.source_lladdr.unwrap_or(frame.source);
                self.on_claim(now, interface, ndp.source.into(), mac);
            }
            NdpMessage::Advertisement(na) => {
                let mac = na.target_lladdr.unwrap_or(frame.source);
                self.on_claim(now, interface, na.target.into(), mac);
                let to_us = |claim: &Claim| {
                    claim.asks_peers_from() == Some(ndp.destination.into())
                        && claim.mac() == Some(frame.destination)
                };
                if na.solicited {
                    self.on_answer(now, interface, na.target.into(), mac, to_us);
                }
            }
        }
    }

    /// A host claims that `ip` is at `mac`.
    fn on_claim(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr, mac: Mac) {
        let own = self.own_macs.contains_key(&mac);
        for claim in &mut self.claims {
            if claim.interface() == interface && claim.vip.ip() == ip {
                match own {
                    true => claim.on_own_answer(mac),
                    false => claim.on_conflict(now, mac),
                }
            }
        }
    }

    /// `peer` answered a directed request from `mac`.
    fn on_answer(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        peer: IpAddr,
        mac: Mac,
        to_us: impl Fn(&Claim) -> bool,
    ) {
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.interface() != interface || !to_us(claim) {
                continue;
            }
            let Some(at) = claim.find_peer(peer) else {
                continue;
            };
            let confirmation = claim.confirmation_mut(at);
            let answered_before = confirmation.has_answered();
            if confirmation.on_answer(now, mac) {
                let counts = confirmation.acknowledged.is_some() && !answered_before;
                self.peer_answers(now, index, at, Question::Directed, counts);
                self.ask_again(now, index, at);
            }
        }
    }

    pub(super) fn on_echo(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        frame: &Frame,
        echo: &Echo,
    ) {
        if echo.kind != EchoKind::Reply || echo.identifier != self.run.identifier {
            return;
        }
        let run = self.run;
        if self.vips.iter().any(|vip| vip.ip() == echo.source) {
            self.on_holder_echo(now, interface, frame, echo);
            return;
        }
        // A reply to a VIP answers no control echo.
        let to_any_vip = self.vips.iter().any(|vip| vip.ip() == echo.destination);
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if to_any_vip && claim.vip.ip() != echo.destination {
                continue;
            }
            let to_vip = claim.interface() == interface
                && claim.vip.ip() == echo.destination
                && claim.mac() == Some(frame.destination);
            let Some(at) = claim.find_peer(echo.source) else {
                continue;
            };
            let confirmation = claim.confirmation_mut(at);
            let control = confirmation.peer.control;
            let to_control = control.is_some_and(|at| is_to(at, interface, frame, echo));
            let sequence = echo.sequence;
            // Only the first answer of a peer counts.
            let counts = !confirmation.has_answered();
            if to_vip && confirmation.on_echo(now, frame.source, sequence, run) {
                self.peer_answers(now, index, at, Question::Echo, counts);
            } else if to_control && confirmation.on_control_echo(frame.source, sequence, run) {
                self.peer_answers(now, index, at, Question::Control, counts);
                self.ask_again(now, index, at);
            }
        }
    }

    /// An echo reply came from a VIP: its sender has it.
    fn on_holder_echo(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        frame: &Frame,
        echo: &Echo,
    ) {
        let run = self.run;
        let (mac, sequence) = (frame.source, echo.sequence);
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.vip.ip() != echo.source {
                continue;
            }
            let to_control = |control| is_to(control, interface, frame, echo);
            let answers = claim.confirmations().iter().position(|one| {
                one.peer.control.is_some_and(to_control) && one.expects_holder(mac, sequence, run)
            });
            if let Some(at) = answers
                && claim
                    .confirmation_mut(at)
                    .on_holder_echo(mac, sequence, run)
            {
                self.peer_answers(now, index, at, Question::Holder, false);
            }
        }
    }

    /// A peer gave a new answer. If it `counts`, it improves the loss estimate.
    fn peer_answers(
        &mut self,
        now: Instant,
        index: usize,
        peer: usize,
        question: Question,
        counts: bool,
    ) {
        let interface = self.claims[index].interface();
        self.path_answers(now, interface);
        if counts {
            let confirmation = &self.claims[index].confirmations()[peer];
            let asked = confirmation.asked_while_alive(question).max(1);
            self.paths.count_answer(interface, asked);
        }
    }

    /// A host answered on an interface. After a silence, the path has just come alive, and hosts in
    /// no neighbour table need the broadcasts.
    fn path_answers(&mut self, now: Instant, interface: InterfaceIndex) {
        if !self.paths.comes_alive(now, interface) {
            return;
        }
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.interface() == interface {
                for confirmation in claim.confirmations_mut() {
                    confirmation.path_came_alive();
                }
                self.start_rounds(now, index);
            }
        }
    }
}

/// Whether an echo reply goes to the source of control echoes.
fn is_to(control: Control, interface: InterfaceIndex, frame: &Frame, echo: &Echo) -> bool {
    control.interface == interface
        && control.ip == echo.destination
        && control.mac == frame.destination
}
