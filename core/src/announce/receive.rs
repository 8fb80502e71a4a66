//! Received frames: answers, proofs, other owners. An answer counts only if it matches a question of
//! this run exactly.

use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim};
use crate::address::{InterfaceIndex, Mac};
use crate::ask::{Control, Question, Reply};
use crate::wire::{Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage};

impl Announcement {
    pub(super) fn on_arp(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        frame: &Frame,
        arp: &Arp,
    ) {
        let (sender, target) = (arp.sender_ip.into(), IpAddr::from(arp.target_ip));
        self.on_claim(now, interface, sender, arp.sender_mac);
        match arp.operation {
            // Sent to this host or to all (RFC 5227 §2.6), from whichever card of the peer.
            ArpOperation::Reply => {
                let to_us = |claim: &Claim| {
                    claim.asks_peers_from() == Some(target)
                        && claim.mac() == Some(arp.target_mac)
                        && is_received_by(claim, frame)
                };
                self.on_answer(now, interface, sender, arp.sender_mac, to_us);
            }
            ArpOperation::Request => self.on_request(interface, frame, target),
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
                self.on_request(interface, frame, ns.target.into());
            }
            NdpMessage::Advertisement(na) => {
                let mac = na.target_lladdr.unwrap_or(frame.source);
                self.on_claim(now, interface, na.target.into(), mac);
                let to_us = |claim: &Claim| {
                    claim.asks_peers_from() == Some(ndp.destination.into())
                        && is_received_by(claim, frame)
                };
                if na.solicited {
                    self.on_answer(now, interface, na.target.into(), mac, to_us);
                }
            }
        }
    }

    /// A host asks all who has `ip`.
    fn on_request(&mut self, interface: InterfaceIndex, frame: &Frame, ip: IpAddr) {
        if frame.destination.is_unicast() || self.own_macs.contains_key(&frame.source) {
            return;
        }
        for claim in &mut self.claims {
            if claim.interface() == interface && claim.vip.ip() == ip {
                claim.on_resolver();
            }
        }
    }

    /// A host claims that `ip` is at `mac`.
    fn on_claim(&mut self, now: Instant, interface: InterfaceIndex, ip: IpAddr, mac: Mac) {
        let own = self.own_macs.contains_key(&mac);
        let mut heard = Vec::new();
        for claim in &mut self.claims {
            if claim.interface() == interface && claim.vip.ip() == ip {
                if !own {
                    claim.on_conflict(now, mac);
                } else if claim.on_own_answer(mac) {
                    self.answering_cards.insert(mac);
                }
                heard.extend(claim.doubtful_peers_at(mac));
            }
        }
        for ip in heard {
            self.exists(now, interface, ip);
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
            self.exists(now, interface, peer);
            let confirmation = self.claims[index].confirmation_mut(at);
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
        if echo.kind != EchoKind::Reply || echo.token.identifier != self.run.identifier {
            return;
        }
        if self.vip_ips.contains(&echo.source) {
            self.on_holder_echo(now, interface, frame, echo);
            return;
        }
        if self.is_census_reply(interface, echo) {
            self.on_census_reply(now, interface, frame.source, echo.source);
            return;
        }
        let run = self.run.clone();
        // A reply to a VIP answers no control echo.
        let to_any_vip = self.vip_ips.contains(&echo.destination);
        let is_other_card = self.cards.get(&interface) == Some(&frame.destination);
        for index in 0..self.claims.len() {
            let claim = &self.claims[index];
            if to_any_vip && claim.vip.ip() != echo.destination {
                continue;
            }
            let Some(at) = claim.find_peer(echo.source) else {
                continue;
            };
            let to_vip = claim.interface() == interface
                && claim.vip.ip() == echo.destination
                && claim.mac() == Some(frame.destination);
            let control = claim.confirmations()[at].peer.control;
            let to_control = control.is_some_and(|at| is_to(at, interface, frame, echo));
            let to_other_card = !to_vip && to_any_vip && is_other_card;
            let to_other_card = to_other_card && claim.has_own_answer(frame.destination);
            if !to_vip && !to_other_card && !to_control {
                continue;
            }
            let reply = Reply {
                vip: claim.vip,
                mac: frame.source,
                token: echo.token,
                hop_limit: echo.hop_limit,
            };
            let on = claim.interface();
            let confirmation = self.claims[index].confirmation_mut(at);
            // Only the first answer of a peer counts.
            let counts = !confirmation.has_answered();
            let (question, is_new) = if to_vip {
                (Question::Echo, confirmation.on_echo(now, &reply, &run))
            } else if to_other_card {
                let is_new = confirmation.on_echo_at_other_card(&reply, &run);
                (Question::Echo, is_new)
            } else {
                (
                    Question::Control,
                    confirmation.on_control_echo(&reply, &run),
                )
            };
            let follows = confirmation.proven.is_some();
            self.claims[index].answered(at);
            if is_new {
                self.peer_answers(now, index, at, question, counts);
                self.exists(now, on, echo.source);
                if !follows {
                    self.ask_again(now, index, at);
                }
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
        let run = self.run.clone();
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.vip.ip() != echo.source {
                continue;
            }
            let reply = Reply {
                vip: claim.vip,
                mac: frame.source,
                token: echo.token,
                hop_limit: echo.hop_limit,
            };
            let to_control = |control| is_to(control, interface, frame, echo);
            let answers = claim.confirmations().iter().position(|one| {
                one.peer.control.is_some_and(to_control) && one.expects_holder(&reply, &run)
            });
            if let Some(at) = answers
                && claim.confirmation_mut(at).on_holder_echo(&reply, &run)
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
        self.claims[index].answered(peer);
        let mac = self.claims[index].confirmations()[peer].peer.mac;
        self.traffic_of(interface, mac, false);
        self.path_is_alive(now, interface);
        self.paths.hear_answer(interface);
        if counts {
            let confirmation = &self.claims[index].confirmations()[peer];
            let asked = confirmation.asked_while_alive(question).max(1);
            self.paths.count_answer(interface, asked);
        }
    }

    /// A frame of another host came in. After a silence, the path has just come alive, and hosts in no
    /// neighbour table need the broadcasts.
    pub(super) fn path_is_alive(&mut self, now: Instant, interface: InterfaceIndex) {
        if !self.paths.comes_alive(now, interface) {
            return;
        }
        self.background.path_came_alive(interface);
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

/// Whether a frame goes to a claim's interface or to all. A switch may flood an answer to the old owner,
/// and a packet socket receives that, too.
fn is_received_by(claim: &Claim, frame: &Frame) -> bool {
    claim.mac() == Some(frame.destination) || !frame.destination.is_unicast()
}

/// Whether an echo reply goes to the source of control echoes.
fn is_to(control: Control, interface: InterfaceIndex, frame: &Frame, echo: &Echo) -> bool {
    control.interface == interface
        && control.ip == echo.destination
        && control.mac == frame.destination
}
