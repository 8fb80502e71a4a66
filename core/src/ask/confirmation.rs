//! One peer's confirmation of one VIP: what to ask next, and what answers prove.
//!
//! The peer sends its reply to an echo from the VIP to the MAC in its own cache, so it reaches us only if
//! that entry is right (*proven*). Who does not answer it gets a directed request from the VIP: that is
//! stronger than a gratuitous one, it also creates entries, and the peer answers it (*acknowledged*). A
//! control echo from the host's own address tells a wrong entry (*stale*) from a filter.
//!
//! Gateways with a virtual MAC reply from their own, so the source MAC of a reply proves nothing. But a
//! router that forwards a reply, as an old owner may, lowers its TTL.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::host::Link;
use crate::order::Fate;
use crate::wire::{Arp, Echo, Frame, Ndp, Token};

use super::echo_id::EchoId;

/// The gap after the first turn; it doubles with each.
const FIRST_GAP: Duration = Duration::from_millis(5);
/// The longest gap while nobody answers, because a dead path may come alive at any moment, and for a
/// peer that answers only some questions.
const EAGER_GAP: Duration = Duration::from_millis(250);
/// The longest gap for a peer that is silent while others answer, and for one whose verdict is
/// unlikely to change.
const PATIENT_GAP: Duration = Duration::from_secs(2);
/// Unanswered turns before a turn has more than one kind of question.
const SIMPLE_TURNS: u32 = 2;
/// Unanswered echoes from the VIP, each with an answered control echo, that make a peer stale.
const STALE_AFTER: u32 = 3;
/// How many control echoes have answers that can be distinguished.
const MOST_PAIRS: u32 = u64::BITS;
/// The TTLs and hop limits that hosts send with: a reply that still has one crossed no router.
const INITIAL_HOP_LIMITS: [u8; 4] = [32, 64, 128, 255];
/// The most orders to one peer.
const MOST_ORDERS: u32 = 3;
/// A host answers each solicitation once. With more answers for each than this, somebody forges them.
const MOST_ANSWERS: u32 = 2;
/// One in this many directed requests to a silent peer is a broadcast: its MAC may have changed.
const BROADCAST_EVERY: u32 = 4;

/// Why a host is a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It is the gateway of a route.
    Gateway,
    /// The user named it, or keepalived's configuration does.
    Configured,
    /// The kernel's neighbour table has it.
    Learned,
    /// It answered an echo to all IPv6 nodes of the link.
    Census,
    /// A resident has heard it on the link.
    Observed,
    /// The old owner reports that it still sends there.
    Reported,
    /// Its address is in the VIP's subnet, and it answered.
    Subnet,
}

/// How a peer proved that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proof {
    /// It answered an echo from the VIP.
    Echo,
    /// Its MAC sent a frame for the VIP to this host. A liar on the link could forge that.
    Traffic,
}

/// What a peer proved about its entry for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerVerdict {
    /// Its traffic for the VIP reaches this host.
    Proven,
    /// It answered a directed request, but no echo.
    Acknowledged,
    /// It answers this host's own address but not the VIP: its entry is wrong.
    Stale,
    /// It has the VIP itself, on an interface without ARP and ND: an LVS real server with the VIP on
    /// `lo`.
    Holder,
    /// It answers nothing.
    Silent,
    /// Nothing was asked: the run ended before its turn came.
    Unasked,
    /// The VIP's link does not lead to it.
    Offlink,
}

/// The source of control echoes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The host's own address.
    pub ip: IpAddr,
    /// The interface that holds it: for a VMAC it may be the one below.
    pub interface: InterfaceIndex,
    /// That interface's MAC.
    pub mac: Mac,
    /// Whether it shares a subnet with the peer and the VIP: only then must the peer reply to the VIP
    /// on this link, and a missing reply means a wrong entry.
    pub in_vips_subnet: bool,
}

/// A host whose entry for a VIP matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, of the VIP's family.
    pub ip: IpAddr,
    /// Its MAC, if the kernel knows it.
    pub mac: Option<Mac>,
    /// Why it is a peer.
    pub source: Source,
    /// Whether its silence is a failure: it is configured, or a gateway in the VIP's subnet.
    pub required: bool,
    /// Whether the VIP's link leads to it.
    pub onlink: bool,
    /// Whether it may not exist: only an old entry tells of it, or only its address.
    pub doubtful: bool,
    /// The source of its control echoes, if this host has one.
    pub control: Option<Control>,
}

impl Peer {
    /// Whether a resident has heard only what others said of it: it may not exist, and a question to it is a
    /// broadcast.
    #[must_use]
    pub fn is_only_mentioned(&self) -> bool {
        self.doubtful && self.mac.is_none() && self.source == Source::Observed
    }
}

/// One question of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Question {
    /// A directed request from the VIP.
    Directed,
    /// An echo from the VIP.
    Echo,
    /// An echo from the host's own address.
    Control,
    /// An echo from the host's own address *to the VIP*, sent to the peer's MAC: only a host that has
    /// the VIP, on any interface, replies.
    Holder,
}

const QUESTIONS: [Question; 4] = [
    Question::Directed,
    Question::Echo,
    Question::Control,
    Question::Holder,
];

