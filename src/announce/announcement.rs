//! The core: a state machine that is told the time and what happened, and says what to send.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::agenda::Agenda;
use super::claim::{Claim, Place, Standing};
use super::rate::Bucket;
use crate::address::{InterfaceIndex, Vip};
use crate::kernel::{Address, Link};
use crate::wire::Frame;

/// How long to wait before a frame that a full queue refused is tried again, the first time.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// It doubles this many times, to about an eighth of a second.
const RETRY_DOUBLINGS: u32 = 7;

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames a second, over all VIPs; a second's worth may leave at once.
    pub rate: NonZeroU32,
    /// How long a VIP that is not here may take to appear.
    pub wait: Duration,
    /// When the run ends at the latest.
    pub timeout: Duration,
}

/// A frame that shall leave now. Once that was tried, the core is told how it went, by
/// [`Announcement::sent`] or [`Announcement::refused`].
#[derive(Debug)]
#[must_use]
pub struct Transmit {
    /// The interface to send on.
    pub interface: InterfaceIndex,
    /// What to send.
    pub frame: Frame,
    task: Task,
    next: Option<(Duration, Place)>,
}

/// One frame of the rounds of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    claim: usize,
    epoch: u32,
    place: Place,
}

/// A run: some VIPs, announced until their rounds are over, they have left, or time is up.
///
/// The driver's duty: hand over every change that is known ([`Announcement::link_changed`] and
/// its kin) *before each* call of [`Announcement::poll_transmit`], for the core lets a frame go
/// only on what it knows.
#[derive(Debug)]
pub struct Announcement {
    vips: Vec<Vip>,
    absent: Vec<Vip>,
    only: Option<InterfaceIndex>,
    wait_until: Instant,
    end_at: Instant,
    links: BTreeMap<InterfaceIndex, Link>,
    claims: Vec<Claim>,
    agenda: Agenda<Task>,
    bucket: Bucket,
}

impl Announcement {
    /// A run for some VIPs, wherever they are or only where they are on one interface.
    /// A VIP given twice counts once.
    #[must_use]
    pub fn new(vips: &[Vip], only: Option<InterfaceIndex>, pace: Pace, now: Instant) -> Self {
        let mut distinct = Vec::with_capacity(vips.len());
        for vip in vips {
            if !distinct.contains(vip) {
                distinct.push(*vip);
            }
        }
        Self {
            absent: distinct.clone(),
            vips: distinct,
            only,
            wait_until: now + pace.wait,
            end_at: now + pace.timeout,
            links: BTreeMap::new(),
            claims: Vec::new(),
            agenda: Agenda::new(),
            bucket: Bucket::new(pace.rate, now),
        }
    }

    /// The VIPs that are on an interface, or were.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The claim that a frame is for.
    #[must_use]
    pub fn claim_of(&self, transmit: &Transmit) -> &Claim {
        &self.claims[transmit.task.claim]
    }

