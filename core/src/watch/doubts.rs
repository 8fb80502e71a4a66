//! Claims of other hosts to VIPs that are elsewhere: ARP, neighbour discovery, VRRP. A claim alone changes
//! nothing: whoever has the VIP is asked, if the claim is not by the MAC of this kernel's entry, and only
//! answers count.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{MOST_CLAIMANTS, OwnerSearch, Refusal, Subject};
use crate::host::PlacedVip;
use crate::wire::Frame;

/// Claims lead to one question at most in this time, for a VIP on a link.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// They lead to one look at the kernel's entry at most in this time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// How often that time doubles, to a minute, while nothing changes: an entry that stays wrong is
/// PERMANENT, or there is a conflict.
const MOST_DOUBLINGS: u32 = 6;
/// A new master advertises before it adds its VIPs and announces them, one by one. Within this time,
/// and so much for each VIP, this kernel follows the announcement, and nobody has to be asked.
const SETTLES_WITHIN: Duration = Duration::from_millis(10);
const SETTLES_WITHIN_EACH: Duration = Duration::from_micros(300);
/// How many answers by one host, and none by others, make it the owner.
const ENOUGH: u32 = 3;
/// Several owners that no search has found for this long are news when they are found again.
const LASTS: Duration = Duration::from_secs(3600);

/// Where a VIP is claimed.
type Key = (Vip, InterfaceIndex);

/// A claim to compare with this kernel's entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// The VIP.
    pub placed: PlacedVip,
    /// Where the claim came in.
    pub interface: InterfaceIndex,
    /// Who claims it.
    pub mac: Mac,
}

/// Who has a VIP that is not where this kernel's entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The VIP.
    pub placed: PlacedVip,
    /// Its link.
    pub interface: InterfaceIndex,
    /// Its owner. Several: a conflict, or a host that answers on several interfaces; told once while it
    /// lasts.
    pub owners: Vec<Mac>,
}

/// What is known of the claims to a VIP on a link.
#[derive(Debug)]
struct Doubt {
    placed: PlacedVip,
    /// The last claim, until it is compared, and when that may be.
    claim: Option<(Mac, Instant)>,
    /// Who advertised it last, when the next advert of that host is a claim, and how often the time
    /// until then doubled.
    advertised: Option<(Mac, Instant, u32)>,
    /// The kernel's entry had this MAC, then.
    right: Option<(Mac, Instant)>,
    look_from: Instant,
    ask_from: Instant,
    /// The search for the owner, and the MAC of the kernel's entry.
    search: Option<(OwnerSearch, Mac)>,
    owners: Owners,
}

/// Whom the last searches have found.
#[derive(Debug, Default)]
struct Owners {
    /// Any search may have heard only some of them in time.
    all: BTreeSet<Mac>,
    /// Whether the last search found several, and when any did.
    are_several: bool,
    were_several: Option<Instant>,
    /// How many searches in a row found no others, up to a bound.
    again: u32,
}

impl Owners {
    /// A search found `owners`. Returns whether that is to be acted on: several are, if they are news.
    fn found(&mut self, now: Instant, owners: &[Mac]) -> bool {
        let are_several = owners.len() > 1;
        let are_known = owners.iter().all(|mac| self.all.contains(mac));
        let lasts = self.were_several.is_some_and(|at| now < at + LASTS);
        // Another one alone: the VIP has moved.
        if !are_several && !are_known || self.all.len() >= MOST_CLAIMANTS {
            self.all.clear();
        }
        self.all.extend(owners);
        self.again = match are_known && are_several == self.are_several {
            true => MOST_DOUBLINGS.min(self.again + 1),
            false => 0,
        };
        self.are_several = are_several;
        if are_several {
            self.were_several = Some(now);
        }
        !are_several || !are_known || !lasts
    }
}

impl Doubt {
    /// When the claim is to be compared.
    fn due(&self) -> Option<Instant> {
        let (_, from) = self.claim.filter(|_| self.search.is_none())?;
        Some(from.max(self.look_from).max(self.ask_from))
    }

    /// Whether the search may ask again: an answer supports the claim.
    fn may_ask(&self) -> bool {
        self.search.as_ref().is_some_and(|(search, cached)| {
            search.probes() == 0 || search.answers().any(|(mac, _)| mac != *cached)
        })
    }
}

/// The claims to all VIPs: one for each VIP and link at most.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    all: BTreeMap<Key, Doubt>,
    /// Whose question left last, or will.
    asking: Option<Key>,
}

impl Doubts {
    /// Another host claims a VIP that is not here.
    pub(super) fn on_claim(
        &mut self,
        now: Instant,
        placed: &PlacedVip,
        interface: InterfaceIndex,
        mac: Mac,
    ) {
        let doubt = self.about(now, placed, interface);
        let is_right = |(right, at): (Mac, Instant)| right == mac && now < at + ASK_AGAIN;
        if !doubt.right.is_some_and(is_right) {
            doubt.claim = Some((mac, now));
        }
    }

    /// Another host advertises a VIP that is not here, as one of `count`. That is a claim if another one
    /// did before; else, in case the question or the answer was lost, less and less often.
    pub(super) fn on_advert(
        &mut self,
        now: Instant,
        placed: &PlacedVip,
        interface: InterfaceIndex,
        mac: Mac,
        count: u32,
    ) {
        let doubt = self.about(now, placed, interface);
        let doublings = match doubt.advertised {
            Some((known, from, _)) if known == mac && now < from => return,
            Some((known, _, doublings)) if known == mac => MOST_DOUBLINGS.min(doublings + 1),
            _ => 0,
        };
        doubt.advertised = Some((mac, now + ASK_AGAIN * (1 << doublings), doublings));
        let settled = now + SETTLES_WITHIN + SETTLES_WITHIN_EACH * count;
        // Others' claims may go on for ever.
        let from = doubt.claim.map_or(settled, |(_, from)| from.min(settled));
        doubt.claim = Some((mac, from));
    }

