//! Which peer is sent an order when, and which answers count. Pure: it is told the time and what
//! came in, and says what to send.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Keys;
use super::message::{Answer, Done, Id, MOST_VIPS, Order, Outcome, Reason};
use crate::address::{InterfaceIndex, Mac, Vip};

/// The gap after the first try. It doubles up to [`LONGEST_GAP`].
const FIRST_GAP: Duration = Duration::from_millis(50);
/// The longest gap in the first seconds: a link that loses 60 % both ways answers one try in six.
const LONGEST_GAP: Duration = Duration::from_millis(250);
/// How long whoever is only ordered by way of precaution may stay silent. Not every peer listens,
/// and a run shall not last for that.
const PRECAUTION: Duration = Duration::from_secs(5);
/// The gap from then on.
const PATIENT_GAP: Duration = Duration::from_secs(1);
/// After this time an order is made anew, lest the peer's window pass.
const FRESH: Duration = Duration::from_secs(5);
/// Times that a peer's kernel may say that nobody listens (ICMP port unreachable): systemd may be
/// about to start it, or a filter may forge it.
const REFUSALS: u32 = 4;

/// What became of the order to one peer about one VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was not answered, so far or at all.
    Unanswered,
    /// It was.
    Answered {
        /// What the peer did.
        done: Done,
        /// How far its clock is ahead of this host's, where it refused for that: milliseconds.
        skew: Option<i64>,
    },
}

impl Fate {
    /// In one word.
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

    /// Whether nothing is left to be wished for.
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
    /// The own address that it is sent from; `None`: as the kernel has it.
    pub from: Option<IpAddr>,
    /// The interface that holds the VIPs.
    pub interface: InterfaceIndex,
}

/// How long an order is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not at all: it is a broadcast, which nobody in particular answers.
    Never,
    /// For a few seconds.
    Briefly,
    /// For as long as the run may last.
    UntilTimeout,
}

/// A datagram that shall leave now.
#[derive(Debug)]
#[must_use]
pub struct Datagram {
    /// The outgoing that it is of: what is sent of one outgoing leaves from one socket.
    pub outgoing: u64,
    /// Where it goes.
    pub route: Route,
    /// Whether that is everyone.
    pub broadcast: bool,
    /// Its octets.
    pub datagram: Vec<u8>,
}

/// An answer to one of the orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who answered: the one that was ordered or, of a broadcast, the sender.
    pub peer: IpAddr,
    /// The interface that holds the VIP.
    pub interface: InterfaceIndex,
    /// The VIP.
    pub vip: Vip,
    /// What was done.
    pub fate: Fate,
}

/// The orders of a run.
#[derive(Debug)]
pub struct Outbox {
    keys: Keys,
    instance: String,
    outgoing: Vec<Outgoing>,
    written: u64,
}

/// The orders to one peer that go in one datagram.
#[derive(Debug)]
struct Outgoing {
    number: u64,
    route: Route,
    retry: Retry,
    vips: Vec<(Vip, Mac)>,
    /// All that were made of it, with the time that each tells.
    made: Vec<(Id, u64)>,
    datagram: Vec<u8>,
    made_at: Instant,
    began: Option<Instant>,
    gap: Duration,
    due: Option<Instant>,
    refusals: u32,
}

impl Outbox {
    /// A outbox with orders about an instance's or group's VIPs; its name may be empty.
    #[must_use]
    pub fn new(keys: Keys, instance: String) -> Self {
        Self {
            keys,
            instance,
            outgoing: Vec::new(),
            written: 0,
        }
    }

