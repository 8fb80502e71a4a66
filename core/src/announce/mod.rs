//! The announcement: a state machine that takes the time and events, and returns frames to send.

mod claim;
mod orders;
mod presence;
mod receive;
mod rounds;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

pub use claim::{Claim, Mode, State};
pub use orders::DueOrder;
use presence::Wanted;
pub use presence::{RunPlace, overlap};
use rounds::RoundPlace;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{
    Asker, Bucket, Confirm, EchoId, LAST_ANSWER, LOOK_AGAIN, LinkView, LossEstimates, MOST_HOSTS,
    MOST_PAIRS, PeerFinder, Question, Refusal, Step, Timers, Transmit,
};
use crate::host::{Address, HostSnapshot, Link, PlacedVip, Usability, asking_address};
use crate::wire::{Frame, Payload};

/// The first gap before a refused frame is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// That gap doubles this many times, to about an eighth of a second.
const RETRY_DOUBLINGS: u32 = 7;
/// The gap between two probes of a check, or of a look at other owners.
const PROBE_GAP: Duration = Duration::from_millis(15);

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames per second, over all VIPs; bursts of one second's worth may leave at once.
    pub rate: NonZeroU32,
    /// How long the run waits for a VIP that is not on this host.
    pub wait: Duration,
    /// The longest a run lasts, except for [`Pace::conflict_watch`].
    pub timeout: Duration,
    /// How long the run keeps probing for another owner, to announce the VIP again once that is gone;
    /// zero: the run ends although the conflict lasts.
    pub conflict_watch: Duration,
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
    Broadcast(RoundPlace),
    /// A question to a peer; `None`: the first one of a turn.
    Ask(usize, Option<Question>),
    /// A probe for other owners, once the rounds are over.
    Look,
}

/// What follows a sent frame.
#[derive(Clone, Copy, Debug)]
enum Next {
    Round(Option<(Duration, RoundPlace)>),
    Question(Question),
    Look,
}

/// What the user learns before the run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The VIP.
    pub vip: Vip,
    /// The interface.
    pub interface: InterfaceIndex,
    /// The MACs of other owners.
    pub other_owners: Vec<Mac>,
    /// Whether they are gone and the run announces the VIP again; else the run starts to watch them.
    pub is_over: bool,
}

/// A run: announces VIPs until every peer that can follow does, the VIPs left, or time is up.
#[derive(Debug)]
pub struct Announcement {
    vips: Vec<Vip>,
    wanted: Vec<Wanted>,
    mode: Mode,
    run: EchoId,
    pace: Pace,
    started: Instant,
    wait_until: Instant,
    /// When the run ends, unless it watches other owners for longer.
    end_at: Instant,
    last_sent: Instant,
    /// When the last question left whose answer may improve a verdict.
    last_question: Option<Instant>,
    links: BTreeMap<InterfaceIndex, Link>,
    /// The kernel's entries for the VIPs, by prefix length: an interface can have an address twice.
    held: BTreeMap<(Vip, InterfaceIndex), BTreeMap<u8, Usability>>,
    /// The names of this host's interfaces, by MAC.
    own_macs: BTreeMap<Mac, String>,
    /// The neighbours' addresses, by MAC.
    hosts: BTreeMap<Mac, IpAddr>,
    claims: Vec<Claim>,
    news: Vec<News>,
    /// Whether the kernel failed to list the neighbours.
    is_blind: bool,
    paths: LossEstimates,
    timers: Timers<Task>,
    /// The task of the frame that [`Asker::poll_transmit`] gave last, and what follows it.
    in_flight: Option<(Task, Next)>,
    bucket: Bucket,
}

impl Announcement {
    /// A run in [`Mode::Announce`]. A VIP given twice counts once. `seed` should differ from run to
    /// run: it tells this run's echoes from others'.
    #[must_use]
    pub fn new(placed: &[PlacedVip], pace: Pace, seed: u64, now: Instant) -> Self {
        let (mut vips, mut wanted) = (Vec::new(), Vec::new());
        let (mut seen, mut seen_vips) = (HashSet::new(), HashSet::new());
        for placed in placed {
            if seen.insert(placed) {
                wanted.push(Wanted::new(placed.clone()));
            }
            if seen_vips.insert(placed.vip) {
                vips.push(placed.vip);
            }
        }
        Self {
            vips,
            wanted,
            mode: Mode::Announce,
            run: EchoId::new(seed),
            pace,
            started: now,
            wait_until: now + pace.wait,
            end_at: now + pace.timeout,
            last_sent: now,
            last_question: None,
            links: BTreeMap::new(),
            held: BTreeMap::new(),
            own_macs: BTreeMap::new(),
            hosts: BTreeMap::new(),
            claims: Vec::new(),
            news: Vec::new(),
            is_blind: false,
            paths: LossEstimates::default(),
            timers: Timers::new(),
            in_flight: None,
            bucket: Bucket::new(pace.rate, now),
        }
    }

