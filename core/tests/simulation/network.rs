//! The link between the announcer and the hosts, and a driver of the core. Like the real driver, it
//! passes every change and received frame to the core before it asks for a frame to send.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, DueOrder, News};
use vipherald_core::ask::{Asker, Confirm, LinkView, PeerVerdict, Refusal, Source, Transmit};
use vipherald_core::host::{
    Address, HostSnapshot, Link, Neighbour, NeighbourState, PlacedVip, Usability,
};
use vipherald_core::order::{Done, Fate, Outcome};
use vipherald_core::wire::{
    ALL_NODES, Arp, ArpOperation, Echo, EchoKind, Frame, Header, Ndp, NdpMessage, Payload, Token,
};

use crate::peer::{Entry, Host, is_group};
use crate::rng::Rng;
use crate::scenario::{
    BASE_NAME, Beginning, Happening, Member, OLD_OWNER, OWN_LINK_LOCAL, OWN_MAC, OWN4, OWN6,
    Scenario, VIRTUAL_MAC, VMAC_NAME, When,
};

pub(crate) const BASE: InterfaceIndex = InterfaceIndex(2);
pub(crate) const VMAC: InterfaceIndex = InterfaceIndex(3);
/// The time after which a lost order is repeated.
const ORDER_GAP: Duration = Duration::from_millis(250);
/// More steps than any run needs: a run that takes them makes no progress.
const MOST_STEPS: u64 = 5_000_000;
/// Who forges frames.
const ADVERSARY: Mac = Mac::new([2, 0, 0, 6, 6, 6]);

enum Event {
    /// A broadcast or multicast frame reaches every host except its sender.
    ToAll(Frame, Option<usize>),
    ToHost(usize, Frame),
    /// A frame reaches the announcer, from this host unless it is forged.
    ToOwner(Frame, Option<usize>),
    Happens(Happening),
    ReadsTables,
    /// An order reaches its peer.
    OrderArrives(DueOrder),
    /// The answer to an order reaches the announcer.
    OrderAnswered(DueOrder, Outcome),
}

/// What really happened between one VIP and one member.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Truth {
    /// The member answered an echo from the VIP. Its own table directed the reply here.
    pub(crate) followed: bool,
    /// It answered a directed request.
    pub(crate) answered: bool,
    /// It answered a control echo.
    pub(crate) control: bool,
    /// How many such answers came.
    pub(crate) control_answers: u32,
    /// Its table directed a packet for the VIP here.
    pub(crate) traffic: bool,
    /// The old owner forwarded a reply of its.
    pub(crate) forwarded: bool,
    /// Somebody forged an answer of its to a directed request, or a packet of its for the VIP.
    pub(crate) forged_answer: bool,
    pub(crate) forged_traffic: bool,
    /// It answered an echo to the VIP.
    pub(crate) holder: bool,
    /// It answered anything, ever.
    pub(crate) ever_answered: bool,
    /// Frames to the member, by kind.
    pub(crate) directed: u32,
    pub(crate) echoes: u32,
    pub(crate) controls: u32,
    pub(crate) holders: u32,
    /// The same, since all questions last started over.
    pub(crate) directed_since_start: u32,
    pub(crate) echoes_since_start: u32,
    pub(crate) holders_since_start: u32,
}

impl Truth {
    fn start_over(&mut self) {
        *self = Self {
            ever_answered: self.ever_answered,
            directed: self.directed,
            echoes: self.echoes,
            controls: self.controls,
            holders: self.holders,
            forged_answer: self.forged_answer,
            forged_traffic: self.forged_traffic,
            ..Self::default()
        };
    }

    pub(crate) fn frames(&self) -> u32 {
        self.directed + self.echoes + self.controls + self.holders
    }
}