    /// Has a peer be ordered to purge what it has for `vip` other than `mac`, at once.
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
                self.written += 1;
                self.outgoing.push(Outgoing {
                    number: self.written,
                    route,
                    retry,
                    vips: vec![(vip, mac)],
                    made: Vec::new(),
                    datagram: Vec::new(),
                    made_at: now,
                    began: None,
                    gap: FIRST_GAP,
                    due: Some(now),
                    refusals: 0,
                });
            }
        }
    }

    /// Drops the orders about what `holds` no longer.
    pub fn retain(&mut self, holds: impl Fn(InterfaceIndex, Vip, Mac) -> bool) {
        self.outgoing.retain(|outgoing| {
            let interface = outgoing.route.interface;
            let mut vips = outgoing.vips.iter();
            vips.all(|(vip, mac)| holds(interface, *vip, *mac))
        });
    }

    /// The next datagram that shall leave now; `wall` is this host's clock, and `id` makes random
    /// ones.
    pub fn poll(&mut self, now: Instant, wall: u64, id: impl FnOnce() -> Id) -> Option<Datagram> {
        self.outgoing.retain(|outgoing| !outgoing.is_given_up(now));
        let due = |outgoing: &&mut Outgoing| outgoing.due.is_some_and(|due| due <= now);
        let outgoing = self.outgoing.iter_mut().find(due)?;
        if outgoing.datagram.is_empty() || now >= outgoing.made_at + FRESH {
            let order = Order {
                time: wall,
                id: id(),
                to: outgoing.route.to,
                instance: self.instance.clone(),
                vips: outgoing.vips.clone(),
            };
            outgoing.datagram = order.to_bytes(&self.keys);
            outgoing.made.push((order.id, wall));
            outgoing.made_at = now;
        }
        let began = *outgoing.began.get_or_insert(now);
        let gap = outgoing.gap;
        outgoing.gap = if now >= began + PRECAUTION {
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

    /// Nobody listened where a outgoing's datagram went.
    pub fn refused(&mut self, number: u64) {
        for outgoing in &mut self.outgoing {
            outgoing.refusals += u32::from(outgoing.number == number);
        }
        self.outgoing
            .retain(|outgoing| outgoing.refusals < REFUSALS);
    }

    /// A outgoing's datagram could not be sent from here at all, now or later.
    pub fn undeliverable(&mut self, number: u64) {
        self.outgoing.retain(|outgoing| outgoing.number != number);
    }

    /// A datagram came in: what it answers, if it is an answer to one of the orders.
    pub fn hear(&mut self, from: IpAddr, datagram: &[u8]) -> Vec<Heard> {
        let Some(answer) = Answer::read(datagram, &self.keys) else {
            return Vec::new();
        };
        let asked = |outgoing: &Outgoing| {
            outgoing
                .made
                .iter()
                .find(|(id, _)| *id == answer.id)
                .copied()
        };
        let found = self.outgoing.iter().enumerate();
        let found = found.filter_map(|(at, outgoing)| Some((at, asked(outgoing)?)));
        let Some((at, (_, time))) = found.into_iter().next() else {
            return Vec::new();
        };
        let outgoing = &self.outgoing[at];
        let ordered = outgoing.vips.iter().map(|(vip, _)| *vip);
        if !ordered.eq(answer.done.iter().map(|done| done.vip)) {
            return Vec::new();
        }
        let once = outgoing.retry == Retry::Never;
        let heard = |done: Done| Heard {
            peer: if once { from } else { outgoing.route.to },
            interface: outgoing.route.interface,
            vip: done.vip,
            fate: Fate::Answered {
                skew: (done.outcome == Outcome::Refused(Reason::Clock))
                    .then(|| answer.time.cast_signed().wrapping_sub(time.cast_signed())),
                done,
            },
        };
        // A peer that has too much to do is asked again.
        let busy = |done: &Done| done.outcome == Outcome::Refused(Reason::Busy);
        if answer.done.iter().all(busy) {
            let outgoing = &mut self.outgoing[at];
            // The same order would get the same answer.
            outgoing.datagram.clear();
            return Vec::new();
        }
        let all = answer.done.iter().cloned().map(heard).collect();
        if !once {
            self.outgoing.remove(at);
        }
        all
    }

    /// Whether a outgoing is still of use: answers to it are heard.
    #[must_use]
    pub fn is_open(&self, number: u64) -> bool {
        self.outgoing
            .iter()
            .any(|outgoing| outgoing.number == number)
    }

    /// Whether an order may still be answered that somebody waits for.
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
        self.retry == Retry::Briefly && silent_for(PRECAUTION)
    }
}

#[cfg(test)]
mod tests;