    /// Sets the mode, before the run begins.
    #[must_use]
    pub fn in_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The VIPs that are or were on an interface.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The claim of a frame.
    #[must_use]
    pub fn claim_of(&self, transmit: &Transmit) -> &Claim {
        &self.claims[transmit.at]
    }

    /// The VIPs of the run, each once.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }

    /// The kernel failed to list the neighbours: this run proves nothing.
    pub fn nobody_can_be_asked(&mut self) {
        self.is_blind = true;
    }

    /// Whether [`Self::nobody_can_be_asked`].
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Takes the news since the last call.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
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

    /// The address that the neighbour tables have for a MAC.
    #[must_use]
    pub fn host_of(&self, mac: Mac) -> Option<IpAddr> {
        self.hosts.get(&mac).copied()
    }

    /// The name of this host's interface with this MAC.
    #[must_use]
    pub fn interface_of(&self, mac: Mac) -> Option<&str> {
        self.own_macs.get(&mac).map(String::as_str)
    }

    /// How many unanswered questions to one peer rule out chance, at the loss seen so far. `None`
    /// while nobody on the interface answers.
    #[must_use]
    pub fn questions_to_rule_out_chance(&self, interface: InterfaceIndex) -> Option<u32> {
        self.paths.questions_to_rule_out_chance(interface)
    }

    /// Whether a claim waits for [`Announcement::links_are`] to find its peers.
    #[must_use]
    pub fn awaits_peers(&self) -> bool {
        self.claims.iter().any(Claim::awaits_peers)
    }

