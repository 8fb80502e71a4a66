//! When the sender sends and repeats orders, and which answers it accepts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Keys;
use super::message::{Answer, Done, Id, MOST_VIPS, Order, Outcome, Reason};
use crate::address::{InterfaceIndex, Mac, Vip};

/// The gap after the first try. It doubles up to [`LONGEST_GAP`].
const FIRST_GAP: Duration = Duration::from_millis(50);
/// The longest gap at first. On a link that loses 60 % in both directions, one try in six succeeds.
const LONGEST_GAP: Duration = Duration::from_millis(250);
/// The duration of [`Retry::Briefly`]: not every peer listens, and a run must not wait for that.
const BRIEFLY: Duration = Duration::from_secs(5);
/// The gap after that.
const PATIENT_GAP: Duration = Duration::from_secs(1);
/// After this time the order gets a new time and id, so that it stays within the peer's window.
const FRESH: Duration = Duration::from_secs(5);
/// Give up after this many ICMP port unreachable messages. One proves little: systemd may be about to
/// start the listener, or somebody may have forged it.
const REFUSALS: u32 = 4;

/// The result of ordering one peer to purge one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// No answer so far.
    Unanswered,
    /// The peer answered.
    Answered {
        /// What the peer did.
        done: Done,
        /// After [`Reason::Clock`]: by how many milliseconds the peer's clock is ahead.
        skew: Option<i64>,
    },
}

impl Fate {
    /// The result in one word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.outcome() {
            None => "unanswered",
            Some(Outcome::Purged) => "purged",
            Some(Outcome::Right) => "right",
            Some(Outcome::Absent) => "absent",
            Some(Outcome::Kept(_)) => "kept",
            Some(Outcome::Refused(_)) => "refused",
            Some(Outcome::Released) => "released",
        }
    }

    /// What the peer did, if it answered.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Unanswered => None,
            Self::Answered { done, .. } => Some(done.outcome),
        }
    }

    /// Whether the peer has no wrong entry any more.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let outcome = self.outcome();
        outcome.is_some_and(|all| !matches!(all, Outcome::Kept(_) | Outcome::Refused(_)))
    }
}

/// Where an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The peer, or the broadcast address of a link.
    pub to: IpAddr,
    /// The source address; `None`: the kernel chooses.
    pub from: Option<IpAddr>,
    /// The interface that holds the VIPs.
    pub interface: InterfaceIndex,
}

/// How long to repeat an order that nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not at all. It is a broadcast, and any number of peers may answer.
    Never,
    /// For five seconds.
    Briefly,
    /// As long as the run lasts.
    UntilTimeout,
}

/// A datagram to send now.
#[derive(Debug)]
#[must_use]
pub struct Datagram {
    /// The number of the order. All its datagrams leave from the same socket.
    pub outgoing: u64,
    /// Where it goes.
    pub route: Route,
    /// Whether [`Route::to`] is a broadcast address.
    pub broadcast: bool,
    /// The octets.
    pub datagram: Vec<u8>,
}

/// A peer's answer about one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAnswer {
    /// The peer that got the order. After a broadcast: the source of the answer.
    pub peer: IpAddr,
    /// The interface that holds the VIP.
    pub interface: InterfaceIndex,
    /// The VIP.
    pub vip: Vip,
    /// What the peer did.
    pub fate: Fate,
}

/// The orders of a run.
#[derive(Debug)]
pub struct Outbox {
    keys: Keys,
    instance: String,
    outgoing: Vec<Outgoing>,
    last_number: u64,
}

/// An order to one peer for up to [`MOST_VIPS`] VIPs.
#[derive(Debug)]
struct Outgoing {
    number: u64,
    route: Route,
    retry: Retry,
    vips: Vec<(Vip, Mac)>,
    /// The ids that it was sent with, and the time in each datagram.
    ids: Vec<(Id, u64)>,
    datagram: Vec<u8>,
    signed_at: Instant,
    began: Option<Instant>,
    gap: Duration,
    due: Option<Instant>,
    refusals: u32,
}

impl Outbox {
    /// An empty outbox for the VIPs of an instance or group, whose name may be empty.
    #[must_use]
    pub fn new(keys: Keys, instance: String) -> Self {
        Self {
            keys,
            instance,
            outgoing: Vec::new(),
            last_number: 0,
        }
    }

    /// Queues an order: the peer shall purge any entry for `vip` whose MAC is not `mac`.
    pub fn request(&mut self, now: Instant, route: Route, retry: Retry, (vip, mac): (Vip, Mac)) {
        let open = self.outgoing.iter_mut().find(|outgoing| {
            outgoing.route == route
                && outgoing.retry == retry
                && outgoing.began.is_none()
                && outgoing.vips.len() < MOST_VIPS
        });
        match open {
            Some(outgoing) if outgoing.vips.iter().all(|(other, _)| *other != vip) => {
                outgoing.vips.push((vip, mac));
            }
            Some(_) => {}
            None => {
                self.last_number += 1;
                self.outgoing.push(Outgoing {
                    number: self.last_number,
                    route,
                    retry,
                    vips: vec![(vip, mac)],
                    ids: Vec::new(),
                    datagram: Vec::new(),
                    signed_at: now,
                    began: None,
                    gap: FIRST_GAP,
                    due: Some(now),
                    refusals: 0,
                });
            }
        }
    }

