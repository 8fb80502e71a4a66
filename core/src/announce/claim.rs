//! One VIP on one interface: its state, its peers and its other owners.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use super::news::Told;
use super::rounds::RecentArp;
use super::sources::Sources;
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{Confirmation, Neighbourhood, OwnerWatch, Peer, PeerVerdict, Refusal, Source};
use crate::host::{Link, Usability};
use crate::wire::{Arp, Frame, Ndp};

/// For this long after the first frame, a claim by another host is no conflict: the old owner's last
/// frames may still be in flight.
const HANDOVER: Duration = Duration::from_millis(100);
/// A host that begins to claim the VIP so shortly before it leaves here takes it over: keepalived's new
/// master announces it before the old one, who waits for an advertisement, has let go.
const TAKEOVER: Duration = Duration::from_secs(1);

/// The most hosts that echoes may cause to ask for the VIP.
const MOST_RESOLVERS: u32 = 8;
/// From this many hosts on that answer this host but never the VIP, frames from the VIP are taken to be
/// dropped.
const SEVERAL: usize = 2;

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
    /// Probes for other owners since the rounds started.
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
    pub(super) recent_arp: RecentArp,
    pub(super) told: Told,
    pub(super) sources: Sources,
    /// Frames of the rounds that left.
    pub broadcasts: u32,
    /// Hosts that asked for the VIP since the peers were found.
    pub(super) resolvers: u32,
    pub(super) other_owners: OwnerWatch,
    /// The end of the handover, if another host claimed the VIP during it.
    claimed_early: Option<Instant>,
    /// The other MACs of this host that seem to answer for it, and whether it receives wherever they are.
    own_answers: BTreeMap<Mac, bool>,
    /// The peers that were found so far.
    confirmations: Vec<Confirmation>,
    /// Whether these are all.
    all_found: bool,
    by_ip: HashMap<IpAddr, usize>,
    /// The peers' MACs, as far as they were known when they were found.
    macs: HashSet<Mac>,
    /// Peers that a census found.
    pub(super) found: usize,
    /// Hosts that a census found before the peers were known.
    pub(super) found_early: BTreeMap<IpAddr, Mac>,
    /// Neighbours that are not asked because there are too many.
    pub left_out: usize,
    /// Whether any peer answered a frame from the VIP.
    took_in: bool,
    /// The peers that answered this host's own address but not the VIP.
    ignoring: BTreeSet<usize>,
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
            recent_arp: RecentArp::default(),
            told: Told::default(),
            sources: Sources::default(),
            broadcasts: 0,
            resolvers: 0,
            other_owners: OwnerWatch::new(watch),
            claimed_early: None,
            own_answers: BTreeMap::new(),
            confirmations: Vec::new(),
            all_found: false,
            by_ip: HashMap::new(),
            macs: HashSet::new(),
            found: 0,
            found_early: BTreeMap::new(),
            left_out: 0,
            took_in: false,
            ignoring: BTreeSet::new(),
            changed: BTreeSet::new(),
        }
    }

    /// The interface's index.
    #[must_use]
    pub fn interface(&self) -> InterfaceIndex {
        self.link.index
    }

    /// Where it has the same hosts as other VIPs.
    pub(super) fn neighbourhood(&self) -> Neighbourhood {
        let subnets = self.sources.subnets.clone();
        (self.interface(), self.vip.ip().is_ipv4(), subnets)
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
        if usability.is_none() && self.gone_since.is_none() {
            let since = now.checked_sub(TAKEOVER).unwrap_or(now);
            self.other_owners.forget_since(since);
        }
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
    pub fn known_other_owners(&self) -> impl Iterator<Item = Mac> + '_ {
        let past = self.past_conflicts().map(|(mac, _)| mac);
        self.conflicts().chain(past)
    }

    /// Until when the run watches other owners.
    #[must_use]
    pub fn watched_until(&self) -> Option<Instant> {
        self.other_owners.watched_until()
    }

    /// What each peer proved so far, without addresses that nobody has: those of a sweep, and those that
    /// others only mentioned.
    pub fn peers(&self) -> impl Iterator<Item = &Confirmation> + '_ {
        let exists = |one: &&Confirmation| {
            let is_guess = one.peer.source == Source::Subnet || one.peer.is_only_mentioned();
            !is_guess || one.has_replied()
        };
        self.confirmations().iter().filter(exists)
    }

    /// The same with these addresses.
    #[must_use]
    pub fn confirmations(&self) -> &[Confirmation] {
        &self.confirmations
    }

    pub(super) fn confirmations_mut(&mut self) -> &mut [Confirmation] {
        self.all_changed();
        &mut self.confirmations
    }

    pub(super) fn confirmation_mut(&mut self, at: usize) -> &mut Confirmation {
        self.changed.insert(at);
        &mut self.confirmations[at]
    }

    fn all_changed(&mut self) {
        self.changed.extend(0..self.confirmations().len());
    }

    /// The peers to order to purge now, and whether each is stale. Counts their orders as sent. Looks
    /// only at confirmations that changed since the last call: there may be thousands of others.
    pub(super) fn take_due_orders(&mut self) -> Vec<(usize, bool)> {
        let owners: Vec<_> = self.conflicts().collect();
        let blocked = self.is_blocked();
        let all = &mut self.confirmations;
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|at| {
                let one = &mut all[at];
                let may = !blocked || one.peer.source == Source::Configured;
                Some((at, may.then(|| one.take_due_order(&owners))??))
            })
            .collect()
    }

    /// This host lost an address: no more questions leave from it.
    pub(super) fn stop_asking_from(&mut self, own: IpAddr) {
        for confirmation in self.confirmations_mut() {
            confirmation.stop_asking_from(own);
            let control = &mut confirmation.peer.control;
            *control = control.filter(|control| control.ip != own);
        }
    }

    /// An own address, not a VIP, as source of probes.
    pub(super) fn asking_address(&self) -> Option<IpAddr> {
        self.sources.own
    }

    /// The source address of directed requests. A check uses one that changes nobody's entry for the
    /// VIP: 0.0.0.0, or for IPv6 another address of this host, if it has one.
    pub(super) fn asks_peers_from(&self) -> Option<IpAddr> {
        match (self.mode, self.vip.ip()) {
            (Mode::Announce, vip) => Some(vip),
            (Mode::Check, IpAddr::V4(_)) => Some(Ipv4Addr::UNSPECIFIED.into()),
            (Mode::Check, IpAddr::V6(_)) => self.asking_address(),
        }
    }

    /// Whether a check sent enough probes to find other owners.
    #[must_use]
    pub fn is_certain_of_owners(&self) -> bool {
        self.rounds_over
    }

    /// Whether some of the peers are yet to be found.
    pub(super) fn awaits_peers(&self) -> bool {
        !self.all_found && self.state() == State::Ready
    }

    /// All peers are found, but for so many that are left out.
    pub(super) fn peers_are_found(&mut self, left_out: usize) {
        (self.all_found, self.left_out) = (true, left_out);
    }

    /// Forgets what the peers proved, and asks from the VIP as it is now.
    pub(super) fn ask_peers_again(&mut self) {
        let from = self.asks_peers_from();
        (self.took_in, self.ignoring) = (false, BTreeSet::new());
        for confirmation in self.confirmations_mut() {
            confirmation.start_over(from);
        }
    }

    /// Makes the peers that follow prove it again, and returns them.
    pub(super) fn doubt_proofs(&mut self) -> Vec<usize> {
        let follow = |at: &usize| self.confirmations()[*at].settled().is_some();
        let peers: Vec<_> = (0..self.confirmations().len()).filter(follow).collect();
        for peer in &peers {
            self.confirmation_mut(*peer).doubt_proof();
        }
        peers
    }

    /// Forgets what one peer proved, and asks from the VIP as it is now.
    pub(super) fn ask_peer_again(&mut self, peer: usize) {
        let from = self.asks_peers_from();
        self.confirmation_mut(peer).start_over(from);
    }

    /// Adds a peer.
    pub(super) fn add_peer(&mut self, peer: Peer) -> usize {
        let from = self.asks_peers_from();
        let at = self.confirmations.len();
        self.by_ip.insert(peer.ip, at);
        self.macs.extend(peer.mac);
        let mut confirmation = Confirmation::new(peer, from);
        confirmation.echo_first = self.resolvers < MOST_RESOLVERS;
        confirmation.asks_as_vip = self.mode == Mode::Announce;
        self.confirmations.push(confirmation);
        self.changed.insert(at);
        at
    }

    /// Another host asks for the VIP: it has no entry. If many do, the remaining peers get directed
    /// requests first: echoes would make each of them broadcast a request of its own.
    pub(super) fn on_resolver(&mut self) {
        self.resolvers += 1;
        if self.resolvers == MOST_RESOLVERS {
            for confirmation in self.confirmations_mut() {
                confirmation.echo_first &= confirmation.was_asked();
            }
        }
    }

    /// Whether a peer has this MAC.
    pub(super) fn has_peer_at(&self, mac: Mac) -> bool {
        self.macs.contains(&mac)
    }

    /// The addresses of the peers with this MAC that may not exist.
    pub(super) fn doubtful_peers_at(&self, mac: Mac) -> Vec<IpAddr> {
        let all = match self.has_peer_at(mac) {
            true => self.confirmations(),
            false => &[],
        };
        let peers = all.iter().map(|one| &one.peer);
        peers
            .filter(|peer| peer.doubtful && peer.mac == Some(mac))
            .map(|peer| peer.ip)
            .collect()
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
        let Some(from) = self.began.map(|began| began + grace) else {
            return;
        };
        // While it is not here, it may well be there.
        if !mac.can_own() || self.usability.is_none() {
            return;
        }
        if now < from {
            self.claimed_early = Some(from);
        } else if self.other_owners.on_claim(now, mac) {
            self.all_changed();
        }
    }

    /// Whether the handover is over, and a host that had proven that it follows may have followed the old
    /// owner's last frame since. The first time only.
    pub(super) fn has_to_verify(&mut self, now: Instant) -> bool {
        let is_due = self.claimed_early.is_some_and(|end| end <= now);
        if is_due {
            self.claimed_early = None;
        }
        is_due
    }

    /// An interface of this host answers for the VIP on this link, or someone does in its name. Returns
    /// whether that is new.
    pub(super) fn on_own_answer(&mut self, mac: Mac) -> bool {
        let is_new = self.link.mac != Some(mac) && !self.own_answers.contains_key(&mac);
        if is_new {
            self.own_answers.insert(mac, false);
        }
        is_new
    }

    /// Whether another card of this host, with this MAC, seems to answer.
    pub(super) fn has_own_answer(&self, mac: Mac) -> bool {
        self.own_answers.contains_key(&mac)
    }

    /// No card of this host has this MAC any more.
    pub(super) fn forget_own_answer(&mut self, mac: Mac) {
        self.own_answers.remove(&mac);
    }

    /// From now on this host receives at its card of this MAC, too. Until now the replies of these peers
    /// may have come in there.
    pub(super) fn hear_card(&mut self, mac: Mac) -> Vec<usize> {
        match self.own_answers.get_mut(&mac) {
            Some(heard) if !*heard => *heard = true,
            _ => return Vec::new(),
        }
        let unproven = |at: &usize| {
            let one = &self.confirmations()[*at];
            one.has_replied() && one.proven.is_none()
        };
        let peers: Vec<_> = (0..self.confirmations().len()).filter(unproven).collect();
        for peer in &peers {
            self.confirmation_mut(*peer).doubt_proof();
        }
        peers
    }

    /// Drops conflicts with MACs of this host itself. Returns those that are new as its own.
    pub(super) fn sort_out_own(&mut self, own: &BTreeMap<Mac, String>) -> Vec<Mac> {
        let found: Vec<_> = self
            .conflicts()
            .filter(|mac| own.contains_key(mac))
            .collect();
        self.forget_conflicts(|mac| own.contains_key(&mac));
        let is_new = |mac: &Mac| self.on_own_answer(*mac);
        found.into_iter().filter(is_new).collect()
    }

    /// The MACs of other interfaces of this host that answer for the VIP on this link (Linux answers
    /// for every address on every interface, unless `arp_ignore` forbids that).
    pub fn own_answers(&self) -> impl Iterator<Item = Mac> + '_ {
        self.own_answers.keys().copied()
    }

    /// Whether a peer is stale, unless its entry is the MAC of another card of this host that seems to
    /// answer, and where this host does not receive.
    pub(super) fn may_follow_unheard_card(&self, one: &Confirmation) -> bool {
        let is_unheard = self.own_answers.values().any(|heard| !heard);
        is_unheard && one.verdict() == PeerVerdict::Stale && one.forwarded_by.is_none()
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
            PeerVerdict::Stale if self.is_blocked() => PeerVerdict::Silent,
            // Its entry may be the MAC of another card of this host, where nobody sees its replies.
            PeerVerdict::Stale if self.may_follow_unheard_card(confirmation) => {
                match confirmation.acknowledged {
                    Some(_) => PeerVerdict::Acknowledged,
                    None => PeerVerdict::Silent,
                }
            }
            verdict => verdict,
        }
    }

    /// Whether something on the way out drops the frames from the VIP: several hosts answer this host's
    /// own address, and none ever a frame from the VIP.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        // A check asks from another address, and so cannot tell that from wrong entries everywhere.
        if self.mode == Mode::Check || self.took_in {
            return false;
        }
        let all = self.confirmations();
        let ignoring = self.ignoring.iter().filter(|at| all[**at].ignores_vip());
        ignoring.take(SEVERAL).count() == SEVERAL
    }

    /// A peer answered.
    pub(super) fn answered(&mut self, at: usize) {
        let one = &self.confirmations()[at];
        let (took_in, ignores) = (one.took_vip_in(), one.ignores_vip());
        self.took_in |= took_in;
        if ignores {
            self.ignoring.insert(at);
        }
    }

    /// An ARP probe, or the solicitation of duplicate address detection. A switch with ARP suppression
    /// drops requests from 0.0.0.0, so every other one comes from an own address.
    pub(super) fn probe(&self) -> Option<Frame> {
        let mac = self.mac()?;
        Some(match (self.vip.ip(), self.asking_address()) {
            (IpAddr::V4(vip), Some(IpAddr::V4(own))) if self.probes % 2 == 1 => {
                Arp::directed_request(own, mac, vip, None)
            }
            (IpAddr::V4(vip), _) => Arp::probe(vip, mac),
            (IpAddr::V6(vip), Some(IpAddr::V6(own))) => Ndp::probe(vip, mac, Some(own)),
            (IpAddr::V6(vip), _) => Ndp::probe(vip, mac, None),
        })
    }

    /// The same, once the rounds are over. `None` for an IPv6 VIP on a host without another address:
    /// a second owner that is probed from `::` answers to all nodes, which then follow it.
    pub(super) fn look_probe(&self) -> Option<Frame> {
        let harmless = self.vip.ip().is_ipv4() || self.asking_address().is_some();
        harmless.then(|| self.probe()).flatten()
    }
}