    /// Finds the peers of claims that have none yet, in views of the claims' interfaces and of those
    /// below them.
    pub fn links_are(
        &mut self,
        now: Instant,
        views: &[LinkView],
        host: &HostSnapshot,
        configured: &[IpAddr],
        confirm: Confirm,
    ) {
        let named = |link: &Link| Some((link.mac?, link.name.clone()));
        self.own_macs.extend(host.links.iter().filter_map(named));
        for claim in &mut self.claims {
            claim.sort_out_own(&self.own_macs);
        }
        let vips: HashSet<_> = self.vips.iter().map(|vip| vip.ip()).collect();
        let own = host.addresses.iter().map(|own| own.ip).collect();
        for neighbour in views.iter().flat_map(|view| &view.neighbours) {
            let is_vip = vips.contains(&neighbour.ip);
            if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
                // IPv4 sorts first and is easiest to recognize.
                let host = self.hosts.entry(mac).or_insert(neighbour.ip);
                *host = neighbour.ip.min(*host);
            }
        }
        let of = |interface| views.iter().find(|view| view.link.index == interface);
        let most = MOST_HOSTS.min(MOST_PAIRS / self.vips.len().max(1));
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let Some(on) = of(claim.interface()).filter(|_| claim.awaits_peers()) else {
                continue;
            };
            let below = claim.link.lower.and_then(of);
            claim.asking_address = match asking_address(on.addresses.iter(), claim.vip, &vips) {
                Some(IpAddr::V6(ip)) => Some(ip),
                _ => None,
            };
            let finder = PeerFinder::new(claim.vip, &vips, &own, on, below);
            let (peers, left_out) = finder.peers(configured, confirm, most);
            claim.set_peers(peers, left_out);
            match self.mode {
                Mode::Announce => self.ask_all(now, index),
                Mode::Check => self.start_rounds(now, index),
            }
        }
    }

    /// Starts the rounds of a claim, and new turns of the peers that do not follow yet.
    fn start_rounds(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        // A check takes its source address from the link view.
        let knows_source = self.mode == Mode::Announce || !claim.awaits_peers();
        if claim.state() == State::Ready && knows_source {
            claim.epoch += 1;
            claim.probes = 0;
            claim.rounds_over = false;
            claim.other_owners.drop_look();
            claim.began.get_or_insert(now);
            let epoch = claim.epoch;
            self.schedule(now, index, epoch, What::Broadcast(RoundPlace::FIRST));
            self.ask_all(now, index);
        }
    }

    fn ask_all(&mut self, now: Instant, index: usize) {
        for peer in 0..self.claims[index].confirmations().len() {
            self.ask_again(now, index, peer);
        }
    }

    /// Starts new turns of a peer that does not follow yet, at once and with short gaps.
    fn ask_again(&mut self, now: Instant, index: usize, peer: usize) {
        let confirmation = self.claims[index].confirmation_mut(peer);
        if confirmation.wants_turns() {
            confirmation.hurry();
            let epoch = confirmation.epoch;
            self.schedule(now, index, epoch, What::Ask(peer, None));
        }
    }

    /// Schedules a look at the other owners of a claim.
    fn look_at_other_owners(&mut self, now: Instant, index: usize, after: Duration) {
        let claim = &mut self.claims[index];
        if claim.mode == Mode::Check || claim.look_probe().is_none() {
            return;
        }
        claim.other_owners.begin_look(now + after);
        let epoch = claim.epoch;
        self.schedule(now + after, index, epoch, What::Look);
    }

    fn schedule(&mut self, due: Instant, claim: usize, epoch: u32, what: What) {
        self.timers.schedule(due, Task { claim, epoch, what });
    }

    /// Whether a look at other owners takes another probe. If not, acts on its result.
    fn goes_on_looking(&mut self, now: Instant, task: Task) -> bool {
        let claim = &mut self.claims[task.claim];
        let interface = claim.interface();
        if claim.state() != State::Ready || task.epoch != claim.epoch {
            return false;
        }
        let vip = claim.vip;
        let is_known = claim.watched_until().is_some();
        let before: Vec<_> = claim.conflicts().collect();
        let enough = self.paths.probes_to_rule_out_chance(interface);
        match claim.other_owners.next_step(now, enough) {
            Step::Probe => return true,
            Step::Nothing => {}
            Step::StillThere => {
                if claim.other_owners.is_open() && !is_known {
                    self.news.push(News {
                        vip,
                        interface,
                        other_owners: claim.conflicts().collect(),
                        is_over: false,
                    });
                }
                self.look_at_other_owners(now, task.claim, LOOK_AGAIN);
                // An owner that let go becomes a peer again, while others still hold the VIP.
                for peer in 0..self.claims[task.claim].confirmations().len() {
                    let claim = &mut self.claims[task.claim];
                    let one = &claim.confirmations()[peer].peer;
                    if one.mac.is_some_and(|mac| before.contains(&mac))
                        && !claim.is_other_owner(one)
                    {
                        claim.ask_peer_again(peer);
                        self.ask_again(now, task.claim, peer);
                    }
                }
            }
            Step::Gone => {
                let other_owners = self.claims[task.claim].known_other_owners();
                self.conflict_is_over(now, task.claim, other_owners);
            }
        }
        false
    }

    /// No other owner remains: peers that followed one need the rounds and the questions again.
    fn conflict_is_over(&mut self, now: Instant, index: usize, other_owners: Vec<Mac>) {
        let claim = &mut self.claims[index];
        let (vip, interface) = (claim.vip, claim.interface());
        self.news.push(News {
            vip,
            interface,
            other_owners,
            is_over: true,
        });
        claim.ask_peers_again();
        if self.pace.conflict_watch > Duration::ZERO {
            self.end_at = self.end_at.max(now + self.pace.timeout);
        }
        self.start_rounds(now, index);
    }

    /// The frame of a task, unless the task is void.
    fn transmit_of(&self, now: Instant, task: Task) -> Option<(Transmit, Next)> {
        let claim = &self.claims[task.claim];
        if claim.state() != State::Ready {
            return None;
        }
        let mut interface = claim.interface();
        let (frame, is_question, next) = match task.what {
            What::Broadcast(place) => {
                let broadcast = claim
                    .broadcast(place)
                    .filter(|_| task.epoch == claim.epoch)?;
                let next = Next::Round(broadcast.next);
                (broadcast.frame, broadcast.is_question, next)
            }
            What::Look => (claim.look_probe()?, true, Next::Look),
            // After `end_at` the run only watches other owners.
            What::Ask(..) if now >= self.end_at => return None,
            What::Ask(peer, question) => {
                let confirmation = &claim.confirmations()[peer];
                if task.epoch != confirmation.epoch || !confirmation.wants_turns() {
                    return None;
                }
                let question = question
                    .filter(|question| confirmation.asks(*question))
                    .or_else(|| confirmation.next_question(None))?;
                let control = confirmation.peer.control;
                if let (Question::Control | Question::Holder, Some(control)) = (question, control) {
                    interface = control.interface;
                }
                let mac = claim.mac()?;
                let frame = confirmation.frame(question, claim.vip, mac, self.run)?;
                (frame, true, Next::Question(question))
            }
        };
        let transmit = Transmit {
            interface,
            frame,
            is_question,
            at: task.claim,
        };
        Some((transmit, next))
    }

    /// When the run ends at the latest.
    #[must_use]
    pub fn ends_at(&self) -> Instant {
        let watched = self.claims.iter().filter_map(Claim::watched_until);
        watched.fold(self.end_at, Instant::max)
    }

    /// Until when a VIP that is not here may come, or come back.
    fn address_awaited_until(&self) -> Option<Instant> {
        let coming = self.absent().next().map(|_| self.wait_until);
        let returning = self.claims.iter();
        returning
            .filter_map(|claim| claim.may_return_until(self.pace.wait))
            .chain(coming)
            .max()
    }

    /// Until when the answer to the last question that matters may come.
    fn last_answer_until(&self) -> Option<Instant> {
        let held = |claim: &Claim| claim.state() == State::Ready;
        self.last_question
            .filter(|_| self.claims.iter().any(held))
            .map(|asked| asked + LAST_ANSWER)
    }

    /// Whether more frames for a claim could change the result.
    fn is_open(&self, now: Instant, claim: &Claim) -> bool {
        let within_time = now < self.end_at;
        match claim.state() {
            State::Ready => {
                let enough = self.paths.questions_to_rule_out_chance(claim.interface());
                let peers_open = || claim.confirmations().iter().any(|c| c.is_open(enough));
                let watches = || claim.look_probe().is_some() && claim.other_owners.is_open();
                let announces = claim.mode == Mode::Announce;
                within_time && (!claim.rounds_over || peers_open()) || announces && watches()
            }
            State::Waiting(_) => within_time,
            _ => false,
        }
    }
}