    /// Drops each order with a VIP for which `holds` returns `false`.
    pub fn retain(&mut self, holds: impl Fn(InterfaceIndex, Vip, Mac) -> bool) {
        self.outgoing.retain(|outgoing| {
            let interface = outgoing.route.interface;
            let mut vips = outgoing.vips.iter();
            vips.all(|(vip, mac)| holds(interface, *vip, *mac))
        });
    }

    /// The next datagram that is due. `wall` is this host's clock in milliseconds since 1970, UTC;
    /// `id` returns a random id.
    pub fn poll(&mut self, now: Instant, wall: u64, id: impl FnOnce() -> Id) -> Option<Datagram> {
        self.outgoing.retain(|outgoing| !outgoing.is_given_up(now));
        let due = |outgoing: &&mut Outgoing| outgoing.due.is_some_and(|due| due <= now);
        let outgoing = self.outgoing.iter_mut().find(due)?;
        if outgoing.datagram.is_empty() || now >= outgoing.signed_at + FRESH {
            let order = Order {
                time: wall,
                id: id(),
                to: outgoing.route.to,
                instance: self.instance.clone(),
                vips: outgoing.vips.clone(),
            };
            outgoing.datagram = order.to_bytes(&self.keys);
            outgoing.ids.push((order.id, wall));
            outgoing.signed_at = now;
        }
        let began = *outgoing.began.get_or_insert(now);
        let gap = outgoing.gap;
        outgoing.gap = if now >= began + BRIEFLY {
            PATIENT_GAP
        } else {
            (gap * 2).min(LONGEST_GAP)
        };
        outgoing.due = (outgoing.retry != Retry::Never).then_some(now + gap);
        Some(Datagram {
            outgoing: outgoing.number,
            route: outgoing.route,
            broadcast: outgoing.retry == Retry::Never,
            datagram: outgoing.datagram.clone(),
        })
    }

    /// An ICMP port unreachable message answered order `number`.
    pub fn refused(&mut self, number: u64) {
        for outgoing in &mut self.outgoing {
            outgoing.refusals += u32::from(outgoing.number == number);
        }
        self.outgoing
            .retain(|outgoing| outgoing.refusals < REFUSALS);
    }

    /// This host can't send order `number`, now or later.
    pub fn give_up(&mut self, number: u64) {
        self.outgoing.retain(|outgoing| outgoing.number != number);
    }

    /// A datagram arrived: one result per VIP if it answers an order of this run, else none.
    pub fn on_answer(&mut self, from: IpAddr, datagram: &[u8]) -> Vec<PeerAnswer> {
        self.accepted(from, datagram).unwrap_or_default()
    }

    fn accepted(&mut self, from: IpAddr, datagram: &[u8]) -> Option<Vec<PeerAnswer>> {
        let answer = Answer::read(datagram, &self.keys)?;
        let (at, time) = self
            .outgoing
            .iter()
            .enumerate()
            .find_map(|(at, outgoing)| {
                let mut ids = outgoing.ids.iter();
                ids.find_map(|(id, time)| (*id == answer.id).then_some((at, *time)))
            })?;
        let outgoing = &mut self.outgoing[at];
        let ordered = outgoing.vips.iter().map(|(vip, _)| *vip);
        if !ordered.eq(answer.done.iter().map(|done| done.vip)) {
            return None;
        }
        let busy = |done: &Done| done.outcome == Outcome::Refused(Reason::Busy);
        if answer.done.iter().all(busy) {
            // Try again, with a new id: the peer remembers its answer to this one.
            outgoing.datagram.clear();
            return None;
        }
        let Route { to, interface, .. } = outgoing.route;
        let broadcast = outgoing.retry == Retry::Never;
        if !broadcast {
            self.outgoing.remove(at);
        }
        let skew = answer.time.cast_signed().wrapping_sub(time.cast_signed());
        let results = answer.done.into_iter().map(|done| PeerAnswer {
            peer: if broadcast { from } else { to },
            interface,
            vip: done.vip,
            fate: Fate::Answered {
                skew: (done.outcome == Outcome::Refused(Reason::Clock)).then_some(skew),
                done,
            },
        });
        Some(results.collect())
    }

    /// Whether order `number` still waits for answers.
    #[must_use]
    pub fn is_open(&self, number: u64) -> bool {
        self.outgoing
            .iter()
            .any(|outgoing| outgoing.number == number)
    }

    /// Whether the run waits for an answer; it never waits for answers to a broadcast.
    #[must_use]
    pub fn is_waiting(&self, now: Instant) -> bool {
        let mut outgoing = self.outgoing.iter();
        outgoing.any(|outgoing| outgoing.due.is_some() && !outgoing.is_given_up(now))
    }

    /// When to call [`Outbox::poll`] again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let outgoing = self.outgoing.iter();
        outgoing.filter_map(|outgoing| outgoing.due).min()
    }
}

impl Outgoing {
    fn is_given_up(&self, now: Instant) -> bool {
        let silent_for = |time| self.began.is_some_and(|began| now >= began + time);
        self.retry == Retry::Briefly && silent_for(BRIEFLY)
    }
}

#[cfg(test)]
mod tests;
