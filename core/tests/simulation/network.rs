//! The link between the announcer and the hosts, and the driver of the core, which does what the
//! session does with a real kernel: it hands over every change and every frame that came in
//! before it asks for a frame to send.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, DueOrder, Ticket};
use vipherald_core::ask::{Asker, Confirm, LinkView, PeerVerdict, Refusal, Source, Transmit};
use vipherald_core::host::{
    Address, HostSnapshot, Link, Neighbour, NeighbourState, PlacedVip, Usability,
};
use vipherald_core::order::{Done, Fate, Outcome};
use vipherald_core::wire::{Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload};

use crate::peer::{ALL_NODES, Entry};
use crate::rng::Rng;
use crate::scenario::{
    BASE_NAME, Beginning, Happening, Member, OLD_OWNER, OWN_MAC, OWN4, OWN6, PlannedVip, Scenario,
    VIRTUAL_MAC, VMAC_NAME, When,
};

pub(crate) const BASE: InterfaceIndex = InterfaceIndex(2);
pub(crate) const VMAC: InterfaceIndex = InterfaceIndex(3);
/// An order that was lost is sent again after this time.
const ORDERED_AGAIN: Duration = Duration::from_millis(250);
/// More steps than any run can need: a run that takes them stands still.
const MOST_STEPS: u64 = 5_000_000;

enum Event {
    /// A group frame reaches every host (but its sender).
    ToAll(Frame, Option<usize>),
    ToHost(usize, Frame),
    /// A frame reaches the announcer; from which host, if it is no forgery.
    ToOwner(Frame, Option<usize>),
    Happens(Happening),
    SeesAround,
    /// An order reaches its peer.
    Ordered(DueOrder),
    /// What a peer did reaches the announcer.
    Obeyed(DueOrder, Outcome),
}

/// What really came about between one VIP and one member, whatever the core thinks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Truth {
    /// The member answered an echo from the VIP, and its own table led the reply here.
    pub(crate) followed: bool,
    /// It took a directed request in, and its own answer came here.
    pub(crate) answered: bool,
    /// It answered a control echo.
    pub(crate) control: bool,
    /// It answered an echo to the VIP, with the VIP as source.
    pub(crate) holder: bool,
    /// It answered anything, ever.
    pub(crate) heard: bool,
    pub(crate) directed: u32,
    pub(crate) echoes: u32,
    pub(crate) controls: u32,
    pub(crate) holders: u32,
    /// Of each, those since everything was asked anew.
    pub(crate) directed_anew: u32,
    pub(crate) echoes_anew: u32,
    pub(crate) holders_anew: u32,
}

impl Truth {
    fn start_over(&mut self) {
        *self = Self {
            heard: self.heard,
            directed: self.directed,
            echoes: self.echoes,
            controls: self.controls,
            holders: self.holders,
            ..Self::default()
        };
    }

    pub(crate) fn frames(&self) -> u32 {
        self.directed + self.echoes + self.controls + self.holders
    }
}

/// What really came about with one VIP.
#[derive(Clone, Debug, Default)]
pub(crate) struct VipTruth {
    /// Its entries, by prefix length, as the core was told.
    pub(crate) entries: BTreeMap<u8, Usability>,
    /// Since when it has none, if it had one.
    pub(crate) gone_since: Option<Duration>,
    /// How often it came back in time.
    pub(crate) returned: u32,
    /// It was gone for longer than a run waits.
    pub(crate) left: bool,
    /// It was where it counts, on an interface that was up.
    pub(crate) found: bool,
    pub(crate) ready_since: Option<Duration>,
    /// Claims that reached the announcer: by whom, and when.
    pub(crate) claims: BTreeMap<Mac, Vec<Duration>>,
    /// Probes after the rounds, for a look at other owners.
    pub(crate) looks: Vec<Duration>,
    /// Until when other owners are watched.
    pub(crate) watched_until: Option<Duration>,
    /// How often it was told that no other owner is left.
    pub(crate) conflicts_over: u32,
    /// Starts of the rounds that something on this host gave cause for, or the end of a conflict.
    pub(crate) starts: u32,
    pub(crate) macs: u32,
}

impl VipTruth {
    pub(crate) fn is_here(&self) -> bool {
        !self.entries.is_empty()
    }

    pub(crate) fn is_usable(&self) -> bool {
        let mut entries = self.entries.values();
        entries.any(|usability| *usability == Usability::Usable)
    }
}

/// From when until when a member had a VIP.
type Holding = (Duration, Option<Duration>);

pub(crate) struct Network {
    pub(crate) scenario: Scenario,
    pub(crate) core: Announcement,
    pub(crate) now: Duration,
    pub(crate) members: Vec<Member>,
    /// By VIP, then by member.
    pub(crate) truths: Vec<Vec<Truth>>,
    pub(crate) vips: Vec<VipTruth>,
    /// By member: when it had its VIP.
    pub(crate) holdings: Vec<Vec<Holding>>,
    /// When peers are asked no more.
    pub(crate) end_at: Duration,
    pub(crate) sent_at: Vec<Duration>,
    /// Frames of the rounds since something on this host gave cause to start them.
    pub(crate) broadcasts: Vec<u32>,
    /// When anyone first answered since the path was last new.
    pub(crate) alive_since: Option<Duration>,
    /// Frames that were refused.
    pub(crate) refusals: u32,
    /// Orders that were carried out and answered.
    pub(crate) obedience: u32,
    /// Orders that may yet be.
    orders_out: u32,
    start: Instant,
    rng: Rng,
    base: Link,
    above: Link,
    link_gone: bool,
    by_mac: HashMap<Mac, usize>,
    /// The members, by every MAC that they may be taken to have.
    by_any_mac: HashMap<Mac, usize>,
    /// The VIP that a member has, or had.
    held_by: Vec<Option<usize>>,
    by_ip: HashMap<IpAddr, usize>,
    vip_index: HashMap<IpAddr, usize>,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    store: Vec<Option<Event>>,
    noted: u64,
    listening: BTreeSet<InterfaceIndex>,
    looking_around: bool,
    seen_echo: Option<(Echo, Mac)>,
    /// The last echo to a VIP, and the frame that it was in.
    seen_holder: Option<(Echo, Frame)>,
}

