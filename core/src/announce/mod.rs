//! The core: a state machine that is told the time and what happened, and says what to send.

mod claim;
mod orders;
mod receive;
mod rounds;

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use claim::Place as RoundPlace;
pub use claim::{Claim, Mode, State};
pub use orders::DueOrder;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::ask::{
    Asker, Bucket, Confirm, EchoId, LAST_ANSWER, LOOK_AGAIN, LinkView, LossEstimates, MOST_HOSTS,
    MOST_PAIRS, PeerFinder, Question, Refusal, Step, Timers, Transmit,
};
use crate::host::{Address, Link, Usability, asking_address};
use crate::host::{HostSnapshot, Place, PlacedVip};
use crate::wire::{Frame, Payload};

/// How long to wait before a frame that a full queue refused is tried again, the first time.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// It doubles this many times, to about an eighth of a second.
const RETRY_DOUBLINGS: u32 = 7;
/// Between two probes of a check, or of a look at other owners.
const PROBE_GAP: Duration = Duration::from_millis(15);

/// The bounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Frames a second, over all VIPs; a second's worth may leave at once.
    pub rate: NonZeroU32,
    /// How long a VIP that is not here may take to appear.
    pub wait: Duration,
    /// When the run ends at the latest, but for [`Pace::conflict_watch`].
    pub timeout: Duration,
    /// For how long another owner is asked for again and again, so that the VIP is announced anew
    /// once it is gone; zero: the run ends with the conflict.
    pub conflict_watch: Duration,
}

/// A frame's place in the run.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
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
    Broadcast(RoundPlace),
    /// A question to a peer; `None`: the first of a turn.
    Ask(usize, Option<Question>),
    /// A look at other owners, once the rounds are over.
    Look,
}

/// What follows a frame that left.
#[derive(Clone, Copy, Debug)]
enum Next {
    Round(Option<(Duration, RoundPlace)>),
    Question(Question),
    Look,
}

/// A VIP that the run is about.
#[derive(Clone, Debug)]
struct Wanted {
    placed: PlacedVip,
    /// The index of the interface that it counts on, where that has to be a certain one and is
    /// known.
    index: Option<InterfaceIndex>,
    /// Whether an interface has held it since the run began.
    found: bool,
    /// Whether it is where it counts, and that is an interface on which nobody asks for it.
    set_aside: bool,
    /// Whether a newer run waits for it.
    yielded: bool,
}

/// Something that is worth telling before the run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The VIP.
    pub vip: Vip,
    /// The interface.
    pub interface: InterfaceIndex,
    /// The MACs of other owners.
    pub rivals: Vec<Mac>,
    /// Whether they are gone, and the VIP is announced anew; else they are watched from now on.
    pub is_over: bool,
}

/// A VIP on an interface, as runs tell each other of it; `None`: wherever it comes to.
pub type RunPlace = (Vip, Option<InterfaceIndex>);

/// Whether two runs that have these places would announce the same.
pub fn overlap(one: RunPlace, other: RunPlace) -> bool {
    one.0 == other.0 && (one.1.is_none() || other.1.is_none() || one.1 == other.1)
}

/// A run: some VIPs, announced until every peer that can follow does, or they have left, or time
/// is up.
#[derive(Debug)]
pub struct Announcement {
    vips: Vec<Vip>,
    wanted: Vec<Wanted>,
    mode: Mode,
    run: EchoId,
    pace: Pace,
    started: Instant,
    wait_until: Instant,
    /// When the run ends, unless other owners are watched for longer.
    end_at: Instant,
    last_sent: Instant,
    /// When the last question left whose answer may better a verdict.
    last_question: Option<Instant>,
    links: BTreeMap<InterfaceIndex, Link>,
    /// The entries of the VIPs' addresses, by interface and prefix length: an address can be there
    /// twice.
    held: BTreeMap<(Vip, InterfaceIndex), BTreeMap<u8, Usability>>,
    /// The MACs of this host's interfaces, and their names.
    own_macs: BTreeMap<Mac, String>,
    hosts: BTreeMap<Mac, IpAddr>,
    claims: Vec<Claim>,
    news: Vec<News>,
    /// Whether the kernel could not tell who is around.
    is_blind: bool,
    paths: LossEstimates,
    timers: Timers<Task>,
    bucket: Bucket,
}

