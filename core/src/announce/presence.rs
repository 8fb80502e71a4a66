//! Where the VIPs are: the addresses that the kernel reports, the claims that follow from them, and
//! the places that newer runs take over.

use std::collections::BTreeSet;
use std::mem::take;
use std::net::IpAddr;
use std::time::Instant;

use super::{Announcement, Claim, LATE, State};
use crate::address::{InterfaceIndex, Vip};
use crate::host::{Address, Link, Place, PlacedVip, Usability};

/// A VIP that the run was started for.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    placed: PlacedVip,
    /// The index of the interface that `placed` names, once known.
    index: Option<InterfaceIndex>,
    /// Whether an interface has held it since the run began.
    found: bool,
    /// Whether it is on the interface that `placed` names, and nobody asks by ARP or ND there.
    set_aside: bool,
    /// Whether a newer run waits for it.
    yielded: bool,
}

impl Wanted {
    pub(super) fn new(placed: PlacedVip) -> Self {
        Self {
            placed,
            index: None,
            found: false,
            set_aside: false,
            yielded: false,
        }
    }

    fn is_awaited(&self) -> bool {
        !self.found && !self.set_aside && !self.yielded
    }

    /// `None` while the interface has no known index.
    fn run_place(&self) -> Option<RunPlace> {
        let is_known = self.placed.place == Place::Anywhere || self.index.is_some();
        is_known.then_some((self.placed.vip, self.index))
    }
}

/// A VIP on an interface, as runs tell each other; `None`: on whichever interface gets it.
pub type RunPlace = (Vip, Option<InterfaceIndex>);

/// Whether two runs with these places would announce the same.
pub fn overlap(one: RunPlace, other: RunPlace) -> bool {
    one.0 == other.0 && (one.1.is_none() || other.1.is_none() || one.1 == other.1)
}

impl Announcement {
    /// The missing VIPs: no interface has held them since the run began.
    pub fn absent(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        self.awaited().filter(|_| self.expects_all)
    }

    /// The VIPs that no interface has held since the run began.
    pub fn awaited(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        let awaited = self.wanted.iter().filter(|wanted| wanted.is_awaited());
        awaited.map(|wanted| &wanted.placed)
    }

    /// The VIPs that the user put on an interface without ARP and ND.
    pub fn set_aside(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        let set_aside = self.wanted.iter().filter(|wanted| wanted.set_aside);
        set_aside.map(|wanted| &wanted.placed)
    }

