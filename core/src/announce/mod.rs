//! The announcement: a state machine that takes the time and events, and returns frames to send.

mod claim;
mod doubtful;
mod link_wide;
mod news;
mod orders;
mod other_cards;
mod presence;
mod receive;
mod reported;
mod rounds;
mod search;
mod sources;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use claim::{Claim, Mode, State};
pub use news::News;
pub use orders::DueOrder;
use presence::Wanted;
pub use presence::{RunPlace, overlap};
use rounds::RoundPlace;
use search::PeerSearch;
use sources::OwnAddresses;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{
    Asker, Background, Bucket, Confirmation, EchoId, LAST_ANSWER, LOOK_AGAIN, Listening,
    LossEstimates, Question, Refusal, Step, Timers, Transmit, Worth,
};
use crate::host::{Address, Link, PlacedVip, Usability};
use crate::wire::{Frame, Header, Payload};

/// A run that does not expect all VIPs still takes those that come this long after it waited for them:
/// by then, whoever saw them come has begun another run.
const LATE: Duration = Duration::from_secs(2);
/// The first gap before a refused frame is tried again.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// That gap doubles this many times, to about an eighth of a second.
const RETRY_DOUBLINGS: u32 = 7;
/// The gap between two probes of a check, or of a look at other owners.
const PROBE_GAP: Duration = Duration::from_millis(15);
/// How many peers of a VIP are asked at once, and how many more after each gap: if echoes make many of
/// them ask for the VIP, the others get other questions.
const WAVE: usize = 64;
const WAVE_GAP: Duration = Duration::from_millis(1);
/// The most frames of one round of a VIP.
const FRAMES_A_ROUND: u32 = 4;
/// The gap between questions to peers where something drops the frames from the VIP.
const BLOCKED_GAP: Duration = Duration::from_secs(2);

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames per second, over all VIPs; bursts of one second's worth may leave at once.
    pub rate: NonZeroU32,
    /// How long the run waits for a VIP that is not on this host.
    pub wait: Duration,
    /// The longest a run lasts, except for [`Pace::conflict_watch`].
    pub timeout: Duration,
    /// ARP frames per second and link. Directed requests take a third of them while rounds last.
    pub arp_rate: Option<NonZeroU32>,
    /// Whether to look for IPv6 hosts with an echo to all nodes.
    pub census: bool,
    /// Whether broadcasts go on after the first round: not where only some hosts are to be asked.
    pub repeats: bool,
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
    Round {
        next: Option<(Duration, RoundPlace)>,
        probes: bool,
    },
    Question(Question),
    Look,
}

