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
    pub fn is_good(&self) -> bool {
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
pub enum Patience {
    /// Not at all: it is a broadcast, which nobody in particular answers.
    Once,
    /// For a few seconds.
    Precaution,
    /// For as long as the run may last.
    Needed,
}

/// A datagram that shall leave now.
#[derive(Debug)]
#[must_use]
pub struct Posting {
    /// The letter that it is of: what is sent of one letter leaves from one socket.
    pub letter: u64,
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
pub struct Courier {
    keys: Keys,
    instance: String,
    letters: Vec<Letter>,
    written: u64,
}

/// The orders to one peer that go in one datagram.
#[derive(Debug)]
struct Letter {
    number: u64,
    route: Route,
    patience: Patience,
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

impl Courier {
    /// A courier with orders about an instance's or group's VIPs; its name may be empty.
    #[must_use]
    pub fn new(keys: Keys, instance: String) -> Self {
        Self {
            keys,
            instance,
            letters: Vec::new(),
            written: 0,
        }
    }

    /// Has a peer be ordered to purge what it has for `vip` other than `mac`, at once.
    pub fn request(
        &mut self,
        now: Instant,
        route: Route,
        patience: Patience,
        (vip, mac): (Vip, Mac),
    ) {
        let open = self.letters.iter_mut().find(|letter| {
            letter.route == route
                && letter.patience == patience
                && letter.began.is_none()
                && letter.vips.len() < MOST_VIPS
        });
        match open {
            Some(letter) if letter.vips.iter().all(|(other, _)| *other != vip) => {
                letter.vips.push((vip, mac));
            }
            Some(_) => {}
            None => {
                self.written += 1;
                self.letters.push(Letter {
                    number: self.written,
                    route,
                    patience,
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
        self.letters.retain(|letter| {
            let interface = letter.route.interface;
            let mut vips = letter.vips.iter();
            vips.all(|(vip, mac)| holds(interface, *vip, *mac))
        });
    }

    /// The next datagram that shall leave now; `wall` is this host's clock, and `id` makes random
    /// ones.
    pub fn poll(&mut self, now: Instant, wall: u64, id: impl FnOnce() -> Id) -> Option<Posting> {
        self.letters.retain(|letter| !letter.is_given_up(now));
        let due = |letter: &&mut Letter| letter.due.is_some_and(|due| due <= now);
        let letter = self.letters.iter_mut().find(due)?;
        if letter.datagram.is_empty() || now >= letter.made_at + FRESH {
            let order = Order {
                time: wall,
                id: id(),
                to: letter.route.to,
                instance: self.instance.clone(),
                vips: letter.vips.clone(),
            };
            letter.datagram = order.to_bytes(&self.keys);
            letter.made.push((order.id, wall));
            letter.made_at = now;
        }
        let began = *letter.began.get_or_insert(now);
        let gap = letter.gap;
        letter.gap = if now >= began + PRECAUTION {
            PATIENT_GAP
        } else {
            (gap * 2).min(LONGEST_GAP)
        };
        letter.due = (letter.patience != Patience::Once).then_some(now + gap);
        Some(Posting {
            letter: letter.number,
            route: letter.route,
            broadcast: letter.patience == Patience::Once,
            datagram: letter.datagram.clone(),
        })
    }

    /// Nobody listened where a letter's datagram went.
    pub fn refused(&mut self, number: u64) {
        for letter in &mut self.letters {
            letter.refusals += u32::from(letter.number == number);
        }
        self.letters.retain(|letter| letter.refusals < REFUSALS);
    }

    /// A letter's datagram could not be sent from here at all, now or later.
    pub fn undeliverable(&mut self, number: u64) {
        self.letters.retain(|letter| letter.number != number);
    }

    /// A datagram came in: what it answers, if it is an answer to one of the orders.
    pub fn hear(&mut self, from: IpAddr, datagram: &[u8]) -> Vec<Heard> {
        let Some(answer) = Answer::read(datagram, &self.keys) else {
            return Vec::new();
        };
        let asked = |letter: &Letter| letter.made.iter().find(|(id, _)| *id == answer.id).copied();
        let found = self.letters.iter().enumerate();
        let found = found.filter_map(|(at, letter)| Some((at, asked(letter)?)));
        let Some((at, (_, time))) = found.into_iter().next() else {
            return Vec::new();
        };
        let letter = &self.letters[at];
        let ordered = letter.vips.iter().map(|(vip, _)| *vip);
        if !ordered.eq(answer.done.iter().map(|done| done.vip)) {
            return Vec::new();
        }
        let once = letter.patience == Patience::Once;
        let heard = |done: Done| Heard {
            peer: if once { from } else { letter.route.to },
            interface: letter.route.interface,
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
            let letter = &mut self.letters[at];
            // The same order would get the same answer.
            letter.datagram.clear();
            return Vec::new();
        }
        let all = answer.done.iter().cloned().map(heard).collect();
        if !once {
            self.letters.remove(at);
        }
        all
    }

    /// Whether a letter is still of use: answers to it are heard.
    #[must_use]
    pub fn is_open(&self, number: u64) -> bool {
        self.letters.iter().any(|letter| letter.number == number)
    }

    /// Whether an order may still be answered that somebody waits for.
    #[must_use]
    pub fn is_waiting(&self, now: Instant) -> bool {
        let mut letters = self.letters.iter();
        letters.any(|letter| letter.due.is_some() && !letter.is_given_up(now))
    }

    /// When to call [`Courier::poll`] again.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        let letters = self.letters.iter();
        letters.filter_map(|letter| letter.due).min()
    }
}

impl Letter {
    fn is_given_up(&self, now: Instant) -> bool {
        let silent_for = |time| self.began.is_some_and(|began| now >= began + time);
        self.patience == Patience::Precaution && silent_for(PRECAUTION)
    }
}

#[cfg(test)]
mod tests;
