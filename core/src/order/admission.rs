//! The receiver's checks of an order, the cheapest first.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::Keys;
use super::message::{Id, ORDER_LENGTH, Order, Reason};
use super::report::Report;
use crate::address::{InterfaceIndex, Mac, Prefix, Vip};
use crate::host::{HostSnapshot, PlacedVip};

/// VIPs that this host accepts orders for, besides those of its keepalived.conf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Any address in a subnet of this host's interfaces.
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

/// Remembered order ids at most. Only a holder of the key can fill the memory.
const MOST_REMEMBERED: usize = 1024;

/// Repeated answers a second to one sender. More are of use only to somebody who floods.
const MOST_AGAIN: u32 = 2;

/// What to do with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ignore it; send no answer.
    Dropped(Dropped),
    /// Refuse it: its time differs by these milliseconds from this host's clock. Positive: the
    /// sender's clock is ahead.
    OutOfTime(Order, i64),
    /// Refuse it: the memory of order ids is full.
    Crowded(Order),
    /// A repeated order to this address: send the same answer again.
    Again(IpAddr, Vec<u8>),
    /// Execute it. Its id is now remembered.
    New(Order),
    /// A report to pass on. Its id is now remembered.
    Report(Report),
}

/// Why a datagram is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dropped {
    /// Too short or too long for an order.
    Size,
    /// Not an order, or one of an unknown version.
    Version,
    /// An order of an older version.
    Old,
    /// No key of this host signed it.
    Unauthenticated,
    /// Signed, but not a datagram that this version writes.
    Malformed,
    /// Received before, from another address, or still in progress, or too often.
    Replayed,
    /// A report whose time differs too much from this host's clock, or one too many.
    Unwelcome,
}

/// The checks that need only the datagram, the keys and the clock.
#[derive(Debug)]
pub struct Admission {
    keys: Keys,
    window: Duration,
    seen: HashMap<Id, Seen>,
    /// The second and the number of the last repeated answers to each sender of [`Self::seen`].
    again: HashMap<IpAddr, (u64, u32)>,
}

/// A remembered order.
#[derive(Debug)]
struct Seen {
    from: SocketAddr,
    /// From then on [`Decision::OutOfTime`] refuses a replay, and the order may be forgotten.
    until: u64,
    /// The answer, once there is one.
    answer: Option<Vec<u8>>,
}

impl Admission {
    /// Admits what one of `keys` signed within `window` of this host's clock.
    #[must_use]
    pub fn new(keys: Keys, window: Duration) -> Self {
        Self {
            keys,
            window,
            seen: HashMap::new(),
            again: HashMap::new(),
        }
    }

    /// The keys.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Decides about a datagram received from `from`. `now` is this host's clock in milliseconds
    /// since 1970, UTC.
    pub fn decide(&mut self, now: u64, from: SocketAddr, datagram: &[u8]) -> Decision {
        if !(ORDER_LENGTH.0..=ORDER_LENGTH.1).contains(&datagram.len()) {
            return Decision::Dropped(Dropped::Size);
        }
        let is_report = Report::is_begun_by(datagram);
        if !is_report && !Order::is_begun_by(datagram) {
            let is_old = Order::is_old(datagram);
            return Decision::Dropped(if is_old {
                Dropped::Old
            } else {
                Dropped::Version
            });
        }
        let Some(signed) = self.keys.authenticate(datagram) else {
            return Decision::Dropped(Dropped::Unauthenticated);
        };
        if is_report {
            return match Report::parse(signed) {
                Some(report) => self.decide_on_report(now, from, report),
                None => Decision::Dropped(Dropped::Malformed),
            };
        }
        let Some(order) = Order::parse(signed) else {
            return Decision::Dropped(Dropped::Malformed);
        };
        if !self.is_in_time(now, order.time) {
            let skew = difference(order.time, now);
            return Decision::OutOfTime(order, skew);
        }
        if let Some(decision) = self.again(now, from, &order.id, order.to) {
            return decision;
        }
        if self.remember(now, from, order.id, order.time) {
            Decision::New(order)
        } else {
            Decision::Crowded(order)
        }
    }

    fn decide_on_report(&mut self, now: u64, from: SocketAddr, report: Report) -> Decision {
        if !self.is_in_time(now, report.time) {
            return Decision::Dropped(Dropped::Unwelcome);
        }
        if let Some(decision) = self.again(now, from, &report.id, report.to) {
            return decision;
        }
        if self.remember(now, from, report.id, report.time) {
            Decision::Report(report)
        } else {
            Decision::Dropped(Dropped::Unwelcome)
        }
    }

    fn window(&self) -> u64 {
        u64::try_from(self.window.as_millis()).unwrap_or(u64::MAX)
    }

    fn is_in_time(&self, now: u64, time: u64) -> bool {
        time.abs_diff(now) <= self.window()
    }