    /// The interfaces that the core was told of.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    /// The VIPs that no interface has held since the run began.
    pub fn absent(&self) -> impl Iterator<Item = Vip> + '_ {
        self.absent.iter().copied()
    }

    /// The interface of this address, where the core has to be told of that interface (by
    /// [`Announcement::link_changed`]) before it is told of the address.
    #[must_use]
    pub fn unknown_link_of(&self, address: &Address) -> Option<InterfaceIndex> {
        (self.wanted(address).is_some() && !self.links.contains_key(&address.interface))
            .then_some(address.interface)
    }

    fn wanted(&self, address: &Address) -> Option<Vip> {
        let here = self.only.is_none_or(|only| only == address.interface);
        let vip = self.vips.iter().find(|vip| vip.ip() == address.ip);
        vip.copied().filter(|_| here)
    }

    /// An interface is as told from now on.
    pub fn link_changed(&mut self, now: Instant, link: &Link) {
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            if claim.interface() != link.index {
                continue;
            }
            let mac_changed = claim.link.mac != link.mac;
            let was_ready = claim.standing() == Standing::Ready;
            claim.link = link.clone();
            // Who was out of reach, or learned the old MAC, has to hear all rounds again.
            if mac_changed || !was_ready {
                self.start_rounds(now, index);
            }
        }
        self.links.insert(link.index, link.clone());
    }

    /// An interface is gone, and every address on it.
    pub fn link_gone(&mut self, interface: InterfaceIndex) {
        self.links.remove(&interface);
        for claim in &mut self.claims {
            if claim.interface() == interface {
                claim.usability = None;
            }
        }
    }

    /// An address is here, as told. Addresses that are none of this run's VIPs are passed over.
    pub fn address_changed(&mut self, now: Instant, address: &Address) {
        let Some(vip) = self.wanted(address) else {
            return;
        };
        let known = self
            .claims
            .iter()
            .position(|claim| claim.vip == vip && claim.interface() == address.interface);
        let (index, was_ready) = match known {
            Some(index) => {
                let claim = &mut self.claims[index];
                let was_ready = claim.standing() == Standing::Ready;
                claim.usability = Some(address.usability);
                (index, was_ready)
            }
            None => {
                let Some(link) = self.links.get(&address.interface).cloned() else {
                    return;
                };
                self.claims.push(Claim::new(vip, link, address.usability));
                self.absent.retain(|absent| *absent != vip);
                (self.claims.len() - 1, false)
            }
        };
        if !was_ready {
            self.start_rounds(now, index);
        }
    }

    /// An address is gone.
    pub fn address_gone(&mut self, address: &Address) {
        for claim in &mut self.claims {
            if claim.vip.ip() == address.ip && claim.interface() == address.interface {
                claim.usability = None;
            }
        }
    }

    /// Changes were lost: these are all the addresses that are here now.
    pub fn addresses_are(&mut self, now: Instant, addresses: &[Address]) {
        for claim in &mut self.claims {
            let held = addresses
                .iter()
                .any(|a| a.ip == claim.vip.ip() && a.interface == claim.interface());
            if !held {
                claim.usability = None;
            }
        }
        for address in addresses {
            self.address_changed(now, address);
        }
    }

    fn start_rounds(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        if claim.standing() == Standing::Ready {
            claim.epoch += 1;
            claim.rounds_over = false;
            let task = Task {
                claim: index,
                epoch: claim.epoch,
                place: Place::FIRST,
            };
            self.agenda.note(now, task);
        }
    }

    /// The next frame that may leave now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if self.is_over(now) {
            return None;
        }
        for claim in &mut self.claims {
            claim.left |= claim.usability.is_none();
        }
        while self.bucket.ready_at() <= now {
            let task = self.agenda.take_due(now)?;
            let claim = &self.claims[task.claim];
            if task.epoch != claim.epoch || claim.standing() != Standing::Ready {
                continue;
            }
            if let Some((frame, next)) = claim.broadcast(task.place) {
                self.bucket.take(now);
                return Some(Transmit {
                    interface: claim.interface(),
                    frame,
                    task,
                    next,
                });
            }
        }
        None
    }

    /// The frame left.
    pub fn sent(&mut self, now: Instant, transmit: &Transmit) {
        let claim = &mut self.claims[transmit.task.claim];
        claim.frames_sent += 1;
        claim.refusals = 0;
        // From now, not from when it was due: a run that is late keeps its distances.
        match transmit.next {
            Some((gap, place)) => {
                let task = Task {
                    place,
                    ..transmit.task
                };
                self.agenda.note(now + gap, task);
            }
            None => claim.rounds_over = true,
        }
    }

    /// The frame could not leave (a full queue, an interface that is down): it is tried again,
    /// less and less often, for as long as it may leave at all.
    pub fn refused(&mut self, now: Instant, transmit: &Transmit, errno: Errno) {
        let claim = &mut self.claims[transmit.task.claim];
        let gap = FIRST_RETRY * (1 << claim.refusals.min(RETRY_DOUBLINGS));
        claim.refusals += 1;
        claim.last_refusal = Some(errno);
        self.agenda.note(now + gap, transmit.task);
    }

    /// Whether nothing more can happen.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end_at || !(self.awaits_address(now) || self.claims.iter().any(Claim::is_open))
    }

    fn awaits_address(&self, now: Instant) -> bool {
        now < self.wait_until && self.absent().next().is_some()
    }

    /// When to call [`Announcement::poll_transmit`] again if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let frame = self
            .agenda
            .next_due()
            .map(|due| due.max(self.bucket.ready_at()));
        let wait = self.awaits_address(now).then_some(self.wait_until);
        [frame, wait]
            .into_iter()
            .flatten()
            .fold(self.end_at, Instant::min)
    }
}
