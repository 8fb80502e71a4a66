//! The core: a state machine that is told the time and what happened, and says what to send.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::agenda::Agenda;
use super::claim::{Claim, Manner, Place, Standing};
use super::path::Paths;
use super::peer::{Question, Run};
use super::rate::Bucket;
use super::surroundings::{Surroundings, asking_address, peers};
use crate::address::{InterfaceIndex, Mac, Vip};
use crate::kernel::{Address, Link};
use crate::settings::Confirm;
use crate::wire::Frame;

/// How long to wait before a frame that a full queue refused is tried again, the first time.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// It doubles this many times, to about an eighth of a second.
const RETRY_DOUBLINGS: u32 = 7;
/// Between two probes of a check.
const PROBE_GAP: Duration = Duration::from_millis(15);
/// How long the last question's answer may take.
pub(crate) const LAST_ANSWER: Duration = Duration::from_millis(250);

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
    /// Whether it may be answered on that interface.
    pub is_question: bool,
    task: Task,
    next: Next,
}

/// One frame of one claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    claim: usize,
    epoch: u32,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A frame of the rounds.
    Broadcast(Place),
    /// A question to a peer; `None`: the first of a turn.
    Ask(usize, Option<Question>),
}

/// What follows a frame that left.
#[derive(Clone, Copy, Debug)]
enum Next {
    Round(Option<(Duration, Place)>),
    Question(Question),
}

/// A run: some VIPs, announced until every peer that can follow does, or they have left, or time
/// is up.
///
/// The driver's duty: hand over every change that is known ([`Announcement::link_changed`] and
/// its kin) *before each* call of [`Announcement::poll_transmit`], for the core lets a frame go
/// only on what it knows.
#[derive(Debug)]
pub struct Announcement {
    vips: Vec<Vip>,
    absent: Vec<Vip>,
    only: Option<InterfaceIndex>,
    manner: Manner,
    run: Run,
    started: Instant,
    wait_until: Instant,
    end_at: Instant,
    last_sent: Instant,
    /// When the last question left whose answer may better a verdict.
    last_question: Option<Instant>,
    links: BTreeMap<InterfaceIndex, Link>,
    own_macs: BTreeSet<Mac>,
    hosts: BTreeMap<Mac, IpAddr>,
    claims: Vec<Claim>,
    yielded: Vec<Vip>,
    paths: Paths,
    agenda: Agenda<Task>,
    bucket: Bucket,
}

