//! One peer's confirmation of one VIP: what to ask next, and what answers prove.
//!
//! A directed request from the VIP is stronger than a gratuitous one: it also creates entries, and
//! the peer answers it (*acknowledged*). The peer sends its reply to an echo from the VIP to the MAC
//! in its own cache, so it reaches us only if that entry is right (*proven*). A control echo from the
//! host's own address tells a wrong entry (*stale*) from a filter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::host::Link;
use crate::order::Fate;
use crate::wire::{Arp, Echo, Frame, Ndp};

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
/// Unanswered echoes from the VIP before an answered control echo makes a peer stale.
const STALE_AFTER: u32 = 3;
/// The most orders to one peer.
const MOST_ORDERS: u32 = 3;
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
    /// The source of its control echoes, if this host has one.
    pub control: Option<Control>,
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
    /// When it answered an echo from the VIP.
    pub proven: Option<Instant>,
    /// Whether it has the VIP itself: it answered an echo to the VIP.
    pub holds_vip: bool,
    /// An unexpected MAC that answered for it: of a switch, a proxy, or a new card.
    pub answered_by: Option<Mac>,
    /// The result of the last order to it.
    pub order: Option<Fate>,
    orders: u32,
    /// Source address of directed requests. `None` once this host has lost it: then it sends none.
    from: Option<IpAddr>,
    control_answered: bool,
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
            acknowledged: None,
            proven: None,
            holds_vip: false,
            answered_by: None,
            order: None,
            orders: 0,
            control_answered: false,
            held_vip: false,
            turn: 0,
            asked: [0; QUESTIONS.len()],
            asked_while_dead: [0; QUESTIONS.len()],
            epoch: 0,
        }
    }

    /// Forgets every answer: the MAC changed, or the rounds start over.
    pub(crate) fn start_over(&mut self, from: Option<IpAddr>) {
        let epoch = self.epoch;
        *self = Self::new(self.peer.clone(), from);
        self.epoch = epoch;
    }

    /// Asks again whether it has the VIP. If it then answers nothing, it remains a holder.
    pub(crate) fn doubt_holder(&mut self) {
        (self.holds_vip, self.held_vip) = (false, true);
        self.control_answered = false;
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
        let answered = self.acknowledged.is_some() || self.control_answered || self.held_vip;
        answered || self.answered_by.is_some()
    }

    /// Whether the peer itself answered any question.
    pub(crate) fn has_answered(&self) -> bool {
        let answered = self.acknowledged.is_some() || self.control_answered || self.held_vip;
        answered || self.proven.is_some()
    }

    /// The questions of a kind since the path came alive.
    pub(crate) fn asked_while_alive(&self, question: Question) -> u32 {
        self.count(question) - self.asked_while_dead[question as usize]
    }

    fn count(&self, question: Question) -> u32 {
        self.asked[question as usize]
    }

    /// The path was dead until now: earlier lost questions prove nothing about the peer or the loss.
    pub(crate) fn path_came_alive(&mut self) {
        self.asked_while_dead = self.asked;
    }

    /// Takes the order to purge that is due, and counts it as sent. `true`: the peer is stale, or has the
    /// VIP and is among the `owners` that claim it.
    pub(crate) fn take_due_order(&mut self, owners: &[Mac]) -> Option<bool> {
        let stale = match self.verdict() {
            PeerVerdict::Stale => true,
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
            Some(enough) if self.has_replied() => self.asked_while_alive(Question::Echo) < enough,
            Some(enough) => {
                self.peer.required || self.asked_while_alive(Question::Directed) < enough
            }
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
        let simple = self.turn < SIMPLE_TURNS && self.from.is_some();
        match question {
            // Also after an acknowledgement: the peer may have learned a wrong MAC again.
            Question::Directed => self.from.is_some() && !(self.has_replied() && simple),
            Question::Echo if self.has_replied() => echo_possible,
            Question::Control if self.has_replied() => control_possible && self.turn > 0,
            // Some hosts answer an echo but no directed request (arp_ignore=8). Echo and control
            // alternate, so that dead hosts cost little.
            Question::Echo => {
                echo_possible && !simple && (self.turn.is_multiple_of(2) || !control_possible)
            }
            Question::Control => control_possible && !simple && self.turn % 2 == 1,
            // Only after an answer to a control echo: a host without an entry for this one's own
            // address would ask for it from the VIP, unless arp_announce forbids that.
            Question::Holder => control_possible && (self.control_answered || self.held_vip),
        }
    }

    /// Ends the turn. Returns the gap to the next. `enough` as for [`Self::is_open`].
    pub(crate) fn end_turn(&mut self, enough: Option<u32>) -> Duration {
        let longest = match enough {
            None => EAGER_GAP,
            Some(enough) if self.has_replied() && self.count(Question::Echo) < enough => EAGER_GAP,
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
        run: EchoId,
    ) -> Option<Frame> {
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
                run.identifier,
                run.sequence(self.count(question)),
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
                    run.identifier,
                    run.sequence(self.count(question)),
                ))
            }
        }
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

    /// `mac` answered an echo from the VIP. Returns whether that is new.
    pub(crate) fn on_echo(&mut self, now: Instant, mac: Mac, sequence: u16, run: EchoId) -> bool {
        if self.proven.is_some()
            || !self.is_at(mac)
            || !run.sent(sequence, self.count(Question::Echo))
        {
            return false;
        }
        self.peer.mac = Some(mac);
        self.answered_by = None;
        self.proven = Some(now);
        true
    }

    /// `mac` answered a control echo. Returns whether that is new.
    pub(crate) fn on_control_echo(&mut self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        if self.control_answered
            || !self.is_at(mac)
            || !run.sent(sequence, self.count(Question::Control))
        {
            return false;
        }
        self.control_answered = true;
        true
    }

    /// Whether such an answer would be new.
    pub(crate) fn expects_holder(&self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        !self.holds_vip && self.is_at(mac) && run.sent(sequence, self.count(Question::Holder))
    }

    /// `mac` answered an echo to the VIP, with the VIP as source. Returns whether that is new.
    pub(crate) fn on_holder_echo(&mut self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        if !self.expects_holder(mac, sequence, run) {
            return false;
        }
        self.peer.mac = Some(mac);
        self.answered_by = None;
        self.holds_vip = true;
        true
    }

    /// Whether the peer has this MAC, or this MAC answered for it.
    fn is_at(&self, mac: Mac) -> bool {
        self.peer.mac == Some(mac) || self.answered_by == Some(mac)
    }

    /// Whether enough echoes from the VIP stayed unanswered to make its entry wrong, and enough echoes
    /// to the VIP to rule out that it has the VIP itself.
    fn is_stale(&self) -> bool {
        let in_vips_subnet = |control: Control| control.in_vips_subnet;
        self.peer.control.is_some_and(in_vips_subnet)
            && self.count(Question::Echo) >= STALE_AFTER
            && self.count(Question::Holder) >= STALE_AFTER
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
        } else if self.control_answered && self.is_stale() {
            PeerVerdict::Stale
        } else if self.acknowledged.is_some() {
            PeerVerdict::Acknowledged
        } else if self.held_vip {
            PeerVerdict::Holder
        } else {
            PeerVerdict::Silent
        }
    }
}

