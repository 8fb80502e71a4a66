//! The two datagrams, an order and its answer. `docs/orders.md` has the layout.
//!
//! Parsing is strict: it rejects every datagram that this program would not have written, octet by
//! octet. It never panics.

use std::net::{IpAddr, Ipv6Addr};

use serde::Serialize;

use super::Keys;
use crate::address::{Mac, Vip};

/// The default UDP port.
pub const PORT: u16 = 11120;
/// The most VIPs of one order.
pub const MOST_VIPS: usize = 16;
/// The most octets of an instance's name in an order.
pub const LONGEST_INSTANCE: usize = 64;
/// Octets of the shortest and of the longest order.
pub const ORDER_LENGTH: (usize, usize) = (
    ORDER_HEAD + ORDER_VIP + TAG,
    ORDER_HEAD + LONGEST_INSTANCE + MOST_VIPS * ORDER_VIP + TAG,
);
/// Octets of the shortest and of the longest answer.
pub const ANSWER_LENGTH: (usize, usize) =
    (HEAD + ANSWER_VIP + TAG, HEAD + MOST_VIPS * ANSWER_VIP + TAG);
/// Octets of the authentication code at the end of both: HMAC-SHA-256 (RFC 2104, FIPS 180-4).
pub const TAG: usize = 32;

const MAGIC: [u8; 4] = *b"VIPH";
const VERSION: u8 = 2;
/// The first version: its orders do not say from which network they are.
const OLD_VERSION: u8 = 1;
const KIND: usize = 5;
const FLAGS: usize = 6;
const COUNT: usize = 7;
const TIME: usize = 8;
const ID: usize = 16;
const HEAD: usize = 32;
/// Of an order: also the destination address and the length of the instance's name.
const ORDER_HEAD: usize = HEAD + 16 + 1;
/// A VIP of an order: address and MAC.
const ORDER_VIP: usize = 16 + 6;
/// A VIP of an answer: address, outcome and reason, the MAC before and after, interface.
const ANSWER_VIP: usize = 16 + 2 + 6 + 6 + INTERFACE;
/// Linux interface names have at most 15 octets, and a NUL (`IFNAMSIZ`).
const INTERFACE: usize = 16;

#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Kind {
    Order = 1,
    Answer = 2,
    Report = 3,
    Acknowledgement = 4,
}

/// An order's random id: 128 bits.
pub type Id = [u8; 16];

/// What the owner of some VIPs sends a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The sender's clock: milliseconds since 1970, UTC.
    pub time: u64,
    /// The random id.
    pub id: Id,
    /// The destination, a host's or a broadcast address. `listen` on other hosts ignores the order.
    pub to: IpAddr,
    /// The instance or group of the VIPs; may be empty.
    pub instance: String,
    /// From 1 to [`MOST_VIPS`] VIPs, each once, with its current MAC.
    pub vips: Vec<(Vip, Mac)>,
}

/// What a peer did about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The peer's clock: milliseconds since 1970, UTC.
    pub time: u64,
    /// The id of the order.
    pub id: Id,
    /// One result per VIP, in the sequence of the order.
    pub done: Vec<Done>,
}

/// What a peer did about one VIP of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The VIP.
    pub vip: Vip,
    /// What the peer did.
    pub outcome: Outcome,
    /// The MAC of the peer's entry before.
    pub was: Option<Mac>,
    /// The MAC of the peer's entry when it answered.
    pub now: Option<Mac>,
    /// The interface of the entry, or the one that held the VIP; may be empty.
    pub interface: String,
}

/// What a peer did about one VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The entry had another MAC. The peer deleted it.
    Purged,
    /// The entry already had the MAC of the order.
    Right,
    /// There was no entry.
    Absent,
    /// The entry has another MAC. The peer kept it.
    Kept(Reason),
    /// The peer did nothing.
    Refused(Reason),
    /// A dead keepalived had left the VIP on the peer. The peer removed it.
    Released,
}

/// Why a peer kept an entry or refused an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Reason {
    /// The clocks differ by more than the peer allows.
    Clock = 1,
    /// The peer does not accept orders for this address.
    NotAllowed = 2,
    /// The address is a gateway of the peer.
    Gateway = 3,
    /// The peer holds the VIP itself.
    HeldThere = 4,
    /// The peer holds the VIP itself, and its keepalived may be alive.
    MaybeAlive = 5,
    /// The peer's kernel returned an error, which the peer has logged.
    Failed = 6,
    /// The peer received more orders than it remembers.
    Busy = 7,
    /// The entry is PERMANENT.
    Permanent = 8,
    /// The entry is NOARP, a proxy entry, or externally learned.
    Foreign = 9,
}