/// What one peer proved about one VIP.
#[derive(Clone, Debug)]
pub struct Confirmation {
    /// The peer. An answer may correct its MAC.
    pub peer: Peer,
    /// When it answered a directed request.
    pub acknowledged: Option<Instant>,
    /// When it proved that it follows, and how.
    pub proven: Option<(Instant, Proof)>,
    /// The MAC of a router that forwarded its reply to the VIP: its entry has that MAC.
    pub forwarded_by: Option<Mac>,
    /// Whether it has the VIP itself: it answered an echo to the VIP.
    pub holds_vip: bool,
    /// An unexpected MAC that answered for it: of a switch, a proxy, or a new card.
    pub answered_by: Option<Mac>,
    /// The result of the last order to it.
    pub order: Option<Fate>,
    orders: u32,
    /// Directed requests when the last answer came.
    directed_when_answered: u32,
    /// Answers to directed requests, from whichever MAC.
    answers: u32,
    /// Source address of directed requests. `None` once this host has lost it: then it sends none.
    from: Option<IpAddr>,
    /// Whether that is the VIP: then an answer to a solicitation shows the peer's entry.
    pub(crate) asks_as_vip: bool,
    /// The hop limit of its reply to a control echo, and the MAC that sent it.
    control_reply: Option<(u8, Mac)>,
    /// Which control echoes it answered, one bit each.
    control_answers: u64,
    /// A reply to an echo from the VIP, from an unexpected MAC: when, from which, with which hop limit.
    odd_reply: Option<(Instant, Mac, u8)>,
    /// How many echoes from the VIP it was sent when a reply last came in at another card of this host.
    other_card: Option<u32>,
    /// Whether the first question is an echo.
    pub(crate) echo_first: bool,
    /// Whether it answered an echo to the VIP before [`Confirmation::doubt_holder`].
    held_vip: bool,
    /// Turns since [`Confirmation::hurry`].
    turn: u32,
    /// The sent questions of each kind.
    asked: [u32; QUESTIONS.len()],
    /// Those sent before the path came alive, or before the peer purged.
    asked_while_dead: [u32; QUESTIONS.len()],
    /// Counts the restarts of its turns: tasks with an older count are void.
    pub(crate) epoch: u32,
}

impl Confirmation {
    /// `from` is the source address of directed requests.
    pub(crate) fn new(peer: Peer, from: Option<IpAddr>) -> Self {
        Self {
            peer,
            from,
            asks_as_vip: true,
            acknowledged: None,
            proven: None,
            forwarded_by: None,
            holds_vip: false,
            answered_by: None,
            order: None,
            orders: 0,
            directed_when_answered: 0,
            answers: 0,
            control_reply: None,
            control_answers: 0,
            odd_reply: None,
            other_card: None,
            echo_first: true,
            held_vip: false,
            turn: 0,
            asked: [0; QUESTIONS.len()],
            asked_while_dead: [0; QUESTIONS.len()],
            epoch: 0,
        }
    }

    /// Forgets every answer: the MAC changed, or the rounds start over.
    pub(crate) fn start_over(&mut self, from: Option<IpAddr>) {
        *self = Self {
            epoch: self.epoch,
            asks_as_vip: self.asks_as_vip,
            ..Self::new(self.peer.clone(), from)
        };
    }

    /// Asks again whether it follows. That it answers this host remains known.
    pub(crate) fn doubt_proof(&mut self) {
        (self.acknowledged, self.proven, self.odd_reply) = (None, None, None);
        (self.control_answers, self.other_card) = (0, None);
        self.asked = [0; QUESTIONS.len()];
        self.asked_while_dead = self.asked;
        (self.directed_when_answered, self.answers) = (0, 0);
    }

    /// Asks again whether it has the VIP. If it then answers nothing, it remains a holder.
    pub(crate) fn doubt_holder(&mut self) {
        (self.holds_vip, self.held_vip) = (false, true);
        (self.control_reply, self.control_answers) = (None, 0);
        for question in [Question::Echo, Question::Control, Question::Holder] {
            self.asked[question as usize] = 0;
        }
        self.asked_while_dead = self.asked;
    }

    /// This host lost an address.
    pub(crate) fn stop_asking_from(&mut self, own: IpAddr) {
        self.from = self.from.filter(|from| *from != own);
    }

    /// Control echoes take the current MAC of their interface.
    pub(crate) fn link_changed(&mut self, link: &Link) {
        if let (Some(control), Some(mac)) = (&mut self.peer.control, link.mac)
            && control.interface == link.index
        {
            control.mac = mac;
        }
    }

    /// Starts new turns, with short gaps.
    pub(crate) fn hurry(&mut self) {
        self.turn = 0;
        self.epoch += 1;
    }

    /// Whether the peer, or another MAC for it, answered any question.
    pub(crate) fn has_replied(&self) -> bool {
        self.has_answered() || self.answered_by.is_some()
    }

    /// Whether the peer itself answered any question.
    pub(crate) fn has_answered(&self) -> bool {
        self.took_vip_in() || self.control_reply.is_some() || self.held_vip
    }

    /// Whether any question was sent.
    pub(crate) fn was_asked(&self) -> bool {
        self.asked.iter().any(|count| *count > 0)
    }

    /// The questions of a kind since the path came alive.
    pub(crate) fn asked_while_alive(&self, question: Question) -> u32 {
        self.count(question) - self.asked_while_dead[question as usize]
    }

    fn count(&self, question: Question) -> u32 {
        self.asked[question as usize]
    }

    /// Whether it answers this host, in enough pairs of echoes, but never the VIP, not even a directed
    /// request.
    pub(crate) fn ignores_vip(&self) -> bool {
        self.pairs() >= STALE_AFTER && !self.took_vip_in() && !self.holds_vip && !self.held_vip
    }

    /// Whether it answered any frame from the VIP, by whatever way.
    pub(crate) fn took_vip_in(&self) -> bool {
        self.acknowledged.is_some()
            || self.proven.is_some()
            || self.odd_reply.is_some()
            || self.other_card.is_some()
    }

    /// Whether its replies to the VIP come in at another card of this host: its entry has that card's MAC.
    /// Whether the kernel takes in what it sends depends on settings (`rp_filter`).
    #[must_use]
    pub fn follows_other_card(&self) -> bool {
        let unanswered = |at: u32| self.count(Question::Echo).saturating_sub(at);
        self.proven.is_none()
            && self
                .other_card
                .is_some_and(|at| unanswered(at) < STALE_AFTER)
    }

    /// The path was dead until now: earlier lost questions prove nothing about the peer or the loss.
    pub(crate) fn path_came_alive(&mut self) {
        self.asked_while_dead = self.asked;
    }

    /// Takes the order to purge that is due, and counts it as sent. `true`: the peer is stale, follows
    /// another card of this host, or has the VIP and is among the `owners` that claim it.
    pub(crate) fn take_due_order(&mut self, owners: &[Mac]) -> Option<bool> {
        let stale = match self.verdict() {
            PeerVerdict::Stale => true,
            _ if self.follows_other_card() => true,
            PeerVerdict::Holder => self.peer.mac.is_some_and(|mac| owners.contains(&mac)),
            _ => false,
        };
        let due = match &self.order {
            None => stale || self.peer.source == Source::Configured,
            // The peer purged and has learned a wrong MAC again.
            Some(fate) => {
                let again = self.asked_while_alive(Question::Echo) >= STALE_AFTER;
                stale && fate.is_settled() && again && self.orders < MOST_ORDERS
            }
        };
        if !due || !self.peer.onlink {
            return None;
        }
        self.order = Some(Fate::Unanswered);
        self.orders += 1;
        Some(stale)
    }

