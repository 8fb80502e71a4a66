//! One VIP on one interface: its state, its peers and its other owners.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{Confirmation, OwnerWatch, Peer, PeerVerdict, Refusal};
use crate::host::{Link, Usability};
use crate::wire::{Arp, Frame, Ndp};

/// For this long after the first frame, a claim by another host is no conflict: the old owner's last
/// frames may still be in flight.
const HANDOVER: Duration = Duration::from_millis(100);

/// What a run does about its VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Announces them, and makes peers prove that they follow.
    Announce,
    /// Only asks who else has them, and whether the peers follow. None of its frames changes
    /// anyone's entry for a VIP.
    Check,
}

/// Whether frames for a VIP may leave an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The address is usable here and the interface has a carrier.
    Ready,
    /// The address is here, but duplicate address detection runs or there is no carrier.
    Waiting(&'static str),
    /// Duplicate address detection found another owner. Nothing overrides that.
    DadFailed,
    /// The address left, or its interface did. If it comes back within the time that a run waits for
    /// a VIP, as after a change of prefix length, the run announces it again. Later, that is another
    /// move of the VIP with an event of its own.
    Left,
    /// A newer run announces it.
    Superseded,
    /// Neighbours on this kind of interface use neither ARP nor ND.
    Unfit(&'static str),
}

/// A VIP on an interface that holds it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The virtual IP.
    pub vip: Vip,
    /// The interface that holds it, as last reported.
    pub link: Link,
    /// Sent frames.
    pub frames_sent: u32,
    /// The last refusal.
    pub last_refusal: Option<Refusal>,
    pub(super) mode: Mode,
    /// Probes of a check since its rounds started.
    pub(super) probes: u32,
    /// Consecutive refusals.
    pub(super) refusals: u32,
    /// The kernel's last report on the address; `None` while it is gone.
    usability: Option<Usability>,
    gone_since: Option<Instant>,
    /// Whether the address was gone for longer than a run waits for a VIP.
    pub(super) left: bool,
    pub(super) superseded: bool,
    /// When the first rounds started.
    pub(super) began: Option<Instant>,
    /// Counts the starts of the rounds: tasks with an older count are void.
    pub(super) epoch: u32,
    pub(super) rounds_over: bool,
    /// An own IPv6 address, not a VIP, as source of probes.
    pub(super) asking_address: Option<Ipv6Addr>,
    pub(super) other_owners: OwnerWatch,
    own_answers: BTreeSet<Mac>,
    /// The peers, once found.
    confirmations: Option<Vec<Confirmation>>,
    by_ip: HashMap<IpAddr, usize>,
    /// Neighbours that are not asked because there are too many.
    pub left_out: usize,
    /// The confirmations that changed since [`Claim::take_due_orders`].
    changed: BTreeSet<usize>,
}

impl Claim {
    /// `watch` is how long to watch other owners.
    pub(super) fn new(
        vip: Vip,
        link: Link,
        usability: Usability,
        mode: Mode,
        watch: Duration,
    ) -> Self {
        Self {
            vip,
            link,
            frames_sent: 0,
            last_refusal: None,
            mode,
            probes: 0,
            refusals: 0,
            usability: Some(usability),
            gone_since: None,
            left: false,
            superseded: false,
            began: None,
            epoch: 0,
            rounds_over: false,
            asking_address: None,
            other_owners: OwnerWatch::new(watch),
            own_answers: BTreeSet::new(),
            confirmations: None,
            by_ip: HashMap::new(),
            left_out: 0,
            changed: BTreeSet::new(),
        }
    }

    /// The interface's index.
    #[must_use]
    pub fn interface(&self) -> InterfaceIndex {
        self.link.index
    }