/// A run: announces VIPs until every peer that can follow does, the VIPs left, or time is up.
#[derive(Debug)]
pub struct Announcement {
    vips: Vec<Vip>,
    vip_ips: BTreeSet<IpAddr>,
    /// Those of other runs: they may leave at any moment, so nothing is asked from them.
    other_vips: Arc<HashSet<IpAddr>>,
    wanted: Vec<Wanted>,
    mode: Mode,
    /// Whether a VIP that does not come is missing.
    expects_all: bool,
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
    /// This host's addresses, the VIPs included.
    own: OwnAddresses,
    /// The kernel's entries for the VIPs, by prefix length: an interface can have an address twice.
    held: BTreeMap<(Vip, InterfaceIndex), BTreeMap<u8, Usability>>,
    /// The names of this host's interfaces, by every MAC that each had.
    own_macs: BTreeMap<Mac, String>,
    /// This host's interfaces, as last reported.
    own_links: BTreeMap<InterfaceIndex, Link>,
    /// MACs of this host that other cards than a VIP's seem to answer with: it is to receive there.
    answering_cards: BTreeSet<Mac>,
    /// The interfaces where this host receives because of that, and their MACs.
    cards: BTreeMap<InterfaceIndex, Mac>,
    /// The neighbours' addresses, by MAC.
    hosts: BTreeMap<Mac, IpAddr>,
    claims: Vec<Claim>,
    /// The search for peers, while it lasts.
    search: Option<PeerSearch>,
    news: Vec<News>,
    /// Whether the kernel failed to list the neighbours.
    is_blind: bool,
    paths: LossEstimates,
    background: Background,
    timers: Timers<Task>,
    /// The links whose ARP budget is used up until then.
    over_budget: BTreeMap<InterfaceIndex, Instant>,
    /// The part of the ARP budgets for directed requests.
    arp_questions: BTreeMap<InterfaceIndex, Bucket>,
    /// What the driver receives besides answers, by interface, and where that may change.
    listening: BTreeMap<InterfaceIndex, Listening>,
    traffic_changed: BTreeSet<InterfaceIndex>,
    /// The number of the next census.
    censuses: u32,
    /// The hosts whose answers to a census count as theirs.
    believed: BTreeSet<IpAddr>,
    /// The task of the frame that [`Asker::poll_transmit`] gave last, and what follows it.
    in_flight: Option<(Task, Worth, Next)>,
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
            vip_ips: vips.iter().map(|vip| vip.ip()).collect(),
            other_vips: Arc::default(),
            vips,
            wanted,
            mode: Mode::Announce,
            expects_all: true,
            run: EchoId::new(seed),
            pace,
            started: now,
            wait_until: now + pace.wait,
            end_at: now + pace.timeout,
            last_sent: now,
            last_question: None,
            links: BTreeMap::new(),
            own: OwnAddresses::default(),
            held: BTreeMap::new(),
            own_macs: BTreeMap::new(),
            own_links: BTreeMap::new(),
            answering_cards: BTreeSet::new(),
            cards: BTreeMap::new(),
            hosts: BTreeMap::new(),
            claims: Vec::new(),
            search: None,
            news: Vec::new(),
            is_blind: false,
            paths: LossEstimates::default(),
            background: Background::new(now),
            timers: Timers::new(),
            over_budget: BTreeMap::new(),
            arp_questions: BTreeMap::new(),
            listening: BTreeMap::new(),
            traffic_changed: BTreeSet::new(),
            censuses: 0,
            believed: BTreeSet::new(),
            in_flight: None,
            bucket: Bucket::new(pace.rate, now),
        }
    }

    /// Sets the mode, before the run begins.
    #[must_use]
    pub fn in_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Not every VIP has to come: the run only picks up those that do while it waits, or a little later.
    #[must_use]
    pub fn expecting_some(self) -> Self {
        Self {
            expects_all: false,
            ..self
        }
    }

    /// These are VIPs, too, of other runs: nothing is asked from them.
    #[must_use]
    pub fn beside(self, other_vips: Arc<HashSet<IpAddr>>) -> Self {
        Self { other_vips, ..self }
    }

    /// Whether an address is a VIP, of this run or another.
    #[must_use]
    pub fn is_vip(&self, ip: IpAddr) -> bool {
        self.vip_ips.contains(&ip) || self.other_vips.contains(&ip)
    }

    /// The VIPs that are or were on an interface.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The VIP of a claim, and then the others here that have the same hosts.
    pub fn vips_near<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = Vip> + 'a {
        let neighbourhood = claim.neighbourhood();
        let others = self.claims.iter().filter(move |other| {
            let is_near = other.vip != claim.vip && other.neighbourhood() == neighbourhood;
            is_near && other.state() == State::Ready
        });
        std::iter::once(claim.vip).chain(others.map(|other| other.vip))
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

    /// Whether a frame of another host came in on an interface.
    #[must_use]
    pub fn is_path_alive(&self, interface: InterfaceIndex) -> bool {
        self.paths.is_alive(interface)
    }

    /// Starts the rounds of a claim, and new turns of the peers that do not follow yet.
    fn start_rounds(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        if claim.state() == State::Ready {
            claim.epoch += 1;
            claim.probes = 0;
            claim.rounds_over = false;
            claim.other_owners.drop_look();
            claim.began.get_or_insert(now);
            claim.told.rounds_start(now);
            let epoch = claim.epoch;
            let first = What::Broadcast(RoundPlace::FIRST);
            self.schedule(now, index, epoch, Worth::First, first);
            self.ask_all(now, index);
        }
    }

    fn ask_all(&mut self, now: Instant, index: usize) {
        for peer in 0..self.claims[index].confirmations().len() {
            self.ask_again(now + wave_of(peer), index, peer);
        }
    }

    /// What a question to a peer is worth.
    fn worth(&self, index: usize, peer: usize) -> Worth {
        let claim = &self.claims[index];
        let peer = &claim.confirmations()[peer].peer;
        match (peer.required, peer.doubtful) {
            (true, _) => Worth::Required,
            (false, false) => Worth::Likely,
            (false, true) if peer.is_only_mentioned() => Worth::Mentioned,
            (false, true) if self.background.is_early(claim.interface(), peer.ip) => {
                Worth::Doubtful
            }
            (false, true) => Worth::Unlikely,
        }
    }

    /// Starts new turns of a peer that does not follow yet, at once and with short gaps.
    fn ask_again(&mut self, now: Instant, index: usize, peer: usize) {
        let confirmation = self.claims[index].confirmation_mut(peer);
        if confirmation.wants_turns() {
            confirmation.hurry();
            let epoch = confirmation.epoch;
            let worth = self.worth(index, peer);
            self.schedule(now, index, epoch, worth, What::Ask(peer, None));
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
        self.schedule(now + after, index, epoch, Worth::Broadcast, What::Look);
    }

    fn schedule(&mut self, due: Instant, claim: usize, epoch: u32, worth: Worth, what: What) {
        let task = Task { claim, epoch, what };
        self.timers.schedule(due, worth, task);
    }

    /// Whether a look at other owners takes another probe. If not, acts on its result.
    fn goes_on_looking(&mut self, now: Instant, task: Task) -> bool {
        let claim = &mut self.claims[task.claim];
        let interface = claim.interface();
        if claim.state() != State::Ready || task.epoch != claim.epoch {
            return false;
        }
        let is_known = claim.watched_until().is_some();
        let before: Vec<_> = claim.conflicts().collect();
        let enough = self.paths.probes_to_rule_out_chance(interface);
        match claim.other_owners.next_step(now, enough) {
            Step::Probe => return true,
            Step::Nothing => {}
            Step::StillThere => {
                if claim.other_owners.is_open() && !is_known {
                    let other_owners = claim.conflicts().collect();
                    self.news
                        .push(News::ConflictWatched(task.claim, other_owners));
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
                let other_owners = self.claims[task.claim].known_other_owners().collect();
                self.conflict_is_over(now, task.claim, other_owners);
            }
        }
        false
    }

    /// No other owner remains: peers that followed one need the rounds and the questions again.
    fn conflict_is_over(&mut self, now: Instant, index: usize, other_owners: Vec<Mac>) {
        self.news.push(News::ConflictOver(index, other_owners));
        let claim = &mut self.claims[index];
        claim.forget_told_conflicts();
        claim.ask_peers_again();
        self.background.start_over(index);
        if self.pace.conflict_watch > Duration::ZERO {
            self.end_at = self.end_at.max(now + self.pace.timeout);
        }
        self.start_rounds(now, index);
    }

    /// The frame of a task, unless the task is void or this host cannot send it; and what follows.
    fn transmit_of(&self, now: Instant, task: Task) -> Option<(Option<Transmit>, Next)> {
        let claim = &self.claims[task.claim];
        if claim.state() != State::Ready {
            return None;
        }
        let here = claim.interface();
        let (frame, is_question, next) = match task.what {
            What::Broadcast(place) => {
                if task.epoch != claim.epoch {
                    return None;
                }
                let is_silent = !self.paths.is_alive(here);
                let census = |sources: &_| self.census(task.claim, sources);
                let broadcast = claim.broadcast(place, is_silent, census)?;
                let goes_on = |place: &RoundPlace| self.pace.repeats || place.is_in_first_round();
                let next = broadcast.next.filter(|(_, place)| goes_on(place));
                let probes = broadcast.probes;
                let next = Next::Round { next, probes };
                (broadcast.frame, broadcast.is_question, next)
            }
            What::Look => (
                claim.look_probe().map(|frame| (here, frame)),
                true,
                Next::Look,
            ),
            // After `end_at` the run only watches other owners.
            What::Ask(..) if now >= self.end_at => return None,
            What::Ask(peer, question) => {
                let confirmation = &claim.confirmations()[peer];
                if task.epoch != confirmation.epoch
                    || !confirmation.wants_turns()
                    || confirmation.peer.doubtful && !self.may_ask_doubtful(task.claim, peer)
                {
                    return None;
                }
                let question = question
                    .filter(|question| confirmation.asks(*question))
                    .or_else(|| confirmation.next_question(None))?;
                let control = confirmation.peer.control;
                let on = match (question, control) {
                    (Question::Control | Question::Holder, Some(control)) => control.interface,
                    _ => here,
                };
                let frame = confirmation.frame(question, claim.vip, claim.mac()?, &self.run)?;
                (Some((on, frame)), true, Next::Question(question))
            }
        };
        let transmit = frame.map(|(interface, frame)| Transmit {
            interface,
            frame,
            is_question,
            at: task.claim,
        });
        Some((transmit, next))
    }

    /// Whether a host that may not exist gets another question.
    fn may_ask_doubtful(&self, index: usize, peer: usize) -> bool {
        let claim = &self.claims[index];
        let (interface, ip) = (claim.interface(), claim.confirmations()[peer].peer.ip);
        let enough = self.paths.questions_to_doubtful(interface);
        self.background.wants_question(interface, ip, enough)
    }

    /// When a task of this worth may be served, if questions leave this reserve.
    fn ready_at(&self, worth: Worth, reserve: u32) -> Instant {
        match worth {
            Worth::First | Worth::Broadcast => self.bucket.ready_at(),
            Worth::Required | Worth::Likely => self.bucket.ready_above(reserve),
            Worth::Doubtful | Worth::Unlikely => {
                let ready = self.bucket.ready_above(reserve);
                ready.max(self.background.ready_at())
            }
            Worth::Mentioned => {
                let ready = self.bucket.ready_above(reserve);
                ready.max(self.background.mentioned_ready_at())
            }
        }
    }

    /// The frames that questions leave to the next rounds: one round of each VIP, and at most half.
    fn reserve(&self, now: Instant) -> u32 {
        // Questions come after broadcasts that are due, anyway: the first frames need not count VIPs.
        let due = |worth| self.timers.next_due(worth).is_some_and(|due| due <= now);
        if due(Worth::First) || due(Worth::Broadcast) {
            return 0;
        }
        let rounds = |claim: &&Claim| !claim.rounds_over && claim.state() == State::Ready;
        let open = self.claims.iter().filter(rounds).count();
        let frames = u32::try_from(open)
            .unwrap_or(u32::MAX)
            .saturating_mul(FRAMES_A_ROUND);
        frames.min(self.pace.rate.get() / 2)
    }

    /// Until when a frame has to wait for the ARP budgets of its VIP's rounds and of its link.
    fn arp_wait(
        &mut self,
        now: Instant,
        worth: Worth,
        what: What,
        transmit: &Transmit,
    ) -> Option<Instant> {
        if !matches!(transmit.frame.payload, Payload::Arp(_)) {
            return None;
        }
        let claim = &self.claims[transmit.at];
        if matches!(what, What::Broadcast(_))
            && claim.mode == Mode::Announce
            && let Some(until) = claim.recent_arp.wait(now)
        {
            return Some(until);
        }
        let interface = transmit.interface;
        if let Some(until) = self
            .over_budget
            .get(&interface)
            .filter(|until| **until > now)
        {
            return Some(*until);
        }
        let rate = self.pace.arp_rate?;
        let rounds_last = self.claims.iter().any(|claim| !claim.rounds_over);
        if worth <= Worth::Broadcast || !rounds_last {
            return None;
        }
        let third = NonZeroU32::new(rate.get() / 3).unwrap_or(NonZeroU32::MIN);
        let share = self.arp_questions.entry(interface);
        let share = share.or_insert_with(|| Bucket::new(third, now));
        (!share.take(now)).then(|| share.ready_at())
    }

    /// When the run ends at the latest.
    #[must_use]
    pub fn ends_at(&self) -> Instant {
        let watched = self.claims.iter().filter_map(Claim::watched_until);
        watched.fold(self.end_at, Instant::max)
    }

    /// Until when a VIP that is not here may come, or come back.
    fn address_awaited_until(&self) -> Option<Instant> {
        let coming = self.awaited().next().map(|_| self.wait_until);
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
                let peers_open = || {
                    let mut all = claim.confirmations().iter();
                    all.any(|one| self.is_peer_open(claim, one, enough))
                };
                let watches = || claim.look_probe().is_some() && claim.other_owners.is_open();
                let announces = claim.mode == Mode::Announce;
                // Several rounds last longer than it takes to find peers.
                let finds_peers = !self.pace.repeats && claim.awaits_peers();
                let asks = !claim.rounds_over || finds_peers || peers_open();
                within_time && asks || announces && watches()
            }
            State::Waiting(_) => within_time,
            _ => false,
        }
    }
}