impl Announcement {
    /// A run for some VIPs, where they count. It announces, unless [`Announcement::in_mode`] says
    /// otherwise. A VIP given twice counts once. `seed` should differ from run to run: it tells this
    /// run's echoes from others'.
    #[must_use]
    pub fn new(placed: &[PlacedVip], pace: Pace, seed: u64, now: Instant) -> Self {
        let mut vips = Vec::with_capacity(placed.len());
        let mut seen = HashSet::new();
        let mut wanted = Vec::with_capacity(placed.len());
        for placed in placed {
            if !seen.insert(placed) {
                continue;
            }
            wanted.push(Wanted {
                placed: placed.clone(),
                index: None,
                found: false,
                set_aside: false,
                yielded: false,
            });
            vips.push(placed.vip);
        }
        let mut distinct = HashSet::new();
        vips.retain(|vip| distinct.insert(*vip));
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
            bucket: Bucket::new(pace.rate, now),
        }
    }

    /// The same run in another mode, before it has begun.
    #[must_use]
    pub fn in_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The VIPs that are on an interface, or were.
    #[must_use]
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// The claim that a frame is for.
    #[must_use]
    pub fn claim_of(&self, transmit: &Transmit<Ticket>) -> &Claim {
        &self.claims[transmit.ticket.task.claim]
    }

    /// The VIPs of the run, each once.
    #[must_use]
    pub fn vips(&self) -> &[Vip] {
        &self.vips
    }

    /// The VIPs that no interface has held since the run began, and where they count.
    pub fn absent(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        let absent = |wanted: &&Wanted| !wanted.found && !wanted.set_aside && !wanted.yielded;
        self.wanted
            .iter()
            .filter(absent)
            .map(|wanted| &wanted.placed)
    }

    /// The VIPs that were put on an interface where nobody asks for them, on purpose.
    pub fn set_aside(&self) -> impl Iterator<Item = &PlacedVip> + '_ {
        let set_aside = |wanted: &&Wanted| wanted.set_aside;
        self.wanted
            .iter()
            .filter(set_aside)
            .map(|wanted| &wanted.placed)
    }

    /// The interfaces where a VIP is, and counts as held by nobody: neighbours can't ask for it
    /// there, or it is another one than where it counts.
    pub fn passed_over(&self, vip: Vip) -> impl Iterator<Item = &Link> + '_ {
        let claimed = move |interface| {
            let mut claims = self.claims.iter();
            claims.any(|claim| claim.vip == vip && claim.interface() == interface)
        };
        self.held
            .keys()
            .filter(move |(held, interface)| *held == vip && !claimed(*interface))
            .filter_map(|(_, interface)| self.links.get(interface))
    }

    /// The kernel could not tell who is around: nothing will be proven.
    pub fn nobody_can_be_asked(&mut self) {
        self.is_blind = true;
    }

    /// Whether nobody could be asked, though somebody should have been.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.is_blind
    }

    /// Takes what is worth telling now.
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

    /// The address of the host that has a MAC, where the neighbour tables know it.
    #[must_use]
    pub fn host_of(&self, mac: Mac) -> Option<IpAddr> {
        self.hosts.get(&mac).copied()
    }

    /// The name of this host's interface that has a MAC.
    #[must_use]
    pub fn interface_of(&self, mac: Mac) -> Option<&str> {
        self.own_macs.get(&mac).map(String::as_str)
    }

    /// Questions to a peer which are not lost all by chance, if losses are as they were so far.
    /// `None` while nobody on an interface answers.
    #[must_use]
    pub fn questions_to_rule_out_chance(&self, interface: InterfaceIndex) -> Option<u32> {
        self.paths.questions_to_rule_out_chance(interface)
    }

    fn vip_of(&self, address: &Address) -> Option<Vip> {
        self.vips.iter().find(|vip| vip.ip() == address.ip).copied()
    }

    /// Claims the VIPs that an interface has, where it holds them.
    fn claim_all_on(&mut self, now: Instant, interface: InterfaceIndex) {
        let on = |(_, held): &&(Vip, InterfaceIndex)| *held == interface;
        let vips: Vec<_> = self.held.keys().filter(on).map(|(vip, _)| *vip).collect();
        for vip in vips {
            self.claim(now, vip, interface);
        }
    }

    /// What the kernel says of a VIP on an interface, of which there may be several entries.
    fn usability(&self, vip: Vip, interface: InterfaceIndex) -> Option<Usability> {
        let entries = self.held.get(&(vip, interface))?;
        // As soon as one can be used, the address can.
        let best = |usability: &&Usability| match usability {
            Usability::Usable => 2,
            Usability::Tentative => 1,
            Usability::DadFailed => 0,
        };
        entries.values().max_by_key(best).copied()
    }

    /// Brings the claim of a VIP on an interface up to date, or makes it, if this host holds it
    /// there.
    fn claim(&mut self, now: Instant, vip: Vip, interface: InterfaceIndex) {
        // What an interface has that is not known, or not any more, counts once it is.
        let Some(link) = self.links.get(&interface) else {
            return;
        };
        let Some(usability) = self.usability(vip, interface) else {
            return;
        };
        let known = self
            .claims
            .iter()
            .position(|claim| claim.vip == vip && claim.interface() == interface);
        let (index, was_ready) = match known {
            Some(index) => {
                let claim = &mut self.claims[index];
                let until = claim.may_return_until(self.pace.wait);
                claim.left |= until.is_some_and(|until| until < now);
                let was_ready = claim.state() == State::Ready;
                claim.set_usability(now, Some(usability));
                // What was known of a VIP that left for good stays known.
                if !was_ready && !claim.left {
                    claim.ask_peers_anew();
                }
                (index, was_ready)
            }
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
                let claim = Claim::new(vip, link, usability, self.mode, watch);
                self.claims.push(claim);
                (self.claims.len() - 1, false)
            }
        };
        if !was_ready {
            self.start_rounds(now, index);
        }
    }

    /// The places that this run has, or waits for, as far as they are known.
    #[must_use]
    pub fn places(&self) -> Vec<RunPlace> {
        let ours = |claim: &&Claim| claim.state() != State::Superseded;
        let claimed = self.claims.iter().filter(ours);
        let awaited = self.wanted.iter().filter(|wanted| {
            let known = wanted.placed.place == Place::Anywhere || wanted.index.is_some();
            !wanted.found && !wanted.set_aside && !wanted.yielded && known
        });
        claimed
            .map(|claim| (claim.vip, Some(claim.interface())))
            .chain(awaited.map(|wanted| (wanted.placed.vip, wanted.index)))
            .collect()
    }

    /// The index of the interface of this name.
    pub fn interface_is(&mut self, name: &str, index: InterfaceIndex) {
        for wanted in &mut self.wanted {
            if wanted.placed.place.name() == Some(name) {
                wanted.index = Some(index);
            }
        }
    }

    /// Newer runs have these places from now on.
    pub fn superseded(&mut self, places: &[RunPlace]) {
        let taken = |ours| places.iter().any(|theirs| overlap(ours, *theirs));
        for claim in &mut self.claims {
            claim.superseded |= taken((claim.vip, Some(claim.interface())));
        }
        for wanted in self.wanted.iter_mut().filter(|wanted| !wanted.found) {
            let known = wanted.placed.place == Place::Anywhere || wanted.index.is_some();
            wanted.yielded |= known && taken((wanted.placed.vip, wanted.index));
        }
    }

    /// The VIPs that were superseded before they were here.
    pub fn yielded(&self) -> impl Iterator<Item = Vip> + '_ {
        let yielded = self.wanted.iter().filter(|wanted| wanted.yielded);
        yielded.map(|wanted| wanted.placed.vip)
    }

    fn stop_asking_from(&mut self, own: IpAddr) {
        for claim in &mut self.claims {
            claim.stop_asking_from(own);
        }
    }

    /// Whether there are claims whose peers the core was not told yet.
    #[must_use]
    pub fn awaits_peers(&self) -> bool {
        self.claims.iter().any(Claim::awaits_peers)
    }

    /// Tells who is around: on the interfaces of the claims and on those below them. `host` is all
    /// that this host has.
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
        for neighbour in views.iter().flat_map(|around| &around.neighbours) {
            let is_vip = vips.contains(&neighbour.ip);
            if let Some(mac) = neighbour.mac.filter(|_| !is_vip) {
                // Of several addresses the IPv4 one, which sorts first, says most to people.
                let host = self.hosts.entry(mac).or_insert(neighbour.ip);
                *host = neighbour.ip.min(*host);
            }
        }
        let of = |interface| views.iter().find(|around| around.link.index == interface);
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
            let near = PeerFinder::new(claim.vip, &vips, &own, on, below);
            let (peers, left_out) = near.peers(configured, confirm, most);
            claim.set_peers(peers, left_out);
            match self.mode {
                Mode::Announce => self.ask_all(now, index),
                Mode::Check => self.start_rounds(now, index),
            }
        }
    }

    /// Starts the rounds of a claim, and with them the turns of those who do not follow yet.
    fn start_rounds(&mut self, now: Instant, index: usize) {
        let claim = &mut self.claims[index];
        // Before a check asks anything, it has to know from which address.
        let knows_how = self.mode == Mode::Announce || !claim.awaits_peers();
        if claim.state() == State::Ready && knows_how {
            claim.epoch += 1;
            claim.probes = 0;
            claim.rounds_over = false;
            claim.other_owners.drop_look();
            claim.began.get_or_insert(now);
            let task = Task {
                claim: index,
                epoch: claim.epoch,
                what: What::Broadcast(RoundPlace::FIRST),
            };
            self.timers.note(now, task);
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
        let confirmation = self.claims[index].confirmation_mut(peer);
        if confirmation.wants_turns() {
            confirmation.hurry();
            let task = Task {
                claim: index,
                epoch: confirmation.epoch,
                what: What::Ask(peer, None),
            };
            self.timers.note(now, task);
        }
    }

    /// Notes a look at the rivals of a claim.
    fn look_at_rivals(&mut self, now: Instant, index: usize, after: Duration) {
        let claim = &mut self.claims[index];
        if claim.mode == Mode::Check || claim.look_probe().is_none() {
            return;
        }
        claim.other_owners.begin_look(now + after);
        let task = Task {
            claim: index,
            epoch: claim.epoch,
            what: What::Look,
        };
        self.timers.note(now + after, task);
    }

    /// Whether a look at rivals goes on with another probe. If not, its result is acted on.
    fn goes_on_looking(&mut self, now: Instant, task: Task) -> bool {
        let claim = &mut self.claims[task.claim];
        let interface = claim.interface();
        if claim.state() != State::Ready || task.epoch != claim.epoch {
            return false;
        }
        let vip = claim.vip;
        let was_told = claim.watched_until().is_some();
        let before: Vec<_> = claim.conflicts().collect();
        let enough = self.paths.probes_to_rule_out_chance(interface);
        match claim.other_owners.next_step(now, enough) {
            Step::Probe => return true,
            Step::Nothing => {}
            Step::StillThere => {
                if claim.other_owners.is_open() && !was_told {
                    self.news.push(News {
                        vip,
                        interface,
                        rivals: claim.conflicts().collect(),
                        is_over: false,
                    });
                }
                self.look_at_rivals(now, task.claim, LOOK_AGAIN);
                // Who has let go is a peer like any other, though not the last to do so.
                for peer in 0..self.claims[task.claim].confirmations().len() {
                    let claim = &mut self.claims[task.claim];
                    let one = &claim.confirmations()[peer].peer;
                    if one.mac.is_some_and(|mac| before.contains(&mac)) && !claim.is_rival(one) {
                        claim.ask_peer_anew(peer);
                        self.ask_anew(now, task.claim, peer);
                    }
                }
            }
            Step::Gone => {
                let rivals = self.claims[task.claim].known_rivals();
                self.conflict_is_over(now, task.claim, rivals);
            }
        }
        false
    }

    /// No other owner is left: whoever followed one has to hear the rounds, and to be asked, again.
    fn conflict_is_over(&mut self, now: Instant, index: usize, rivals: Vec<Mac>) {
        let claim = &mut self.claims[index];
        let (vip, interface) = (claim.vip, claim.interface());
        self.news.push(News {
            vip,
            interface,
            rivals,
            is_over: true,
        });
        claim.ask_peers_anew();
        if self.pace.conflict_watch > Duration::ZERO {
            self.end_at = self.end_at.max(now + self.pace.timeout);
        }
        self.start_rounds(now, index);
    }

    /// The frame of a task, unless the task is void.
    fn carry_out(&self, now: Instant, task: Task) -> Option<Transmit<Ticket>> {
        let claim = &self.claims[task.claim];
        if claim.state() != State::Ready {
            return None;
        }
        match task.what {
            What::Broadcast(place) => {
                let broadcast = claim.broadcast(place)?;
                (task.epoch == claim.epoch).then_some(Transmit {
                    interface: claim.interface(),
                    frame: broadcast.frame,
                    is_question: broadcast.is_question,
                    ticket: Ticket {
                        task,
                        next: Next::Round(broadcast.next),
                    },
                })
            }
            What::Look => Some(Transmit {
                interface: claim.interface(),
                frame: claim.look_probe()?,
                is_question: true,
                ticket: Ticket {
                    task,
                    next: Next::Look,
                },
            }),
            // While only other owners are watched, nobody else is asked.
            What::Ask(..) if now >= self.end_at => None,
            What::Ask(peer, question) => {
                let confirmation = &claim.confirmations()[peer];
                if task.epoch != confirmation.epoch || !confirmation.wants_turns() {
                    return None;
                }
                let question = question
                    .filter(|question| confirmation.asks(*question))
                    .or_else(|| confirmation.next_question(None))?;
                let interface = match (question, confirmation.peer.control) {
                    (Question::Control | Question::Holder, Some(control)) => control.interface,
                    _ => claim.interface(),
                };
                let mac = claim.mac()?;
                let frame = confirmation.frame(question, claim.vip, mac, self.run)?;
                Some(Transmit {
                    interface,
                    frame,
                    is_question: true,
                    ticket: Ticket {
                        task,
                        next: Next::Question(question),
                    },
                })
            }
        }
    }

    /// When the run ends at the latest.
    #[must_use]
    pub fn ends_at(&self) -> Instant {
        let watched = self.claims.iter().filter_map(Claim::watched_until);
        watched.fold(self.end_at, Instant::max)
    }

    /// Whether a VIP that is not here may still come, or come back.
    fn awaits_address(&self, now: Instant) -> bool {
        self.address_awaited_until()
            .is_some_and(|until| now < until)
    }

    fn address_awaited_until(&self) -> Option<Instant> {
        let coming = self.absent().next().map(|_| self.wait_until);
        let returning = self.claims.iter();
        returning
            .filter_map(|claim| claim.may_return_until(self.pace.wait))
            .chain(coming)
            .max()
    }

    /// Whether the answer to the last question that matters may still come.
    fn awaits_answer(&self, now: Instant) -> bool {
        self.last_answer_until().is_some_and(|until| now < until)
    }

    fn last_answer_until(&self) -> Option<Instant> {
        let held = |claim: &Claim| claim.state() == State::Ready;
        self.last_question
            .filter(|_| self.claims.iter().any(held))
            .map(|asked| asked + LAST_ANSWER)
    }

    /// Whether a claim may still come to frames that matter.
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
    type Ticket = Ticket;

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit<Ticket>> {
        for index in 0..self.claims.len() {
            let claim = &mut self.claims[index];
            let until = claim.may_return_until(self.pace.wait);
            claim.left |= until.is_some_and(|until| until <= now);
            if claim.rounds_over && claim.other_owners.wants_look() {
                self.look_at_rivals(now, index, Duration::ZERO);
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
            if let Some(transmit) = self.carry_out(now, task) {
                self.bucket.take(now);
                return Some(transmit);
            }
        }
        None
    }

    fn sent(&mut self, now: Instant, transmit: &Transmit<Ticket>) {
        let task = transmit.ticket.task;
        let claim = &mut self.claims[task.claim];
        claim.frames_sent += 1;
        claim.refusals = 0;
        self.last_sent = now;
        let matters = match task.what {
            What::Broadcast(_) => transmit.is_question,
            What::Look => false,
            // Those whose verdict is certain are still asked now and then, while the run lasts;
            // but it does not last for them.
            What::Ask(peer, _) => {
                let enough = self.paths.questions_to_rule_out_chance(claim.interface());
                claim.confirmations()[peer].is_open(enough)
            }
        };
        if matters {
            self.last_question = Some(now);
        }
        // From now, not from when it was due: a run that is late keeps its distances.
        match (transmit.ticket.next, task.what) {
            (Next::Round(Some((gap, place))), _) => {
                let what = What::Broadcast(place);
                self.timers.note(now + gap, Task { what, ..task });
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
                self.timers.note(now + gap, Task { what, ..task });
            }
            (Next::Look, _) => {
                let enough = self.paths.probes_to_rule_out_chance(claim.interface());
                let gap = match claim.other_owners.probed(enough) {
                    true => LAST_ANSWER,
                    false => PROBE_GAP,
                };
                self.timers.note(now + gap, task);
            }
            (Next::Round(None), _) if claim.mode == Mode::Check => {
                // Rounds go on until another owner would have been heard.
                claim.probes += 1;
                let enough = self.paths.probes_to_rule_out_chance(claim.interface());
                claim.rounds_over = claim.probes >= enough;
                if !claim.rounds_over {
                    self.timers.note(now + PROBE_GAP, task);
                }
            }
            _ => {
                claim.rounds_over = true;
                for peer in 0..self.claims[task.claim].confirmations().len() {
                    let claim = &mut self.claims[task.claim];
                    let confirmation = &claim.confirmations()[peer];
                    if confirmation.holds_vip && !claim.is_rival(&confirmation.peer) {
                        // It may be the old owner, who has let go since it was asked.
                        claim.confirmation_mut(peer).doubt_holder();
                        self.ask_anew(now, task.claim, peer);
                    } else if confirmation.is_heard() {
                        // Whom only a broadcast mends, the last one may have mended.
                        self.ask_anew(now, task.claim, peer);
                    }
                }
            }
        }
    }

    fn put_off(&mut self, now: Instant, transmit: &Transmit<Ticket>) {
        self.timers.note(now, transmit.ticket.task);
    }

    /// It is tried again, less and less often, for as long as it may leave at all.
    fn refused(&mut self, now: Instant, transmit: &Transmit<Ticket>, why: Refusal) {
        let claim = &mut self.claims[transmit.ticket.task.claim];
        let gap = FIRST_RETRY * (1 << claim.refusals.min(RETRY_DOUBLINGS));
        claim.refusals += 1;
        claim.last_refusal = Some(why);
        self.timers.note(now + gap, transmit.ticket.task);
    }

    fn received(&mut self, now: Instant, interface: InterfaceIndex, frame: &Frame) {
        match &frame.payload {
            Payload::Arp(arp) => self.on_arp(now, interface, frame, arp),
            Payload::Ndp(ndp) => self.on_ndp(now, interface, frame, ndp),
            Payload::Echo(echo) => self.on_echo(now, interface, frame, echo),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.ends_at()
            || !(self.awaits_address(now)
                || self.awaits_answer(now)
                || self.claims.iter().any(|claim| self.is_open(now, claim)))
    }

    fn next_deadline(&self, now: Instant) -> Instant {
        let frame = self
            .timers
            .next_due()
            .map(|due| due.max(self.bucket.ready_at()));
        let waits = |until: &Instant| *until > now;
        let wait = self.address_awaited_until().filter(waits);
        let answer = self.last_answer_until().filter(|until| *until > now);
        [frame, wait, answer]
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

    /// The one that has it, and the one below that where a VMAC is expected.
    fn unknown_link_of(&self, address: &Address) -> Option<InterfaceIndex> {
        let vip = self.vip_of(address)?;
        let Some(link) = self.links.get(&address.interface) else {
            return Some(address.interface);
        };
        let by_what_is_below = |wanted: &Wanted| {
            let expected =
                matches!(&wanted.placed.place, Place::Vmac { name, .. } if *name != link.name);
            wanted.placed.vip == vip && expected
        };
        let lower = link.lower.filter(|lower| !self.links.contains_key(lower))?;
        self.wanted.iter().any(by_what_is_below).then_some(lower)
    }

    fn link_changed(&mut self, now: Instant, link: &Link) {
        let named = link.mac.map(|mac| (mac, link.name.clone()));
        self.own_macs.extend(named);
        self.links.insert(link.index, link.clone());
        self.claim_all_on(now, link.index);
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
                claim.ask_peers_anew();
                self.paths.forget(link.index);
                self.start_rounds(now, index);
            }
        }
    }

    fn link_gone(&mut self, now: Instant, interface: InterfaceIndex) {
        self.links.remove(&interface);
        self.held.retain(|(_, on), _| *on != interface);
        for claim in &mut self.claims {
            if claim.interface() == interface {
                claim.set_usability(now, None);
            }
        }
    }

    fn address_changed(&mut self, now: Instant, address: &Address) {
        let Some(vip) = self.vip_of(address) else {
            return;
        };
        let entries = self.held.entry((vip, address.interface)).or_default();
        entries.insert(address.prefix_len, address.usability);
        self.claim(now, vip, address.interface);
    }

    fn address_gone(&mut self, now: Instant, address: &Address) {
        let key = self.vip_of(address).map(|vip| (vip, address.interface));
        let last = key.is_some_and(|key| {
            let entries = self.held.entry(key).or_default();
            entries.remove(&address.prefix_len);
            let last = entries.is_empty();
            if last {
                self.held.remove(&key);
            }
            last
        });
        for claim in &mut self.claims {
            if last && claim.vip.ip() == address.ip && claim.interface() == address.interface {
                claim.set_usability(now, None);
            }
        }
        let again = key.filter(|_| !last);
        match again {
            // What is left of it may be tentative.
            Some((vip, interface)) => self.claim(now, vip, interface),
            None => self.stop_asking_from(address.ip),
        }
    }

    fn addresses_are(&mut self, now: Instant, addresses: &[Address]) {
        self.held.clear();
        for claim in &mut self.claims {
            let held = addresses
                .iter()
                .any(|a| a.ip == claim.vip.ip() && a.interface == claim.interface());
            if !held {
                claim.set_usability(now, None);
            }
        }
        for address in addresses {
            self.address_changed(now, address);
        }
    }
}

#[cfg(test)]
mod tests;
