//! The hosts that may not exist: old table entries, the addresses of a sweep, and those that others only
//! mentioned. They get few questions, at a rate of their own, and about one VIP only, until one of them is
//! heard.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use super::Peer;
use super::rate::Bucket;
use crate::address::{InterfaceIndex, Prefix};

/// Questions per second. With the burst, no second has more than 200.
const RATE: NonZeroU32 = NonZeroU32::new(150).unwrap();
/// How many questions may leave at once. A host that answers costs nothing, so a table of hosts that all
/// exist is asked as fast as they answer.
const BURST: u32 = 50;
/// Questions per second to hosts that others only mentioned. Each is a broadcast, and anybody can mention
/// hosts: with keepalived's own frames and those of the rounds, no second has more than a switch lets
/// through (15). The first second has no room.
const MENTIONED_RATE: NonZeroU32 = NonZeroU32::new(4).unwrap();
const MENTIONED_FROM: Duration = Duration::from_secs(1);
/// The questions to a host that answers none, on a path without losses.
const MOST_QUESTIONS: u32 = 3;
/// As many unanswered questions rule out chance on a path without losses.
const WITHOUT_LOSS: u32 = 5;

/// The part of a link where VIPs have the same hosts: the interface, whether it is IPv4, and the subnets.
pub(crate) type Neighbourhood = (InterfaceIndex, bool, Vec<Prefix>);

/// A host that may not exist.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// Questions to it, about all VIPs.
    questions: u32,
    /// The claim that asks it.
    claim: usize,
    /// Whether it was among the first: only for these a run lasts.
    is_early: bool,
}

/// The hosts that may not exist.
#[derive(Debug)]
pub(crate) struct Background {
    hosts: HashMap<(InterfaceIndex, IpAddr), Doubt>,
    /// The claim that asks the hosts of a neighbourhood.
    first: HashMap<Neighbourhood, usize>,
    bucket: Bucket,
    mentioned: Bucket,
}

impl Background {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            hosts: HashMap::new(),
            first: HashMap::new(),
            bucket: Bucket::with_depth(RATE, BURST, now),
            mentioned: Bucket::with_depth(MENTIONED_RATE, 1, now + MENTIONED_FROM),
        }
    }

    /// Whether a claim is the first of its neighbourhood: only that one asks hosts that may not exist.
    pub(crate) fn begin(&mut self, neighbourhood: Neighbourhood, claim: usize) -> bool {
        *self.first.entry(neighbourhood).or_insert(claim) == claim
    }

    /// The claim that is the first of a neighbourhood.
    pub(crate) fn first(&self, neighbourhood: &Neighbourhood) -> Option<usize> {
        self.first.get(neighbourhood).copied()
    }

    /// The first claims of all neighbourhoods.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = usize> + '_ {
        self.first.values().copied()
    }

    /// Another claim is the first of its neighbourhood from now on.
    pub(crate) fn hand_over(&mut self, from: usize, to: usize) {
        for first in self.first.values_mut().filter(|first| **first == from) {
            *first = to;
        }
        let of = self.hosts.values_mut().filter(|one| one.claim == from);
        for doubt in of {
            (doubt.claim, doubt.questions) = (to, 0);
        }
    }

    /// A claim has such a host as a peer.
    pub(crate) fn add(&mut self, interface: InterfaceIndex, peer: &Peer, claim: usize) {
        let is_early = self.hosts.len() < BURST as usize && !peer.is_only_mentioned();
        self.hosts.entry((interface, peer.ip)).or_insert(Doubt {
            questions: 0,
            claim,
            is_early,
        });
    }

    /// Whether a host is one of the first.
    pub(crate) fn is_early(&self, interface: InterfaceIndex, ip: IpAddr) -> bool {
        self.hosts
            .get(&(interface, ip))
            .is_some_and(|one| one.is_early)
    }

    /// Whether a host gets another question. `enough` as for
    /// [`Confirmation::is_open`](super::Confirmation::is_open).
    pub(crate) fn wants_question(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
        enough: Option<u32>,
    ) -> bool {
        let most = match enough {
            Some(enough) if enough <= WITHOUT_LOSS => MOST_QUESTIONS,
            Some(enough) => enough,
            // Nobody is heard: the path may come alive.
            None => u32::MAX,
        };
        self.hosts
            .get(&(interface, ip))
            .is_some_and(|one| one.questions < most)
    }

    /// Whether the run lasts for a host: one of the first that wants another question.
    pub(crate) fn is_open(
        &self,
        interface: InterfaceIndex,
        ip: IpAddr,
        enough: Option<u32>,
    ) -> bool {
        let doubt = self.hosts.get(&(interface, ip));
        // Losses may take more questions, but the run does not last for those.
        doubt.is_some_and(|one| one.is_early && one.questions < MOST_QUESTIONS)
            && self.wants_question(interface, ip, enough)
    }

    /// When the next question may leave.
    pub(crate) fn ready_at(&self) -> Instant {
        self.bucket.ready_at()
    }

    /// The same for hosts that others only mentioned.
    pub(crate) fn mentioned_ready_at(&self) -> Instant {
        self.mentioned.ready_at()
    }

    /// A question to a host left.
    pub(crate) fn asked(&mut self, now: Instant, interface: InterfaceIndex, peer: &Peer) {
        match peer.is_only_mentioned() {
            true => self.mentioned.take(now),
            false => self.bucket.take(now),
        };
        if let Some(doubt) = self.hosts.get_mut(&(interface, peer.ip)) {
            doubt.questions += 1;
        }
    }

    /// A host was heard. If that is new, returns the claim that asked it.
    pub(crate) fn heard(
        &mut self,
        now: Instant,
        interface: InterfaceIndex,
        ip: IpAddr,
    ) -> Option<usize> {
        let doubt = self.hosts.remove(&(interface, ip))?;
        for _ in 0..doubt.questions {
            self.bucket.refund(now);
        }
        Some(doubt.claim)
    }

    /// A claim starts over: its earlier questions prove nothing.
    pub(crate) fn start_over(&mut self, claim: usize) {
        let of = self.hosts.values_mut().filter(|one| one.claim == claim);
        for doubt in of {
            doubt.questions = 0;
        }
    }

    /// The path came alive: earlier questions prove nothing.
    pub(crate) fn path_came_alive(&mut self, interface: InterfaceIndex) {
        let on = self
            .hosts
            .iter_mut()
            .filter(|((on, _), _)| *on == interface);
        for (_, doubt) in on {
            doubt.questions = 0;
        }
    }
}