fn link(index: InterfaceIndex, mac: Mac, lower: Option<InterfaceIndex>, up: bool) -> Link {
    Link {
        index,
        name: if index == BASE { BASE_NAME } else { VMAC_NAME }.to_owned(),
        mac: Some(mac),
        up,
        carrier: up,
        unlike_ethernet: None,
        forwards_ipv6: false,
        lower,
    }
}

fn own(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() {
        OWN4.into()
    } else {
        OWN6.into()
    }
}

impl Network {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let start = Instant::now();
        let vips: Vec<_> = scenario
            .vips
            .iter()
            .map(|vip| PlacedVip {
                vip: Vip::try_from(vip.ip).expect("a VIP"),
                place: vip.place.clone(),
            })
            .collect();
        let members = scenario.members.clone();
        let vip_index: HashMap<_, _> = scenario.vips.iter().map(|vip| vip.ip).zip(0..).collect();
        let up = !scenario.begins_down;
        let base = link(BASE, OWN_MAC, None, up);
        let above = if scenario.vmac {
            link(VMAC, VIRTUAL_MAC, Some(BASE), up)
        } else {
            base.clone()
        };
        let every_mac = |(index, member): (usize, &Member)| {
            let proxy = member.proxy;
            let of_proxy = proxy
                .into_iter()
                .flat_map(|one| [Some(one.mac), one.second]);
            let macs = of_proxy.chain([Some(member.host.mac), member.known_mac]);
            macs.flatten().map(|mac| (mac, index)).collect::<Vec<_>>()
        };
        let mut network = Self {
            core: Announcement::new(&vips, scenario.pace, scenario.seed, start),
            now: Duration::ZERO,
            truths: vec![vec![Truth::default(); members.len()]; vips.len()],
            vips: vec![VipTruth::default(); vips.len()],
            holdings: members
                .iter()
                .map(|member| member.host.holds.map(|_| (Duration::ZERO, None)))
                .map(|held| held.into_iter().collect())
                .collect(),
            end_at: scenario.pace.timeout,
            sent_at: Vec::new(),
            broadcasts: vec![0; vips.len()],
            alive_since: None,
            refusals: 0,
            obedience: 0,
            orders_out: 0,
            start,
            rng: Rng::new(scenario.seed ^ 0xc4a2),
            base,
            above,
            link_gone: false,
            by_mac: members
                .iter()
                .map(|member| member.host.mac)
                .zip(0..)
                .collect(),
            by_any_mac: members.iter().enumerate().flat_map(every_mac).collect(),
            held_by: members
                .iter()
                .map(|member| member.host.holds.map(|vip| vip_index[&vip]))
                .collect(),
            by_ip: members
                .iter()
                .map(|member| member.host.ip)
                .zip(0..)
                .collect(),
            vip_index,
            events: BinaryHeap::new(),
            store: Vec::new(),
            noted: 0,
            listening: BTreeSet::new(),
            looking_around: false,
            seen_echo: None,
            seen_holder: None,
            members,
            scenario,
        };
        network.begin();
        network
    }

    fn begin(&mut self) {
        for (when, what) in self.scenario.happenings.clone() {
            if let When::At(at) = when {
                self.note(at, Event::Happens(what));
            }
        }
        let above = self.above.clone();
        self.core.link_changed(self.start, &above);
        for (index, vip) in self.scenario.vips.clone().into_iter().enumerate() {
            let usability = match vip.beginning {
                Beginning::Usable => Usability::Usable,
                Beginning::Tentative => Usability::Tentative,
                Beginning::Absent => continue,
            };
            let [first, second] = self.prefix_lengths(index);
            self.tell_entry(index, first, Some(usability));
            if vip.twice {
                self.tell_entry(index, second, Some(usability));
            }
        }
    }

    /// Runs to the end.
    pub(crate) fn play(&mut self) {
        for step in 0.. {
            assert!(step < MOST_STEPS, "the run stands still at {:?}", self.now);
            self.send_due();
            self.post_orders();
            let over = self.core.is_over(self.at());
            let ends_at = self.ends_at();
            self.check_ends_at(ends_at);
            if over && (self.orders_out == 0 || self.now >= ends_at) {
                return;
            }
            if self.core.awaits_peers() && !self.looking_around {
                self.looking_around = true;
                self.note(self.now + self.scenario.looking_around, Event::SeesAround);
            }
            // A core that is over waits for answers to orders alone.
            let deadline = if over {
                ends_at
            } else {
                let deadline = self.core.next_deadline(self.at());
                deadline.duration_since(self.start)
            };
            assert!(
                deadline > self.now,
                "asked to wake up in the past, at {:?}",
                self.now
            );
            let event = self.events.peek().map(|Reverse((at, ..))| *at);
            let lateness = self.rng.up_to(self.scenario.lateness);
            self.now = match event.filter(|at| *at <= deadline) {
                Some(at) => at.max(self.now),
                None => deadline + lateness,
            };
            while let Some(event) = self.take_due() {
                self.handle(event);
            }
        }
    }

    fn at(&self) -> Instant {
        self.start + self.now
    }

    fn note(&mut self, at: Duration, event: Event) {
        self.store.push(Some(event));
        self.events
            .push(Reverse((at, self.noted, self.store.len() - 1)));
        self.noted += 1;
    }

    fn take_due(&mut self) -> Option<Event> {
        let Reverse((at, _, index)) = self.events.peek()?;
        if *at > self.now {
            return None;
        }
        let event = self.store[*index].take();
        self.events.pop();
        event
    }

    fn send_due(&mut self) {
        loop {
            self.interrupt();
            let transmit = self.core.poll_transmit(self.at());
            self.hear_news();
            let Some(transmit) = transmit else {
                return;
            };
            self.check_may_leave(&transmit);
            let looks = self.is_look(&transmit);
            if self.rng.permille(self.scenario.refused) {
                self.refusals += 1;
                self.core
                    .refused(self.at(), &transmit, Refusal::Other("ENOBUFS".to_owned()));
                continue;
            }
            self.core.sent(self.at(), &transmit);
            self.sent_at.push(self.now);
            if transmit.is_question {
                self.listening.insert(transmit.interface);
            }
            self.count(&transmit);
            if let Some(vip) = looks {
                self.vips[vip].looks.push(self.now);
            }
            let frame = if self.scenario.on_the_wire {
                let octets = transmit.frame.to_bytes();
                let read = Frame::parse(&octets);
                assert_eq!(
                    read.as_ref(),
                    Some(&transmit.frame),
                    "it reads as it was written"
                );
                transmit.frame
            } else {
                transmit.frame
            };
            self.leave(frame);
        }
    }

    /// Orders go to those that listen; they are sent again until one gets through.
    fn post_orders(&mut self) {
        for order in self.core.take_due_orders() {
            self.check_is_stale(&order);
            let listens = |index: &usize| self.members[*index].listens;
            if self.by_ip.get(&order.peer).is_some_and(listens) {
                self.orders_out += 1;
                let at = self.arrival();
                self.note(at, Event::Ordered(order));
            }
        }
    }

    fn obey(&mut self, order: DueOrder) {
        // As the session does: what is announced no more is ordered no more.
        let (interface, vip, mac) = (order.interface, order.vip, order.mac);
        if !self.core.announces(interface, vip, mac) {
            self.orders_out -= 1;
            return;
        }
        let index = self.by_ip[&order.peer];
        let lost =
            self.rng.permille(self.scenario.loss_out) || self.now < self.scenario.orders_from;
        if lost || self.is_dark(Some(index)) || self.members[index].host.habits.dead {
            self.note(self.now + ORDERED_AGAIN, Event::Ordered(order));
            return;
        }
        let host = &mut self.members[index].host;
        let holds = host.holds == Some(order.vip.ip());
        let outcome = match host.follows(order.vip.ip()) {
            _ if holds => {
                self.let_go(index);
                Outcome::Released
            }
            None => Outcome::Absent,
            Some(mac) if mac == order.mac => Outcome::Right,
            Some(_) => {
                host.set(order.vip.ip(), Entry::None);
                Outcome::Purged
            }
        };
        let at = self.arrival();
        self.note(at, Event::Obeyed(order, outcome));
    }

    fn hear_obedience(&mut self, order: DueOrder, outcome: Outcome) {
        let index = self.by_ip[&order.peer];
        if self.rng.permille(self.scenario.loss_in) || self.is_dark(Some(index)) {
            self.note(self.now + ORDERED_AGAIN, Event::Obeyed(order, outcome));
            return;
        }
        self.orders_out -= 1;
        let done = Done {
            vip: order.vip,
            outcome,
            was: None,
            now: None,
            interface: String::new(),
        };
        let fate = Fate::Answered { done, skew: None };
        let now = self.at();
        let mac = self.members[index].host.mac;
        let vip = self.vip_index[&order.vip.ip()];
        if outcome == Outcome::Released && self.is_known_at(vip, index, mac) {
            self.vips[vip].claims.remove(&mac);
        }
        self.core
            .order_answered(now, order.interface, order.vip, order.peer, &fate);
        self.hear_news();
        self.obedience += 1;
    }

    /// Whether the core, or the kernel, knows that a member has a MAC.
    fn is_known_at(&self, vip: usize, member: usize, mac: Mac) -> bool {
        let Member {
            host, known_mac, ..
        } = &self.members[member];
        let confirmations = self.claim(vip).into_iter().flat_map(Claim::confirmations);
        *known_mac == Some(mac)
            || confirmations
                .filter(|confirmation| confirmation.peer.ip == host.ip)
                .any(|confirmation| confirmation.peer.mac == Some(mac))
    }

    fn let_go(&mut self, member: usize) {
        self.members[member].host.holds = None;
        if let Some((_, until @ None)) = self.holdings[member].last_mut() {
            *until = Some(self.now);
        }
    }

    /// What the core tells before the run ends, it tells truly and once.
    fn hear_news(&mut self) {
        for news in self.core.take_news() {
            assert_eq!(news.interface, self.above.index);
            let index = self.vip_index[&news.vip.ip()];
            assert_ne!(news.rivals, [], "who it is about is told");
            if !news.is_over {
                let watch = self.scenario.pace.conflict_watch;
                assert!(!watch.is_zero(), "nobody asked for a watch");
                self.vips[index].watched_until = Some(self.now + watch);
                continue;
            }
            let claim = self.claim(index).expect("it is about a claim");
            assert_eq!(claim.conflicts().next(), None, "it is not over");
            self.vips[index].watched_until = None;
            self.vips[index].conflicts_over += 1;
            if !self.scenario.pace.conflict_watch.is_zero() {
                let again = self.now + self.scenario.pace.timeout;
                self.end_at = self.end_at.max(again);
            }
            self.begin_anew(index);
        }
    }

    /// A run ends when it said, but for a conflict that it watches, and no later.
    fn check_ends_at(&self, ends_at: Duration) {
        let watched = self.vips.iter().filter_map(|vip| vip.watched_until);
        let latest = watched.fold(self.end_at, Duration::max);
        assert!(
            self.end_at <= ends_at && ends_at <= latest,
            "it would end at {ends_at:?}, not by {latest:?}"
        );
    }

    /// Where nothing is lost and every answer comes before the next question, nobody who has the
    /// VIP is ever taken to follow a wrong MAC; but another owner is ordered to let go of it.
    fn check_is_stale(&self, order: &DueOrder) {
        let member = &self.members[self.by_ip[&order.peer]];
        let holds = member.host.holds == Some(order.vip.ip());
        let certain = self.scenario.is_lossless() && self.scenario.is_prompt();
        assert!(
            !(order.stale && holds && member.host.on_lo && certain),
            "{} has {}, and is no stale peer: {:?}",
            order.peer,
            order.vip,
            self.truths[self.vip_index[&order.vip.ip()]][self.by_ip[&order.peer]]
        );
    }

    /// Whether a frame is one of a look at other owners; then it asks, and there was one.
    fn is_look(&self, transmit: &Transmit<Ticket>) -> Option<usize> {
        let claim = self.core.claim_of(transmit);
        let vip = self.vip_index[&claim.vip.ip()];
        let after_the_rounds = claim.is_certain_of_owners();
        let about_itself = match &transmit.frame.payload {
            Payload::Arp(arp) => arp.target_ip == claim.vip.ip(),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => ns.target == claim.vip.ip(),
                NdpMessage::Advertisement(_) => true,
            },
            Payload::Echo(_) => false,
        };
        if !after_the_rounds || !about_itself {
            return None;
        }
        let asks_from = match &transmit.frame.payload {
            Payload::Arp(arp) => IpAddr::from(arp.sender_ip),
            Payload::Ndp(ndp) => ndp.source.into(),
            Payload::Echo(echo) => echo.source,
        };
        assert!(
            [IpAddr::from([0; 4]), OWN6.into()].contains(&asks_from),
            "a look changes nobody's table: {:?}",
            transmit.frame
        );
        assert!(claim.conflicts().next().is_some(), "a look at nobody");
        Some(vip)
    }

    /// What happens between two frames of the same moment.
    fn interrupt(&mut self) {
        let sent = self.sent_at.len();
        let due: Vec<_> = self
            .scenario
            .happenings
            .iter()
            .filter_map(|(when, what)| match when {
                When::AfterFrame(frames) if *frames as usize == sent => Some(*what),
                _ => None,
            })
            .collect();
        for what in due {
            self.happens(what);
        }
    }

    /// No frame for an address that is not here, or not where it counts, from a link that is not
    /// up, with another MAC than the link's, or after the time is up.
    fn check_may_leave(&self, transmit: &Transmit<Ticket>) {
        let claim = self.core.claim_of(transmit);
        let vip = &self.vips[self.vip_index[&claim.vip.ip()]];
        assert!(
            vip.is_here() && !vip.left,
            "a frame after {} left, at {:?}",
            claim.vip,
            self.now
        );
        assert!(vip.is_usable(), "a frame before {} was usable", claim.vip);
        assert!(vip.found, "a frame for {}, which is elsewhere", claim.vip);
        assert!(
            self.above.carrier && !self.link_gone,
            "a frame on a dead link"
        );
        let to_a_peer = self.target(&transmit.frame) != claim.vip.ip()
            || matches!(transmit.frame.payload, Payload::Echo(_));
        let end = if to_a_peer {
            self.end_at
        } else {
            self.ends_at()
        };
        assert!(self.now < end, "a frame after the time was up");
        let mac = if transmit.interface == self.above.index {
            self.above.mac
        } else {
            self.base.mac
        };
        assert_eq!(
            Some(transmit.frame.source),
            mac,
            "the MAC is the link's, at {:?}",
            self.now
        );
    }

    /// The address that a frame of the announcer's is about.
    fn target(&self, frame: &Frame) -> IpAddr {
        match &frame.payload {
            Payload::Arp(arp) => arp.target_ip.into(),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => ns.target.into(),
                NdpMessage::Advertisement(na) => na.target.into(),
            },
            Payload::Echo(echo) => echo.destination,
        }
    }

    fn count(&mut self, transmit: &Transmit<Ticket>) {
        let vip = self.vip_index[&self.core.claim_of(transmit).vip.ip()];
        let vip_ip = self.scenario.vips[vip].ip;
        let target = self.target(&transmit.frame);
        assert_ne!(
            Some(target),
            self.scenario.offlink,
            "a frame to a peer that is offlink"
        );
        let Payload::Echo(echo) = transmit.frame.payload else {
            if target == vip_ip {
                self.broadcasts[vip] += 1;
            } else {
                let truth = &mut self.truths[vip][self.by_ip[&target]];
                truth.directed += 1;
                truth.directed_anew += 1;
            }
            return;
        };
        if target == vip_ip {
            let member = self.by_any_mac[&transmit.frame.destination];
            assert_eq!(echo.source, own(vip_ip), "a martian question");
            let truth = &mut self.truths[vip][member];
            assert!(truth.control, "a host that may ask back, from the VIP");
            truth.holders += 1;
            truth.holders_anew += 1;
            self.seen_holder = Some((echo, transmit.frame.clone()));
            return;
        }
        let truth = &mut self.truths[vip][self.by_ip[&target]];
        if echo.source == vip_ip {
            truth.echoes += 1;
            truth.echoes_anew += 1;
            self.seen_echo = Some((echo, transmit.frame.source));
        } else {
            truth.controls += 1;
        }
    }

    /// Whether nothing gets through to and from a member now.
    fn is_dark(&self, member: Option<usize>) -> bool {
        let within = |span: &(Duration, Duration)| span.0 <= self.now && self.now < span.1;
        self.now < self.scenario.port_opens
            || self.scenario.blackouts.iter().any(within)
            || member.is_some_and(|index| self.members[index].dark.as_ref().is_some_and(within))
    }

    fn arrival(&mut self) -> Duration {
        self.now + self.scenario.delay + self.rng.up_to(self.scenario.jitter)
    }

    fn copies(&mut self, lost: u64) -> u32 {
        if self.rng.permille(lost) {
            0
        } else {
            1 + u32::from(self.rng.permille(self.scenario.duplicated))
        }
    }

    /// A frame leaves the announcer's host.
    fn leave(&mut self, frame: Frame) {
        if frame.destination.octets()[0] & 1 == 1 {
            let at = self.arrival();
            self.note(at, Event::ToAll(frame, None));
        } else if let Some(index) = self.by_mac.get(&frame.destination).copied() {
            for _ in 0..self.copies(self.scenario.loss_out) {
                let at = self.arrival();
                self.note(at, Event::ToHost(index, frame.clone()));
            }
        }
    }

    /// A frame leaves a host.
    fn leave_host(&mut self, index: usize, frame: Frame) {
        let group = frame.destination.octets()[0] & 1 == 1;
        if self.is_dark(Some(index)) {
            return;
        }
        if group {
            let at = self.arrival();
            self.note(at, Event::ToAll(frame.clone(), Some(index)));
        } else if let Some(to) = self.by_mac.get(&frame.destination).copied() {
            let at = self.arrival();
            self.note(at, Event::ToHost(to, frame));
            return;
        }
        for _ in 0..self.copies(self.scenario.loss_in) {
            let at = self.arrival();
            self.note(at, Event::ToOwner(frame.clone(), Some(index)));
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ToAll(frame, sender) => {
                for index in 0..self.members.len() {
                    let lost = if sender.is_none() {
                        self.scenario.loss_out
                    } else {
                        0
                    };
                    if sender != Some(index) && !self.rng.permille(lost) {
                        self.reach(index, &frame);
                    }
                }
            }
            Event::ToHost(index, frame) => self.reach(index, &frame),
            Event::ToOwner(frame, from) => self.reach_owner(&frame, from),
            Event::Happens(what) => self.happens(what),
            Event::SeesAround => self.see_around(),
            Event::Ordered(order) => self.obey(order),
            Event::Obeyed(order, outcome) => self.hear_obedience(order, outcome),
        }
    }

    fn reach(&mut self, index: usize, frame: &Frame) {
        if self.is_dark(Some(index)) {
            return;
        }
        if let Some(proxy) = self.members[index].proxy {
            let ip = self.members[index].host.ip;
            let group = frame.destination.octets()[0] & 1 == 1;
            if answer_for(ip, proxy.mac, frame).is_some() && (group || proxy.absorbs) {
                for mac in std::iter::once(proxy.mac).chain(proxy.second) {
                    let answer = answer_for(ip, mac, frame).expect("it is a question");
                    for _ in 0..self.copies(self.scenario.loss_in) {
                        let at = self.arrival();
                        self.note(at, Event::ToOwner(answer.clone(), None));
                    }
                }
                if proxy.absorbs {
                    return;
                }
            }
        }
        for answer in self.members[index].host.receive(self.now, frame) {
            self.leave_host(index, answer);
        }
    }

    fn reach_owner(&mut self, frame: &Frame, from: Option<usize>) {
        if self.is_dark(from) || !self.above.carrier || self.link_gone {
            return;
        }
        let group = frame.destination.octets()[0] & 1 == 1;
        for interface in [self.above.clone(), self.base.clone()] {
            let reached = group || interface.mac == Some(frame.destination);
            // The base's frames come once where it is the VIPs' interface itself.
            if reached && (interface.index == self.above.index || self.scenario.vmac) {
                self.hand_over(&interface, frame, from);
            }
            if interface.index == BASE && !self.scenario.vmac {
                break;
            }
        }
        self.kernel_answers(frame);
    }

    fn hand_over(&mut self, on: &Link, frame: &Frame, from: Option<usize>) {
        if !self.listening.contains(&on.index) {
            return;
        }
        if on.index == self.above.index {
            self.note_claim(frame);
        }
        if let Some(index) = from {
            self.note_truth(on, frame, index);
        }
        if self.scenario.on_the_wire {
            let read = Frame::parse(&frame.to_bytes());
            assert_eq!(read.as_ref(), Some(frame), "it reads as it was written");
        }
        self.core.received(self.at(), on.index, frame);
    }

    /// Notes what a host's own frame proves.
    fn note_truth(&mut self, on: &Link, frame: &Frame, index: usize) {
        let ip = self.members[index].host.ip;
        let to_us = Some(frame.destination) == on.mac;
        let above = on.index == self.above.index;
        let mut held = None;
        let (destination, echo) = match &frame.payload {
            Payload::Arp(arp) if arp.operation == ArpOperation::Reply && arp.sender_ip == ip => {
                (IpAddr::from(arp.target_ip), false)
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Advertisement(na) if na.solicited && na.target == ip => {
                    (ndp.destination.into(), false)
                }
                _ => return,
            },
            Payload::Echo(echo) if echo.kind == EchoKind::Reply => {
                held = self.vip_index.get(&echo.source).copied();
                (echo.destination, true)
            }
            _ => return,
        };
        if !to_us {
            return;
        }
        if let Some(vip) = self.vip_index.get(&destination).copied().filter(|_| above) {
            let truth = &mut self.truths[vip][index];
            truth.heard = true;
            if echo {
                truth.followed = true;
            } else {
                truth.answered = true;
            }
        } else if destination != own(ip) {
            return;
        } else if let Some(vip) = held {
            self.truths[vip][index].holder = true;
        } else if echo {
            for truths in &mut self.truths {
                truths[index].control = true;
                truths[index].heard = true;
            }
        } else {
            return;
        }
        self.alive_since.get_or_insert(self.now);
    }

    /// Notes that someone says to have a VIP.
    fn note_claim(&mut self, frame: &Frame) {
        let (ip, mac) = match &frame.payload {
            Payload::Arp(arp) => (IpAddr::from(arp.sender_ip), arp.sender_mac),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => {
                    (ndp.source.into(), ns.source_lladdr.unwrap_or(frame.source))
                }
                NdpMessage::Advertisement(na) => {
                    (na.target.into(), na.target_lladdr.unwrap_or(frame.source))
                }
            },
            Payload::Echo(_) => return,
        };
        if let Some(index) = self.vip_index.get(&ip).copied() {
            self.vips[index]
                .claims
                .entry(mac)
                .or_default()
                .push(self.now);
        }
    }

    /// The announcer's own kernel answers who asks for an address that it has.
    fn kernel_answers(&mut self, frame: &Frame) {
        let target = match &frame.payload {
            Payload::Arp(arp) if arp.operation == ArpOperation::Request => arp.target_ip.into(),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => ns.target.into(),
                NdpMessage::Advertisement(_) => return,
            },
            _ => return,
        };
        let holds = |index: &usize| self.vips[*index].is_usable();
        let mac = if self.vip_index.get(&target).is_some_and(holds) {
            self.above.mac
        } else if target == own(target) {
            self.base.mac
        } else {
            return;
        };
        if let Some(answer) = mac.and_then(|mac| answer_for(target, mac, frame)) {
            self.leave(answer);
        }
    }

    /// The two prefix lengths that the entries of a VIP have.
    fn prefix_lengths(&self, index: usize) -> [u8; 2] {
        if self.scenario.vips[index].ip.is_ipv4() {
            [32, 24]
        } else {
            [128, 64]
        }
    }

    /// An entry of a VIP is here, or is gone.
    fn tell_entry(&mut self, index: usize, prefix_len: u8, usability: Option<Usability>) {
        let was_ready = self.is_ready(index);
        let wait = self.scenario.pace.wait;
        let now = self.now;
        let vip = &mut self.vips[index];
        let address = Address {
            ip: self.scenario.vips[index].ip,
            interface: self.above.index,
            prefix_len,
            usability: usability.unwrap_or(Usability::Usable),
        };
        if let Some(usability) = usability {
            // What was never held did not leave.
            let gone = vip.gone_since.take().filter(|_| vip.found);
            vip.left |= gone.is_some_and(|since| now - since > wait);
            vip.returned += u32::from(gone.is_some() && !vip.left);
            vip.entries.insert(prefix_len, usability);
            self.tell_links_of(&address);
            self.core.address_changed(self.at(), &address);
        } else {
            // Only an entry that was here can go.
            if vip.entries.remove(&prefix_len).is_some() && vip.entries.is_empty() {
                vip.gone_since = Some(now);
            }
            self.core.address_gone(self.at(), &address);
        }
        self.find(index);
        if !was_ready {
            self.became_ready(index);
        }
    }

    /// Tells the core of the interfaces that it has to know for an address, as the session does.
    fn tell_links_of(&mut self, address: &Address) {
        for _ in 0..2 {
            let link = match self.core.unknown_link_of(address) {
                Some(index) if index == self.above.index => self.above.clone(),
                Some(index) if index == self.base.index => self.base.clone(),
                Some(other) => panic!("{other:?} is unknown here, too"),
                None => break,
            };
            self.core.link_changed(self.at(), &link);
        }
        assert_eq!(self.core.unknown_link_of(address), None);
    }

    /// Whether the VIP is found, now or before.
    fn find(&mut self, index: usize) {
        let place = &self.scenario.vips[index].place;
        let counts = place.admits(&self.above, Some(&self.base).filter(|_| self.scenario.vmac));
        let vip = &mut self.vips[index];
        vip.found |= counts && vip.is_here() && self.above.up && !self.link_gone;
    }

    fn is_ready(&self, index: usize) -> bool {
        let vip = &self.vips[index];
        vip.is_usable() && vip.found && !vip.left && self.above.carrier && !self.link_gone
    }

    fn became_ready(&mut self, index: usize) {
        if self.is_ready(index) {
            self.vips[index].ready_since.get_or_insert(self.now);
            self.begin_anew(index);
        }
    }

    /// All rounds have to come again, and everybody has to prove itself again.
    fn begin_anew(&mut self, index: usize) {
        self.vips[index].starts += 1;
        self.broadcasts[index] = 0;
        for truth in &mut self.truths[index] {
            truth.start_over();
        }
    }

    /// All entries of the VIPs, as the kernel has them.
    fn entries(&self) -> Vec<Address> {
        let of = |(vip, told): (&PlannedVip, &VipTruth)| {
            let address = |(prefix_len, usability): (&u8, &Usability)| Address {
                ip: vip.ip,
                interface: self.above.index,
                prefix_len: *prefix_len,
                usability: *usability,
            };
            told.entries.iter().map(address).collect::<Vec<_>>()
        };
        self.scenario
            .vips
            .iter()
            .zip(&self.vips)
            .flat_map(of)
            .collect()
    }

    /// The host's own addresses, beside the VIPs.
    fn own_addresses() -> [Address; 2] {
        [(IpAddr::from(OWN4), 16), (OWN6.into(), 64)].map(|(ip, prefix_len)| Address {
            ip,
            interface: BASE,
            prefix_len,
            usability: Usability::Usable,
        })
    }

    fn happens(&mut self, what: Happening) {
        match what {
            // They happen where they can.
            Happening::Arrives(index) | Happening::Returns(index) if !self.link_gone => {
                let [first, _] = self.prefix_lengths(index);
                self.tell_entry(index, first, Some(Usability::Usable));
            }
            Happening::ReturnsTentative(index) if !self.link_gone => {
                let [first, _] = self.prefix_lengths(index);
                self.tell_entry(index, first, Some(Usability::Tentative));
            }
            Happening::BecomesUsable(index) if !self.link_gone => {
                self.tell_all_entries(index, Usability::Usable);
            }
            Happening::DadFails(index) if !self.link_gone => {
                self.tell_all_entries(index, Usability::DadFailed);
            }
            Happening::Gains(index) if !self.link_gone => {
                let [_, second] = self.prefix_lengths(index);
                self.tell_entry(index, second, Some(Usability::Usable));
            }
            Happening::Loses(index) => {
                let [_, second] = self.prefix_lengths(index);
                self.tell_entry(index, second, None);
            }
            Happening::LosesFirst(index) => {
                let [first, _] = self.prefix_lengths(index);
                self.tell_entry(index, first, None);
            }
            Happening::Leaves(index) => {
                for prefix_len in self.prefix_lengths(index) {
                    self.tell_entry(index, prefix_len, None);
                }
            }
            Happening::Overrun => {
                let mut all = Self::own_addresses().to_vec();
                all.extend(self.entries());
                self.core.addresses_are(self.at(), &all);
            }
            Happening::CarrierLost { .. } | Happening::CarrierBack if !self.link_gone => {
                let is_back = matches!(what, Happening::CarrierBack);
                let up = !matches!(what, Happening::CarrierLost { down: true });
                let changes = self.above.carrier != is_back;
                for link in [&mut self.above, &mut self.base] {
                    (link.up, link.carrier) = (up, is_back);
                }
                self.tell_links();
                for index in 0..self.vips.len() {
                    self.find(index);
                }
                if changes {
                    self.restart();
                }
            }
            Happening::MacChanges(mac) if !self.link_gone => {
                self.by_mac.remove(&mac);
                self.base.mac = Some(mac);
                if !self.scenario.vmac {
                    self.above.mac = Some(mac);
                }
                self.tell_links();
                // As the kernel does (arp_notify), and the hosts in time by themselves.
                for member in &mut self.members {
                    let own = own(member.host.ip);
                    member.host.set(own, Entry::Known(mac, self.now));
                }
                if !self.scenario.vmac {
                    for vip in &mut self.vips {
                        vip.macs += 1;
                    }
                    self.restart();
                }
            }
            Happening::LinkGone => {
                self.link_gone = true;
                self.core.link_gone(self.at(), self.above.index);
                for vip in &mut self.vips {
                    if vip.is_here() {
                        vip.gone_since = Some(self.now);
                    }
                    vip.entries.clear();
                }
            }
            Happening::OldOwnerClaims(index) => self.claim_by(OLD_OWNER, index, None),
            Happening::RivalClaims(member) => {
                let host = &self.members[member].host;
                let index = host.holds.and_then(|ip| self.vip_index.get(&ip).copied());
                if let Some(index) = index {
                    self.claim_by(host.mac, index, Some(member));
                }
            }
            Happening::RivalLetsGo(member) => self.let_go(member),
            Happening::RivalReturns(member) => {
                let index = self.held_by[member].expect("it had a VIP");
                let host = &mut self.members[member].host;
                host.holds = Some(self.scenario.vips[index].ip);
                let mac = host.mac;
                self.holdings[member].push((self.now, None));
                self.claim_by(mac, index, Some(member));
            }
            Happening::Stray => self.stray(),
            _ => {}
        }
    }

    fn tell_links(&mut self) {
        let (above, base) = (self.above.clone(), self.base.clone());
        self.core.link_changed(self.at(), &base);
        self.core.link_changed(self.at(), &above);
    }

    /// What is known of each entry of a VIP that is here.
    fn tell_all_entries(&mut self, index: usize, usability: Usability) {
        for prefix_len in self.prefix_lengths(index) {
            if self.vips[index].entries.contains_key(&prefix_len) {
                self.tell_entry(index, prefix_len, Some(usability));
            }
        }
    }

    fn restart(&mut self) {
        self.alive_since = None;
        for index in 0..self.vips.len() {
            self.became_ready(index);
        }
    }

    /// Another host announces a VIP.
    fn claim_by(&mut self, mac: Mac, index: usize, member: Option<usize>) {
        let frame = match self.scenario.vips[index].ip {
            IpAddr::V4(vip) => Arp::gratuitous_request(vip, mac),
            IpAddr::V6(vip) => Ndp::unsolicited_advertisement(vip, mac, false),
        };
        let at = self.arrival();
        self.note(at, Event::ToAll(frame.clone(), member));
        self.note(at, Event::ToOwner(frame, member));
    }

    /// A frame that would confirm something if one thing about it were right. Whatever it is, it
    /// is handed over as if the port had let it through.
    fn stray(&mut self) {
        if self.members.is_empty() || !self.listening.contains(&self.above.index) {
            return;
        }
        let index = self.rng.index(self.members.len());
        let (ip, mac) = (self.members[index].host.ip, self.members[index].host.mac);
        let vips: Vec<_> = self.scenario.vips.iter().map(|vip| vip.ip).collect();
        let vip = vips[index % vips.len()];
        let announced = self.above.mac.unwrap_or(Mac::ZERO);
        let other = Mac::new([2, 0, 0, 9, 9, 9]);
        let wrong = self.rng.below(6);
        let question = match (vip, ip) {
            (IpAddr::V4(vip), IpAddr::V4(ip)) => Arp::directed_request(vip, announced, ip, None),
            (IpAddr::V6(vip), IpAddr::V6(ip)) => {
                Ndp::directed_solicitation(vip, announced, ip, None)
            }
            _ => return,
        };
        let mut frame = answer_for(ip, mac, &question).expect("it is a question");
        match (&mut frame.payload, wrong) {
            (_, 0) => frame.destination = other,
            (_, 1) => {
                frame.destination = if ip.is_ipv4() {
                    Mac::BROADCAST
                } else {
                    ALL_NODES
                }
            }
            (Payload::Arp(arp), 2) => arp.target_mac = other,
            (Payload::Arp(arp), 3) => arp.operation = ArpOperation::Request,
            (Payload::Arp(arp), 4) => arp.target_ip = OWN4,
            (Payload::Arp(_), _) => frame.source = other,
            (Payload::Ndp(ndp), 2) => ndp.destination = OWN6,
            (Payload::Ndp(ndp), 3 | 4) => {
                if let NdpMessage::Advertisement(na) = &mut ndp.message {
                    na.solicited = false;
                }
            }
            _ => {}
        }
        let unchanged = Some(&frame) == answer_for(ip, mac, &question).as_ref();
        if !unchanged {
            self.core.received(self.at(), self.above.index, &frame);
        }
        self.stray_holder(wrong);
        let Some((echo, echo_mac)) = self.seen_echo else {
            return;
        };
        // The last echo that was seen, as the asked host would answer it but for one thing.
        let Some(asked) = self.by_ip.get(&echo.destination).copied() else {
            return;
        };
        let mut reply = Echo {
            source: echo.destination,
            destination: echo.source,
            kind: EchoKind::Reply,
            ..echo
        };
        let mut frame = Frame {
            destination: echo_mac,
            source: self.members[asked].host.mac,
            payload: Payload::Echo(reply),
        };
        match wrong {
            0 => frame.destination = other,
            1 => frame.source = other,
            2 => reply.identifier ^= 1,
            3 => reply.sequence = reply.sequence.wrapping_add(0x4000),
            4 => reply.kind = EchoKind::Request,
            _ => reply.sequence = reply.sequence.wrapping_sub(0x4000),
        }
        frame.payload = Payload::Echo(reply);
        self.core.received(self.at(), self.above.index, &frame);
    }

    /// The last echo to a VIP, as a host that has the VIP would answer it but for one thing.
    fn stray_holder(&mut self, wrong: u64) {
        let Some((echo, question)) = self.seen_holder.clone() else {
            return;
        };
        let other = Mac::new([2, 0, 0, 9, 9, 9]);
        let mut reply = Echo {
            source: echo.destination,
            destination: echo.source,
            kind: EchoKind::Reply,
            ..echo
        };
        let (mut source, mut destination) = (question.destination, question.source);
        match wrong {
            0 => destination = other,
            1 => source = other,
            2 => reply.identifier ^= 1,
            3 => reply.sequence = reply.sequence.wrapping_add(0x4000),
            4 => reply.kind = EchoKind::Request,
            _ => reply.destination = echo.destination,
        }
        let frame = Frame {
            destination,
            source,
            payload: Payload::Echo(reply),
        };
        self.core.received(self.at(), BASE, &frame);
    }

    /// The kernel's tables are read.
    fn see_around(&mut self) {
        self.looking_around = false;
        if self.link_gone {
            return;
        }
        let mut above = LinkView::of(self.above.clone());
        above.addresses = self.entries();
        let mut base = if self.scenario.vmac {
            LinkView::of(self.base.clone())
        } else {
            above.clone()
        };
        base.addresses.extend(Self::own_addresses());
        let mut configured: Vec<_> = self.scenario.offlink.into_iter().collect();
        for member in &self.members {
            match member.source {
                Source::Gateway => base.gateways.push(member.host.ip),
                Source::Configured => configured.push(member.host.ip),
                Source::Learned => {}
            }
            if member.known_mac.is_some() {
                base.neighbours.push(Neighbour {
                    ip: member.host.ip,
                    mac: member.known_mac,
                    state: NeighbourState::Stale,
                    externally_learned: false,
                });
            }
        }
        let mut views = vec![base];
        if self.scenario.vmac {
            views.push(above);
        }
        for around in &views {
            self.core.link_changed(self.at(), &around.link);
        }
        let host = HostSnapshot {
            links: views.iter().map(|one| one.link.clone()).collect(),
            addresses: views.iter().flat_map(|one| one.addresses.clone()).collect(),
        };
        self.core
            .links_are(self.at(), &views, &host, &configured, Confirm::All);
    }

    pub(crate) fn claim(&self, vip: usize) -> Option<&Claim> {
        let ip = self.scenario.vips[vip].ip;
        self.core.claims().iter().find(|claim| claim.vip.ip() == ip)
    }

    pub(crate) fn verdicts(&self) -> Vec<PeerVerdict> {
        let claims = self.core.claims().iter();
        claims
            .flat_map(|claim| {
                let confirmations = claim.confirmations().iter();
                confirmations.map(|one| claim.verdict_of(one))
            })
            .collect()
    }

    /// When the run ends at the latest.
    pub(crate) fn ends_at(&self) -> Duration {
        self.since_start(self.core.ends_at())
    }

    pub(crate) fn since_start(&self, at: Instant) -> Duration {
        at.duration_since(self.start)
    }

    pub(crate) fn announced_mac(&self) -> Option<Mac> {
        self.above.mac
    }

    pub(crate) fn questions_to_rule_out_chance(&self) -> Option<u32> {
        self.core.questions_to_rule_out_chance(self.above.index)
    }

    pub(crate) fn member(&self, ip: IpAddr) -> Option<usize> {
        self.by_ip.get(&ip).copied()
    }
}

/// What whoever has `ip` at `mac` answers to a question for it.
fn answer_for(ip: IpAddr, mac: Mac, question: &Frame) -> Option<Frame> {
    let mut host = crate::peer::Host::new(ip, mac);
    let asker = match &question.payload {
        Payload::Arp(arp) if arp.operation == ArpOperation::Request && ip == arp.target_ip => {
            IpAddr::from(arp.sender_ip)
        }
        Payload::Ndp(ndp) => match ndp.message {
            NdpMessage::Solicitation(ns) if ip == ns.target => IpAddr::from(ndp.source),
            _ => return None,
        },
        _ => return None,
    };
    if asker == ip {
        return None;
    }
    let mut heard = question.clone();
    if heard.destination.octets()[0] & 1 == 0 {
        heard.destination = mac;
    }
    host.receive(Duration::ZERO, &heard).pop()
}
