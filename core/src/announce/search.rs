//! Finds the peers of the VIPs, some at a time, so that frames that are due leave meanwhile.

use std::collections::btree_map::{BTreeMap, Entry};
use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Announcement, Claim, wave_of};

use crate::ask::{
    Confirm, Given, LinkView, MOST_HOSTS, MOST_PAIRS, Neighbourhood, Peer, PeerFinder, Source,
};
use crate::host::HostSnapshot;

/// How many neighbours are noted before frames that are due leave.
const NEIGHBOURS_AT_ONCE: usize = 512;

/// A search for the peers of claims that have none yet.
#[derive(Debug)]
pub(super) struct PeerSearch {
    given: Given,
    /// How many neighbours of these views are noted.
    noted: usize,
    /// The claims.
    claims: VecDeque<usize>,
    /// The one whose peers come now.
    current: Option<Current>,
    finders: BTreeMap<Neighbourhood, PeerFinder>,
    /// The addresses that this host has lost since.
    lost: HashSet<IpAddr>,
}

/// A claim whose peers come.
#[derive(Debug)]
struct Current {
    claim: usize,
    neighbourhood: Neighbourhood,
    /// Whether it asks the hosts that may not exist.
    with_unlikely: bool,
    /// The next peer.
    at: usize,
    began: Instant,
}

impl Announcement {
    /// Whether a claim waits for [`Announcement::links_are`].
    #[must_use]
    pub fn awaits_links(&self) -> bool {
        self.search.is_none() && self.awaits_peers()
    }

    /// Whether peers of a claim are yet to be found.
    #[must_use]
    pub fn awaits_peers(&self) -> bool {
        self.claims.iter().any(Claim::awaits_peers)
    }

    /// These are the claims' interfaces, and those below them: [`Announcement::find_peers`] finds the
    /// peers there of claims that have none yet.
    pub fn links_are(
        &mut self,
        views: Vec<LinkView>,
        host: &HostSnapshot,
        configured: &[IpAddr],
        confirm: Confirm,
    ) {
        // Known ones are newer than the dump.
        for link in &host.links {
            if !self.links.contains_key(&link.index) {
                self.note_own(link);
            }
        }
        for claim in &mut self.claims {
            self.answering_cards
                .extend(claim.sort_out_own(&self.own_macs));
        }
        let given = Given {
            vips: self.vip_ips.iter().copied().collect(),
            other_vips: Arc::clone(&self.other_vips),
            own: host.addresses.iter().map(|own| own.ip).collect(),
            configured: configured.to_vec(),
            confirm,
            most: MOST_HOSTS.min(MOST_PAIRS / self.vips.len().max(1)),
            views,
        };
        let claims = self.claims.iter().enumerate();
        let claims = claims
            .filter(|(_, claim)| claim.awaits_peers() && given.view(claim.interface()).is_some());
        self.search = Some(PeerSearch {
            claims: claims.map(|(index, _)| index).collect(),
            given,
            noted: 0,
            current: None,
            finders: BTreeMap::new(),
            lost: HashSet::new(),
        });
    }

    /// Finds some more peers, in less than a millisecond. Returns whether there may be others.
    pub fn find_peers(&mut self, now: Instant) -> bool {
        let Some(mut search) = self.search.take() else {
            return false;
        };
        let goes_on = self.note_hosts(&mut search) || self.find_more_peers(now, &mut search);
        if goes_on {
            self.search = Some(search);
        }
        goes_on
    }

    /// This host has lost an address: no peer that is found from now on is asked from it.
    pub(super) fn search_without(&mut self, own: IpAddr) {
        self.search.iter_mut().for_each(|search| {
            search.lost.insert(own);
        });
    }

    /// Notes the addresses of some neighbours. Returns whether there were any.
    fn note_hosts(&mut self, search: &mut PeerSearch) -> bool {
        let neighbours = search.given.views.iter().flat_map(|view| &view.neighbours);
        let before = search.noted;
        for neighbour in neighbours.skip(before).take(NEIGHBOURS_AT_ONCE) {
            search.noted += 1;
            let is_vip = search.given.vips.contains(&neighbour.ip);
            if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
                // IPv4 sorts first and is easiest to recognize.
                let host = self.hosts.entry(mac).or_insert(neighbour.ip);
                *host = neighbour.ip.min(*host);
            }
        }
        search.noted > before
    }

    /// Finds some peers. Returns whether there may be others.
    fn find_more_peers(&mut self, now: Instant, search: &mut PeerSearch) -> bool {
        let Some(current) = search.current.take().or_else(|| self.next(now, search)) else {
            return false;
        };
        let claim = &self.claims[current.claim];
        if !claim.awaits_peers() {
            return true;
        }
        let given = &search.given;
        let finder = match search.finders.entry(current.neighbourhood.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Some(on) = given.view(claim.interface()) else {
                    return true;
                };
                let below = claim.link.lower.and_then(|below| given.view(below));
                new.insert(PeerFinder::new(claim.vip, on, below, given))
            }
        };
        let with_unlikely = current.with_unlikely;
        match finder.peers_from(current.at, with_unlikely, given) {
            Some(peers) => {
                let at = current.at + peers.len();
                for mut peer in peers {
                    let control = peer.control.filter(|one| !search.lost.contains(&one.ip));
                    peer.control = control;
                    self.found(now, &current, peer);
                }
                search.current = Some(Current { at, ..current });
            }
            None => {
                let left_out = finder.left_out(with_unlikely, given);
                let claim = &mut self.claims[current.claim];
                claim.peers_are_found(left_out);
                for (ip, mac) in std::mem::take(&mut claim.found_early) {
                    self.add_found(now, current.claim, mac, ip);
                }
                self.add_existing(now, current.claim);
            }
        }
        true
    }

    /// The next claim to find peers for.
    fn next(&mut self, now: Instant, search: &mut PeerSearch) -> Option<Current> {
        let claim = search.claims.pop_front()?;
        let neighbourhood = self.claims[claim].neighbourhood();
        Some(Current {
            claim,
            with_unlikely: self.background.begin(neighbourhood.clone(), claim),
            neighbourhood,
            at: 0,
            began: now,
        })
    }

    /// Adds a peer, unless it is known.
    fn found(&mut self, now: Instant, current: &Current, mut peer: Peer) {
        let claim = &mut self.claims[current.claim];
        // Another interface of this host on the same link is none.
        let is_own = peer.mac.is_some_and(|mac| self.own_macs.contains_key(&mac));
        if is_own || claim.find_peer(peer.ip).is_some() {
            return;
        }
        // The interface may have got another MAC since.
        if let Some(control) = &mut peer.control
            && let Some(mac) = self.links.get(&control.interface).and_then(|link| link.mac)
        {
            control.mac = mac;
        }
        // Who has just answered a census may be in the table because of that.
        if peer.source == Source::Learned && claim.found_early.contains_key(&peer.ip) {
            peer.source = Source::Census;
            peer.doubtful &= !self.believes(peer.ip);
        }
        let claim = &mut self.claims[current.claim];
        if peer.doubtful {
            self.background.add(claim.interface(), &peer, current.claim);
        }
        let at = claim.add_peer(peer);
        let due = (current.began + wave_of(at)).max(now);
        self.ask_again(due, current.claim, at);
    }
}