impl Announcement {
    /// A run for some VIPs, wherever they are or only where they are on one interface. It
    /// announces, unless [`Announcement::in_manner`] says otherwise. A VIP given twice counts once.
    /// `seed` should differ from run to run: it tells this run's echoes from others'.
    #[must_use]
    pub fn new(
        vips: &[Vip],
        only: Option<InterfaceIndex>,
        pace: Pace,
        seed: u64,
        now: Instant,
    ) -> Self {
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
            manner: Manner::Announce,
            run: Run::new(seed),
            started: now,
            wait_until: now + pace.wait,
            end_at: now + pace.timeout,
            last_sent: now,
            last_question: None,
            links: BTreeMap::new(),
            own_macs: BTreeSet::new(),
            hosts: BTreeMap::new(),
            claims: Vec::new(),
            yielded: Vec::new(),
            paths: Paths::default(),
            agenda: Agenda::new(),
            bucket: Bucket::new(pace.rate, now),
        }
    }

    /// The same run in another manner, before it has begun.
    #[must_use]
    pub fn in_manner(self, manner: Manner) -> Self {
        Self { manner, ..self }
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

    /// An interface that the core was told of.
    #[must_use]
    pub fn link(&self, interface: InterfaceIndex) -> Option<&Link> {
        self.links.get(&interface)
    }

    /// The interfaces that the core was told of.
    #[must_use]
    pub fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    /// The VIPs of the run, each once.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }

    /// The VIPs that no interface has held since the run began.
    pub fn absent(&self) -> impl Iterator<Item = Vip> + '_ {
        self.absent.iter().copied()
    }

    /// When the run began.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the last frame left.
    #[must_use]
    pub fn last_sent(&self) -> Instant {
        self.last_sent
    }

    /// The address of the host that has a MAC, where the neighbour tables know it.
    #[must_use]
    pub fn host_of(&self, mac: Mac) -> Option<IpAddr> {
        self.hosts.get(&mac).copied()
    }

    /// Questions to a peer which are not lost all by chance, if losses are as they were so far.
    /// `None` while nobody on an interface answers.
    #[must_use]
    pub fn enough_questions(&self, interface: InterfaceIndex) -> Option<u32> {
        self.paths.enough_questions(interface)
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
        vip.copied()
            .filter(|vip| here && !self.yielded.contains(vip))
    }

    /// An interface is as told from now on.
    pub fn link_changed(&mut self, now: Instant, link: &Link) {
        self.own_macs.extend(link.mac);
        self.links.insert(link.index, link.clone());
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            // For a VMAC, control echoes leave the link below.
            for confirmation in claim.confirmations_mut() {
                confirmation.link_changed(link);
            }
            if claim.interface() != link.index {
                continue;
            }
            let mac_changed = claim.link.mac != link.mac;
            // The link's own state: that an address left or is tentative says nothing of the path.
            let takes_frames = |link: &Link| link.carrier && link.unlike_ethernet.is_none();
            let came_up = !takes_frames(&claim.link) && takes_frames(link);
            claim.link = link.clone();
            // Who was out of reach, or learned the old MAC, has to hear all rounds again; and to
            // prove itself again, for only answers tell when the path behind the carrier is alive.
            if mac_changed || came_up {
                for confirmation in claim.confirmations_mut() {
                    confirmation.start_over();
                }
                self.paths.forget(link.index);
                self.start_rounds(now, index);
            }
        }
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
                self.claims
                    .push(Claim::new(vip, link, address.usability, self.manner));
                // The kernel tells of addresses in the order in which it got them, most often that of
                // the VIPs: then the first one is it.
                if let Some(at) = self.absent.iter().position(|absent| *absent == vip) {
                    self.absent.remove(at);
                }
                (self.claims.len() - 1, false)
            }
        };
        if !was_ready {
            self.start_rounds(now, index);
        }
    }

    /// Newer runs announce these VIPs from now on.
    pub fn superseded(&mut self, vips: &[Vip]) {
        for claim in &mut self.claims {
            claim.superseded |= vips.contains(&claim.vip);
        }
        let yielded = self.absent.extract_if(.., |vip| vips.contains(vip));
        self.yielded.extend(yielded);
    }

    /// The VIPs that were superseded before they were here.
    pub fn yielded(&self) -> impl Iterator<Item = Vip> + '_ {
        self.yielded.iter().copied()
    }

    /// An address is gone.
    pub fn address_gone(&mut self, address: &Address) {
        for claim in &mut self.claims {
            if claim.vip.ip() == address.ip && claim.interface() == address.interface {
                claim.usability = None;
            }
            claim.stop_asking_from(address.ip);
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

    /// Whether there are claims whose peers the core was not told yet.
    #[must_use]
    pub fn awaits_peers(&self) -> bool {
        self.claims.iter().any(Claim::awaits_peers)
    }

    /// Tells who is around: on the interfaces of the claims and on those below them. `own_macs`
    /// are those of all of this host's interfaces.
    pub fn surroundings_are(
        &mut self,
        now: Instant,
        surroundings: &[Surroundings],
        own_macs: impl IntoIterator<Item = Mac>,
        configured: &[IpAddr],
        confirm: Confirm,
    ) {
        self.own_macs.extend(own_macs);
        let vips: HashSet<_> = self.vips.iter().map(|vip| vip.ip()).collect();
        for neighbour in surroundings.iter().flat_map(|around| &around.neighbours) {
            let is_vip = vips.contains(&neighbour.ip);
            if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
                // Of several addresses the IPv4 one, which sorts first, says most to people.
                let host = self.hosts.entry(mac).or_insert(neighbour.ip);
                *host = neighbour.ip.min(*host);
            }
        }
        let of = |interface| {
            surroundings
                .iter()
                .find(|around| around.link.index == interface)
        };
        let asking: BTreeMap<_, _> = surroundings
            .iter()
            .map(|around| (around.link.index, asking_address(&vips, around)))
            .collect();
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let Some(on) = of(claim.interface()).filter(|_| claim.awaits_peers()) else {
                continue;
            };
            let below = claim.link.lower.and_then(of);
            claim.asking_address = asking[&on.link.index];
            claim.set_peers(peers(claim.vip, &vips, on, below, configured, confirm));
            match self.manner {
                Manner::Announce => self.ask_all(now, index),
                Manner::Check => self.start_rounds(now, index),
            }
        }
    }

    /// Starts the rounds of a claim, and with them the turns of those who do not follow yet.
    fn start_rounds(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        // Before a check asks anything, it has to know from which address.
        let knows_how = self.manner == Manner::Announce || !claim.awaits_peers();
        if claim.standing() == Standing::Ready && knows_how {
            claim.epoch += 1;
            claim.probes = 0;
            claim.rounds_over = false;
            claim.began.get_or_insert(now);
            let task = Task {
                claim: index,
                epoch: claim.epoch,
                what: What::Broadcast(Place::FIRST),
            };
            self.agenda.note(now, task);
            self.ask_all(now, index);
        }
    }

    fn ask_all(&mut self, now: Instant, index: usize) {
        for peer in 0..self.claims[index].confirmations().len() {
            self.ask_anew(now, index, peer);
        }
    }

    /// Begins new turns of a peer that does not follow yet, at once and with short gaps.
    fn ask_anew(&mut self, now: Instant, index: usize, peer: usize) {
        let confirmation = &mut self.claims[index].confirmations_mut()[peer];
        if confirmation.wants_turns() {
            confirmation.hurry();
            let task = Task {
                claim: index,
                epoch: confirmation.epoch,
                what: What::Ask(peer, None),
            };
            self.agenda.note(now, task);
        }
    }

    /// The next frame that may leave now.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        for claim in &mut self.claims {
            claim.left |= claim.usability.is_none();
        }
        if self.is_over(now) {
            return None;
        }
        while self.bucket.ready_at() <= now {
            let task = self.agenda.take_due(now)?;
            if let Some(transmit) = self.carry_out(task) {
                self.bucket.take(now);
                return Some(transmit);
            }
        }
        None
    }

    /// The frame of a task, unless the task is void.
    fn carry_out(&self, task: Task) -> Option<Transmit> {
        let claim = &self.claims[task.claim];
        if claim.standing() != Standing::Ready {
            return None;
        }
        match task.what {
            What::Broadcast(place) => {
                let broadcast = claim.broadcast(place)?;
                (task.epoch == claim.epoch).then_some(Transmit {
                    interface: claim.interface(),
                    frame: broadcast.frame,
                    is_question: broadcast.is_question,
                    task,
                    next: Next::Round(broadcast.next),
                })
            }
            What::Ask(peer, question) => {
                let confirmation = &claim.confirmations()[peer];
                if task.epoch != confirmation.epoch || !confirmation.wants_turns() {
                    return None;
                }
                let question = question
                    .filter(|question| confirmation.asks(*question))
                    .or_else(|| confirmation.next_question(None))?;
                let interface = match (question, confirmation.peer.control) {
                    (Question::Control, Some(control)) => control.interface,
                    _ => claim.interface(),
                };
                let mac = claim.mac()?;
                let frame = confirmation.frame(question, claim.vip, mac, self.run)?;
                Some(Transmit {
                    interface,
                    frame,
                    is_question: true,
                    task,
                    next: Next::Question(question),
                })
            }
        }
    }

    /// The frame left.
    pub fn sent(&mut self, now: Instant, transmit: &Transmit) {
        let task = transmit.task;
        let claim = &mut self.claims[task.claim];
        claim.frames_sent += 1;
        claim.refusals = 0;
        self.last_sent = now;
        let matters = match task.what {
            What::Broadcast(_) => transmit.is_question,
            // Those whose verdict is certain are still asked now and then, while the run lasts;
            // but it does not last for them.
            What::Ask(peer, _) => {
                let enough = self.paths.enough_questions(claim.interface());
                claim.confirmations()[peer].is_open(enough)
            }
        };
        if matters {
            self.last_question = Some(now);
        }
        // From now, not from when it was due: a run that is late keeps its distances.
        match (transmit.next, task.what) {
            (Next::Round(Some((gap, place))), _) => {
                let what = What::Broadcast(place);
                self.agenda.note(now + gap, Task { what, ..task });
            }
            (Next::Question(question), What::Ask(peer, _)) => {
                let interface = claim.interface();
                self.paths.count_question(now, interface);
                let enough = self.paths.enough_questions(interface);
                let confirmation = &mut claim.confirmations_mut()[peer];
                confirmation.asked(question);
                let (gap, next) = match confirmation.next_question(Some(question)) {
                    Some(next) => (Duration::ZERO, Some(next)),
                    None => (confirmation.end_turn(enough), None),
                };
                let what = What::Ask(peer, next);
                self.agenda.note(now + gap, Task { what, ..task });
            }
            (Next::Round(None), _) if claim.manner == Manner::Check => {
                // Rounds go on until another owner would have been heard.
                claim.probes += 1;
                let enough = self.paths.enough_probes(claim.interface());
                claim.rounds_over = claim.probes >= enough;
                if !claim.rounds_over {
                    self.agenda.note(now + PROBE_GAP, task);
                }
            }
            _ => {
                claim.rounds_over = true;
                // Whom only a broadcast mends, the last one may have mended.
                for peer in 0..self.claims[task.claim].confirmations().len() {
                    if self.claims[task.claim].confirmations()[peer].is_heard() {
                        self.ask_anew(now, task.claim, peer);
                    }
                }
            }
        }
    }

    /// The frame did not leave, because something changed: its task is looked at again.
    pub fn put_off(&mut self, now: Instant, transmit: &Transmit) {
        self.agenda.note(now, transmit.task);
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
        now >= self.end_at
            || !(self.awaits_address(now)
                || self.awaits_answer(now)
                || self.claims.iter().any(|claim| self.is_open(claim)))
    }

    fn awaits_address(&self, now: Instant) -> bool {
        now < self.wait_until && self.absent().next().is_some()
    }

    /// Whether the answer to the last question that matters may still come.
    fn awaits_answer(&self, now: Instant) -> bool {
        self.last_answer_until().is_some_and(|until| now < until)
    }

    fn last_answer_until(&self) -> Option<Instant> {
        let held = |claim: &Claim| claim.standing() == Standing::Ready;
        self.last_question
            .filter(|_| self.claims.iter().any(held))
            .map(|asked| asked + LAST_ANSWER)
    }

    /// Whether a claim may still come to frames that matter.
    fn is_open(&self, claim: &Claim) -> bool {
        match claim.standing() {
            Standing::Ready => {
                let enough = self.paths.enough_questions(claim.interface());
                !claim.rounds_over || claim.confirmations().iter().any(|c| c.is_open(enough))
            }
            Standing::Waiting(_) => true,
            _ => false,
        }
    }

    /// When to call [`Announcement::poll_transmit`] again if nothing happens before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Instant {
        let frame = self
            .agenda
            .next_due()
            .map(|due| due.max(self.bucket.ready_at()));
        let wait = self.awaits_address(now).then_some(self.wait_until);
        let answer = self.last_answer_until().filter(|until| *until > now);
        [frame, wait, answer]
            .into_iter()
            .flatten()
            .fold(self.end_at, Instant::min)
    }
}

mod hearing;
mod ordering;

pub use ordering::DueOrder;

#[cfg(test)]
mod tests;
