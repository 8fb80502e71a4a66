//! Which datagrams are carried out: the receiver's checks, the cheapest first. Pure: it is handed
//! the datagram, the clock and what holds on this host.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::Keys;
use super::message::{Id, ORDER_LENGTH, Order, Reason};
use crate::address::{Mac, Prefix, Vip};
use crate::host::{HostSnapshot, PlacedVip};

/// VIPs that others may send orders for, beside those of this host's keepalived.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Any address in a subnet of this host's links.
    Links,
    /// Any address of this prefix.
    Prefix(Prefix),
}

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "links" => Ok(Self::Links),
            text => text.parse().map(Self::Prefix).map_err(de::Error::custom),
        }
    }
}

/// Orders that are remembered at once. Only who holds the key can fill this.
const MOST_REMEMBERED: usize = 1024;

/// What a datagram calls for.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, not even an answer.
    Dropped(Dropped),
    /// An order that is none of the present: it was made so many milliseconds after (or, negative,
    /// before) what this host's clock says. It is refused, and its sender told.
    OutOfTime(Order, i64),
    /// More orders came than can be remembered: it is refused, and its sender told.
    Crowded(Order),
    /// An order to this address that its sender sent before: it is told again what was done then.
    Again(IpAddr, Vec<u8>),
    /// A new order, which is now remembered.
    New(Order),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Too short or too long for an order.
    Size,
    /// No order, or one of another version.
    Version,
    /// Nobody who holds a key made it.
    Unauthenticated,
    /// It is signed, and yet not what this version writes.
    Malformed,
    /// It came before, and now comes from elsewhere, or before that was carried out.
    Replayed,
}

/// The checks that need no look at the host.
#[derive(Debug)]
pub struct Admission {
    keys: Keys,
    window: Duration,
    seen: HashMap<Id, Seen>,
}

/// An order that came in.
#[derive(Debug)]
struct Seen {
    from: SocketAddr,
    /// When it may be forgotten, because from then on its time alone refuses it.
    until: u64,
    /// The answer it got, once it was carried out.
    answer: Option<Vec<u8>>,
}

impl Admission {
    /// Judges what these keys signed, within `window` of this host's clock.
    #[must_use]
    pub fn new(keys: Keys, window: Duration) -> Self {
        Self {
            keys,
            window,
            seen: HashMap::new(),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Judges a datagram that came in from an address, by this host's clock in milliseconds since
    /// 1970.
    pub fn rule(&mut self, now: u64, from: SocketAddr, datagram: &[u8]) -> Decision {
        if !(ORDER_LENGTH.0..=ORDER_LENGTH.1).contains(&datagram.len()) {
            return Decision::Dropped(Dropped::Size);
        }
        if !Order::is_begun_by(datagram) {
            return Decision::Dropped(Dropped::Version);
        }
        let Some(signed) = self.keys.authenticate(datagram) else {
            return Decision::Dropped(Dropped::Unauthenticated);
        };
        let Some(order) = Order::parse(signed) else {
            return Decision::Dropped(Dropped::Malformed);
        };
        let window = u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX);
        if order.time.abs_diff(now) > window {
            return Decision::OutOfTime(order.clone(), difference(order.time, now));
        }
        match self.seen.get(&order.id) {
            Some(seen) if seen.from == from => match &seen.answer {
                Some(answer) => return Decision::Again(order.to, answer.clone()),
                None => return Decision::Dropped(Dropped::Replayed),
            },
            Some(_) => return Decision::Dropped(Dropped::Replayed),
            None => {}
        }
        if self.seen.len() >= MOST_REMEMBERED {
            self.forget(now);
        }
        if self.seen.len() >= MOST_REMEMBERED {
            return Decision::Crowded(order);
        }
        let seen = Seen {
            from,
            until: order.time.saturating_add(window),
            answer: None,
        };
        self.seen.insert(order.id, seen);
        Decision::New(order)
    }

    /// An order was carried out, and this was its answer.
    pub fn answered(&mut self, id: &Id, answer: Vec<u8>) {
        if let Some(seen) = self.seen.get_mut(id) {
            seen.answer = Some(answer);
        }
    }

    /// Forgets the orders whose time has passed. Whether any is left: until then, this must not be
    /// forgotten as a whole.
    pub fn forget(&mut self, now: u64) -> bool {
        self.seen.retain(|_, seen| seen.until >= now);
        !self.seen.is_empty()
    }
}

/// `one` - `other`, as far as that can be told.
fn difference(one: u64, other: u64) -> i64 {
    let apart = i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
    if one < other { -apart } else { apart }
}

/// What holds on this host, as far as an order can be about it.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Its interfaces and addresses.
    pub host: HostSnapshot,
    /// The gateways of its routes.
    pub gateways: BTreeSet<IpAddr>,
    /// The VIPs of its keepalived.conf.
    pub configured: Vec<PlacedVip>,
}

impl HostFacts {
    /// Whether an order to this address is one to this host: it is its own, or a broadcast address
    /// of its links.
    #[must_use]
    pub fn is_meant(&self, to: IpAddr) -> bool {
        self.host.addresses.iter().any(|own| {
            let broadcast = Prefix::of(own).broadcast();
            own.ip == to || broadcast.is_some_and(|all| IpAddr::V4(all) == to)
        })
    }

    /// A VIP, and where it counts: where keepalived.conf puts it, if that names it.
    #[must_use]
    pub fn placed(&self, vip: Vip) -> Vec<PlacedVip> {
        let configured = self.configured.iter().filter(|placed| placed.vip == vip);
        let placed: Vec<_> = configured.cloned().collect();
        if placed.is_empty() {
            return vec![PlacedVip::anywhere(vip)];
        }
        placed
    }

    /// Whether this host holds the VIP.
    #[must_use]
    pub fn holds(&self, vip: Vip) -> bool {
        let held = |placed: &PlacedVip| !self.host.holders(placed).is_empty();
        self.placed(vip).iter().any(held)
    }

    /// Whether this host holds the VIP, as this MAC.
    #[must_use]
    pub fn is_own(&self, vip: Vip, mac: Mac) -> bool {
        let placed = self.placed(vip);
        let mut holders = placed.iter().flat_map(|placed| self.host.holders(placed));
        holders.any(|link| link.mac == Some(mac))
    }

    /// Whether this host may be told about a VIP that it does not hold: it is one of its
    /// keepalived.conf, or allowed. A gateway has to be named by itself in either.
    ///
    /// # Errors
    /// Why not.
    pub fn permit(&self, vip: Vip, allow: &[Allowed]) -> Result<(), Reason> {
        let ip = vip.ip();
        let by_itself = |allowed: &Allowed| match allowed {
            Allowed::Links => false,
            Allowed::Prefix(prefix) => prefix.is_host() && prefix.contains(ip),
        };
        let configured = self.configured.iter().any(|placed| placed.vip == vip);
        if configured || allow.iter().any(by_itself) {
            return Ok(());
        }
        if self.gateways.contains(&ip) {
            return Err(Reason::Gateway);
        }
        let permits = |allowed: &Allowed| match allowed {
            Allowed::Links => self.is_on_link(ip),
            Allowed::Prefix(prefix) => prefix.contains(ip),
        };
        let permitted = allow.iter().any(permits);
        permitted.then_some(()).ok_or(Reason::NotAllowed)
    }

    fn is_on_link(&self, ip: IpAddr) -> bool {
        self.host
            .addresses
            .iter()
            .map(Prefix::of)
            .any(|link| !link.is_host() && !link.ip().is_loopback() && link.contains(ip))
    }
}

#[cfg(test)]
mod tests;