    /// The peer settled an order: its earlier silence no longer counts. If it `released` the VIP, it no
    /// longer has that.
    pub(crate) fn order_settled(&mut self, released: bool) {
        self.holds_vip &= !released;
        self.held_vip &= !released;
        self.asked_while_dead = self.asked;
    }

    /// Whether more questions could change the verdict. `enough` unanswered questions rule out chance.
    pub(crate) fn is_open(&self, enough: Option<u32>) -> bool {
        if !self.wants_turns() {
            return false;
        }
        match enough {
            // The first question after an answer; if two MACs answered, one to each.
            _ if self.turn == 0 || (self.turn == 1 && self.answered_by.is_some()) => true,
            // Nobody answers: the path may still come alive.
            None => true,
            Some(enough) if self.has_replied() => {
                self.asked_while_alive(Question::Echo) < self.enough_echoes(enough)
                    || self.lacks_pairs()
            }
            Some(enough) => {
                self.peer.required || self.asked_while_alive(Question::Directed) < enough
            }
        }
    }

    /// Whether it may be stale, and was not asked often enough to tell.
    fn lacks_pairs(&self) -> bool {
        self.control_reply.is_some()
            && [Question::Control, Question::Holder]
                .into_iter()
                .any(|question| self.asks(question) && self.count(question) < STALE_AFTER)
    }

    /// If two MACs answered, each gets half of the echoes.
    fn enough_echoes(&self, enough: u32) -> u32 {
        match self.answered_by {
            Some(_) => enough.saturating_mul(2),
            None => enough,
        }
    }

    /// Whether to ask it at all.
    pub(crate) fn wants_turns(&self) -> bool {
        self.proven.is_none() && !self.holds_vip && self.peer.onlink
    }

    /// The question after `after` in this turn; `None` ends the turn.
    pub(crate) fn next_question(&self, after: Option<Question>) -> Option<Question> {
        QUESTIONS
            .into_iter()
            .filter(|question| after.is_none_or(|after| *question > after))
            .find(|question| self.asks(*question))
    }

    /// Whether this turn has this question.
    pub(crate) fn asks(&self, question: Question) -> bool {
        let echo_possible = self.peer.mac.or(self.answered_by).is_some();
        let control_possible = echo_possible && self.peer.control.is_some();
        if self.has_replied() {
            return match question {
                // Also after an acknowledgement: the peer may have learned a wrong MAC again.
                Question::Directed => self.from.is_some() && self.turn >= SIMPLE_TURNS,
                Question::Echo => echo_possible,
                Question::Control => {
                    control_possible && (self.turn > 0 || self.odd_reply.is_some())
                }
                // Only after an answer to a control echo: a host without an entry for this one's own
                // address would ask for it from the VIP, unless arp_announce forbids that.
                Question::Holder => {
                    control_possible && (self.control_reply.is_some() || self.held_vip)
                }
            };
        }
        // A hit costs one frame, and no ARP.
        let echo_first = self.echo_first && echo_possible;
        let is_even = self.turn.is_multiple_of(2);
        if self.peer.doubtful {
            // One frame a turn: an echo and a directed request, as some hosts answer only one of them.
            let echo = echo_possible && is_even || self.from.is_none();
            return question
                == if echo {
                    Question::Echo
                } else {
                    Question::Directed
                };
        }
        let simple = self.turn < SIMPLE_TURNS && self.from.is_some();
        match question {
            Question::Directed => self.from.is_some() && !(echo_first && self.turn == 0),
            Question::Echo if echo_first && self.turn == 0 => true,
            // Some hosts answer an echo but no directed request (arp_ignore=8). Echo and control
            // alternate, so that dead hosts cost little.
            Question::Echo => echo_possible && !simple && (is_even || !control_possible),
            Question::Control => control_possible && !simple && !is_even,
            Question::Holder => false,
        }
    }

    /// Ends the turn. Returns the gap to the next. `enough` as for [`Self::is_open`].
    pub(crate) fn end_turn(&mut self, enough: Option<u32>) -> Duration {
        let longest = match enough {
            None => EAGER_GAP,
            Some(enough)
                if self.has_replied()
                    && self.count(Question::Echo) < self.enough_echoes(enough) =>
            {
                EAGER_GAP
            }
            Some(_) => PATIENT_GAP,
        };
        let gap = FIRST_GAP * (1 << self.turn.min(16));
        self.turn += 1;
        gap.min(longest)
    }

    /// The frame of a question about `vip`, announced with `mac`.
    pub(crate) fn frame(
        &self,
        question: Question,
        vip: Vip,
        mac: Mac,
        run: &EchoId,
    ) -> Option<Frame> {
        let token = || self.token(question, vip, self.count(question), run);
        match question {
            Question::Directed => {
                let broadcasts =
                    !self.has_replied() && self.turn % BROADCAST_EVERY == BROADCAST_EVERY - 1;
                let known = self.peer.mac.filter(|_| !broadcasts);
                match (self.from?, self.peer.ip) {
                    (IpAddr::V4(from), IpAddr::V4(peer)) => {
                        Some(Arp::directed_request(from, mac, peer, known))
                    }
                    (IpAddr::V6(from), IpAddr::V6(peer)) => {
                        Some(Ndp::directed_solicitation(from, mac, peer, known))
                    }
                    _ => None,
                }
            }
            Question::Echo => Some(Echo::request(
                (vip.ip(), mac),
                (self.peer.ip, self.echo_mac()?),
                token(),
            )),
            Question::Control | Question::Holder => {
                let control = self.peer.control?;
                let to = match question {
                    Question::Holder => vip.ip(),
                    _ => self.peer.ip,
                };
                Some(Echo::request(
                    (control.ip, control.mac),
                    (to, self.echo_mac()?),
                    token(),
                ))
            }
        }
    }