    /// What to do with a datagram for `to` whose id is remembered.
    fn again(&mut self, now: u64, from: SocketAddr, id: &Id, to: IpAddr) -> Option<Decision> {
        let seen = self.seen.get(id)?;
        Some(match &seen.answer {
            Some(answer) if seen.from == from && take(&mut self.again, from.ip(), now) => {
                Decision::Again(to, answer.clone())
            }
            _ => Decision::Dropped(Dropped::Replayed),
        })
    }

    /// Remembers an id; `false` if there is no room.
    fn remember(&mut self, now: u64, from: SocketAddr, id: Id, time: u64) -> bool {
        if self.seen.len() >= MOST_REMEMBERED {
            self.forget(now);
        }
        let has_room = self.seen.len() < MOST_REMEMBERED;
        if has_room {
            let seen = Seen {
                from,
                until: time.saturating_add(self.window()),
                answer: None,
            };
            self.seen.insert(id, seen);
        }
        has_room
    }

    /// Remembers the answer to an order.
    pub fn answered(&mut self, id: &Id, answer: Vec<u8>) {
        if let Some(seen) = self.seen.get_mut(id) {
            seen.answer = Some(answer);
        }
    }

    /// Nothing was done about it: its sender may send it again.
    pub fn not_taken(&mut self, id: &Id) {
        self.seen.remove(id);
    }

    /// Forgets the orders whose time has passed. `true` if any id is left that an attacker could
    /// still replay: keep this value until then.
    pub fn forget(&mut self, now: u64) -> bool {
        self.seen.retain(|_, seen| seen.until >= now);
        let senders: HashSet<_> = self.seen.values().map(|seen| seen.from.ip()).collect();
        self.again.retain(|sender, _| senders.contains(sender));
        !self.seen.is_empty()
    }
}

/// Takes one of the repeated answers to a sender; `false` if none is left in this second.
fn take(again: &mut HashMap<IpAddr, (u64, u32)>, sender: IpAddr, now: u64) -> bool {
    let second = now / 1000;
    let (last, taken) = again.entry(sender).or_default();
    if *last != second {
        (*last, *taken) = (second, 0);
    }
    *taken = taken.saturating_add(1);
    *taken <= MOST_AGAIN
}

/// `one` - `other`, saturating.
fn difference(one: u64, other: u64) -> i64 {
    let apart = i64::try_from(one.abs_diff(other)).unwrap_or(i64::MAX);
    if one < other { -apart } else { apart }
}

/// This host's addresses, routes and configuration, as the remaining checks need them.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// The interfaces and addresses.
    pub host: HostSnapshot,
    /// The gateways of the routes.
    pub gateways: BTreeSet<IpAddr>,
    /// The VIPs of keepalived.conf.
    pub configured: Vec<PlacedVip>,
}

impl HostFacts {
    /// Whether `to` is an address that this host has on `link`, by which the order came in, or the
    /// broadcast address of a subnet there. Loopback addresses are the same on every host, so they
    /// say nothing of which host the order is for.
    #[must_use]
    pub fn is_meant(&self, to: IpAddr, link: InterfaceIndex) -> bool {
        let mut there = self
            .host
            .addresses
            .iter()
            .filter(|own| own.interface == link);
        there.any(|own| {
            let broadcast = Prefix::of(own).broadcast();
            let meant = own.ip == to || broadcast.is_some_and(|all| IpAddr::V4(all) == to);
            meant && !own.ip.is_loopback()
        })
    }

    /// Where a VIP counts: where keepalived.conf puts it, or anywhere if it does not name the VIP.
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

    /// Whether this host holds the VIP on an interface with this MAC.
    #[must_use]
    pub fn is_own(&self, vip: Vip, mac: Mac) -> bool {
        let placed = self.placed(vip);
        let mut holders = placed.iter().flat_map(|placed| self.host.holders(placed));
        holders.any(|link| link.mac == Some(mac))
    }

    /// Whether this host accepts orders for a VIP that it does not hold: keepalived.conf has the
    /// VIP, or `allow` covers it. For a gateway, `allow` must name the single address.
    ///
    /// # Errors
    /// Why not.
    pub fn permit(&self, vip: Vip, allow: &[Allowed]) -> Result<(), Reason> {
        let ip = vip.ip();
        let covers = |allowed: &Allowed| match allowed {
            Allowed::Links => self.is_on_link(ip),
            Allowed::Prefix(prefix) => prefix.contains(ip),
        };
        let names = |allowed: &Allowed| matches!(allowed, Allowed::Prefix(prefix) if prefix.is_host() && prefix.contains(ip));
        let configured = self.configured.iter().any(|placed| placed.vip == vip);
        if configured || allow.iter().any(names) {
            Ok(())
        } else if self.gateways.contains(&ip) {
            Err(Reason::Gateway)
        } else if allow.iter().any(covers) {
            Ok(())
        } else {
            Err(Reason::NotAllowed)
        }
    }

    fn is_on_link(&self, ip: IpAddr) -> bool {
        let mut subnets = self.host.addresses.iter().map(Prefix::of);
        subnets.any(|it| !it.is_host() && !it.ip().is_loopback() && it.contains(ip))
    }
}

#[cfg(test)]
mod tests;
