//! One VIP on one interface: whether it may be announced, and how far that has come.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::rounds as schedule;
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{Confirmation, OwnerWatch, Peer, PeerVerdict, Refusal};
use crate::host::{Link, Usability};
use crate::wire::{Arp, Frame, Ndp};

/// For this long after the first frame, another host's claim is no conflict: the old owner's last
/// frames are still in flight.
const HANDOVER: Duration = Duration::from_millis(100);

/// What a run does about its VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Announces them, and asks for proof.
    Announce,
    /// Only asks: who else has them, and do the peers follow? No frame of it changes which MAC
    /// anyone holds for them.
    Check,
}

/// Whether frames for a VIP may leave an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The address is usable here and the interface has a carrier.
    Ready,
    /// It is here, but frames must wait: duplicate address detection runs, or no carrier.
    Waiting(&'static str),
    /// Duplicate address detection found another owner: never overridden.
    DadFailed,
    /// The address left, or its interface did. Should it come back within the time that a run
    /// waits for a VIP, as when its prefix length changes, it is announced anew; later, that is
    /// another move of the VIP, with an event of its own.
    Left,
    /// A newer run announces it.
    Superseded,
    /// The interface is of a kind whose neighbours do not ask by ARP or ND.
    Unfit(&'static str),
}

/// A VIP on an interface that holds it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The virtual IP.
    pub vip: Vip,
    /// The interface that holds it, as it was seen last.
    pub link: Link,
    /// Frames that left.
    pub frames_sent: u32,
    /// Why the last frame that could not leave was refused.
    pub last_refusal: Option<Refusal>,
    pub(super) mode: Mode,
    /// Probes of a check, since its rounds started.
    pub(super) probes: u32,
    /// Frames in a row that the interface's queue refused.
    pub(super) refusals: u32,
    /// What the kernel last said of the address; `None` while it is gone.
    usability: Option<Usability>,
    /// Since when it is gone.
    gone_since: Option<Instant>,
    /// Whether it was gone for longer than a run waits for a VIP.
    pub(super) left: bool,
    /// Whether a newer run has taken it over.
    pub(super) superseded: bool,
    /// When frames could leave for the first time.
    pub(super) began: Option<Instant>,
    /// Counts the times that the rounds started: an older count's tasks are void.
    pub(super) epoch: u32,
    /// Whether the last round was sent.
    pub(super) rounds_over: bool,
    /// An own IPv6 address that others can be asked from about the VIP.
    pub(super) asking_address: Option<Ipv6Addr>,
    /// Other hosts that claimed the VIP.
    pub(super) other_owners: OwnerWatch,
    own_answers: BTreeSet<Mac>,
    /// The peers, once they are known.
    confirmations: Option<Vec<Confirmation>>,
    by_ip: HashMap<IpAddr, usize>,
    /// Neighbours that are not asked, for there are too many.
    pub left_out: usize,
    /// The confirmations that changed since it was last asked whom to order.
    changed: BTreeSet<usize>,
}

/// A place in the rounds: which round, and which of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    round: usize,
    frame: usize,
}

impl Place {
    pub(super) const FIRST: Self = Self { round: 0, frame: 0 };
}

/// A frame of the rounds.
pub(super) struct Broadcast {
    pub(super) frame: Frame,
    /// Whether a host that has a say answers it.
    pub(super) is_question: bool,
    /// The place after it, and how far away in time.
    pub(super) next: Option<(Duration, Place)>,
}

impl Claim {
    /// `watch` is how long other owners are watched.
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

