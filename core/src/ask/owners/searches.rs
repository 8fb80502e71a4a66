//! Searches for several VIPs, within one rate limit.

use std::collections::BTreeMap;
use std::time::Instant;

use super::OwnerSearch;
use crate::address::InterfaceIndex;
use crate::ask::{Asker, Bucket, Refusal, Transmit};
use crate::host::Link;
use crate::wire::Frame;

/// Searches, each on the link of its interface.
#[derive(Debug)]
pub struct OwnerSearches {
    links: BTreeMap<InterfaceIndex, Link>,
    searches: Vec<(InterfaceIndex, OwnerSearch)>,
    bucket: Bucket,
}

impl OwnerSearches {
    /// No searches yet.
    #[must_use]
    pub fn new(bucket: Bucket) -> Self {
        Self {
            links: BTreeMap::new(),
            searches: Vec::new(),
            bucket,
        }
    }

    /// Adds a search on a link.
    pub fn add(&mut self, link: &Link, search: OwnerSearch) {
        self.links.insert(link.index, link.clone());
        self.searches.push((link.index, search));
    }

    /// The searches, in the order of [`Self::add`].
    pub fn iter(&self) -> impl Iterator<Item = &OwnerSearch> {
        self.searches.iter().map(|(_, search)| search)
    }

    /// The same, for [`OwnerSearch::identify`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut OwnerSearch> {
        self.searches.iter_mut().map(|(_, search)| search)
    }

    fn on(&mut self, interface: InterfaceIndex) -> impl Iterator<Item = &mut OwnerSearch> {
        let on = move |(on, _): &&mut (InterfaceIndex, OwnerSearch)| *on == interface;
        self.searches
            .iter_mut()
            .filter(on)
            .map(|(_, search)| search)
    }

    fn end_on(&mut self, now: Instant, interface: InterfaceIndex, why: &'static str) {
        for search in self.on(interface).filter(|search| !search.is_over(now)) {
            search.end(why);
        }
    }
}

impl Asker for OwnerSearches {
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.bucket.ready_at() > now {
            return None;
        }
        // The search with the fewest frames gets the next token.
        let due = self
            .searches
            .iter()
            .enumerate()
            .filter_map(|(at, (interface, search))| {
                let transmit = |frame| Transmit {
                    interface: *interface,
                    frame,
                    is_question: true,
                    at,
                };
                Some((search.frames(), transmit(search.poll_transmit(now)?)))
            });
        let (_, transmit) = due.min_by_key(|(frames, _)| *frames)?;
        self.bucket.take(now);
        Some(transmit)
    }

    fn sent(&mut self, now: Instant, transmit: &Transmit) {
        self.searches[transmit.at].1.sent(now);
    }

    fn put_off(&mut self, _: Instant, _: &Transmit) {}

    fn over_budget(&mut self, now: Instant, transmit: &Transmit, until: Instant) {
        self.searches[transmit.at].1.wait(now, until);
    }

    fn refused(&mut self, now: Instant, transmit: &Transmit, why: Refusal) {
        self.searches[transmit.at].1.refused(now, why);
    }

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        for search in self.on(interface) {
            search.received(now, frame);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.iter().all(|search| search.is_over(now))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let next = |search: &OwnerSearch| match search.poll_transmit(now) {
            Some(_) => search.next_deadline(now).max(self.bucket.ready_at()),
            None => search.next_deadline(now),
        };
        let open = self.iter().filter(|search| !search.is_over(now));
        open.map(next).min().unwrap_or(now)
    }

    fn link(&self, interface: InterfaceIndex) -> Option<&Link> {
        self.links.get(&interface)
    }

    fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    /// Answers go to the MAC that asked, so another MAC ends a search.
    fn link_changed(&mut self, now: Instant, link: &Link) {
        let known = self.links.insert(link.index, link.clone());
        if known.is_some_and(|known| known.mac != link.mac) {
            self.end_on(now, link.index, "has another MAC since the check began");
        }
    }

    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex) {
        self.end_on(now, interface, "is gone since the check began");
        self.links.remove(&interface);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::time::Duration;

    use super::*;
    use crate::ask::testing::{OWN, mac};
    use crate::ask::{AskedFrom, Subject, VipVerdict};

    fn link(index: u32) -> Link {
        Link::ethernet(index, &format!("eth{index}"), OWN)
    }

    fn searches(rate: u32, count: u32, now: Instant) -> OwnerSearches {
        let rate = NonZeroU32::new(rate).unwrap();
        let mut searches = OwnerSearches::new(Bucket::new(rate, now));
        for number in 0..count {
            let subject = Subject {
                vip: format!("10.0.{number}.10").parse().unwrap(),
                from: AskedFrom {
                    mac: OWN,
                    ip: None,
                    seed: 7,
                },
                probes_from_address: false,
                own_macs: [OWN].into(),
                unused: Vec::new(),
                wait: Duration::from_secs(1),
            };
            searches.add(&link(2 + number % 2), OwnerSearch::new(subject, now));
        }
        searches
    }

    #[test]
    fn each_search_gets_its_share_of_the_rate() {
        let start = Instant::now();
        let mut searches = searches(90, 30, start);
        let (mut now, mut sent) = (start, 0);
        while !searches.is_over(now) {
            while let Some(transmit) = searches.poll_transmit(now) {
                searches.sent(now, &transmit);
                sent += 1;
            }
            now = searches
                .next_deadline(now)
                .max(now + Duration::from_millis(1));
        }
        assert!(sent <= 180, "{sent} frames");
        let frames: Vec<_> = searches.iter().map(OwnerSearch::frames).collect();
        assert!(frames.iter().all(|one| (5..=6).contains(one)), "{frames:?}");
    }

    #[test]
    fn a_link_that_goes_or_changes_its_mac_ends_only_its_own_searches() {
        let now = Instant::now();
        let mut searches = searches(2000, 2, now);
        let over = |searches: &OwnerSearches| -> Vec<_> {
            searches.iter().map(|one| one.is_over(now)).collect()
        };
        searches.link_changed(now, &link(2));
        assert_eq!(over(&searches), [false, false]);
        let mac = Some(mac(9));
        searches.link_changed(now, &Link { mac, ..link(2) });
        assert_eq!(over(&searches), [true, false]);
        searches.link_gone(now, InterfaceIndex(3));
        assert!(searches.is_over(now) && searches.poll_transmit(now).is_none());
        // Nor does the identification of owners begin with a MAC that is no more.
        for search in searches.iter_mut() {
            search.identify(Some(OWN), now);
            assert_eq!(search.verdict(Some(OWN)), VipVerdict::Unproven);
        }
        assert!(searches.is_over(now) && searches.poll_transmit(now).is_none());
        assert!(searches.iter().all(|one| one.ended().is_some()));
    }
}