    /// What the reply to the echo after `count` earlier ones of its kind repeats.
    fn token(&self, question: Question, vip: Vip, count: u32, run: &EchoId) -> Token {
        run.token((question as u8, vip.ip(), self.peer.ip), count)
    }

    /// The number of the sent echo that a reply repeats.
    fn number_of(&self, question: Question, vip: Vip, token: Token, run: &EchoId) -> Option<u32> {
        let number = run
            .number(token)
            .filter(|number| *number < self.count(question))?;
        (self.token(question, vip, number, run) == token).then_some(number)
    }

    /// The destination MAC of echoes. If an unexpected MAC answered, turns alternate between the two:
    /// only an answered echo shows which one the host has.
    fn echo_mac(&self) -> Option<Mac> {
        match (self.peer.mac, self.answered_by) {
            (Some(_), Some(other)) if self.turn.is_multiple_of(2) => Some(other),
            (known, other) => known.or(other),
        }
    }

    /// A question left.
    pub(crate) fn asked(&mut self, question: Question) {
        self.asked[question as usize] += 1;
    }

    /// `mac` answered a directed request. Returns whether that is new.
    pub(crate) fn on_answer(&mut self, now: Instant, mac: Mac) -> bool {
        self.directed_when_answered = self.count(Question::Directed);
        self.answers = self.answers.saturating_add(1);
        let settled = self.acknowledged.is_some() || self.proven.is_some() || self.holds_vip;
        if self.count(Question::Directed) == 0 || settled {
            return false;
        }
        match self.peer.mac {
            Some(known) if known != mac => {
                // Only the first time: if two MACs answer, every answer would start new turns.
                let is_new = self.answered_by.is_none();
                self.answered_by = Some(mac);
                is_new
            }
            _ => {
                self.peer.mac = Some(mac);
                self.acknowledged = Some(now);
                true
            }
        }
    }

    /// The peer replied to an echo from the VIP. Returns whether that is new.
    pub(crate) fn on_echo(&mut self, now: Instant, reply: &Reply, run: &EchoId) -> bool {
        let is_ours = self.number_of(Question::Echo, reply.vip, reply.token, run);
        if self.has_proof_by_echo() || is_ours.is_none() {
            return false;
        }
        let is_new = self.odd_reply.is_none();
        let (mac, hop_limit) = (reply.mac, reply.hop_limit);
        // The MAC that is known may be a router's, which forwards the echo and the reply.
        let crossed_no_router = match self.control_reply {
            Some((most, _)) => hop_limit >= most,
            None => INITIAL_HOP_LIMITS.contains(&hop_limit),
        };
        if self.is_at(mac) && crossed_no_router {
            (self.peer.mac, self.answered_by) = (Some(mac), None);
            self.prove(now, Proof::Echo);
            return true;
        }
        self.odd_reply = Some((now, mac, hop_limit));
        self.judge_odd_reply() || is_new
    }

    /// The reply to an echo from the VIP came in at another card of this host. Returns whether that is
    /// new.
    pub(crate) fn on_echo_at_other_card(&mut self, reply: &Reply, run: &EchoId) -> bool {
        let number = self.number_of(Question::Echo, reply.vip, reply.token, run);
        if number.is_none() || !self.is_at(reply.mac) {
            return false;
        }
        let is_new = self.other_card.is_none();
        self.other_card = Some(self.count(Question::Echo));
        is_new
    }

    /// The peer replied to a control echo. Returns whether that is new.
    pub(crate) fn on_control_echo(&mut self, reply: &Reply, run: &EchoId) -> bool {
        let Some(number) = self.number_of(Question::Control, reply.vip, reply.token, run) else {
            return false;
        };
        self.control_answers |= 1 << number.min(MOST_PAIRS - 1);
        let is_new = self.control_reply.is_none();
        // Who answers this must answer the VIP, too: others can forge traffic.
        if matches!(self.proven, Some((_, Proof::Traffic))) {
            self.proven = None;
        }
        if self
            .control_reply
            .is_none_or(|(most, _)| reply.hop_limit > most)
        {
            self.control_reply = Some((reply.hop_limit, reply.mac));
        }
        self.judge_odd_reply() || is_new
    }

    /// Compares the hop limits of a reply to the VIP that a router may have forwarded and of the reply to
    /// this host's own address. Returns whether that proves that the peer follows.
    fn judge_odd_reply(&mut self) -> bool {
        let (Some((at, mac, hop_limit)), Some((direct, from))) =
            (self.odd_reply, self.control_reply)
        else {
            return false;
        };
        if hop_limit < direct {
            self.forwarded_by = Some(mac);
            return false;
        }
        // Two replies through two routers would have the same, too.
        let crossed_no_router = mac == from || INITIAL_HOP_LIMITS.contains(&hop_limit);
        if crossed_no_router {
            self.prove(at, Proof::Echo);
        }
        crossed_no_router
    }

    fn prove(&mut self, at: Instant, proof: Proof) {
        self.proven = Some((at, proof));
        self.forwarded_by = None;
    }

    fn has_proof_by_echo(&self) -> bool {
        matches!(self.proven, Some((_, Proof::Echo)))
    }

    /// Whether traffic may prove that the peer follows: it answers no echo at all.
    pub(crate) fn wants_traffic(&self) -> bool {
        let has_control = self.peer.control.is_some();
        let asked = self.count(Question::Echo) >= STALE_AFTER
            && (!has_control || self.count(Question::Control) >= STALE_AFTER);
        let silent = self.control_reply.is_none() && self.odd_reply.is_none();
        self.wants_turns() && asked && silent && !self.held_vip
    }

    /// The peer's MAC sent a frame for the VIP to this host. Returns whether that proves anything new.
    pub(crate) fn on_traffic(&mut self, now: Instant) -> bool {
        let is_new = self.wants_traffic();
        if is_new {
            self.prove(now, Proof::Traffic);
        }
        is_new
    }

    /// Whether such an answer would be new.
    pub(crate) fn expects_holder(&self, reply: &Reply, run: &EchoId) -> bool {
        let is_new = !self.holds_vip && self.is_at(reply.mac);
        is_new
            && self
                .number_of(Question::Holder, reply.vip, reply.token, run)
                .is_some()
    }