/// What really happened to one VIP.
#[derive(Clone, Debug, Default)]
pub(crate) struct VipTruth {
    /// The kernel's entries, by prefix length.
    pub(crate) entries: BTreeMap<u8, Usability>,
    /// When the last entry left.
    pub(crate) gone_since: Option<Duration>,
    /// The times at which the last entry left.
    pub(crate) lefts: Vec<Duration>,
    /// How often it came back in time.
    pub(crate) returned: u32,
    /// It was gone for longer than a run waits.
    pub(crate) left: bool,
    /// It was where it counts, on an interface that was up.
    pub(crate) found: bool,
    pub(crate) ready_since: Option<Duration>,
    /// The times at which a claim reached the announcer while it had the VIP, by the claimant's MAC.
    pub(crate) claims: BTreeMap<Mac, Vec<Duration>>,
    /// When a claimant last answered an order that it has let the VIP go. The core may not know that it
    /// has this MAC.
    pub(crate) released: BTreeMap<Mac, Duration>,
    /// Probes for other owners after the rounds.
    pub(crate) looks: Vec<Duration>,
    /// The end of the watch for other owners.
    pub(crate) watched_until: Option<Duration>,
    /// How often the core reported that no other owner is left.
    pub(crate) conflicts_over: u32,
    /// Starts of the rounds because of this host, or of the end of a conflict.
    pub(crate) starts: u32,
    /// Changes of the MAC.
    pub(crate) macs: u32,
    /// When the announcements left, gratuitous requests or advertisements, since the last start.
    pub(crate) announced: Vec<Duration>,
    /// When the last ARP frames of the rounds left, since they last started over.
    pub(crate) arp_frames: VecDeque<Duration>,
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

/// The time span in which a member had a VIP.
type Holding = (Duration, Option<Duration>);

pub(crate) struct Network {
    pub(crate) scenario: Scenario,
    pub(crate) core: Announcement,
    pub(crate) now: Duration,
    pub(crate) members: Vec<Member>,
    /// By VIP, then by member.
    pub(crate) truths: Vec<Vec<Truth>>,
    pub(crate) vips: Vec<VipTruth>,
    /// By member.
    pub(crate) holdings: Vec<Vec<Holding>>,
    /// When the questions to peers end.
    pub(crate) end_at: Duration,
    pub(crate) sent_at: Vec<Duration>,
    /// Frames of the rounds since their last start, by VIP.
    pub(crate) broadcasts: Vec<u32>,
    /// The first frame of another host, and the first answer, since the path was last new.
    pub(crate) alive_since: Option<Duration>,
    pub(crate) answered_since: Option<Duration>,
    /// Whether any answer or packet was forged.
    pub(crate) forged: bool,
    pub(crate) orders_answered: u32,
    /// Orders without an answer so far.
    orders_out: u32,
    start: Instant,
    rng: Rng,
    base: Link,
    above: Link,
    link_gone: bool,
    by_mac: HashMap<Mac, usize>,
    /// The members by every MAC that may answer for them.
    by_any_mac: HashMap<Mac, usize>,
    /// The VIP that a member has or had.
    held_by: Vec<Option<usize>>,
    by_ip: HashMap<IpAddr, usize>,
    vip_index: HashMap<IpAddr, usize>,
    events: BinaryHeap<Reverse<(Duration, u64, usize)>>,
    store: Vec<Option<Event>>,
    scheduled: u64,
    listening: BTreeSet<InterfaceIndex>,
    reading_tables: bool,
    seen_echo: Option<(Echo, Mac)>,
    /// The VIPs of the control echoes, by nonce.
    controls: HashMap<u64, usize>,
    /// The last echo to a VIP, and its frame.
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

/// Whether the announcer's host has this address besides the VIPs.
fn is_own(ip: IpAddr) -> bool {
    [OWN4.into(), OWN6.into(), OWN_LINK_LOCAL.into()].contains(&ip)
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
            let of_host = [
                Some(member.host.mac),
                member.host.virtual_mac,
                member.known_mac,
            ];
            let macs = of_proxy.chain(of_host);
            macs.flatten().map(|mac| (mac, index)).collect::<Vec<_>>()
        };
        let mut network = Self {
            core: Announcement::new(&vips, scenario.pace, scenario.seed, start),
            now: Duration::ZERO,
            truths: vec![vec![Truth::default(); members.len()]; vips.len()],
            vips: vec![VipTruth::default(); vips.len()],
            holdings: members
                .iter()
                .map(|member| Vec::from_iter(member.host.holds.map(|_| (Duration::ZERO, None))))
                .collect(),
            end_at: scenario.pace.timeout,
            sent_at: Vec::new(),
            broadcasts: vec![0; vips.len()],
            alive_since: None,
            answered_since: None,
            forged: false,
            orders_answered: 0,
            orders_out: 0,
            start,
            rng: Rng::new(scenario.seed ^ 0xc4a2),
            base,
            above,
            link_gone: false,
            by_mac: members
                .iter()
                .zip(0..)
                .flat_map(|(member, index)| {
                    let macs = [Some(member.host.mac), member.host.virtual_mac];
                    macs.into_iter().flatten().map(move |mac| (mac, index))
                })
                .collect(),
            by_any_mac: members.iter().enumerate().flat_map(every_mac).collect(),
            held_by: members
                .iter()
                .map(|member| member.host.holds.map(|vip| vip_index[&vip]))
                .collect(),
            by_ip: members
                .iter()
                .zip(0..)
                .flat_map(|(member, index)| {
                    let ips = [Some(member.host.ip), member.host.link_local];
                    ips.into_iter().flatten().map(move |ip| (ip, index))
                })
                .collect(),
            vip_index,
            events: BinaryHeap::new(),
            store: Vec::new(),
            scheduled: 0,
            listening: BTreeSet::new(),
            reading_tables: false,
            seen_echo: None,
            controls: HashMap::new(),
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
                self.schedule(at, Event::Happens(what));
            }
        }
        let above = self.above.clone();
        self.core.link_changed(self.start, &above);
        for address in Self::own_addresses() {
            self.core.address_changed(self.start, &address);
        }
        for (index, vip) in self.scenario.vips.clone().into_iter().enumerate() {
            let usability = match vip.beginning {
                Beginning::Usable => Usability::Usable,
                Beginning::Tentative => Usability::Tentative,
                Beginning::Absent => continue,
            };
            self.set_entry(index, 0, Some(usability));
            if vip.twice {
                self.set_entry(index, 1, Some(usability));
            }
        }
    }

    /// Runs to the end.
    pub(crate) fn play(&mut self) {
        for step in 0.. {
            assert!(step < MOST_STEPS, "no progress at {:?}", self.now);
            self.send_due();
            self.send_orders();
            let over = self.core.is_over(self.at());
            let ends_at = self.ends_at();
            self.check_ends_at(ends_at);
            if over && (self.orders_out == 0 || self.now >= ends_at) {
                return;
            }
            if self.core.awaits_peers() && !self.reading_tables {
                self.reading_tables = true;
                self.schedule(self.now + self.scenario.table_delay, Event::ReadsTables);
            }
            // A core that is over waits only for answers to orders.
            let deadline = if over {
                ends_at
            } else {
                let deadline = self.core.next_deadline(self.at());
                deadline.duration_since(self.start)
            };
            assert!(
                deadline > self.now,
                "a deadline in the past, at {:?}",
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

    fn schedule(&mut self, at: Duration, event: Event) {
        self.store.push(Some(event));
        self.events
            .push(Reverse((at, self.scheduled, self.store.len() - 1)));
        self.scheduled += 1;
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
            self.check_news();
            let Some(transmit) = transmit else {
                return;
            };
            self.check_may_leave(&transmit);
            let looks = self.is_look(&transmit);
            if self.rng.permille(self.scenario.refused) {
                self.core
                    .refused(self.at(), &transmit, Refusal::Other("ENOBUFS".to_owned()));
                continue;
            }
            let is_arp = matches!(transmit.frame.payload, Payload::Arp(_));
            if is_arp && self.rng.permille(self.scenario.over_budget) {
                let frees = self.now + self.rng.up_to(Duration::from_millis(300));
                self.core
                    .over_budget(self.at(), &transmit, self.start + frees);
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
            self.check_octets(&transmit.frame);
            self.leave(transmit.frame);
        }
    }

    /// Checks the round trip of a frame through octets, in some runs.
    fn check_octets(&self, frame: &Frame) {
        let is_parsed = !matches!(frame.payload, Payload::Mld(_));
        if self.scenario.on_the_wire && is_parsed {
            assert_eq!(Frame::parse(&frame.to_bytes()).as_ref(), Some(frame));
        }
    }

    /// Sends orders to the hosts that listen, and repeats them until one arrives.
    fn send_orders(&mut self) {
        for order in self.core.take_due_orders() {
            self.check_is_stale(&order);
            let listens = |index: &usize| self.members[*index].listens;
            if self.by_ip.get(&order.peer).is_some_and(listens) {
                self.orders_out += 1;
                let at = self.arrival();
                self.schedule(at, Event::OrderArrives(order));
            }
        }
    }

    fn execute_order(&mut self, order: DueOrder) {
        // Like the real driver: no order for a VIP that this host no longer announces.
        let (interface, vip, mac) = (order.interface, order.vip, order.mac);
        if !self.core.announces(interface, vip, mac) {
            self.orders_out -= 1;
            return;
        }
        let index = self.by_ip[&order.peer];
        let lost =
            self.rng.permille(self.scenario.loss_out) || self.now < self.scenario.orders_from;
        if lost || self.is_dark(Some(index)) || self.members[index].host.habits.dead {
            self.schedule(self.now + ORDER_GAP, Event::OrderArrives(order));
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
        self.schedule(at, Event::OrderAnswered(order, outcome));
    }

    fn on_order_answer(&mut self, order: DueOrder, outcome: Outcome) {
        let index = self.by_ip[&order.peer];
        if self.rng.permille(self.scenario.loss_in) || self.is_dark(Some(index)) {
            self.schedule(self.now + ORDER_GAP, Event::OrderAnswered(order, outcome));
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
        if outcome == Outcome::Released {
            self.vips[vip].released.insert(mac, self.now);
        }
        self.core
            .order_answered(now, order.interface, order.vip, order.peer, &fate);
        self.check_news();
        self.orders_answered += 1;
    }

    fn let_go(&mut self, member: usize) {
        self.members[member].host.holds = None;
        if let Some((_, until @ None)) = self.holdings[member].last_mut() {
            *until = Some(self.now);
        }
    }

    /// Checks that the core tells only what is true, and the ends of conflicts once.
    fn check_news(&mut self) {
        for news in self.core.take_news(self.at()) {
            let claims = self.core.claims();
            match news {
                News::Announced(told) | News::PathSilent(told) => {
                    assert!(told.iter().all(|at| claims[*at].frames_sent > 0));
                }
                News::Blocked(at) => assert!(claims[at].is_blocked()),
                News::NotFollowing(at, peer) => {
                    let verdict = claims[at].verdict_of(&claims[at].confirmations()[peer]);
                    assert!(matches!(verdict, PeerVerdict::Stale | PeerVerdict::Silent));
                }
                News::Follows(at, peer) => {
                    assert!(claims[at].confirmations()[peer].settled().is_some());
                }
                News::Conflict(at, owners) => {
                    let present: Vec<_> = claims[at].conflicts().collect();
                    assert!(!owners.is_empty() && owners.iter().all(|mac| present.contains(mac)));
                }
                News::ConflictWatched(at, owners) => {
                    assert_ne!(owners, [], "news without other owners");
                    let watch = self.scenario.pace.conflict_watch;
                    assert!(!watch.is_zero(), "no watch is configured");
                    let index = self.vip_index[&claims[at].vip.ip()];
                    self.vips[index].watched_until = Some(self.now + watch);
                }
                News::ConflictOver(at, owners) => {
                    assert_ne!(owners, [], "news without other owners");
                    let claim = &claims[at];
                    assert_eq!(claim.conflicts().next(), None, "the conflict is not over");
                    let index = self.vip_index[&claim.vip.ip()];
                    self.vips[index].watched_until = None;
                    self.vips[index].conflicts_over += 1;
                    if !self.scenario.pace.conflict_watch.is_zero() {
                        let again = self.now + self.scenario.pace.timeout;
                        self.end_at = self.end_at.max(again);
                    }
                    self.start_rounds(index);
                }
            }
        }
    }

    /// Checks the end that the core states: it may only be later because of a watched conflict.
    fn check_ends_at(&self, ends_at: Duration) {
        let watched = self.vips.iter().filter_map(|vip| vip.watched_until);
        let latest = watched.fold(self.end_at, Duration::max);
        assert!(
            self.end_at <= ends_at && ends_at <= latest,
            "it would end at {ends_at:?}, not by {latest:?}"
        );
    }

    /// Without losses and delays, the core never treats a host with the VIP on `lo` as stale. (It
    /// does send orders to another owner.)
    fn check_is_stale(&self, order: &DueOrder) {
        let member = &self.members[self.by_ip[&order.peer]];
        let holds = member.host.holds == Some(order.vip.ip());
        let certain = self.scenario.is_lossless() && self.scenario.is_prompt();
        assert!(
            !(order.stale && holds && member.host.on_lo && certain),
            "{} has {}, and is not stale: {:?}",
            order.peer,
            order.vip,
            self.truths[self.vip_index[&order.vip.ip()]][self.by_ip[&order.peer]]
        );
    }

    /// The VIP, if a frame is a probe for other owners after the rounds. Checks that the probe
    /// changes no table, and that there is another owner.
    fn is_look(&self, transmit: &Transmit) -> Option<usize> {
        let claim = self.core.claim_of(transmit);
        if !claim.is_certain_of_owners() || !is_of_rounds(&transmit.frame, claim) {
            return None;
        }
        let source = match &transmit.frame.payload {
            Payload::Arp(arp) => IpAddr::from(arp.sender_ip),
            Payload::Ndp(ndp) => ndp.source.into(),
            Payload::Echo(echo) => echo.source,
            Payload::Mld(report) => report.source.into(),
        };
        assert!(
            [IpAddr::from([0; 4]), OWN4.into(), OWN6.into()].contains(&source),
            "a probe that changes tables: {:?}",
            transmit.frame
        );
        assert!(claim.conflicts().next().is_some(), "no other owner");
        Some(self.vip_index[&claim.vip.ip()])
    }

    /// What happens between two frames of the same moment.
    fn interrupt(&mut self) {
        let sent = self.sent_at.len();
        for (when, what) in self.scenario.happenings.clone() {
            if matches!(when, When::AfterFrame(frames) if frames as usize == sent) {
                self.happens(what);
            }
        }
    }

    /// Checks that no frame leaves for a VIP that is absent or not where it counts, from a link
    /// that is down, with a MAC that is not the link's, or after the end.
    fn check_may_leave(&self, transmit: &Transmit) {
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
        let end = if is_of_rounds(&transmit.frame, claim) {
            self.ends_at()
        } else {
            self.end_at
        };
        assert!(self.now < end, "a frame after the end");
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

    fn count(&mut self, transmit: &Transmit) {
        let vip = self.vip_index[&self.core.claim_of(transmit).vip.ip()];
        let vip_ip = self.scenario.vips[vip].ip;
        if is_of_rounds(&transmit.frame, self.core.claim_of(transmit)) {
            self.count_broadcast(vip, &transmit.frame);
            return;
        }
        let target = target(&transmit.frame);
        assert_ne!(
            Some(target),
            self.scenario.offlink,
            "a frame to a peer that is offlink"
        );
        let Payload::Echo(echo) = transmit.frame.payload else {
            let truth = &mut self.truths[vip][self.by_ip[&target]];
            truth.directed += 1;
            truth.directed_since_start += 1;
            return;
        };
        if target == vip_ip {
            // A forged ARP answer may have given a peer an adversary's MAC.
            let Some(member) = self.by_any_mac.get(&transmit.frame.destination).copied() else {
                return;
            };
            assert!(is_own(echo.source), "a martian source");
            let truth = &mut self.truths[vip][member];
            assert!(truth.control, "the host may have to resolve our address");
            truth.holders += 1;
            truth.holders_since_start += 1;
            self.seen_holder = Some((echo, transmit.frame.clone()));
            return;
        }
        let truth = &mut self.truths[vip][self.by_ip[&target]];
        if echo.source == vip_ip {
            truth.echoes += 1;
            truth.echoes_since_start += 1;
            self.seen_echo = Some((echo, transmit.frame.source));
        } else {
            truth.controls += 1;
            self.controls.insert(echo.token.nonce, vip);
        }
    }

    /// Counts a frame of the rounds. Checks that no second has more than nine ARP frames of a VIP.
    fn count_broadcast(&mut self, vip: usize, frame: &Frame) {
        self.broadcasts[vip] += 1;
        let looks = self.claim(vip).is_some_and(Claim::is_certain_of_owners);
        let truth = &mut self.vips[vip];
        let announces = match &frame.payload {
            Payload::Arp(arp) => {
                arp.sender_ip == arp.target_ip && arp.operation == ArpOperation::Request
            }
            Payload::Ndp(ndp) => matches!(ndp.message, NdpMessage::Advertisement(_)),
            Payload::Echo(_) | Payload::Mld(_) => false,
        };
        // A round may repeat its announcement at once.
        if announces && truth.announced.last() != Some(&self.now) {
            truth.announced.push(self.now);
        }
        if matches!(frame.payload, Payload::Arp(_)) && !looks {
            truth.arp_frames.push_back(self.now);
            if truth.arp_frames.len() > 9 {
                let first = truth.arp_frames.pop_front();
                let within = first.map(|first| self.now - first);
                assert!(
                    within >= Some(Duration::from_secs(1)),
                    "ten ARP frames in {within:?}, until {:?}",
                    self.now
                );
            }
        }
    }

    /// Whether no frame reaches or leaves a member now.
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
        let from = match &frame.payload {
            Payload::Arp(arp) => arp.sender_ip.into(),
            Payload::Ndp(ndp) => ndp.source.into(),
            Payload::Echo(echo) => echo.source,
            Payload::Mld(report) => report.source.into(),
        };
        if self.scenario.blocked && self.vip_index.contains_key(&from) {
            return;
        }
        if is_group(&frame) {
            let at = self.arrival();
            self.schedule(at, Event::ToAll(frame, None));
        } else if let Some(index) = self.by_mac.get(&frame.destination).copied() {
            for _ in 0..self.copies(self.scenario.loss_out) {
                let at = self.arrival();
                self.schedule(at, Event::ToHost(index, frame.clone()));
            }
        }
    }

    /// A frame leaves a host.
    fn leave_host(&mut self, index: usize, frame: Frame) {
        if self.is_dark(Some(index)) {
            return;
        }
        if is_group(&frame) {
            let at = self.arrival();
            self.schedule(at, Event::ToAll(frame.clone(), Some(index)));
        } else if let Some(to) = self.by_mac.get(&frame.destination).copied() {
            let at = self.arrival();
            self.schedule(at, Event::ToHost(to, frame));
            return;
        } else if frame.destination == OLD_OWNER {
            self.reach_old_owner(index, &frame);
            return;
        }
        for _ in 0..self.copies(self.scenario.loss_in) {
            let at = self.arrival();
            self.schedule(at, Event::ToOwner(frame.clone(), Some(index)));
        }
    }

    /// The old owner may forward a packet for a VIP that it no longer has.
    fn reach_old_owner(&mut self, from: usize, frame: &Frame) {
        let (Payload::Echo(echo), Some(mac)) = (&frame.payload, self.above.mac) else {
            return;
        };
        let vip = self.vip_index.get(&echo.destination).copied();
        if let Some(vip) = vip.filter(|_| self.scenario.old_owner_forwards) {
            self.truths[vip][from].forwarded = true;
            let mut echo = *echo;
            echo.hop_limit -= 1;
            let forwarded = Frame {
                destination: mac,
                source: OLD_OWNER,
                payload: Payload::Echo(echo),
            };
            for _ in 0..self.copies(self.scenario.loss_in) {
                let at = self.arrival();
                self.schedule(at, Event::ToOwner(forwarded.clone(), None));
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ToAll(frame, sender) => {
                let lost = match sender {
                    None => self.scenario.loss_out,
                    Some(_) => 0,
                };
                for index in 0..self.members.len() {
                    if sender != Some(index) && !self.rng.permille(lost) {
                        self.reach(index, &frame);
                    }
                }
            }
            Event::ToHost(index, frame) => self.reach(index, &frame),
            Event::ToOwner(frame, from) => self.reach_owner(&frame, from),
            Event::Happens(what) => self.happens(what),
            Event::ReadsTables => self.read_tables(),
            Event::OrderArrives(order) => self.execute_order(order),
            Event::OrderAnswered(order, outcome) => self.on_order_answer(order, outcome),
        }
    }

    fn reach(&mut self, index: usize, frame: &Frame) {
        if self.is_dark(Some(index)) {
            return;
        }
        if let Some(proxy) = self.members[index].proxy {
            let ip = self.members[index].host.ip;
            if answer_for(ip, proxy.mac, frame).is_some() && (is_group(frame) || proxy.absorbs) {
                for mac in std::iter::once(proxy.mac).chain(proxy.second) {
                    let answer = answer_for(ip, mac, frame).expect("it is a request");
                    for _ in 0..self.copies(self.scenario.loss_in) {
                        let at = self.arrival();
                        self.schedule(at, Event::ToOwner(answer.clone(), None));
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
        for interface in [self.above.clone(), self.base.clone()] {
            let reached = is_group(frame) || interface.mac == Some(frame.destination);
            // Without a VMAC, both are the same interface.
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
        } else {
            self.note_forged(frame);
        }
        self.check_octets(frame);
        self.core_receives(on.index, frame);
    }

    /// Any forged packet for a VIP, a reply too, looks like its source's traffic.
    fn note_forged(&mut self, frame: &Frame) {
        if let Some(to) = header(frame).wanted
            && let (Some(vip), Some(seen)) =
                (self.vip_index.get(&to), self.by_any_mac.get(&frame.source))
        {
            self.truths[*vip][*seen].forged_traffic = true;
        }
    }

    fn core_receives(&mut self, on: InterfaceIndex, frame: &Frame) {
        let is_own = [self.above.mac, self.base.mac].contains(&Some(frame.source));
        if on == self.above.index && frame.source.is_unicast() && !is_own {
            self.path_is_alive();
        }
        self.core.heard(self.at(), on, &header(frame));
        self.core.received(self.at(), on, frame);
    }

    /// A frame of another host came in: the rounds may start over.
    fn path_is_alive(&mut self) {
        if self.alive_since.is_none() {
            self.alive_since = Some(self.now);
            for vip in &mut self.vips {
                vip.arp_frames.clear();
            }
        }
    }

    /// Records what a host's own frame proves.
    fn note_truth(&mut self, on: &Link, frame: &Frame, index: usize) {
        let host = &self.members[index].host;
        let to_us = Some(frame.destination) == on.mac;
        let above = on.index == self.above.index;
        if let Some(to) = header(frame).wanted
            && let Some(vip) = self.vip_index.get(&to)
            && above
            && to_us
        {
            self.truths[*vip][index].traffic = true;
        }
        let (mut held, mut control) = (None, None);
        let (destination, echo) = match &frame.payload {
            Payload::Arp(arp)
                if arp.operation == ArpOperation::Reply && host.has(arp.sender_ip.into()) =>
            {
                (IpAddr::from(arp.target_ip), false)
            }
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Advertisement(na) if na.solicited && host.has(na.target.into()) => {
                    (ndp.destination.into(), false)
                }
                _ => return,
            },
            Payload::Echo(echo) if echo.kind == EchoKind::Reply => {
                held = self.vip_index.get(&echo.source).copied();
                control = self.controls.get(&echo.token.nonce).copied();
                (echo.destination, true)
            }
            _ => return,
        };
        if !to_us {
            return;
        }
        if let Some(vip) = self.vip_index.get(&destination).copied().filter(|_| above) {
            let truth = &mut self.truths[vip][index];
            truth.ever_answered = true;
            if echo {
                truth.followed = true;
            } else {
                truth.answered = true;
            }
        } else if !is_own(destination) {
            return;
        } else if let Some(vip) = held {
            self.truths[vip][index].holder = true;
        } else if echo {
            // Else it answered a census.
            if let Some(vip) = control {
                let truth = &mut self.truths[vip][index];
                truth.control = true;
                truth.control_answers += 1;
                truth.ever_answered = true;
            }
        } else {
            return;
        }
        self.path_is_alive();
        self.answered_since.get_or_insert(self.now);
    }

    /// Records a claim to a VIP.
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
            Payload::Echo(_) | Payload::Mld(_) => return,
        };
        let index = self.vip_index.get(&ip).copied();
        if let Some(index) = index.filter(|index| self.vips[*index].is_here()) {
            self.vips[index]
                .claims
                .entry(mac)
                .or_default()
                .push(self.now);
        }
    }

    /// The announcer's own kernel answers requests for its addresses.
    fn kernel_answers(&mut self, frame: &Frame) {
        let target = target(frame);
        let holds = |index: &usize| self.vips[*index].is_usable();
        let mac = if self.vip_index.get(&target).is_some_and(holds) {
            self.above.mac
        } else if is_own(target) {
            self.base.mac
        } else {
            return;
        };
        if let Some(answer) = mac.and_then(|mac| answer_for(target, mac, frame)) {
            self.leave(answer);
        }
    }

    /// Adds, changes or removes the first or second entry of a VIP.
    fn set_entry(&mut self, index: usize, entry: usize, usability: Option<Usability>) {
        let prefix_len = self.prefix_len(index, entry);
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
            // A VIP that was never found did not leave.
            let gone = vip.gone_since.take().filter(|_| vip.found);
            vip.left |= gone.is_some_and(|since| now - since > wait);
            vip.returned += u32::from(gone.is_some() && !vip.left);
            vip.entries.insert(prefix_len, usability);
            self.add_links_of(&address);
            self.core.address_changed(self.at(), &address);
        } else {
            if vip.entries.remove(&prefix_len).is_some() && vip.entries.is_empty() {
                vip.gone_since = Some(now);
                vip.lefts.push(now);
            }
            self.core.address_gone(self.at(), &address);
        }
        self.find(index);
        if !was_ready {
            self.became_ready(index);
        }
    }

    /// Adds the interfaces that the core needs for an address, like the real driver.
    fn add_links_of(&mut self, address: &Address) {
        for _ in 0..2 {
            let link = match self.core.unknown_link_of(address) {
                Some(index) if index == self.above.index => self.above.clone(),
                Some(index) if index == self.base.index => self.base.clone(),
                Some(other) => panic!("{other:?} does not exist"),
                None => break,
            };
            self.core.link_changed(self.at(), &link);
        }
        assert_eq!(self.core.unknown_link_of(address), None);
    }

    /// Records whether the VIP is where it counts, now or before.
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
            self.start_rounds(index);
        }
    }

    /// All rounds have to be repeated, and all peers asked again.
    fn start_rounds(&mut self, index: usize) {
        self.vips[index].starts += 1;
        self.vips[index].announced.clear();
        self.vips[index].arp_frames.clear();
        self.broadcasts[index] = 0;
        for truth in &mut self.truths[index] {
            truth.start_over();
        }
    }

    /// The kernel's entries of all VIPs.
    fn entries(&self) -> Vec<Address> {
        let vips = self.scenario.vips.iter().zip(&self.vips);
        let entries = vips.flat_map(|(vip, truth)| {
            let address = |(prefix_len, usability): (&u8, &Usability)| Address {
                ip: vip.ip,
                interface: self.above.index,
                prefix_len: *prefix_len,
                usability: *usability,
            };
            truth.entries.iter().map(address)
        });
        entries.collect()
    }

    /// The host's addresses other than the VIPs.
    fn own_addresses() -> [Address; 3] {
        let own: [(IpAddr, u8); 3] = [
            (OWN4.into(), 16),
            (OWN6.into(), 64),
            (OWN_LINK_LOCAL.into(), 64),
        ];
        own.map(|(ip, prefix_len)| Address {
            ip,
            interface: BASE,
            prefix_len,
            usability: Usability::Usable,
        })
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Arrives(index) | Happening::Returns(index) if !self.link_gone => {
                self.set_entry(index, 0, Some(Usability::Usable));
            }
            Happening::ReturnsTentative(index) if !self.link_gone => {
                self.set_entry(index, 0, Some(Usability::Tentative));
            }
            Happening::BecomesUsable(index) if !self.link_gone => {
                self.set_all_entries(index, Usability::Usable);
            }
            Happening::DadFails(index) if !self.link_gone => {
                self.set_all_entries(index, Usability::DadFailed);
            }
            Happening::Gains(index) if !self.link_gone => {
                self.set_entry(index, 1, Some(Usability::Usable));
            }
            Happening::Loses(index) => self.set_entry(index, 1, None),
            Happening::LosesFirst(index) => self.set_entry(index, 0, None),
            Happening::Leaves(index) => {
                for entry in [0, 1] {
                    self.set_entry(index, entry, None);
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
                self.update_links();
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
                self.update_links();
                // The kernel announces the change (arp_notify).
                for member in &mut self.members {
                    let own = own(member.host.ip);
                    member.host.set(own, Entry::Known(mac, self.now));
                    if member.host.link_local.is_some() {
                        let own = OWN_LINK_LOCAL.into();
                        member.host.set(own, Entry::Known(mac, self.now));
                    }
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
                        vip.lefts.push(self.now);
                    }
                    vip.entries.clear();
                }
            }
            Happening::OldOwnerClaims(index) => self.claim_by(OLD_OWNER, index, None),
            Happening::OtherOwnerClaims(member) => {
                let host = &self.members[member].host;
                let index = host.holds.and_then(|ip| self.vip_index.get(&ip).copied());
                if let Some(index) = index {
                    self.claim_by(host.mac, index, Some(member));
                }
            }
            Happening::OtherOwnerLetsGo(member) => self.let_go(member),
            Happening::OtherOwnerReturns(member) => {
                let index = self.held_by[member].expect("it had a VIP");
                let host = &mut self.members[member].host;
                host.holds = Some(self.scenario.vips[index].ip);
                let mac = host.mac;
                self.holdings[member].push((self.now, None));
                self.claim_by(mac, index, Some(member));
            }
            Happening::Stray => self.stray(),
            Happening::Traffic(member) => self.send_traffic(member),
            Happening::Forgery => self.forge(),
            _ => {}
        }
    }

    fn update_links(&mut self) {
        let (above, base) = (self.above.clone(), self.base.clone());
        self.core.link_changed(self.at(), &base);
        self.core.link_changed(self.at(), &above);
    }

    /// Changes the existing entries of a VIP.
    fn set_all_entries(&mut self, index: usize, usability: Usability) {
        for entry in [0, 1] {
            let prefix_len = self.prefix_len(index, entry);
            if self.vips[index].entries.contains_key(&prefix_len) {
                self.set_entry(index, entry, Some(usability));
            }
        }
    }

    fn prefix_len(&self, index: usize, entry: usize) -> u8 {
        let lengths = match self.scenario.vips[index].ip {
            IpAddr::V4(_) => [32, 24],
            IpAddr::V6(_) => [128, 64],
        };
        lengths[entry]
    }

    fn restart(&mut self) {
        (self.alive_since, self.answered_since) = (None, None);
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
        self.schedule(at, Event::ToAll(frame.clone(), member));
        self.schedule(at, Event::ToOwner(frame, member));
    }

    /// The core receives answers that are wrong in one way, and must not count.
    fn stray(&mut self) {
        let is_heard = self.listening.contains(&self.above.index) && !self.is_dark(None);
        if self.members.is_empty() || !is_heard {
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
        let mut frame = answer_for(ip, mac, &question).expect("it is a request");
        match (&mut frame.payload, wrong) {
            (_, 0) => frame.destination = other,
            // To all, but not meant for this host.
            (Payload::Arp(arp), 1) => {
                arp.target_mac = other;
                frame.destination = Mac::BROADCAST;
            }
            (Payload::Ndp(ndp), 1) => {
                ndp.destination = ALL_NODES.0;
                frame.destination = ALL_NODES.1;
            }
            (Payload::Arp(arp), 2) => arp.target_mac = other,
            (Payload::Arp(arp), 3) => arp.operation = ArpOperation::Request,
            (Payload::Arp(arp), 4) => arp.target_ip = OWN4,
            (Payload::Arp(arp), _) => arp.sender_ip = OWN4,
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
            self.note_forged(&frame);
            self.core_receives(self.above.index, &frame);
        }
        self.stray_holder(wrong);
        let Some((echo, echo_mac)) = self.seen_echo else {
            return;
        };
        let Some(asked) = self.by_ip.get(&echo.destination).copied() else {
            return;
        };
        let macs = (self.members[asked].host.mac, echo_mac);
        // Its own reply may come from any MAC.
        let wrong = if wrong == 1 { 5 } else { wrong };
        let frame = wrong_reply(&echo, macs, wrong, |reply| reply.token.nonce ^= 1);
        self.core.received(self.at(), self.above.index, &frame);
    }

    /// A wrong reply to the last echo to a VIP.
    fn stray_holder(&mut self, wrong: u64) {
        let Some((echo, question)) = &self.seen_holder else {
            return;
        };
        let macs = (question.destination, question.source);
        let frame = wrong_reply(echo, macs, wrong, |reply| reply.destination = reply.source);
        self.core.received(self.at(), BASE, &frame);
    }

    /// A member sends a packet for a VIP to the MAC in its table.
    fn send_traffic(&mut self, index: usize) {
        let host = &self.members[index].host;
        let four = host.ip.is_ipv4();
        let vip = self.scenario.vips.iter().map(|vip| vip.ip);
        let Some(vip) = vip.into_iter().find(|vip| vip.is_ipv4() == four) else {
            return;
        };
        let Some(mac) = host.follows(vip).filter(|_| !host.owns(vip)) else {
            return;
        };
        if !host.habits.dead {
            let frame = Echo::request((host.ip, host.mac), (vip, mac), any_token());
            self.leave_host(index, frame);
        }
    }

    /// An adversary on the link sends any frame. It has seen the echoes, but cannot guess a nonce.
    fn forge(&mut self) {
        let (index, number) = (self.rng.index(self.members.len()), self.rng.below(7));
        let vips: Vec<_> = self.scenario.vips.iter().map(|vip| vip.ip).collect();
        let host = &self.members[index].host;
        let (ip, host_mac) = (host.ip, host.mac);
        let vip = self.rng.index(vips.len());
        let (Some(above), Some(base)) = (self.above.mac, self.base.mac) else {
            return;
        };
        if vips[vip].is_ipv4() != ip.is_ipv4() || !self.listening.contains(&self.above.index) {
            return;
        }
        let source = self.rng.pick(&[host_mac, OLD_OWNER, ADVERSARY]);
        let mut token = self.seen_echo.map_or(any_token(), |(echo, _)| echo.token);
        token.nonce = self.rng.next();
        let hop_limit = self.rng.pick(&[63, 64, 255]);
        let reply = |from, to, mac| Frame {
            destination: mac,
            source,
            payload: Payload::Echo(Echo {
                source: from,
                destination: to,
                kind: EchoKind::Reply,
                token,
                hop_limit,
            }),
        };
        let frame = match number {
            0 | 1 => reply(ip, vips[vip], above),
            2 => reply(ip, own(ip), base),
            3 => reply(vips[vip], own(ip), base),
            4 => reply(
                "fe80::bad".parse().expect("an address"),
                OWN_LINK_LOCAL.into(),
                base,
            ),
            5 => {
                let question = match (vips[vip], ip) {
                    (IpAddr::V4(vip), IpAddr::V4(ip)) => {
                        Arp::directed_request(vip, above, ip, None)
                    }
                    (IpAddr::V6(vip), IpAddr::V6(ip)) => {
                        Ndp::directed_solicitation(vip, above, ip, None)
                    }
                    _ => return,
                };
                self.truths[vip][index].forged_answer = true;
                answer_for(ip, source, &question).expect("it is a request")
            }
            _ => Echo::request((ip, source), (vips[vip], above), token),
        };
        self.forged = true;
        let at = self.arrival();
        self.schedule(at, Event::ToOwner(frame, None));
    }

    /// The core reads the kernel's tables.
    fn read_tables(&mut self) {
        self.reading_tables = false;
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
        for member in self.members.iter().filter(|member| !member.unknown) {
            match member.source {
                Source::Gateway => base.gateways.push(member.host.ip),
                Source::Configured => configured.push(member.host.ip),
                Source::Learned
                | Source::Census
                | Source::Observed
                | Source::Reported
                | Source::Subnet => {}
            }
            if member.known_mac.is_some() {
                base.neighbours.push(Neighbour {
                    ip: member.host.ip,
                    mac: member.known_mac,
                    state: if member.fresh {
                        NeighbourState::Reachable
                    } else {
                        NeighbourState::Stale
                    },
                    externally_learned: false,
                    confirmed: None,
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
        self.core.links_are(views, &host, &configured, Confirm::All);
        while self.core.find_peers(self.at()) {}
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

    /// The latest end of the run.
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

/// The address that a frame is about.
fn target(frame: &Frame) -> IpAddr {
    match &frame.payload {
        Payload::Arp(arp) => arp.target_ip.into(),
        Payload::Ndp(ndp) => match ndp.message {
            NdpMessage::Solicitation(ns) => ns.target.into(),
            NdpMessage::Advertisement(na) => na.target.into(),
        },
        Payload::Echo(echo) => echo.destination,
        Payload::Mld(report) => report.address.into(),
    }
}

/// Addresses that no host has: of the subnets that a VIP may be in, and without one.
const NOBODY: [Ipv4Addr; 3] = [
    Ipv4Addr::new(10, 9, 255, 255),
    Ipv4Addr::new(10, 9, 0, 255),
    Ipv4Addr::BROADCAST,
];

/// Whether a frame is one of the rounds, or asks for other owners, and is not for one peer.
fn is_of_rounds(frame: &Frame, claim: &Claim) -> bool {
    let is_about_vip = target(frame) == claim.vip.ip();
    match &frame.payload {
        Payload::Arp(arp) => is_about_vip || NOBODY.contains(&arp.target_ip),
        Payload::Ndp(_) | Payload::Mld(_) => is_about_vip,
        Payload::Echo(echo) => echo.destination == ALL_NODES.0,
    }
}

/// The addresses of a frame.
fn header(frame: &Frame) -> Header {
    Header {
        destination: frame.destination,
        source: frame.source,
        sender: None,
        wanted: match &frame.payload {
            Payload::Arp(arp) if arp.operation == ArpOperation::Request => {
                Some(arp.target_ip.into())
            }
            Payload::Ndp(ndp) if matches!(ndp.message, NdpMessage::Solicitation(_)) => {
                Some(ndp.destination.into())
            }
            Payload::Echo(echo) => Some(echo.destination),
            _ => None,
        },
    }
}

/// A token that is no run's.
fn any_token() -> Token {
    Token {
        identifier: 0,
        sequence: 0,
        nonce: 0,
    }
}

/// A reply to an echo, wrong in one of six ways. `macs` are its source and destination.
fn wrong_reply(echo: &Echo, macs: (Mac, Mac), wrong: u64, sixth: fn(&mut Echo)) -> Frame {
    let other = Mac::new([2, 0, 0, 9, 9, 9]);
    let (mut source, mut destination) = macs;
    let mut reply = Echo {
        source: echo.destination,
        destination: echo.source,
        kind: EchoKind::Reply,
        hop_limit: 64,
        ..*echo
    };
    match wrong {
        0 => destination = other,
        1 => source = other,
        2 => reply.token.identifier ^= 1,
        3 => reply.token.sequence = reply.token.sequence.wrapping_add(0x4000),
        4 => reply.kind = EchoKind::Request,
        _ => sixth(&mut reply),
    }
    Frame {
        destination,
        source,
        payload: Payload::Echo(reply),
    }
}

/// The answer of a host with `ip` at `mac` to a request for its address.
fn answer_for(ip: IpAddr, mac: Mac, request: &Frame) -> Option<Frame> {
    let is_request = match &request.payload {
        Payload::Arp(arp) => arp.operation == ArpOperation::Request && arp.sender_ip != ip,
        Payload::Ndp(ndp) => matches!(ndp.message, NdpMessage::Solicitation(_)) && ndp.source != ip,
        Payload::Echo(_) | Payload::Mld(_) => false,
    };
    if !is_request || target(request) != ip {
        return None;
    }
    let mut received = request.clone();
    if !is_group(&received) {
        received.destination = mac;
    }
    Host::new(ip, mac).receive(Duration::ZERO, &received).pop()
}