    fn about(&mut self, now: Instant, placed: &PlacedVip, interface: InterfaceIndex) -> &mut Doubt {
        match self.all.entry((placed.vip, interface)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(none) => none.insert(Doubt {
                placed: placed.clone(),
                claim: None,
                advertised: None,
                right: None,
                look_from: now,
                ask_from: now,
                search: None,
                owners: Owners::default(),
            }),
        }
    }

    /// The claims to compare now with the kernel's entries.
    pub(super) fn take_claims(&mut self, now: Instant) -> Vec<Claimed> {
        let mut claims = Vec::new();
        for ((_, interface), doubt) in &mut self.all {
            if doubt.due().is_some_and(|due| due <= now)
                && let Some((mac, _)) = doubt.claim.take()
            {
                doubt.look_from = now + LOOK_AGAIN;
                claims.push(Claimed {
                    placed: doubt.placed.clone(),
                    interface: *interface,
                    mac,
                });
            }
        }
        claims
    }

    /// The kernel's entry for a claimed VIP has the MAC `cached`. If that is another one, `subject` is
    /// asked for.
    pub(super) fn compare(
        &mut self,
        now: Instant,
        claimed: &Claimed,
        cached: Option<Mac>,
        subject: Option<Subject>,
    ) {
        let key = (claimed.placed.vip, claimed.interface);
        let Some(doubt) = self.all.get_mut(&key) else {
            return;
        };
        match (cached, subject) {
            // Without an entry, the kernel asks before it sends anything.
            (None, _) => doubt.right = Some((claimed.mac, now)),
            (Some(cached), _) if cached == claimed.mac => doubt.right = Some((cached, now)),
            (Some(cached), Some(subject)) => {
                doubt.ask_from = now + ASK_AGAIN;
                doubt.search = Some((OwnerSearch::new(subject, now), cached));
            }
            _ => {}
        }
    }

    /// What the searches found since the last call, except for several owners that were told before.
    pub(super) fn take_found(&mut self, now: Instant) -> Vec<Found> {
        let mut found = Vec::new();
        for ((_, interface), doubt) in &mut self.all {
            let Some((search, cached)) = &doubt.search else {
                continue;
            };
            let answers: Vec<_> = search.answers().collect();
            let is_over = search.is_over(now) || now >= doubt.ask_from;
            let owners = match answers[..] {
                // The claim is false, or the path loses too much to tell.
                [] if !is_over => continue,
                [(owner, _)] if owner == *cached => Vec::new(),
                [(_, count)] if count < ENOUGH && !is_over => continue,
                [(owner, count)] if count >= ENOUGH => vec![owner],
                [] | [_] => Vec::new(),
                _ => answers.iter().map(|(mac, _)| *mac).collect(),
            };
            doubt.search = None;
            if owners.is_empty() {
                continue;
            }
            let acts = doubt.owners.found(now, &owners);
            doubt.ask_from = now + ASK_AGAIN * (1 << doubt.owners.again);
            if acts {
                found.push(Found {
                    placed: doubt.placed.clone(),
                    interface: *interface,
                    owners,
                });
            }
        }
        found
    }

    /// The next question, and the interface to ask on.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<(InterfaceIndex, Frame)> {
        let due = self.all.iter().find_map(|(key, doubt)| {
            let (search, _) = doubt.search.as_ref().filter(|_| doubt.may_ask())?;
            Some((*key, search.poll_transmit(now)?))
        });
        let (key, frame) = due?;
        self.asking = Some(key);
        Some((key.1, frame))
    }

    fn asking(&mut self) -> Option<&mut OwnerSearch> {
        let doubt = self.all.get_mut(&self.asking.take()?)?;
        doubt.search.as_mut().map(|(search, _)| search)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        if let Some(search) = self.asking() {
            search.sent(now);
        }
    }

    pub(super) fn wait(&mut self, now: Instant, until: Instant) {
        if let Some(search) = self.asking() {
            search.wait(now, until);
        }
    }

    pub(super) fn refused(&mut self, now: Instant, why: Refusal) {
        if let Some(search) = self.asking() {
            search.refused(now, why);
        }
    }

    pub(super) fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        let there = self.all.iter_mut().filter(|((_, on), _)| *on == interface);
        for (search, _) in there.filter_map(|(_, doubt)| doubt.search.as_mut()) {
            search.received(now, frame);
        }
    }

    /// When something is due.
    pub(super) fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let due = self.all.values().filter_map(|doubt| match &doubt.search {
            Some((search, _)) if doubt.may_ask() => Some(search.next_deadline(now)),
            Some(_) => Some(doubt.ask_from),
            None => doubt.due(),
        });
        due.min()
    }

    /// Keeps those that `is_it`.
    pub(super) fn retain(&mut self, is_it: impl Fn(Vip, InterfaceIndex) -> bool) {
        self.all
            .retain(|(vip, interface), _| is_it(*vip, *interface));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::testing::{A, B, mac};

    #[test]
    fn any_number_of_owners_takes_a_bounded_memory() {
        let mut owners = Owners::default();
        for last in 0..100 {
            owners.found(Instant::now(), &[A, B, mac(0x20 + last)]);
            assert!(owners.all.len() < 2 * MOST_CLAIMANTS);
        }
    }
}