    /// The peer replied to an echo to the VIP, with the VIP as source. Returns whether that is new.
    pub(crate) fn on_holder_echo(&mut self, reply: &Reply, run: &EchoId) -> bool {
        if !self.expects_holder(reply, run) {
            return false;
        }
        (self.peer.mac, self.answered_by) = (Some(reply.mac), None);
        self.holds_vip = true;
        true
    }

    /// Whether the peer has this MAC, or this MAC answered for it.
    fn is_at(&self, mac: Mac) -> bool {
        self.peer.mac == Some(mac) || self.answered_by == Some(mac)
    }

    /// The answered control echoes. Each followed an echo from the VIP.
    fn pairs(&self) -> u32 {
        self.control_answers.count_ones()
    }

    /// Whether its entry is wrong: a router had to forward its reply; or enough echoes from the VIP stayed
    /// unanswered while each control echo was answered, and enough echoes to the VIP to rule out that it
    /// has the VIP itself.
    fn is_stale(&self) -> bool {
        let in_vips_subnet = |control: Control| control.in_vips_subnet;
        // The answer to a solicitation goes to the MAC in the peer's table, unlike the answer to an ARP
        // request: who answers has the right entry. But nothing tells a forged answer from a real one.
        let asked = self.count(Question::Directed);
        let unanswered = asked - self.directed_when_answered;
        let is_flooded = self.answers > asked.saturating_mul(MOST_ANSWERS);
        let entry_is_right = self.peer.ip.is_ipv6()
            && self.acknowledged.is_some()
            && self.asks_as_vip
            && !is_flooded
            && unanswered < STALE_AFTER;
        self.peer.control.is_some_and(in_vips_subnet)
            && !entry_is_right
            && !self.follows_other_card()
            && (self.forwarded_by.is_some()
                || self.count(Question::Echo) >= STALE_AFTER
                    && self.pairs() >= STALE_AFTER
                    && self.count(Question::Holder) >= STALE_AFTER)
    }

    /// When the peer last proved that it follows, or else that it heard.
    #[must_use]
    pub fn settled(&self) -> Option<Instant> {
        self.proven.map(|(at, _)| at).or(self.acknowledged)
    }

    /// Whether the run asked it, or heard it.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.was_asked() || self.has_replied()
    }

    /// What the answers prove so far.
    #[must_use]
    pub fn verdict(&self) -> PeerVerdict {
        if !self.peer.onlink {
            PeerVerdict::Offlink
        } else if self.proven.is_some() {
            PeerVerdict::Proven
        } else if self.holds_vip {
            PeerVerdict::Holder
        } else if self.is_stale() {
            PeerVerdict::Stale
        } else if self.acknowledged.is_some() || self.follows_other_card() {
            PeerVerdict::Acknowledged
        } else if self.held_vip {
            PeerVerdict::Holder
        } else if self.is_asked() {
            PeerVerdict::Silent
        } else {
            PeerVerdict::Unasked
        }
    }
}