const REASONS: [Reason; 9] = [
    Reason::Clock,
    Reason::NotAllowed,
    Reason::Gateway,
    Reason::HeldThere,
    Reason::MaybeAlive,
    Reason::Failed,
    Reason::Busy,
    Reason::Permanent,
    Reason::Foreign,
];

impl Order {
    /// The signed datagram, without the VIPs beyond [`MOST_VIPS`] and the part of the name beyond
    /// [`LONGEST_INSTANCE`].
    #[must_use]
    pub fn to_bytes(&self, keys: &Keys) -> Vec<u8> {
        let vips = &self.vips[..self.vips.len().min(MOST_VIPS)];
        let mut end = self.instance.len().min(LONGEST_INSTANCE);
        while !self.instance.is_char_boundary(end) {
            end -= 1;
        }
        let instance = &self.instance.as_bytes()[..end];
        let mut datagram = head(Kind::Order, vips.len(), self.time, self.id);
        datagram.extend_from_slice(&mapped(self.to));
        datagram.extend(u8::try_from(end));
        datagram.extend_from_slice(instance);
        for (vip, mac) in vips {
            datagram.extend_from_slice(&mapped(vip.ip()));
            datagram.extend_from_slice(&mac.octets());
        }
        keys.sign(&mut datagram);
        datagram
    }

    /// Whether a datagram starts like an order of this version.
    #[must_use]
    pub fn is_begun_by(datagram: &[u8]) -> bool {
        has_head(datagram, Kind::Order)
    }

    /// Whether a datagram starts like an order of an older version, which is not accepted.
    #[must_use]
    pub fn is_old(datagram: &[u8]) -> bool {
        has_head_of(OLD_VERSION, datagram, Kind::Order)
    }

    /// Parses an authenticated order without its tag.
    #[must_use]
    pub fn parse(signed: &[u8]) -> Option<Self> {
        let mut reader = Reader(signed);
        let (count, time, id) = reader.head(Kind::Order)?;
        let to = reader.ip()?;
        let length = reader.octet()?.into();
        if length > LONGEST_INSTANCE {
            return None;
        }
        let instance = std::str::from_utf8(reader.take(length)?).ok()?;
        let mut vips: Vec<(Vip, Mac)> = Vec::with_capacity(count);
        for _ in 0..count {
            let (vip, mac) = (reader.vip()?, reader.mac()?);
            if !mac.is_unicast() || vips.iter().any(|(other, _)| *other == vip) {
                return None;
            }
            vips.push((vip, mac));
        }
        let clean = !instance.chars().any(char::is_control);
        (reader.0.is_empty() && clean).then(|| Self {
            time,
            id,
            to,
            instance: instance.to_owned(),
            vips,
        })
    }
}

impl Answer {
    /// The answer that refuses an order as a whole.
    #[must_use]
    pub fn refusal(order: &Order, time: u64, reason: Reason) -> Self {
        let refused = |(vip, _): &(Vip, Mac)| Done {
            vip: *vip,
            outcome: Outcome::Refused(reason),
            was: None,
            now: None,
            interface: String::new(),
        };
        Self {
            time,
            id: order.id,
            done: order.vips.iter().map(refused).collect(),
        }
    }

    /// The signed datagram, without the VIPs beyond [`MOST_VIPS`].
    #[must_use]
    pub fn to_bytes(&self, keys: &Keys) -> Vec<u8> {
        let done = &self.done[..self.done.len().min(MOST_VIPS)];
        let mut datagram = head(Kind::Answer, done.len(), self.time, self.id);
        for done in done {
            datagram.extend_from_slice(&mapped(done.vip.ip()));
            datagram.extend_from_slice(&done.outcome.to_bytes());
            for mac in [done.was, done.now] {
                datagram.extend_from_slice(&mac.unwrap_or(Mac::ZERO).octets());
            }
            let mut interface = [0; INTERFACE];
            let name = done.interface.as_bytes();
            let length = name.len().min(INTERFACE - 1);
            interface[..length].copy_from_slice(&name[..length]);
            datagram.extend_from_slice(&interface);
        }
        keys.sign(&mut datagram);
        datagram
    }