impl Announcement {
    /// Schedules what follows in the rounds. Counted from now, not from when it was due: a late run keeps
    /// its gaps.
    fn next_of_rounds(&mut self, now: Instant, task: Task, next: Option<(Duration, RoundPlace)>) {
        let is_over = next.is_none_or(|(_, place)| !place.is_in_first_round());
        self.claims[task.claim].told.first_round_is_out |= is_over;
        if let Some((gap, place)) = next {
            let what = What::Broadcast(place);
            self.timers
                .schedule(now + gap, Worth::Broadcast, Task { what, ..task });
            return;
        }
        let claim = &mut self.claims[task.claim];
        if claim.mode == Mode::Check {
            // The check probes until another owner would have answered.
            let enough = self.paths.probes_to_rule_out_chance(claim.interface());
            claim.rounds_over = claim.probes >= enough;
            if !claim.rounds_over {
                self.timers
                    .schedule(now + PROBE_GAP, Worth::Broadcast, task);
            }
            return;
        }
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

    /// A question to a peer left.
    fn asked(&mut self, now: Instant, task: Task, worth: Worth, peer: usize, question: Question) {
        let claim = &self.claims[task.claim];
        let interface = claim.interface();
        let enough = self.paths.questions_to_rule_out_chance(interface);
        // The run still asks peers whose verdict is certain now and then, but does not last longer for
        // them.
        let one = &claim.confirmations()[peer];
        if self.is_peer_open(claim, one, enough) {
            self.last_question = Some(now);
        }
        let is_blocked = claim.is_blocked();
        if one.peer.doubtful {
            self.background.asked(now, interface, &one.peer);
        }
        let confirmation = self.claims[task.claim].confirmation_mut(peer);
        confirmation.asked(question);
        let (gap, next) = match confirmation.next_question(Some(question)) {
            Some(next) => (Duration::ZERO, Some(next)),
            None => (confirmation.end_turn(enough), None),
        };
        let gap = if is_blocked && next.is_none() {
            gap.max(BLOCKED_GAP)
        } else {
            gap
        };
        let what = What::Ask(peer, next);
        self.timers
            .schedule(now + gap, worth, Task { what, ..task });
        let (mac, wanted) = (confirmation.peer.mac, confirmation.wants_traffic());
        self.traffic_of(interface, mac, wanted);
    }

    /// Whether the run lasts for more questions to a peer.
    fn is_peer_open(&self, claim: &Claim, one: &Confirmation, enough: Option<u32>) -> bool {
        if one.peer.doubtful {
            let interface = claim.interface();
            let enough = self.paths.questions_to_doubtful(interface);
            return one.wants_turns() && self.background.is_open(interface, one.peer.ip, enough);
        }
        one.is_open(enough)
    }
}

/// How long the first question to this peer of a VIP waits for those to others.
fn wave_of(peer: usize) -> Duration {
    WAVE_GAP * u32::try_from(peer / WAVE).unwrap_or(u32::MAX)
}

impl Asker for Announcement {
    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.hand_over_doubts(now);
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let until = claim.may_return_until(self.pace.wait);
            claim.left |= until.is_some_and(|until| until <= now);
            let has_to_verify = claim.has_to_verify(now);
            if claim.rounds_over && claim.other_owners.wants_look() {
                self.look_at_other_owners(now, index, Duration::ZERO);
            }
            if has_to_verify {
                for peer in self.claims[index].doubt_proofs() {
                    self.ask_again(now, index, peer);
                }
            }
        }
        if self.is_over(now) {
            return None;
        }
        let reserve = self.reserve(now);
        loop {
            let ready = Worth::ALL.map(|worth| self.ready_at(worth, reserve) <= now);
            let (worth, task) = self.timers.take_due(now, |worth| ready[worth as usize])?;
            if task.what == What::Look && !self.goes_on_looking(now, task) {
                continue;
            }
            match self.transmit_of(now, task) {
                Some((Some(transmit), next)) => {
                    if let Some(until) = self.arp_wait(now, worth, task.what, &transmit) {
                        self.timers.schedule(until, worth, task);
                        continue;
                    }
                    self.in_flight = Some((task, worth, next));
                    self.bucket.take(now);
                    return Some(transmit);
                }
                // Not for this host to send: the next one.
                Some((None, Next::Round { next, .. })) => self.next_of_rounds(now, task, next),
                _ => {}
            }
        }
    }

    fn sent(&mut self, now: Instant, transmit: &Transmit) {
        let Some((task, worth, next)) = self.in_flight.take() else {
            return;
        };
        let claim = &mut self.claims[task.claim];
        claim.frames_sent += 1;
        claim.refusals = 0;
        self.last_sent = now;
        let interface = claim.interface();
        self.paths.count_frame(now, interface);
        match (next, task.what) {
            (Next::Round { next, probes }, _) => {
                claim.broadcasts += 1;
                claim.probes += u32::from(probes);
                if probes {
                    self.last_question = Some(now);
                }
                match &transmit.frame.payload {
                    Payload::Arp(_) => claim.recent_arp.sent(now),
                    Payload::Echo(_) => self.censuses += 1,
                    _ => {}
                }
                self.next_of_rounds(now, task, next);
            }
            (Next::Question(question), What::Ask(peer, _)) => {
                self.asked(now, task, worth, peer, question);
            }
            (Next::Look, _) => {
                claim.probes += 1;
                let enough = self.paths.probes_to_rule_out_chance(interface);
                let gap = match claim.other_owners.probed(enough) {
                    true => LAST_ANSWER,
                    false => PROBE_GAP,
                };
                self.timers.schedule(now + gap, Worth::Broadcast, task);
            }
            (Next::Question(_), _) => {}
        }
    }

    fn put_off(&mut self, now: Instant, _: &Transmit) {
        if let Some((task, worth, _)) = self.in_flight.take() {
            self.timers.schedule(now, worth, task);
        }
    }

    fn over_budget(&mut self, _: Instant, transmit: &Transmit, until: Instant) {
        self.over_budget.insert(transmit.interface, until);
        if let Some((task, worth, _)) = self.in_flight.take() {
            self.timers.schedule(until, worth, task);
        }
    }

    /// Tries again, less and less often, while the frame may leave at all.
    fn refused(&mut self, now: Instant, transmit: &Transmit, why: Refusal) {
        let claim = &mut self.claims[transmit.at];
        let gap = FIRST_RETRY * (1 << claim.refusals.min(RETRY_DOUBLINGS));
        claim.refusals += 1;
        claim.last_refusal = Some(why);
        if let Some((task, worth, _)) = self.in_flight.take() {
            self.timers.schedule(now + gap, worth, task);
        }
    }

    fn heard(&mut self, now: Instant, interface: InterfaceIndex, header: &Header) {
        self.on_frame(now, interface, header);
    }

    fn listening_changed(&mut self, now: Instant, interface: InterfaceIndex) -> Option<Listening> {
        self.changed_listening(now, interface)
    }

    fn more_links(&mut self) -> Vec<Link> {
        self.cards_to_hear()
    }

    fn receives_on(&mut self, now: Instant, link: &Link) {
        self.receives_at_card(now, link);
    }

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        match &frame.payload {
            Payload::Arp(arp) => self.on_arp(now, interface, frame, arp),
            Payload::Ndp(ndp) => self.on_ndp(now, interface, frame, ndp),
            Payload::Echo(echo) => self.on_echo(now, interface, frame, echo),
            Payload::Mld(_) => {}
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        let waits = [self.address_awaited_until(), self.last_answer_until()];
        let is_waiting = waits.into_iter().flatten().any(|until| now < until);
        let mut claims = self.claims.iter();
        now >= self.ends_at() || !is_waiting && !claims.any(|claim| self.is_open(now, claim))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let reserve = self.reserve(now);
        let ready = |worth| self.ready_at(worth, reserve);
        let due = |worth| Some(self.timers.next_due(worth)?.max(ready(worth)));
        let frame = Worth::ALL.into_iter().filter_map(due).min();
        let waits = [self.address_awaited_until(), self.last_answer_until()];
        let waits = waits.map(|until| until.filter(|until| *until > now));
        [frame, waits[0], waits[1], self.next_news(now)]
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
        self.note_own(link);
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
            self.find_sources(link.index);
            let claim = &mut self.claims[index];
            // Peers that were out of reach or learned the old MAC need all rounds again. All must
            // prove themselves again: only answers show when the path behind the carrier is alive.
            if mac_changed || came_up {
                claim.told.start_over();
                claim.ask_peers_again();
                self.background.start_over(index);
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