    /// The MAC to announce: the interface's own. `None` only for [`State::Unfit`].
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.link.mac
    }

    /// Only [`State::Ready`] lets frames leave.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.usability, self.link.unlike_ethernet) {
            (None, _) => State::Left,
            _ if self.left => State::Left,
            _ if self.superseded => State::Superseded,
            (Some(Usability::DadFailed), _) => State::DadFailed,
            (_, Some(why)) => State::Unfit(why),
            (Some(Usability::Tentative), _) => {
                State::Waiting("its duplicate address detection has not ended")
            }
            (Some(Usability::Usable), _) if !self.link.carrier => {
                State::Waiting("the interface has no carrier")
            }
            (Some(Usability::Usable), None) => State::Ready,
        }
    }

    /// The kernel reports the address in this state; `None`: it is gone.
    pub(super) fn set_usability(&mut self, now: Instant, usability: Option<Usability>) {
        self.usability = usability;
        self.gone_since = match usability {
            None => self.gone_since.or(Some(now)),
            Some(_) => None,
        };
    }

    /// Until when a lost address may come back. `wait` is how long a run waits for a VIP.
    pub(super) fn may_return_until(&self, wait: Duration) -> Option<Instant> {
        let gone = self.gone_since.filter(|_| !self.left && !self.superseded);
        gone.map(|gone| gone + wait)
    }

    /// The MACs of the other owners.
    pub fn conflicts(&self) -> impl Iterator<Item = Mac> + '_ {
        self.other_owners.present()
    }

    /// The MACs of former other owners, and since when they are gone.
    pub fn past_conflicts(&self) -> impl Iterator<Item = (Mac, Instant)> + '_ {
        self.other_owners.past()
    }

    /// Claims by MACs beyond [`MOST_CLAIMANTS`](crate::ask::MOST_CLAIMANTS).
    #[must_use]
    pub fn more_conflicts(&self) -> u64 {
        self.other_owners.more()
    }

    /// The MACs of all other owners, present or former.
    pub(super) fn known_other_owners(&self) -> Vec<Mac> {
        let past = self.past_conflicts().map(|(mac, _)| mac);
        self.conflicts().chain(past).collect()
    }

    /// Until when the run watches other owners.
    #[must_use]
    pub fn watched_until(&self) -> Option<Instant> {
        self.other_owners.watched_until()
    }

    /// What each peer proved so far.
    #[must_use]
    pub fn confirmations(&self) -> &[Confirmation] {
        self.confirmations.as_deref().unwrap_or_default()
    }

    pub(super) fn confirmations_mut(&mut self) -> &mut [Confirmation] {
        self.all_changed();
        self.confirmations.as_deref_mut().unwrap_or_default()
    }

    pub(super) fn confirmation_mut(&mut self, at: usize) -> &mut Confirmation {
        self.changed.insert(at);
        let all = self.confirmations.as_deref_mut().unwrap_or_default();
        &mut all[at]
    }

    fn all_changed(&mut self) {
        self.changed.extend(0..self.confirmations().len());
    }

    /// The peers to order to purge now, and whether each is stale. Counts their orders as sent. Looks
    /// only at confirmations that changed since the last call: there may be thousands of others.
    pub(super) fn take_due_orders(&mut self) -> Vec<(usize, bool)> {
        let owners: Vec<_> = self.conflicts().collect();
        let all = self.confirmations.as_deref_mut().unwrap_or_default();
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|at| Some((at, all[at].take_due_order(&owners)?)))
            .collect()
    }

    /// This host lost an address: no more questions leave from it.
    pub(super) fn stop_asking_from(&mut self, own: IpAddr) {
        self.asking_address = self.asking_address.filter(|ip| IpAddr::V6(*ip) != own);
        for confirmation in self.confirmations_mut() {
            confirmation.stop_asking_from(own);
            let control = &mut confirmation.peer.control;
            *control = control.filter(|control| control.ip != own);
        }
    }

    /// The source address of directed requests. A check uses one that changes nobody's entry for the
    /// VIP: 0.0.0.0, or for IPv6 another address of this host, if it has one.
    pub(super) fn asks_peers_from(&self) -> Option<IpAddr> {
        match (self.mode, self.vip.ip()) {
            (Mode::Announce, vip) => Some(vip),
            (Mode::Check, IpAddr::V4(_)) => Some(Ipv4Addr::UNSPECIFIED.into()),
            (Mode::Check, IpAddr::V6(_)) => self.asking_address.map(IpAddr::V6),
        }
    }

    /// Whether a check sent enough probes to find other owners.
    #[must_use]
    pub fn is_certain_of_owners(&self) -> bool {
        self.rounds_over
    }

    /// Whether the peers are yet to be found.
    pub(super) fn awaits_peers(&self) -> bool {
        self.confirmations.is_none() && self.state() == State::Ready
    }

    pub(super) fn set_peers(&mut self, peers: Vec<Peer>, left_out: usize) {
        self.left_out = left_out;
        let from = self.asks_peers_from();
        self.by_ip = peers.iter().map(|peer| peer.ip).zip(0..).collect();
        self.confirmations = Some(
            peers
                .into_iter()
                .map(|peer| Confirmation::new(peer, from))
                .collect(),
        );
        self.all_changed();
    }

    /// Forgets what the peers proved, and asks from the VIP as it is now.
    pub(super) fn ask_peers_again(&mut self) {
        let from = self.asks_peers_from();
        for confirmation in self.confirmations_mut() {
            confirmation.start_over(from);
        }
    }

    /// The same for one peer.
    pub(super) fn ask_peer_again(&mut self, peer: usize) {
        let from = self.asks_peers_from();
        self.confirmation_mut(peer).start_over(from);
    }

    /// The index of a peer's confirmation.
    pub(super) fn find_peer(&self, ip: IpAddr) -> Option<usize> {
        self.by_ip.get(&ip).copied()
    }

    /// Another host claims the VIP.
    pub(super) fn on_conflict(&mut self, now: Instant, mac: Mac) {
        let grace = match self.mode {
            Mode::Announce => HANDOVER,
            Mode::Check => Duration::ZERO,
        };
        let counts = self.began.is_some_and(|began| now >= began + grace) && mac.is_unicast();
        if counts && self.other_owners.on_claim(now, mac) {
            self.all_changed();
        }
    }

    /// An interface of this host answers for the VIP on this link.
    pub(super) fn on_own_answer(&mut self, mac: Mac) {
        if self.link.mac != Some(mac) {
            self.own_answers.insert(mac);
        }
    }

    /// Drops conflicts with MACs of this host itself.
    pub(super) fn sort_out_own(&mut self, own: &BTreeMap<Mac, String>) {
        let found: Vec<_> = self
            .conflicts()
            .filter(|mac| own.contains_key(mac))
            .collect();
        self.forget_conflicts(|mac| own.contains_key(&mac));
        for mac in found {
            self.on_own_answer(mac);
        }
    }

    /// The MACs of other interfaces of this host that answer for the VIP on this link (Linux answers
    /// for every address on every interface, unless `arp_ignore` forbids that).
    pub fn own_answers(&self) -> impl Iterator<Item = Mac> + '_ {
        self.own_answers.iter().copied()
    }

    /// The hosts of these MACs no longer have the VIP.
    pub(super) fn forget_conflicts(&mut self, of: impl Fn(Mac) -> bool) {
        self.other_owners.forget(of);
    }

    /// Whether a peer is another owner of the VIP.
    #[must_use]
    pub fn is_other_owner(&self, peer: &Peer) -> bool {
        peer.mac
            .is_some_and(|mac| self.other_owners.is_present(mac))
    }

    /// What a peer proved. Another owner is neither stale nor a holder: the report lists it as a
    /// conflict.
    #[must_use]
    pub fn verdict_of(&self, confirmation: &Confirmation) -> PeerVerdict {
        match confirmation.verdict() {
            PeerVerdict::Stale | PeerVerdict::Holder if self.is_other_owner(&confirmation.peer) => {
                PeerVerdict::Silent
            }
            verdict => verdict,
        }
    }

    /// An ARP probe, or the solicitation of duplicate address detection.
    pub(super) fn probe(&self) -> Option<Frame> {
        let mac = self.mac()?;
        Some(match self.vip.ip() {
            IpAddr::V4(vip) => Arp::probe(vip, mac),
            IpAddr::V6(vip) => Ndp::probe(vip, mac, self.asking_address),
        })
    }

    /// The same, once the rounds are over. `None` for an IPv6 VIP on a host without another address:
    /// a second owner that is probed from `::` answers to all nodes, which then follow it.
    pub(super) fn look_probe(&self) -> Option<Frame> {
        let harmless = self.vip.ip().is_ipv4() || self.asking_address.is_some();
        harmless.then(|| self.probe()).flatten()
    }
}