/// A reply to an echo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    /// The VIP that it is about.
    pub(crate) vip: Vip,
    /// The source of the frame.
    pub(crate) mac: Mac,
    pub(crate) token: Token,
    pub(crate) hop_limit: u8,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ask::testing::{OWN, answered, mac};
    use crate::order::{Outcome, Reason};
    use crate::wire::Payload;

    const PEER: Mac = mac(2);
    const SWITCH: Mac = mac(3);

    fn vip() -> Vip {
        "10.0.0.10".parse().unwrap()
    }

    fn peer(mac: Option<Mac>) -> Confirmation {
        Confirmation::new(
            Peer {
                ip: Ipv4Addr::new(10, 0, 0, 2).into(),
                mac,
                source: Source::Learned,
                required: false,
                onlink: true,
                doubtful: false,
                control: Some(Control {
                    ip: Ipv4Addr::new(10, 0, 0, 1).into(),
                    interface: InterfaceIndex(2),
                    mac: OWN,
                    in_vips_subnet: true,
                }),
            },
            Some([10, 0, 0, 10].into()),
        )
    }

    fn run() -> EchoId {
        EchoId::new(0x1111_ffff_0000_0000)
    }

    /// Asks the questions of the next turn. Returns them and the gap after it.
    fn turn(confirmation: &mut Confirmation, enough: Option<u32>) -> (Vec<Question>, Duration) {
        let mut questions = Vec::new();
        while let Some(next) = confirmation.next_question(questions.last().copied()) {
            confirmation.asked(next);
            questions.push(next);
        }
        (questions, confirmation.end_turn(enough))
    }

    /// The reply from `mac` to the question of this number, with a hop limit.
    fn reply_of(
        peer: &Confirmation,
        question: Question,
        number: u32,
        (mac, hop_limit): (Mac, u8),
    ) -> Reply {
        Reply {
            vip: vip(),
            mac,
            token: peer.token(question, vip(), number, &run()),
            hop_limit,
        }
    }

    /// `mac` answers the echo of this number.
    fn echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        let reply = reply_of(peer, Question::Echo, number, (mac, 64));
        peer.on_echo(Instant::now(), &reply, &run())
    }

    fn control_echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        let reply = reply_of(peer, Question::Control, number, (mac, 64));
        peer.on_control_echo(&reply, &run())
    }

    fn holder_echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        let reply = reply_of(peer, Question::Holder, number, (mac, 64));
        peer.on_holder_echo(&reply, &run())
    }

    const ECHO_AND_CONTROL: [Question; 2] = [Question::Echo, Question::Control];

    #[test]
    fn a_silent_peer_gets_echoes_too() {
        let mut silent = peer(Some(PEER));
        let turns: Vec<_> = (0..5).map(|_| turn(&mut silent, Some(5)).0).collect();
        assert_eq!(turns[..2], [[Question::Echo], [Question::Directed]]);
        assert_eq!(turns[2], [Question::Directed, Question::Echo]);
        assert_eq!(turns[3], [Question::Directed, Question::Control]);
        assert_eq!(turns[4], [Question::Directed, Question::Echo]);
        assert_eq!(silent.verdict(), PeerVerdict::Silent);
    }

    #[test]
    fn a_host_that_may_not_exist_gets_one_frame_a_turn() {
        let mut old = peer(Some(PEER));
        old.peer.doubtful = true;
        let turns: Vec<_> = (0..3).map(|_| turn(&mut old, Some(5)).0).collect();
        assert_eq!(
            turns.concat(),
            [Question::Echo, Question::Directed, Question::Echo]
        );
        let mut swept = peer(None);
        swept.peer.doubtful = true;
        for _ in 0..3 {
            assert_eq!(turn(&mut swept, Some(5)).0, [Question::Directed]);
        }
    }

    #[test]
    fn a_flood_of_forged_advertisements_hides_no_stale_peer() {
        let stale_after = |answers_a_turn| {
            let mut asked = peer(Some(PEER));
            asked.peer.ip = "fd00::2".parse().unwrap();
            for _ in 0..10 {
                turn(&mut asked, Some(5));
                for _ in 0..answers_a_turn {
                    asked.on_answer(Instant::now(), PEER);
                }
                let last = asked.count(Question::Control).saturating_sub(1);
                control_echo(&mut asked, PEER, last);
            }
            asked.verdict()
        };
        // Its firewall drops echoes from the VIP.
        assert_eq!(stale_after(1), PeerVerdict::Acknowledged);
        assert_eq!(stale_after(3), PeerVerdict::Stale);
    }

    #[test]
    fn no_directed_request_leaves_from_a_lost_address() {
        let mut asked = peer(Some(PEER));
        asked.echo_first = false;
        asked.stop_asking_from([10, 0, 0, 1].into());
        assert!(asked.asks(Question::Directed));
        asked.stop_asking_from([10, 0, 0, 10].into());
        assert!(!asked.asks(Question::Directed));
    }

    #[test]
    fn a_peer_without_a_mac_gets_no_echo() {
        let mut unknown = peer(None);
        for _ in 0..10 {
            assert_eq!(turn(&mut unknown, None).0, [Question::Directed]);
        }
    }

    #[test]
    fn gaps_grow_to_a_quarter_second_while_nobody_answers_and_otherwise_to_two_seconds() {
        let gaps = |enough| {
            let mut silent = peer(Some(PEER));
            let gaps = (0..12).map(|_| turn(&mut silent, enough).1.as_millis());
            gaps.collect::<Vec<_>>()
        };
        assert_eq!(gaps(None)[..7], [5, 10, 20, 40, 80, 160, 250]);
        assert_eq!(gaps(None)[11], 250);
        assert_eq!(gaps(Some(5))[6..], [320, 640, 1280, 2000, 2000, 2000]);
    }

    #[test]
    fn one_in_four_directed_requests_to_a_silent_peer_is_a_broadcast() {
        let mut silent = peer(Some(PEER));
        let destinations: Vec<_> = (0..8)
            .map(|_| {
                let frame = silent
                    .frame(Question::Directed, vip(), OWN, &run())
                    .unwrap();
                turn(&mut silent, None);
                frame.destination
            })
            .collect();
        let four = [PEER, PEER, PEER, Mac::BROADCAST];
        assert_eq!(destinations, [four, four].concat());
    }

    #[test]
    fn solicitations_leave_only_from_an_ipv6_address() {
        let (vip, ip) = ("fd00::10".parse().unwrap(), "fd00::2".parse().unwrap());
        let mut asked = peer(Some(PEER));
        asked.peer.ip = IpAddr::V6(ip);
        let directed = |asked: &Confirmation| {
            let vip = "fd00::10".parse().unwrap();
            asked.frame(Question::Directed, vip, OWN, &run())
        };
        assert_eq!(directed(&asked), None);
        asked.from = Some(IpAddr::V6(vip));
        let solicitation = Ndp::directed_solicitation(vip, OWN, ip, Some(PEER));
        assert_eq!(directed(&asked), Some(solicitation));
    }

    #[test]
    fn an_echo_follows_an_answer_at_once() {
        let mut answers = peer(Some(PEER));
        let now = Instant::now();
        assert!(!answers.on_answer(now, PEER), "nothing was asked");
        turn(&mut answers, None);
        assert!(!answers.on_answer(now, PEER), "only an echo was sent");
        turn(&mut answers, None);
        assert!(answers.on_answer(now, PEER));
        assert!(!answers.on_answer(now, PEER), "not new");
        assert_eq!(answers.verdict(), PeerVerdict::Acknowledged);
        answers.hurry();
        assert_eq!(turn(&mut answers, Some(5)).0, [Question::Echo]);
        assert_eq!(turn(&mut answers, Some(5)).0, ECHO_AND_CONTROL);
        let all_but_for_a_holder = &QUESTIONS[..3];
        assert_eq!(turn(&mut answers, Some(5)).0, all_but_for_a_holder);
    }

    #[test]
    fn only_the_answer_to_a_sent_echo_proves() {
        let mut asked = peer(Some(PEER));
        assert!(!echo(&mut asked, PEER, 0));
        asked.asked(Question::Echo);
        asked.asked(Question::Echo);
        assert!(!echo(&mut asked, PEER, 2), "not sent yet");
        let mut forged = reply_of(&asked, Question::Echo, 1, (PEER, 64));
        forged.token.nonce ^= 1;
        assert!(!asked.on_echo(Instant::now(), &forged, &run()));
        let other = reply_of(&asked, Question::Control, 1, (PEER, 64));
        assert!(
            !asked.on_echo(Instant::now(), &other, &run()),
            "another question"
        );
        assert_eq!(asked.verdict(), PeerVerdict::Silent);
        assert!(echo(&mut asked, PEER, 1));
        assert_eq!(asked.verdict(), PeerVerdict::Proven);
        assert!(!asked.wants_turns() && !asked.is_open(None));
    }

    /// A peer to which an echo from the VIP and a control echo left.
    fn asked_both() -> Confirmation {
        let mut asked = peer(Some(PEER));
        asked.asked(Question::Echo);
        asked.asked(Question::Control);
        asked
    }

    #[test]
    fn a_reply_from_another_mac_proves_if_no_router_forwarded_it() {
        // From the same other MAC as the control's, as of a gateway with a virtual MAC; or with a fresh
        // hop limit, as of a bond with several MACs.
        for (from, hop_limit) in [
            ((SWITCH, SWITCH), 62),
            ((SWITCH, PEER), 64),
            ((SWITCH, PEER), 255),
        ] {
            for control_first in [false, true] {
                let mut gateway = asked_both();
                let echo = reply_of(&gateway, Question::Echo, 0, (from.0, hop_limit));
                let control = reply_of(&gateway, Question::Control, 0, (from.1, hop_limit));
                let now = Instant::now();
                if control_first {
                    gateway.on_control_echo(&control, &run());
                    assert_eq!(gateway.verdict(), PeerVerdict::Silent);
                    assert!(gateway.on_echo(now, &echo, &run()));
                } else {
                    assert!(gateway.on_echo(now, &echo, &run()));
                    assert_eq!(gateway.verdict(), PeerVerdict::Silent, "forwarded?");
                    assert!(gateway.asks(Question::Control));
                    assert!(gateway.on_control_echo(&control, &run()));
                }
                assert_eq!(gateway.verdict(), PeerVerdict::Proven);
                assert_eq!(gateway.peer.mac, Some(PEER), "its virtual MAC");
            }
        }
    }

    #[test]
    fn a_reply_that_a_router_forwarded_makes_a_peer_stale() {
        for control_first in [false, true] {
            let mut detoured = asked_both();
            let echo = reply_of(&detoured, Question::Echo, 0, (SWITCH, 63));
            let control = reply_of(&detoured, Question::Control, 0, (PEER, 64));
            if control_first {
                detoured.on_control_echo(&control, &run());
            }
            detoured.on_echo(Instant::now(), &echo, &run());
            if !control_first {
                detoured.on_control_echo(&control, &run());
            }
            assert_eq!(detoured.verdict(), PeerVerdict::Stale);
            assert_eq!(detoured.forwarded_by, Some(SWITCH));
            // It learns the right MAC.
            detoured.asked(Question::Echo);
            let right = reply_of(&detoured, Question::Echo, 1, (PEER, 64));
            assert!(detoured.on_echo(Instant::now(), &right, &run()));
            assert_eq!(detoured.verdict(), PeerVerdict::Proven);
            assert_eq!(detoured.forwarded_by, None);
        }
        // Also if that router's MAC is taken for the peer's.
        let mut mistaken = peer(Some(SWITCH));
        mistaken.asked(Question::Echo);
        let echo = reply_of(&mistaken, Question::Echo, 0, (SWITCH, 63));
        mistaken.on_echo(Instant::now(), &echo, &run());
        assert!(mistaken.asks(Question::Control));
        mistaken.asked(Question::Control);
        let control = reply_of(&mistaken, Question::Control, 0, (PEER, 64));
        mistaken.on_control_echo(&control, &run());
        assert_eq!(mistaken.verdict(), PeerVerdict::Stale);
        // Two replies through two routers look alike.
        let mut routed = asked_both();
        let control = reply_of(&routed, Question::Control, 0, (PEER, 63));
        routed.on_control_echo(&control, &run());
        let echo = reply_of(&routed, Question::Echo, 0, (SWITCH, 63));
        routed.on_echo(Instant::now(), &echo, &run());
        assert_eq!(routed.verdict(), PeerVerdict::Silent);
    }

    #[test]
    fn traffic_proves_only_what_echoes_cannot() {
        let mut quiet = peer(Some(PEER));
        assert!(!quiet.on_traffic(Instant::now()), "echoes come first");
        for _ in 0..STALE_AFTER {
            quiet.asked(Question::Echo);
            quiet.asked(Question::Control);
        }
        let mut stale = quiet.clone();
        assert!(quiet.on_traffic(Instant::now()));
        assert_eq!(quiet.verdict(), PeerVerdict::Proven);
        assert_eq!(quiet.proven.unwrap().1, Proof::Traffic);
        control_echo(&mut stale, PEER, 0);
        assert!(!stale.on_traffic(Instant::now()), "it answers echoes");
    }

    #[test]
    fn a_peer_that_limits_its_echo_replies_is_not_stale() {
        let mut limited = peer(Some(PEER));
        limited.acknowledged = Some(Instant::now());
        for _ in 0..20 {
            for question in [Question::Echo, Question::Control, Question::Holder] {
                limited.asked(question);
            }
        }
        control_echo(&mut limited, PEER, 4);
        assert_eq!(limited.verdict(), PeerVerdict::Acknowledged);
        control_echo(&mut limited, PEER, 11);
        assert_eq!(limited.verdict(), PeerVerdict::Acknowledged);
        control_echo(&mut limited, PEER, 19);
        assert_eq!(limited.verdict(), PeerVerdict::Stale);
    }

    #[test]
    fn another_mac_that_answers_for_a_peer_acknowledges_nothing() {
        let mut proxied = peer(Some(PEER));
        proxied.echo_first = false;
        turn(&mut proxied, None);
        assert!(proxied.on_answer(Instant::now(), SWITCH));
        assert!(!proxied.on_answer(Instant::now(), OWN), "a second");
        assert_eq!(proxied.verdict(), PeerVerdict::Silent);
        assert!(proxied.on_answer(Instant::now(), PEER));
        assert_eq!(proxied.verdict(), PeerVerdict::Acknowledged);
    }

    #[test]
    fn echoes_alternate_between_two_macs_that_answered() {
        let mut moved = peer(Some(PEER));
        moved.echo_first = false;
        turn(&mut moved, None);
        moved.on_answer(Instant::now(), SWITCH);
        moved.hurry();
        let mut to = || {
            let frame = moved.frame(Question::Echo, vip(), OWN, &run()).unwrap();
            assert!(matches!(frame.payload, Payload::Echo(_)));
            turn(&mut moved, Some(5));
            frame.destination
        };
        assert_eq!([to(), to(), to()], [SWITCH, PEER, SWITCH]);
    }

    #[test]
    fn a_new_answer_reopens_a_peer_for_a_question_to_each_mac() {
        let mut settled = peer(Some(PEER));
        for _ in 0..10 {
            turn(&mut settled, Some(3));
        }
        let open_in_turns = |peer: &mut Confirmation| {
            peer.hurry();
            [(); 3].map(|()| {
                let open = peer.is_open(Some(3));
                turn(peer, Some(3));
                open
            })
        };
        assert!(!settled.is_open(Some(3)));
        assert_eq!(open_in_turns(&mut settled), [true, false, false]);
        assert!(settled.on_answer(Instant::now(), SWITCH));
        assert_eq!(open_in_turns(&mut settled), [true, true, false]);
    }

    #[test]
    fn a_peer_that_answers_the_control_but_not_three_echoes_is_stale() {
        let mut stale = peer(Some(PEER));
        stale.asked(Question::Control);
        assert!(!control_echo(&mut stale, PEER, 1), "not sent yet");
        assert!(control_echo(&mut stale, PEER, 0));
        for pair in 0..STALE_AFTER {
            assert_eq!(stale.verdict(), PeerVerdict::Silent);
            for question in [Question::Echo, Question::Control] {
                stale.asked(question);
            }
            control_echo(&mut stale, PEER, pair);
            assert_eq!(stale.verdict(), PeerVerdict::Silent, "a holder?");
            stale.asked(Question::Holder);
        }
        assert_eq!(stale.verdict(), PeerVerdict::Stale);
        stale.peer.control.as_mut().unwrap().in_vips_subnet = false;
        assert_eq!(stale.verdict(), PeerVerdict::Silent, "another way?");
    }

    #[test]
    fn a_peer_that_answers_echoes_to_the_vip_has_it_and_gets_no_more_questions() {
        let mut holder = peer(Some(PEER));
        assert!(!holder.asks(Question::Holder));
        holder.asked(Question::Control);
        control_echo(&mut holder, PEER, 0);
        assert!(holder.asks(Question::Holder));
        let frame = holder.frame(Question::Holder, vip(), OWN, &run()).unwrap();
        let Payload::Echo(echo) = frame.payload else {
            panic!("{frame:?}");
        };
        assert_eq!((frame.destination, frame.source), (PEER, OWN));
        let own: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
        assert_eq!((echo.source, echo.destination), (own, vip().ip()));
        assert!(!holder_echo(&mut holder, PEER, 0), "not sent yet");
        holder.asked(Question::Holder);
        assert!(!holder_echo(&mut holder, SWITCH, 0), "not the peer");
        assert!(holder_echo(&mut holder, PEER, 0));
        assert_eq!(holder.verdict(), PeerVerdict::Holder);
        assert!(!holder.wants_turns() && !holder.is_open(None));
        holder.doubt_holder();
        assert!(holder.wants_turns());
        assert_eq!(holder.verdict(), PeerVerdict::Holder, "not disproved");
        assert!(!holder_echo(&mut holder, PEER, 0), "not sent yet");
        holder.hurry();
        assert_eq!(
            turn(&mut holder, Some(5)).0,
            [Question::Echo, Question::Holder]
        );
        let mut let_go = holder.clone();
        assert!(holder_echo(&mut holder, PEER, 0));
        assert!(!holder.wants_turns());
        while let_go.is_open(Some(5)) {
            turn(&mut let_go, Some(5));
        }
        assert_eq!(let_go.verdict(), PeerVerdict::Holder, "no answer");
        for pair in 0..STALE_AFTER {
            control_echo(&mut let_go, PEER, pair);
        }
        assert_eq!(let_go.verdict(), PeerVerdict::Stale);
    }

    fn make_stale(peer: &mut Confirmation) {
        for pair in 0..STALE_AFTER {
            for question in [Question::Echo, Question::Control, Question::Holder] {
                peer.asked(question);
            }
            control_echo(peer, PEER, pair);
        }
        assert_eq!(peer.verdict(), PeerVerdict::Stale);
    }

    #[test]
    fn after_an_order_a_peer_gets_as_many_questions_as_a_new_one() {
        let mut stale = peer(Some(PEER));
        make_stale(&mut stale);
        for _ in 0..10 {
            turn(&mut stale, Some(5));
        }
        assert!(!stale.is_open(Some(5)));
        stale.order_settled(false);
        for _ in 0..5 {
            assert!(stale.is_open(Some(5)));
            turn(&mut stale, Some(5));
        }
        assert!(!stale.is_open(Some(5)), "and not for ever");
    }

    #[test]
    fn configured_peers_get_orders_at_once_and_others_once_stale() {
        let mut learned = peer(Some(PEER));
        assert_eq!(learned.take_due_order(&[]), None);
        make_stale(&mut learned);
        assert_eq!(learned.take_due_order(&[]), Some(true));
        assert_eq!(learned.take_due_order(&[]), None, "already sent");
        let mut configured = peer(Some(PEER));
        configured.peer.source = Source::Configured;
        assert_eq!(configured.take_due_order(&[]), Some(false));
        let mut offlink = configured.clone();
        offlink.order = None;
        offlink.peer.onlink = false;
        assert_eq!(offlink.take_due_order(&[]), None);
    }

    #[test]
    fn a_holder_gets_an_order_only_if_it_claims_the_vip() {
        let mut holder = peer(Some(PEER));
        holder.asked(Question::Holder);
        assert!(holder_echo(&mut holder, PEER, 0));
        assert_eq!(holder.take_due_order(&[]), None);
        assert_eq!(holder.take_due_order(&[PEER]), Some(true));
        holder.order_settled(false);
        assert_eq!(holder.verdict(), PeerVerdict::Holder);
        holder.order_settled(true);
        assert!(holder.wants_turns(), "it follows like any other, now");
    }

    #[test]
    fn a_peer_that_turns_stale_again_gets_a_few_more_orders_unless_it_refused() {
        let mut stale = peer(Some(PEER));
        make_stale(&mut stale);
        let mut orders = 0;
        for _ in 0..10 {
            orders += u32::from(stale.take_due_order(&[]).is_some());
            stale.order = Some(answered(vip(), Outcome::Purged));
            stale.order_settled(false);
            assert_eq!(stale.take_due_order(&[]), None, "no question");
            for _ in 0..STALE_AFTER {
                stale.asked(Question::Echo);
            }
        }
        assert_eq!(orders, MOST_ORDERS);
        let mut refused = peer(Some(PEER));
        make_stale(&mut refused);
        refused.order = Some(answered(vip(), Outcome::Kept(Reason::Permanent)));
        assert_eq!(refused.take_due_order(&[]), None);
    }

    #[test]
    fn a_new_mac_voids_every_answer() {
        let mut proven = peer(Some(PEER));
        proven.asked(Question::Echo);
        echo(&mut proven, PEER, 0);
        proven.start_over(proven.from);
        assert_eq!(proven.verdict(), PeerVerdict::Unasked);
        assert!(proven.wants_turns());
    }
}