impl Asker for Announcement {
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let until = claim.may_return_until(self.pace.wait);
            claim.left |= until.is_some_and(|until| until <= now);
            if claim.rounds_over && claim.other_owners.wants_look() {
                self.look_at_other_owners(now, index, Duration::ZERO);
            }
        }
        if self.is_over(now) {
            return None;
        }
        while self.bucket.ready_at() <= now {
            let task = self.timers.take_due(now)?;
            if task.what == What::Look && !self.goes_on_looking(now, task) {
                continue;
            }
            if let Some((transmit, next)) = self.transmit_of(now, task) {
                self.in_flight = Some((task, next));
                self.bucket.take(now);
                return Some(transmit);
            }
        }
        None
    }

    fn sent(&mut self, now: Instant, transmit: &Transmit) {
        let Some((task, next)) = self.in_flight.take() else {
            return;
        };
        let claim = &mut self.claims[task.claim];
        claim.frames_sent += 1;
        claim.refusals = 0;
        self.last_sent = now;
        let matters = match task.what {
            What::Broadcast(_) => transmit.is_question,
            What::Look => false,
            // The run still asks peers whose verdict is certain now and then, but does not last
            // longer for them.
            What::Ask(peer, _) => {
                let enough = self.paths.questions_to_rule_out_chance(claim.interface());
                claim.confirmations()[peer].is_open(enough)
            }
        };
        if matters {
            self.last_question = Some(now);
        }
        // Counted from now, not from when it was due: a late run keeps its gaps.
        match (next, task.what) {
            (Next::Round(Some((gap, place))), _) => {
                let what = What::Broadcast(place);
                self.timers.schedule(now + gap, Task { what, ..task });
            }
            (Next::Question(question), What::Ask(peer, _)) => {
                let interface = claim.interface();
                self.paths.count_question(now, interface);
                let enough = self.paths.questions_to_rule_out_chance(interface);
                let confirmation = claim.confirmation_mut(peer);
                confirmation.asked(question);
                let (gap, next) = match confirmation.next_question(Some(question)) {
                    Some(next) => (Duration::ZERO, Some(next)),
                    None => (confirmation.end_turn(enough), None),
                };
                let what = What::Ask(peer, next);
                self.timers.schedule(now + gap, Task { what, ..task });
            }
            (Next::Look, _) => {
                let enough = self.paths.probes_to_rule_out_chance(claim.interface());
                let gap = match claim.other_owners.probed(enough) {
                    true => LAST_ANSWER,
                    false => PROBE_GAP,
                };
                self.timers.schedule(now + gap, task);
            }
            (Next::Round(None), _) if claim.mode == Mode::Check => {
                // The check probes until another owner would have answered.
                claim.probes += 1;
                let enough = self.paths.probes_to_rule_out_chance(claim.interface());
                claim.rounds_over = claim.probes >= enough;
                if !claim.rounds_over {
                    self.timers.schedule(now + PROBE_GAP, task);
                }
            }
            _ => {
                claim.rounds_over = true;
                for peer in 0..self.claims[task.claim].confirmations().len() {
                    let claim = &mut self.claims[task.claim];
                    let confirmation = &claim.confirmations()[peer];
                    if confirmation.holds_vip && !claim.is_other_owner(&confirmation.peer) {
                        // An old owner may have let go since the last question.
                        claim.confirmation_mut(peer).doubt_holder();
                    } else if !confirmation.has_replied() {
                        continue;
                    }
                    // The last broadcast may have corrected an entry that only broadcasts can.
                    self.ask_again(now, task.claim, peer);
                }
            }
        }
    }

    fn put_off(&mut self, now: Instant, _: &Transmit) {
        if let Some((task, _)) = self.in_flight.take() {
            self.timers.schedule(now, task);
        }
    }

    /// Tries again, less and less often, while the frame may leave at all.
    fn refused(&mut self, now: Instant, transmit: &Transmit, why: Refusal) {
        let claim = &mut self.claims[transmit.at];
        let gap = FIRST_RETRY * (1 << claim.refusals.min(RETRY_DOUBLINGS));
        claim.refusals += 1;
        claim.last_refusal = Some(why);
        if let Some((task, _)) = self.in_flight.take() {
            self.timers.schedule(now + gap, task);
        }
    }

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        match &frame.payload {
            Payload::Arp(arp) => self.on_arp(now, interface, frame, arp),
            Payload::Ndp(ndp) => self.on_ndp(now, interface, frame, ndp),
            Payload::Echo(echo) => self.on_echo(now, interface, frame, echo),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let waits = [self.address_awaited_until(), self.last_answer_until()];
        let is_waiting = waits.into_iter().flatten().any(|until| now < until);
        let mut claims = self.claims.iter();
        now >= self.ends_at() || !is_waiting && !claims.any(|claim| self.is_open(now, claim))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let due = self.timers.next_due();
        let frame = due.map(|due| due.max(self.bucket.ready_at()));
        let waits = [self.address_awaited_until(), self.last_answer_until()];
        let waits = waits.map(|until| until.filter(|until| *until > now));
        [frame, waits[0], waits[1]]
            .into_iter()
            .flatten()
            .fold(self.ends_at(), Instant::min)
    }

    fn link(&self, interface: InterfaceIndex) -> Option<&Link> {
        self.links.get(&interface)
    }

    fn interfaces(&self) -> Vec<InterfaceIndex> {
        self.links.keys().copied().collect()
    }

    fn unknown_link_of(&self, address: &Address) -> Option<InterfaceIndex> {
        self.unknown_link(address)
    }

    fn link_changed(&mut self, now: Instant, link: &Link) {
        let named = link.mac.map(|mac| (mac, link.name.clone()));
        self.own_macs.extend(named);
        self.links.insert(link.index, link.clone());
        self.claim_all_on(now, link.index);
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            // A VMAC's control echoes leave by the lower interface.
            for confirmation in claim.confirmations_mut() {
                confirmation.link_changed(link);
            }
            if claim.interface() != link.index {
                continue;
            }
            let mac_changed = claim.link.mac != link.mac;
            // Only the link's own state counts: a lost or tentative address does not affect the path.
            let takes_frames = |link: &Link| link.carrier && link.unlike_ethernet.is_none();
            let came_up = !takes_frames(&claim.link) && takes_frames(link);
            claim.link = link.clone();
            // Peers that were out of reach or learned the old MAC need all rounds again. All must
            // prove themselves again: only answers show when the path behind the carrier is alive.
            if mac_changed || came_up {
                claim.ask_peers_again();
                self.paths.forget(link.index);
                self.start_rounds(now, index);
            }
        }
    }

    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex) {
        self.remove_link(now, interface);
    }

    fn address_changed(&mut self, now: Instant, address: &Address) {
        self.add_address(now, address);
    }

    fn address_gone(&mut self, now: Instant, address: &Address) {
        self.remove_address(now, address);
    }

    fn addresses_are(&mut self, now: Instant, addresses: &[Address]) {
        self.replace_addresses(now, addresses);
    }
}

#[cfg(test)]
mod tests;