    /// The MAC that is announced: the interface's own. Only a claim that is not
    /// [`State::Unfit`] has one.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        self.link.mac
    }

    /// Whether frames may leave now.
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

    /// The kernel says this of the address now; `None`: it is gone.
    pub(super) fn set_usability(&mut self, now: Instant, usability: Option<Usability>) {
        self.usability = usability;
        self.gone_since = match usability {
            None => self.gone_since.or(Some(now)),
            Some(_) => None,
        };
    }

    /// Until when it may come back, if it is gone. `wait` is how long a run waits for a VIP.
    pub(super) fn may_return_until(&self, wait: Duration) -> Option<Instant> {
        let gone = self.gone_since.filter(|_| !self.left && !self.superseded);
        gone.map(|gone| gone + wait)
    }

    /// The MACs, not this host's, that the VIP is claimed with.
    pub fn conflicts(&self) -> impl Iterator<Item = Mac> + '_ {
        self.other_owners.present()
    }

    /// The MACs that it was claimed with, and since when they do so no more.
    pub fn past_conflicts(&self) -> impl Iterator<Item = (Mac, Instant)> + '_ {
        self.other_owners.past()
    }

    /// Claims by more MACs than are remembered ([`MOST_CLAIMANTS`](crate::ask::MOST_CLAIMANTS)).
    #[must_use]
    pub fn more_conflicts(&self) -> u64 {
        self.other_owners.more()
    }

    /// All of these, present or past.
    pub(super) fn known_rivals(&self) -> Vec<Mac> {
        let past = self.past_conflicts().map(|(mac, _)| mac);
        self.conflicts().chain(past).collect()
    }

    /// Until when other owners are asked for again and again.
    #[must_use]
    pub fn watched_until(&self) -> Option<Instant> {
        self.other_owners.watched_until()
    }

    /// The peers that shall follow, and how far each has come.
    #[must_use]
    pub fn confirmations(&self) -> &[Confirmation] {
        self.confirmations.as_deref().unwrap_or_default()
    }

    pub(super) fn confirmations_mut(&mut self) -> &mut [Confirmation] {
        self.all_changed();
        self.confirmations.as_deref_mut().unwrap_or_default()
    }

    /// One of [`Self::confirmations`].
    pub(super) fn confirmation_mut(&mut self, at: usize) -> &mut Confirmation {
        self.changed.insert(at);
        let all = self.confirmations.as_deref_mut().unwrap_or_default();
        &mut all[at]
    }

    fn all_changed(&mut self) {
        self.changed.extend(0..self.confirmations().len());
    }

    /// The confirmations of the peers that shall be ordered to purge now, and whether each was found
    /// stale. Their orders count as sent. Only those that changed since it was last asked are looked
    /// at: there may be thousands of others.
    pub(super) fn take_due_orders(&mut self) -> Vec<(usize, bool)> {
        let owners: Vec<_> = self.conflicts().collect();
        let all = self.confirmations.as_deref_mut().unwrap_or_default();
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .filter_map(|at| Some((at, all[at].take_due_order(&owners)?)))
            .collect()
    }

    /// An own address is gone: no question is sent from it any more.
    pub(super) fn stop_asking_from(&mut self, own: IpAddr) {
        self.asking_address = self.asking_address.filter(|ip| IpAddr::V6(*ip) != own);
        for confirmation in self.confirmations_mut() {
            confirmation.stop_asking_from(own);
            let control = &mut confirmation.peer.control;
            *control = control.filter(|control| control.ip != own);
        }
    }

    /// The address that peers are asked from. A check asks for an address that changes no table:
    /// none (0.0.0.0), or for IPv6 another one of this host, where it has one.
    pub(super) fn asks_peers_from(&self) -> Option<IpAddr> {
        match (self.mode, self.vip.ip()) {
            (Mode::Announce, vip) => Some(vip),
            (Mode::Check, IpAddr::V4(_)) => Some(Ipv4Addr::UNSPECIFIED.into()),
            (Mode::Check, IpAddr::V6(_)) => self.asking_address.map(IpAddr::V6),
        }
    }

    /// Whether it was asked often enough who else has the VIP.
    #[must_use]
    pub fn is_certain_of_owners(&self) -> bool {
        self.rounds_over
    }

    /// Whether nobody said yet who the peers are.
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

    /// What the peers proved holds no more: they are asked again, from the VIP as it is now.
    pub(super) fn ask_peers_anew(&mut self) {
        let from = self.asks_peers_from();
        for confirmation in self.confirmations_mut() {
            confirmation.start_over(from);
        }
    }

    /// What one peer showed holds no more.
    pub(super) fn ask_peer_anew(&mut self, peer: usize) {
        let from = self.asks_peers_from();
        self.confirmation_mut(peer).start_over(from);
    }

    /// The place of a peer among the confirmations.
    pub(super) fn find_peer(&self, ip: IpAddr) -> Option<usize> {
        self.by_ip.get(&ip).copied()
    }

    /// Another host claims the VIP. What that means depends on when.
    pub(super) fn conflict_heard(&mut self, now: Instant, mac: Mac) {
        let grace = match self.mode {
            Mode::Announce => HANDOVER,
            Mode::Check => Duration::ZERO,
        };
        let counts = self.began.is_some_and(|began| now >= began + grace) && mac.is_unicast();
        if counts && self.other_owners.heard(now, mac) {
            self.all_changed();
        }
    }

    /// Another interface of this host answers for the VIP on this link.
    pub(super) fn own_answer_heard(&mut self, mac: Mac) {
        if self.link.mac != Some(mac) {
            self.own_answers.insert(mac);
        }
    }

    /// These are the MACs of this host, none of which is another owner's.
    pub(super) fn sort_out_own(&mut self, own: &BTreeMap<Mac, String>) {
        let found: Vec<_> = self
            .conflicts()
            .filter(|mac| own.contains_key(mac))
            .collect();
        self.forget_conflicts(|mac| own.contains_key(&mac));
        for mac in found {
            self.own_answer_heard(mac);
        }
    }

    /// The MACs of other interfaces of this host that were heard to answer for the VIP on this link
    /// (Linux answers for every address on every interface, unless `arp_ignore` forbids that).
    pub fn own_answers(&self) -> impl Iterator<Item = Mac> + '_ {
        self.own_answers.iter().copied()
    }

    /// The hosts of these MACs were heard to have let go of the VIP.
    pub(super) fn forget_conflicts(&mut self, of: impl Fn(Mac) -> bool) {
        self.other_owners.forget(of);
    }

    /// Whether a peer is known by now to be another owner of the VIP.
    #[must_use]
    pub fn is_rival(&self, peer: &Peer) -> bool {
        peer.mac
            .is_some_and(|mac| self.other_owners.is_present(mac))
    }

    /// What is known of a peer. A rival's own entry is not wrong: that it is an owner is told as a
    /// conflict.
    #[must_use]
    pub fn verdict_of(&self, confirmation: &Confirmation) -> PeerVerdict {
        match confirmation.verdict() {
            PeerVerdict::Stale | PeerVerdict::Holder if self.is_rival(&confirmation.peer) => {
                PeerVerdict::Silent
            }
            verdict => verdict,
        }
    }

    /// The question who else has the VIP.
    fn probe(&self) -> Option<Frame> {
        let mac = self.mac()?;
        Some(match self.vip.ip() {
            IpAddr::V4(vip) => Arp::probe(vip, mac),
            IpAddr::V6(vip) => Ndp::probe(vip, mac, self.asking_address),
        })
    }

    /// The same, once the rounds are over. `None` for an IPv6 VIP without another own address:
    /// asked from `::`, a second owner answers to all nodes, which then follow it.
    pub(super) fn look_probe(&self) -> Option<Frame> {
        let harmless = self.vip.ip().is_ipv4() || self.asking_address.is_some();
        harmless.then(|| self.probe()).flatten()
    }

    /// The frame at a place of the rounds.
    pub(super) fn broadcast(&self, place: Place) -> Option<Broadcast> {
        let mac = self.mac()?;
        if self.mode == Mode::Check {
            return Some(Broadcast {
                frame: self.probe()?,
                is_question: true,
                next: None,
            });
        }
        let router = self.link.forwards_ipv6;
        let following = schedule::gap_after(place.round);
        let probes = match self.vip.ip() {
            IpAddr::V4(_) => true,
            // Asked from `::`, a second owner answers to all nodes, and they follow it until the
            // next round: so not in the last one.
            IpAddr::V6(_) => self.asking_address.is_some() || following.is_some(),
        };
        let (frame, told) = match (self.vip.ip(), place.frame) {
            // Hosts differ in which of the two forms they take (RFC 5944 §4.6, RFC 5227 §3).
            (IpAddr::V4(vip), 0) => (Arp::gratuitous_request(vip, mac), 2),
            (IpAddr::V4(vip), 1) => (Arp::gratuitous_reply(vip, mac), 2),
            (IpAddr::V4(_), _) => (self.probe()?, 2),
            (IpAddr::V6(vip), 0) => (Ndp::unsolicited_advertisement(vip, mac, router), 1),
            (IpAddr::V6(_), _) => (self.probe()?, 1),
        };
        let frames = told + usize::from(probes);
        let next = if place.frame + 1 >= frames {
            let round = place.round + 1;
            following.map(|gap| (gap, Place { round, frame: 0 }))
        } else {
            let frame = place.frame + 1;
            Some((Duration::ZERO, Place { frame, ..place }))
        };
        Some(Broadcast {
            frame,
            is_question: place.frame == told,
            next,
        })
    }

    /// How many frames the rounds have at most: for an IPv6 VIP one less where this host has no
    /// other address.
    #[must_use]
    pub fn planned_frames(&self) -> usize {
        let per_round = if self.vip.ip().is_ipv4() { 3 } else { 2 };
        schedule::COUNT * per_round
    }

    /// How long the rounds take.
    #[must_use]
    pub fn planned_time() -> Duration {
        schedule::LENGTH
    }
}