/// Identifies the echoes of this run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EchoId {
    pub(crate) identifier: u16,
    first_sequence: u16,
}

impl EchoId {
    pub(crate) fn new(seed: u64) -> Self {
        let [a, b, c, d, ..] = seed.to_be_bytes();
        Self {
            identifier: u16::from_be_bytes([a, b]),
            first_sequence: u16::from_be_bytes([c, d]),
        }
    }

    /// The sequence number of the echo after `count` earlier ones.
    fn sequence(self, count: u32) -> u16 {
        // The field wraps at 2^16.
        let [.., high, low] = count.to_be_bytes();
        self.first_sequence
            .wrapping_add(u16::from_be_bytes([high, low]))
    }

    /// Whether one of `count` sent echoes has this sequence number.
    fn sent(self, sequence: u16, count: u32) -> bool {
        u32::from(sequence.wrapping_sub(self.first_sequence)) < count
    }
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

    /// `mac` answers the echo of this number.
    fn echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        peer.on_echo(Instant::now(), mac, run().sequence(number), run())
    }

    fn control_echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        peer.on_control_echo(mac, run().sequence(number), run())
    }

    fn holder_echo(peer: &mut Confirmation, mac: Mac, number: u32) -> bool {
        peer.on_holder_echo(mac, run().sequence(number), run())
    }

    const ECHO_AND_CONTROL: [Question; 2] = [Question::Echo, Question::Control];

    #[test]
    fn a_silent_peer_gets_echoes_too() {
        let mut silent = peer(Some(PEER));
        let turns: Vec<_> = (0..5).map(|_| turn(&mut silent, Some(5)).0).collect();
        assert_eq!(turns[..2], [[Question::Directed], [Question::Directed]]);
        assert_eq!(turns[2], [Question::Directed, Question::Echo]);
        assert_eq!(turns[3], [Question::Directed, Question::Control]);
        assert_eq!(turns[4], [Question::Directed, Question::Echo]);
        assert_eq!(silent.verdict(), PeerVerdict::Silent);
    }

    #[test]
    fn no_directed_request_leaves_from_a_lost_address() {
        let mut asked = peer(Some(PEER));
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
                let frame = silent.frame(Question::Directed, vip(), OWN, run()).unwrap();
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
            asked.frame(Question::Directed, vip, OWN, run())
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
        assert!(!echo(&mut asked, SWITCH, 1), "not the peer");
        assert_eq!(asked.verdict(), PeerVerdict::Silent);
        assert_eq!(run().sequence(1), 0, "sequences wrap");
        assert!(echo(&mut asked, PEER, 1));
        assert_eq!(asked.verdict(), PeerVerdict::Proven);
        assert!(!asked.wants_turns() && !asked.is_open(None));
    }

    #[test]
    fn another_mac_that_answers_for_a_peer_acknowledges_nothing() {
        let mut proxied = peer(Some(PEER));
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
        turn(&mut moved, None);
        moved.on_answer(Instant::now(), SWITCH);
        moved.hurry();
        let mut to = || {
            let frame = moved.frame(Question::Echo, vip(), OWN, run()).unwrap();
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
        assert!(!control_echo(&mut stale, SWITCH, 0), "not the peer");
        assert!(control_echo(&mut stale, PEER, 0));
        for _ in 0..3 {
            assert_eq!(stale.verdict(), PeerVerdict::Silent);
            stale.asked(Question::Echo);
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
        let frame = holder.frame(Question::Holder, vip(), OWN, run()).unwrap();
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
        assert!(control_echo(&mut let_go, PEER, 0));
        assert_eq!(let_go.verdict(), PeerVerdict::Stale);
    }

    fn make_stale(peer: &mut Confirmation) {
        peer.asked(Question::Control);
        control_echo(peer, PEER, 0);
        for _ in 0..STALE_AFTER {
            peer.asked(Question::Echo);
            peer.asked(Question::Holder);
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
        assert_eq!(proven.verdict(), PeerVerdict::Silent);
        assert!(proven.wants_turns());
    }
}