    /// The VIPs that newer runs took before an interface here held them.
    pub fn yielded(&self) -> impl Iterator<Item = Vip> + '_ {
        let yielded = self.wanted.iter().filter(|wanted| wanted.yielded);
        yielded.map(|wanted| wanted.placed.vip)
    }

    /// The interfaces that have the VIP's address without holding it: they have no ARP or ND, or are
    /// not the one where it counts.
    pub fn passed_over(&self, vip: Vip) -> impl Iterator<Item = &Link> + '_ {
        let on = self.held.keys().filter(move |(held, _)| *held == vip);
        on.filter(move |(_, interface)| self.find_claim(vip, *interface).is_none())
            .filter_map(|(_, interface)| self.links.get(interface))
    }

    /// The places that this run announces or waits for, as far as their interfaces are known.
    #[must_use]
    pub fn places(&self) -> Vec<RunPlace> {
        let ours = |claim: &&Claim| claim.state() != State::Superseded;
        let claimed = self.claims.iter().filter(ours);
        let awaited = self.wanted.iter().filter(|wanted| wanted.is_awaited());
        claimed
            .map(|claim| (claim.vip, Some(claim.interface())))
            .chain(awaited.filter_map(Wanted::run_place))
            .collect()
    }

    /// The interface of this name has this index.
    pub fn interface_is(&mut self, name: &str, index: InterfaceIndex) {
        for wanted in &mut self.wanted {
            if wanted.placed.place.name() == Some(name) {
                wanted.index = Some(index);
            }
        }
    }

    /// Newer runs took over these places.
    pub fn superseded(&mut self, places: &[RunPlace]) {
        let taken = |ours| places.iter().any(|theirs| overlap(ours, *theirs));
        for claim in &mut self.claims {
            claim.superseded |= taken((claim.vip, Some(claim.interface())));
        }
        for wanted in self.wanted.iter_mut().filter(|wanted| !wanted.found) {
            wanted.yielded |= wanted.run_place().is_some_and(taken);
        }
    }

    /// The interface that must be known before this address: the one that has it, and below that
    /// one the lower interface of a VMAC.
    pub(super) fn unknown_link(&self, address: &Address) -> Option<InterfaceIndex> {
        let vip = self.vip_of(address)?;
        let Some(link) = self.links.get(&address.interface) else {
            return Some(address.interface);
        };
        let is_vmac = |wanted: &Wanted| {
            wanted.placed.vip == vip
                && matches!(&wanted.placed.place, Place::Vmac { name, .. } if *name != link.name)
        };
        let lower = link.lower.filter(|lower| !self.links.contains_key(lower))?;
        self.wanted.iter().any(is_vmac).then_some(lower)
    }

    pub(super) fn add_address(&mut self, now: Instant, address: &Address) {
        let is_vip = self.is_vip(address.ip);
        self.own.insert(address, is_vip);
        match self.vip_of(address) {
            Some(vip) => self.add_vip(now, vip, address),
            None => self.find_sources(address.interface),
        }
    }

    fn add_vip(&mut self, now: Instant, vip: Vip, address: &Address) {
        let entries = self.held.entry((vip, address.interface)).or_default();
        entries.insert(address.prefix_len, address.usability);
        self.claim(now, vip, address.interface);
    }

    pub(super) fn remove_address(&mut self, now: Instant, address: &Address) {
        self.own.remove(address);
        self.find_sources(address.interface);
        let Some(vip) = self.vip_of(address) else {
            return self.stop_asking_from(address.ip);
        };
        let key = (vip, address.interface);
        let entries = self.held.entry(key).or_default();
        entries.remove(&address.prefix_len);
        if !entries.is_empty() {
            // Only a tentative entry may remain.
            return self.claim(now, vip, address.interface);
        }
        self.held.remove(&key);
        if let Some(at) = self.find_claim(vip, address.interface) {
            self.claims[at].set_usability(now, None);
        }
        self.stop_asking_from(address.ip);
    }

    pub(super) fn replace_addresses(&mut self, now: Instant, addresses: &[Address]) {
        let (own, held) = (take(&mut self.own), take(&mut self.held));
        let here: BTreeSet<_> = addresses.iter().map(|address| address.ip).collect();
        let had = own.others().chain(held.keys().map(|(vip, _)| vip.ip()));
        for gone in had.filter(|ip| !here.contains(ip)) {
            self.stop_asking_from(gone);
        }
        // Each claim needs all of them at once.
        for address in addresses {
            let is_vip = self.is_vip(address.ip);
            self.own.insert(address, is_vip);
        }
        for claim in &mut self.claims {
            let is_its = |a: &Address| a.ip == claim.vip.ip() && a.interface == claim.interface();
            if !addresses.iter().any(is_its) {
                claim.set_usability(now, None);
            }
        }
        for address in addresses {
            if let Some(vip) = self.vip_of(address) {
                self.add_vip(now, vip, address);
            }
        }
        for claim in &mut self.claims {
            claim.sources = self.own.sources(claim.vip, &claim.link);
        }
    }

    pub(super) fn remove_link(&mut self, now: Instant, interface: InterfaceIndex) {
        self.links.remove(&interface);
        self.lose_card(interface);
        self.own.remove_all(interface);
        self.held.retain(|(_, on), _| *on != interface);
        for claim in &mut self.claims {
            if claim.interface() == interface {
                claim.set_usability(now, None);
            }
        }
    }

    /// Updates or makes the claims of all VIPs whose address an interface has.
    pub(super) fn claim_all_on(&mut self, now: Instant, interface: InterfaceIndex) {
        let on = |(_, held): &&(Vip, InterfaceIndex)| *held == interface;
        let vips: Vec<_> = self.held.keys().filter(on).map(|(vip, _)| *vip).collect();
        for vip in vips {
            self.claim(now, vip, interface);
        }
    }

    /// Updates the claim of a VIP on an interface; makes one if the interface now holds the VIP.
    fn claim(&mut self, now: Instant, vip: Vip, interface: InterfaceIndex) {
        // An address on an unknown interface counts once the interface is known.
        let (Some(link), Some(usability)) =
            (self.links.get(&interface), self.usability(vip, interface))
        else {
            return;
        };
        let (index, was_ready) = match self.find_claim(vip, interface) {
            Some(index) => {
                let claim = &mut self.claims[index];
                let until = claim.may_return_until(self.pace.wait);
                claim.left |= until.is_some_and(|until| until < now);
                let was_ready = claim.state() == State::Ready;
                claim.set_usability(now, Some(usability));
                // What peers proved about a VIP that left for good stays in the report.
                if !was_ready && !claim.left {
                    claim.ask_peers_again();
                    self.background.start_over(index);
                }
                (index, was_ready)
            }
            None if !self.expects_all && now >= self.wait_until + LATE => return,
            None => {
                let lower = link.lower.and_then(|lower| self.links.get(&lower));
                let mut here = false;
                for wanted in self.wanted.iter_mut().filter(|one| one.placed.vip == vip) {
                    if wanted.placed.is_held_on(link, lower) && !wanted.yielded {
                        (wanted.found, here) = (true, true);
                    }
                    let named = wanted.placed.place.name() == Some(&link.name);
                    wanted.set_aside |= named && link.unlike_ethernet.is_some();
                }
                if !here {
                    return;
                }
                let (link, watch) = (link.clone(), self.pace.conflict_watch);
                let mut claim = Claim::new(vip, link, usability, self.mode, watch);
                claim.sources = self.own.sources(vip, &claim.link);
                self.claims.push(claim);
                (self.claims.len() - 1, false)
            }
        };
        if !was_ready {
            self.start_rounds(now, index);
        }
    }

    pub(super) fn find_claim(&self, vip: Vip, interface: InterfaceIndex) -> Option<usize> {
        let mut claims = self.claims.iter();
        claims.position(|claim| claim.vip == vip && claim.interface() == interface)
    }

    fn vip_of(&self, address: &Address) -> Option<Vip> {
        self.vips.iter().find(|vip| vip.ip() == address.ip).copied()
    }

    /// The best state of a VIP's entries on an interface: one usable entry is enough.
    fn usability(&self, vip: Vip, interface: InterfaceIndex) -> Option<Usability> {
        let best = |usability: &&Usability| match usability {
            Usability::Usable => 2,
            Usability::Tentative => 1,
            Usability::DadFailed => 0,
        };
        let entries = self.held.get(&(vip, interface))?;
        entries.values().max_by_key(best).copied()
    }

    fn stop_asking_from(&mut self, own: IpAddr) {
        self.search_without(own);
        for claim in &mut self.claims {
            claim.stop_asking_from(own);
        }
    }
}
