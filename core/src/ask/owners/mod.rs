//! Who else answers for a VIP: the one place that decides whether a second owner exists.
//!
//! - [`Claimants`]: the evidence, and the decision
//! - [`OwnerSearch`], [`OwnerSearches`]: probe for VIPs that are elsewhere, and identify their owners
//! - `OwnerWatch`: probes for second owners of a VIP that is here until they are gone

mod identity;
mod search;
mod searches;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use serde::Serialize;

pub use identity::{AskedFrom, unused_near};
pub use search::{OwnerSearch, Subject};
pub use searches::OwnerSearches;
pub(crate) use watch::{LOOK_AGAIN, OwnerWatch, Step};

use crate::address::Mac;

/// The most claimants to remember for one VIP: a split brain has one, a loop or an attack any number.
pub const MOST_CLAIMANTS: usize = 16;

/// The result for a VIP, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VipVerdict {
    /// Two or more hosts have the VIP.
    Conflict,
    /// No probe could leave.
    Failed,
    /// Nobody has it.
    Unowned,
    /// One host has it, and this one or a peer sends to another.
    Stale,
    /// There are too few answers to decide.
    Unproven,
    /// One host has it, and no received frame contradicts that.
    Ok,
}

impl fmt::Display for VipVerdict {
    /// As in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A MAC that claims a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claimant {
    /// Its claims.
    pub(crate) count: u32,
    pub(crate) first: Instant,
    pub(crate) last: Instant,
    /// Since when it no longer claims the VIP.
    pub(crate) gone: Option<Instant>,
    /// Whether it was gone before.
    pub(crate) came_back: bool,
}

/// The MACs of other hosts that claimed a VIP: at most [`MOST_CLAIMANTS`], and a count of the rest.
#[derive(Clone, Debug, Default)]
pub struct Claimants {
    known: BTreeMap<Mac, Claimant>,
    more: u64,
}

impl Claimants {
    /// A MAC claims the VIP. Returns whether that is new.
    pub(crate) fn on_claim(&mut self, now: Instant, mac: Mac) -> bool {
        if let Some(known) = self.known.get_mut(&mac) {
            let is_back = known.gone.take().is_some();
            if is_back {
                known.first = now;
            }
            known.count = known.count.saturating_add(1);
            known.last = now;
            known.came_back |= is_back;
            return is_back;
        }
        if self.known.len() >= MOST_CLAIMANTS && !self.forget_one_that_is_gone() {
            self.more = self.more.saturating_add(1);
            return false;
        }
        let new = Claimant {
            count: 1,
            first: now,
            last: now,
            gone: None,
            came_back: false,
        };
        self.known.insert(mac, new);
        true
    }

    /// Makes room, if possible. Returns whether it did.
    fn forget_one_that_is_gone(&mut self) -> bool {
        let gone = self
            .known
            .iter()
            .filter_map(|(mac, one)| Some((one.gone?, *mac)));
        let Some((_, mac)) = gone.min() else {
            return false;
        };
        self.known.remove(&mac).is_some()
    }

    pub(crate) fn forget(&mut self, of: impl Fn(Mac, &Claimant) -> bool) {
        self.known.retain(|mac, one| !of(*mac, one));
    }

    /// The present claimants.
    pub(crate) fn present(&self) -> impl Iterator<Item = (Mac, &Claimant)> + '_ {
        self.all().filter(|(_, one)| one.gone.is_none())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (Mac, &Claimant)> + '_ {
        self.known.iter().map(|(mac, one)| (*mac, one))
    }

    pub(crate) fn all_mut(&mut self) -> impl Iterator<Item = &mut Claimant> + '_ {
        self.known.values_mut()
    }

    pub(crate) fn is_present(&self, mac: Mac) -> bool {
        self.known.get(&mac).is_some_and(|one| one.gone.is_none())
    }

    /// Claims by MACs beyond [`MOST_CLAIMANTS`].
    pub(crate) fn more(&self) -> u64 {
        self.more
    }

    /// Whether the VIP has a second owner. If this host holds it, every claimant is one. Elsewhere it
    /// takes two that answer in turns: if one starts after the other stopped, the VIP moved.
    pub(crate) fn has_second_owner(&self, held_here: bool) -> bool {
        let present: Vec<_> = self.present().map(|(_, one)| one).collect();
        let overlap =
            |one: &Claimant, other: &Claimant| one.first <= other.last && other.first <= one.last;
        if held_here {
            return !present.is_empty();
        }
        let mut pairs = present.iter().enumerate();
        pairs.any(|(at, one)| present[at + 1..].iter().any(|two| overlap(one, two)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mac(number: u32) -> Mac {
        let [_, a, b, c] = number.to_be_bytes();
        Mac::new([2, 0, 0, a, b, c])
    }

    #[test]
    fn a_million_claimants_take_the_memory_of_sixteen() {
        let mut claimants = Claimants::default();
        let now = Instant::now();
        for number in 0..1_000_000 {
            claimants.on_claim(now, mac(number));
        }
        assert_eq!(claimants.all().count(), MOST_CLAIMANTS);
        assert_eq!(claimants.more(), 1_000_000 - 16);
        // A new claimant replaces one that is gone.
        let gone = claimants.known.get_mut(&mac(3)).unwrap();
        gone.gone = Some(now);
        assert!(claimants.on_claim(now, mac(77)) && claimants.is_present(mac(77)));
        assert!(!claimants.known.contains_key(&mac(3)));
    }

    #[test]
    fn one_claimant_is_a_second_owner_here_and_two_are_elsewhere() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut claimants = Claimants::default();
        assert!(!claimants.has_second_owner(true));
        claimants.on_claim(start, mac(1));
        assert!(claimants.has_second_owner(true) && !claimants.has_second_owner(false));
        claimants.on_claim(after(1), mac(2));
        assert!(!claimants.has_second_owner(false), "the VIP moved");
        claimants.on_claim(after(2), mac(1));
        assert!(claimants.has_second_owner(false), "both answer");
        claimants.known.get_mut(&mac(2)).unwrap().gone = Some(after(3));
        assert!(!claimants.has_second_owner(false) && claimants.has_second_owner(true));
    }
}