    /// Authenticates and parses a whole datagram.
    #[must_use]
    pub fn read(datagram: &[u8], keys: &Keys) -> Option<Self> {
        let possible = (ANSWER_LENGTH.0..=ANSWER_LENGTH.1).contains(&datagram.len());
        if !possible || !has_head(datagram, Kind::Answer) {
            return None;
        }
        Self::parse(keys.authenticate(datagram)?)
    }

    /// Parses an authenticated answer without its tag.
    #[must_use]
    pub fn parse(signed: &[u8]) -> Option<Self> {
        let mut reader = Reader(signed);
        let (count, time, id) = reader.head(Kind::Answer)?;
        let mut done: Vec<Done> = Vec::with_capacity(count);
        for _ in 0..count {
            let vip = reader.vip()?;
            let outcome = Outcome::from_bytes([reader.octet()?, reader.octet()?])?;
            let (was, now) = (reader.mac()?, reader.mac()?);
            let interface = reader.interface()?;
            if done.iter().any(|other| other.vip == vip) {
                return None;
            }
            let known = |mac: Mac| (mac != Mac::ZERO).then_some(mac);
            done.push(Done {
                vip,
                outcome,
                was: known(was),
                now: known(now),
                interface,
            });
        }
        reader.0.is_empty().then_some(Self { time, id, done })
    }
}

impl Outcome {
    fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Purged => [1, 0],
            Self::Right => [2, 0],
            Self::Absent => [3, 0],
            Self::Kept(reason) => [4, reason as u8],
            Self::Refused(reason) => [5, reason as u8],
            Self::Released => [6, 0],
        }
    }

    fn from_bytes([outcome, reason]: [u8; 2]) -> Option<Self> {
        let named = REASONS.into_iter().find(|named| *named as u8 == reason);
        match (outcome, reason, named) {
            (1, 0, _) => Some(Self::Purged),
            (2, 0, _) => Some(Self::Right),
            (3, 0, _) => Some(Self::Absent),
            (4, _, Some(reason)) => Some(Self::Kept(reason)),
            (5, _, Some(reason)) => Some(Self::Refused(reason)),
            (6, 0, _) => Some(Self::Released),
            _ => None,
        }
    }
}

pub(super) fn head(kind: Kind, count: usize, time: u64, id: Id) -> Vec<u8> {
    let mut head = Vec::with_capacity(ANSWER_LENGTH.1);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&[VERSION, kind as u8, 0]);
    head.extend(u8::try_from(count));
    head.extend_from_slice(&time.to_be_bytes());
    head.extend_from_slice(&id);
    head
}

pub(super) fn has_head(datagram: &[u8], kind: Kind) -> bool {
    has_head_of(VERSION, datagram, kind)
}

fn has_head_of(version: u8, datagram: &[u8], kind: Kind) -> bool {
    datagram.starts_with(&MAGIC) && datagram.get(MAGIC.len()..=KIND) == Some(&[version, kind as u8])
}

/// An address in 16 octets: IPv6, or IPv4-mapped IPv6.
pub(super) fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The octets not parsed yet.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// The number of VIPs, the time and the id.
    pub(super) fn head(&mut self, kind: Kind) -> Option<(usize, u64, Id)> {
        let head = self.take(HEAD)?;
        let count = usize::from(head[COUNT]);
        let valid = has_head(head, kind) && head[FLAGS] == 0 && (1..=MOST_VIPS).contains(&count);
        let time = u64::from_be_bytes(head[TIME..ID].try_into().ok()?);
        valid.then_some((count, time, head[ID..].try_into().ok()?))
    }

    fn octet(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn ip(&mut self) -> Option<IpAddr> {
        let octets: [u8; 16] = self.take(16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).to_canonical())
    }

    pub(super) fn vip(&mut self) -> Option<Vip> {
        Vip::try_from(self.ip()?).ok()
    }

    pub(super) fn mac(&mut self) -> Option<Mac> {
        Mac::from_slice(self.take(6)?)
    }

    /// An interface's name, padded with zeroes.
    fn interface(&mut self) -> Option<String> {
        let field = self.take(INTERFACE)?;
        let length = field.iter().position(|octet| *octet == 0)?;
        let (name, rest) = field.split_at(length);
        let name = std::str::from_utf8(name).ok()?;
        let clean = !name.chars().any(char::is_control) && rest.iter().all(|octet| *octet == 0);
        clean.then(|| name.to_owned())
    }
}

#[cfg(test)]
mod tests;
