//! One peer's confirmation of one VIP: what to ask it next, and what its answers prove.
//!
//! A directed request from the VIP is stronger than a gratuitous one (it also creates entries)
//! and is answered: *acknowledged*. An echo from the VIP is answered through the peer's own
//! cache, so that its reply reaches us only if that cache is right: *proven*. A control echo from
//! the host's own address tells a wrong cache (*stale*) from a filter.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::host::Link;
use crate::order::Fate;
use crate::wire::{Arp, Echo, Frame, Ndp};

/// The gap after a first question.
const FIRST_GAP: Duration = Duration::from_millis(5);
/// The longest gap while nobody answers, because then the path is dead and may open at any
/// moment; and for a peer that answers in part.
const EAGER_GAP: Duration = Duration::from_millis(250);
/// The longest gap for a peer that is silent while others answer, and for one whose verdict no
/// question is likely to change.
const PATIENT_GAP: Duration = Duration::from_secs(2);
/// Questions that go unanswered before more than one kind of them is put.
const SIMPLE_TURNS: u32 = 2;
/// Echoes from the VIP that go unanswered before an answered control echo makes a peer stale.
const STALE_AFTER: u32 = 3;
/// Orders to one peer at most.
const MOST_ORDERS: u32 = 3;
/// Of the questions to a silent peer, one in so many goes to everyone: its MAC may have changed.
const BROADCAST_EVERY: u32 = 4;

/// Why a host is asked.
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

/// What is known of a peer's entry for a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerVerdict {
    /// Its traffic for the VIP reaches this host.
    Proven,
    /// It took a directed request in; it answers no echo.
    Acknowledged,
    /// It answers this host's own address but not the VIP: its entry is wrong.
    Stale,
    /// It has the VIP itself, where nobody asks for it: a real server of LVS, with the VIP on `lo`.
    Holder,
    /// It answers nothing.
    Silent,
    /// The VIP's link does not lead to it.
    Offlink,
}

/// Where a control echo is sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The host's own address.
    pub ip: IpAddr,
    /// The interface that holds it: for a VMAC it may be the one below.
    pub interface: InterfaceIndex,
    /// That interface's MAC.
    pub mac: Mac,
    /// Whether it shares a subnet with the peer and the VIP: only then does the peer answer the VIP
    /// on this link, and a missing answer means a wrong entry.
    pub in_vips_subnet: bool,
}

/// A host whose entry for a VIP matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address, of the VIP's family.
    pub ip: IpAddr,
    /// Its MAC, where the kernel knows it.
    pub mac: Option<Mac>,
    /// Why it is asked.
    pub source: Source,
    /// Whether its silence is a failure: it was named, or is a gateway in the VIP's subnet.
    pub required: bool,
    /// Whether the VIP's link leads to it.
    pub onlink: bool,
    /// Where to send its control echo from, if there is such an address.
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
    /// An echo from the host's own address *to the VIP*, sent to the peer's MAC: only a host that
    /// has the VIP, on whichever interface, answers.
    Holder,
}

const QUESTIONS: [Question; 4] = [
    Question::Directed,
    Question::Echo,
    Question::Control,
    Question::Holder,
];

/// How far one peer has come with one VIP.
#[derive(Clone, Debug)]
pub struct Confirmation {
    /// The peer. Its MAC is the one that it was proven to have, once it was.
    pub peer: Peer,
    /// When it answered a directed request.
    pub acknowledged: Option<Instant>,
    /// When it answered an echo from the VIP.
    pub proven: Option<Instant>,
    /// Whether it answered an echo to the VIP: it has the VIP itself.
    pub holds_vip: bool,
    /// A MAC other than the known one that answered for it: a switch or proxy, or a new card.
    pub answered_by: Option<Mac>,
    /// What became of the order to it, if it was sent one.
    pub order: Option<Fate>,
    orders: u32,
    /// Where it is asked from; for an address that this host has not, it is not asked.
    from: Option<IpAddr>,
    control_answered: bool,
    /// Whether it answered an echo to the VIP before that was asked again.
    held_vip: bool,
    /// Turns since its last step forward.
    turn: u32,
    directed: u32,
    echoes: u32,
    controls: u32,
    holders: u32,
    /// Of each question, those put before the path came alive, or before the peer purged.
    asked_while_dead: [u32; QUESTIONS.len()],
    /// Counts the times that its turns started anew: an older count's tasks are void.
    pub(crate) epoch: u32,
}

impl Confirmation {
    /// `from` is the address that directed requests come from.
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
            directed: 0,
            echoes: 0,
            controls: 0,
            holders: 0,
            asked_while_dead: [0; QUESTIONS.len()],
            epoch: 0,
        }
    }

    /// Forgets every answer: another MAC is announced from now on, or it is announced again.
    pub(crate) fn start_over(&mut self, from: Option<IpAddr>) {
        let epoch = self.epoch;
        *self = Self::new(self.peer.clone(), from);
        self.epoch = epoch;
    }

    /// Whether it still has the VIP is asked as if never before. Should it answer nothing, that it
    /// had the VIP is what is known.
    pub(crate) fn doubt_holder(&mut self) {
        (self.holds_vip, self.held_vip) = (false, true);
        self.control_answered = false;
        (self.echoes, self.controls, self.holders) = (0, 0, 0);
        self.asked_while_dead = QUESTIONS.map(|question| self.count(question));
    }

    /// An own address is gone.
    pub(crate) fn stop_asking_from(&mut self, own: IpAddr) {
        self.from = self.from.filter(|from| *from != own);
    }

    /// Control echoes leave from the MAC that their interface has now.
    pub(crate) fn link_changed(&mut self, link: &Link) {
        if let (Some(control), Some(mac)) = (&mut self.peer.control, link.mac)
            && control.interface == link.index
        {
            control.mac = mac;
        }
    }

    /// Begins new turns, with short gaps.
    pub(crate) fn hurry(&mut self) {
        self.turn = 0;
        self.epoch += 1;
    }

    /// Whether anything was heard from it.
    pub(crate) fn is_heard(&self) -> bool {
        let answered = self.acknowledged.is_some() || self.control_answered || self.held_vip;
        answered || self.answered_by.is_some()
    }

    /// Whether it answered anything itself.
    pub(crate) fn has_answered(&self) -> bool {
        let answered = self.acknowledged.is_some() || self.control_answered || self.held_vip;
        answered || self.proven.is_some()
    }

    /// How many questions of a kind were put while the path was alive, as far as is known.
    pub(crate) fn asked_while_alive(&self, question: Question) -> u32 {
        let (all, dead) = (
            self.count(question),
            self.asked_while_dead[question as usize],
        );
        all - dead
    }

    fn count(&self, question: Question) -> u32 {
        match question {
            Question::Directed => self.directed,
            Question::Echo => self.echoes,
            Question::Control => self.controls,
            Question::Holder => self.holders,
        }
    }

    /// The path was dead until now: that questions were lost tells nothing of the peer, nor of
    /// how much the path loses.
    pub(crate) fn path_came_alive(&mut self) {
        self.asked_while_dead = QUESTIONS.map(|question| self.count(question));
    }

    /// Whether it shall be ordered to purge now, and if so, whether it was found stale. So is a
    /// host that has the VIP and is among its `owners`, who claim it. The order counts as sent.
    pub(crate) fn take_due_order(&mut self, owners: &[Mac]) -> Option<bool> {
        let stale = match self.verdict() {
            PeerVerdict::Stale => true,
            PeerVerdict::Holder => self.peer.mac.is_some_and(|mac| owners.contains(&mac)),
            _ => false,
        };
        let due = match &self.order {
            None => stale || self.peer.source == Source::Configured,
            // It did what it could, and has learned wrong again since.
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

    /// It did as it was ordered: what it did not answer before says nothing; nor does it that it
    /// had the VIP, if it was `released`.
    pub(crate) fn order_carried_out(&mut self, released: bool) {
        self.holds_vip &= !released;
        self.held_vip &= !released;
        self.asked_while_dead = QUESTIONS.map(|question| self.count(question));
    }

    /// Whether more questions could change the verdict. `enough` is the number of questions that
    /// are not lost all by chance.
    pub(crate) fn is_open(&self, enough: Option<u32>) -> bool {
        if !self.wants_turns() {
            return false;
        }
        match enough {
            // There is news, or a first question to come: where two MACs answered, to each.
            _ if self.turn == 0 || (self.turn == 1 && self.answered_by.is_some()) => true,
            // Nobody answers: the path may yet open.
            None => true,
            Some(enough) if self.is_heard() => self.asked_while_alive(Question::Echo) < enough,
            Some(enough) => {
                self.peer.required || self.asked_while_alive(Question::Directed) < enough
            }
        }
    }

    /// Whether it is asked at all.
    pub(crate) fn wants_turns(&self) -> bool {
        self.proven.is_none() && !self.holds_vip && self.peer.onlink
    }

    /// The question that follows `after` in this turn; `None` ends the turn.
    pub(crate) fn next_question(&self, after: Option<Question>) -> Option<Question> {
        QUESTIONS
            .into_iter()
            .filter(|question| after.is_none_or(|after| *question > after))
            .find(|question| self.asks(*question))
    }

    /// Whether it is a question of this turn.
    pub(crate) fn asks(&self, question: Question) -> bool {
        let echo_possible = self.peer.mac.or(self.answered_by).is_some();
        let control_possible = echo_possible && self.peer.control.is_some();
        let simple = self.turn < SIMPLE_TURNS && self.from.is_some();
        match question {
            // Repeated also after it was acknowledged, for it may have learned wrong again.
            Question::Directed => self.from.is_some() && !(self.is_heard() && simple),
            Question::Echo if self.is_heard() => echo_possible,
            Question::Control if self.is_heard() => control_possible && self.turn > 0,
            // There are hosts that answer an echo but no directed request (arp_ignore=8). One of
            // the two at a time, so that dead hosts cost little.
            Question::Echo => {
                echo_possible && !simple && (self.turn.is_multiple_of(2) || !control_possible)
            }
            Question::Control => control_possible && !simple && self.turn % 2 == 1,
            // Not before the control was answered: a host that has no entry for this one's own
            // address would ask for it from the VIP, unless arp_announce forbids that.
            Question::Holder => control_possible && (self.control_answered || self.held_vip),
        }
    }

    /// Ends the turn. Returns the gap to the next one. `enough` as for [`Self::is_open`].
    pub(crate) fn end_turn(&mut self, enough: Option<u32>) -> Duration {
        let longest = match enough {
            None => EAGER_GAP,
            Some(enough) if self.is_heard() && self.echoes < enough => EAGER_GAP,
            Some(_) => PATIENT_GAP,
        };
        let gap = FIRST_GAP * (1 << self.turn.min(16));
        self.turn += 1;
        gap.min(longest)
    }

    /// The frame that asks `question` for `vip`, announced as `mac`.
    pub(crate) fn frame(
        &self,
        question: Question,
        vip: Vip,
        mac: Mac,
        run: EchoId,
    ) -> Option<Frame> {
        match question {
            Question::Directed => {
                let to_everyone =
                    !self.is_heard() && self.turn % BROADCAST_EVERY == BROADCAST_EVERY - 1;
                let known = self.peer.mac.filter(|_| !to_everyone);
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
                run.sequence(self.echoes),
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

    /// The MAC that echoes go to. Where another than the known one answered, each in its turn: a
    /// host is only where it answers the echo itself.
    fn echo_mac(&self) -> Option<Mac> {
        match (self.peer.mac, self.answered_by) {
            (Some(_), Some(other)) if self.turn.is_multiple_of(2) => Some(other),
            (known, other) => known.or(other),
        }
    }

    /// A question was put.
    pub(crate) fn asked(&mut self, question: Question) {
        match question {
            Question::Directed => self.directed += 1,
            Question::Echo => self.echoes += 1,
            Question::Control => self.controls += 1,
            Question::Holder => self.holders += 1,
        }
    }

    /// A directed request was answered from `mac`. Returns whether that is news.
    pub(crate) fn on_answer(&mut self, now: Instant, mac: Mac) -> bool {
        let settled = self.acknowledged.is_some() || self.proven.is_some() || self.holds_vip;
        if self.directed == 0 || settled {
            return false;
        }
        match self.peer.mac {
            Some(known) if known != mac => {
                // Only the first time: where two answer for it, each of their answers would
                // begin new turns, without end.
                let news = self.answered_by.is_none();
                self.answered_by = Some(mac);
                news
            }
            _ => {
                self.peer.mac = Some(mac);
                self.acknowledged = Some(now);
                true
            }
        }
    }

    /// An echo from the VIP was answered from `mac`. Returns whether that is news.
    pub(crate) fn on_echo(&mut self, now: Instant, mac: Mac, sequence: u16, run: EchoId) -> bool {
        let expected = self.peer.mac == Some(mac) || self.answered_by == Some(mac);
        if self.proven.is_some() || !expected || !run.sent(sequence, self.echoes) {
            return false;
        }
        self.peer.mac = Some(mac);
        self.answered_by = None;
        self.proven = Some(now);
        true
    }

    /// A control echo was answered from `mac`. Returns whether that is news.
    pub(crate) fn on_control_echo(&mut self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        let expected = self.peer.mac == Some(mac) || self.answered_by == Some(mac);
        if self.control_answered || !expected || !run.sent(sequence, self.controls) {
            return false;
        }
        self.control_answered = true;
        true
    }

    /// Whether such an answer would be news.
    pub(crate) fn expects_holder(&self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        let expected = self.peer.mac == Some(mac) || self.answered_by == Some(mac);
        !self.holds_vip && expected && run.sent(sequence, self.holders)
    }

    /// An echo to the VIP was answered, with the VIP as source, from `mac`. Returns whether that is
    /// news.
    pub(crate) fn on_holder_echo(&mut self, mac: Mac, sequence: u16, run: EchoId) -> bool {
        if !self.expects_holder(mac, sequence, run) {
            return false;
        }
        self.peer.mac = Some(mac);
        self.answered_by = None;
        self.holds_vip = true;
        true
    }

    /// Whether so many echoes from the VIP went unanswered that its entry is wrong, and so many to
    /// the VIP that it does not have the VIP itself.
    fn is_stale(&self) -> bool {
        let in_vips_subnet = self
            .peer
            .control
            .is_some_and(|control| control.in_vips_subnet);
        in_vips_subnet && self.echoes >= STALE_AFTER && self.holders >= STALE_AFTER
    }

    /// What is known by now.
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

/// What tells this run's echoes from those of others.
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

    /// The sequence number of the echo after `count` others.
    fn sequence(self, count: u32) -> u16 {
        // Modulo 2^16 on purpose: the field wraps.
        let [.., high, low] = count.to_be_bytes();
        self.first_sequence
            .wrapping_add(u16::from_be_bytes([high, low]))
    }

    /// Whether `sequence` is that of one of the `count` echoes sent.
    fn sent(self, sequence: u16, count: u32) -> bool {
        u32::from(sequence.wrapping_sub(self.first_sequence)) < count
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::order::{Done, Outcome, Reason};
    use crate::wire::Payload;

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const SWITCH: Mac = Mac::new([2, 0, 0, 0, 0, 3]);

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

    /// The questions of the next turn, put; and the gap after it.
    fn turn(confirmation: &mut Confirmation, enough: Option<u32>) -> (Vec<Question>, Duration) {
        let mut questions = Vec::new();
        while let Some(next) = confirmation.next_question(questions.last().copied()) {
            confirmation.asked(next);
            questions.push(next);
        }
        (questions, confirmation.end_turn(enough))
    }

    const ECHO_AND_CONTROL: [Question; 2] = [Question::Echo, Question::Control];

    #[test]
    fn a_silent_peer_is_asked_ever_less_but_for_echoes_too() {
        let mut silent = peer(Some(PEER));
        let turns: Vec<_> = (0..5).map(|_| turn(&mut silent, Some(5)).0).collect();
        assert_eq!(turns[..2], [[Question::Directed], [Question::Directed]]);
        assert_eq!(turns[2], [Question::Directed, Question::Echo]);
        assert_eq!(turns[3], [Question::Directed, Question::Control]);
        assert_eq!(turns[4], [Question::Directed, Question::Echo]);
        assert_eq!(silent.verdict(), PeerVerdict::Silent);
    }

    #[test]
    fn no_directed_request_leaves_from_an_address_that_left() {
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
    fn gaps_grow_to_a_quarter_second_while_nobody_answers_and_else_to_two() {
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
    fn one_question_in_four_to_a_silent_peer_goes_to_everyone() {
        let mut silent = peer(Some(PEER));
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let destinations: Vec<_> = (0..8)
            .map(|_| {
                let frame = silent.frame(Question::Directed, vip, OWN, run()).unwrap();
                turn(&mut silent, None);
                frame.destination
            })
            .collect();
        let four = [PEER, PEER, PEER, Mac::BROADCAST];
        assert_eq!(destinations, [four, four].concat());
    }

    #[test]
    fn an_ipv6_peer_is_solicited_from_an_ipv6_address_alone() {
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
    fn an_answer_is_followed_by_an_echo_at_once() {
        let mut answers = peer(Some(PEER));
        let now = Instant::now();
        assert!(!answers.on_answer(now, PEER), "nothing was asked");
        turn(&mut answers, None);
        assert!(answers.on_answer(now, PEER));
        assert!(!answers.on_answer(now, PEER), "that is no news");
        assert_eq!(answers.verdict(), PeerVerdict::Acknowledged);
        answers.hurry();
        assert_eq!(turn(&mut answers, Some(5)).0, [Question::Echo]);
        assert_eq!(turn(&mut answers, Some(5)).0, ECHO_AND_CONTROL);
        let all_but_for_a_holder = &QUESTIONS[..3];
        assert_eq!(turn(&mut answers, Some(5)).0, all_but_for_a_holder);
    }

    #[test]
    fn only_an_echo_that_was_sent_proves() {
        let (now, run) = (Instant::now(), run());
        let mut asked = peer(Some(PEER));
        assert!(!asked.on_echo(now, PEER, run.sequence(0), run));
        asked.asked(Question::Echo);
        asked.asked(Question::Echo);
        assert!(
            !asked.on_echo(now, PEER, run.sequence(2), run),
            "not sent yet"
        );
        assert!(
            !asked.on_echo(now, SWITCH, run.sequence(1), run),
            "not the peer"
        );
        assert_eq!(asked.verdict(), PeerVerdict::Silent);
        assert_eq!(run.sequence(1), 0, "sequences wrap");
        assert!(asked.on_echo(now, PEER, run.sequence(1), run));
        assert_eq!(asked.verdict(), PeerVerdict::Proven);
        assert!(!asked.wants_turns() && !asked.is_open(None));
    }

    #[test]
    fn who_answers_for_a_peer_is_told_but_acknowledges_nothing() {
        let mut proxied = peer(Some(PEER));
        turn(&mut proxied, None);
        assert!(proxied.on_answer(Instant::now(), SWITCH));
        assert!(!proxied.on_answer(Instant::now(), OWN), "told once");
        assert_eq!(proxied.verdict(), PeerVerdict::Silent);
        assert!(proxied.on_answer(Instant::now(), PEER));
        assert_eq!(proxied.verdict(), PeerVerdict::Acknowledged);
    }

    #[test]
    fn echoes_go_to_either_mac_where_two_answered() {
        let mut moved = peer(Some(PEER));
        turn(&mut moved, None);
        moved.on_answer(Instant::now(), SWITCH);
        moved.hurry();
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let mut to = || {
            let frame = moved.frame(Question::Echo, vip, OWN, run()).unwrap();
            assert!(matches!(frame.payload, Payload::Echo(_)));
            turn(&mut moved, Some(5));
            frame.destination
        };
        assert_eq!([to(), to(), to()], [SWITCH, PEER, SWITCH]);
    }

    #[test]
    fn news_opens_a_peer_again_for_a_question_to_each_mac() {
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
    fn stale_is_who_answers_the_control_but_three_times_not_the_vip() {
        let mut stale = peer(Some(PEER));
        stale.asked(Question::Control);
        assert!(
            !stale.on_control_echo(PEER, run().sequence(1), run()),
            "not sent yet"
        );
        assert!(
            !stale.on_control_echo(SWITCH, run().sequence(0), run()),
            "not the peer"
        );
        assert!(stale.on_control_echo(PEER, run().sequence(0), run()));
        for _ in 0..3 {
            assert_eq!(stale.verdict(), PeerVerdict::Silent);
            stale.asked(Question::Echo);
            assert_eq!(
                stale.verdict(),
                PeerVerdict::Silent,
                "it may have the VIP itself"
            );
            stale.asked(Question::Holder);
        }
        assert_eq!(stale.verdict(), PeerVerdict::Stale);
        stale.peer.control.as_mut().unwrap().in_vips_subnet = false;
        assert_eq!(
            stale.verdict(),
            PeerVerdict::Silent,
            "it may answer by another way"
        );
    }

    #[test]
    fn who_answers_for_the_vip_has_it_and_is_asked_no_more() {
        let vip: Vip = "10.0.0.10".parse().unwrap();
        let mut holder = peer(Some(PEER));
        assert!(!holder.asks(Question::Holder));
        holder.asked(Question::Control);
        holder.on_control_echo(PEER, run().sequence(0), run());
        assert!(holder.asks(Question::Holder));
        let frame = holder.frame(Question::Holder, vip, OWN, run()).unwrap();
        let Payload::Echo(echo) = frame.payload else {
            panic!("{frame:?}");
        };
        assert_eq!((frame.destination, frame.source), (PEER, OWN));
        let own: IpAddr = Ipv4Addr::new(10, 0, 0, 1).into();
        assert_eq!((echo.source, echo.destination), (own, vip.ip()));
        assert!(
            !holder.on_holder_echo(PEER, run().sequence(0), run()),
            "not sent yet"
        );
        holder.asked(Question::Holder);
        assert!(
            !holder.on_holder_echo(SWITCH, run().sequence(0), run()),
            "not the peer"
        );
        assert!(holder.on_holder_echo(PEER, run().sequence(0), run()));
        assert_eq!(holder.verdict(), PeerVerdict::Holder);
        assert!(!holder.wants_turns() && !holder.is_open(None));
        holder.doubt_holder();
        assert!(holder.wants_turns());
        assert_eq!(
            holder.verdict(),
            PeerVerdict::Holder,
            "until it is disproved"
        );
        assert!(
            !holder.on_holder_echo(PEER, run().sequence(0), run()),
            "not sent yet"
        );
        holder.hurry();
        assert_eq!(
            turn(&mut holder, Some(5)).0,
            [Question::Echo, Question::Holder]
        );
        let mut let_go = holder.clone();
        assert!(holder.on_holder_echo(PEER, run().sequence(0), run()));
        assert!(!holder.wants_turns());
        while let_go.is_open(Some(5)) {
            turn(&mut let_go, Some(5));
        }
        assert_eq!(let_go.verdict(), PeerVerdict::Holder, "nothing is new");
        assert!(let_go.on_control_echo(PEER, run().sequence(0), run()));
        assert_eq!(let_go.verdict(), PeerVerdict::Stale);
    }

    fn answered(outcome: Outcome) -> Fate {
        let done = Done {
            vip: "10.0.0.10".parse().unwrap(),
            outcome,
            was: None,
            now: None,
            interface: String::new(),
        };
        Fate::Answered { done, skew: None }
    }

    fn make_stale(peer: &mut Confirmation) {
        peer.asked(Question::Control);
        peer.on_control_echo(PEER, run().sequence(0), run());
        for _ in 0..STALE_AFTER {
            peer.asked(Question::Echo);
            peer.asked(Question::Holder);
        }
        assert_eq!(peer.verdict(), PeerVerdict::Stale);
    }

    #[test]
    fn who_obeyed_an_order_is_asked_as_often_as_if_never_before() {
        let mut stale = peer(Some(PEER));
        make_stale(&mut stale);
        for _ in 0..10 {
            turn(&mut stale, Some(5));
        }
        assert!(!stale.is_open(Some(5)));
        stale.order_carried_out(false);
        for _ in 0..5 {
            assert!(stale.is_open(Some(5)));
            turn(&mut stale, Some(5));
        }
        assert!(!stale.is_open(Some(5)), "and not for ever");
    }

    #[test]
    fn who_was_configured_is_ordered_at_once_and_others_when_they_are_stale() {
        let mut learned = peer(Some(PEER));
        assert_eq!(learned.take_due_order(&[]), None);
        make_stale(&mut learned);
        assert_eq!(learned.take_due_order(&[]), Some(true));
        assert_eq!(learned.take_due_order(&[]), None, "it is on its way");
        let mut configured = peer(Some(PEER));
        configured.peer.source = Source::Configured;
        assert_eq!(configured.take_due_order(&[]), Some(false));
        let mut offlink = configured.clone();
        offlink.order = None;
        offlink.peer.onlink = false;
        assert_eq!(offlink.take_due_order(&[]), None);
    }

    #[test]
    fn who_has_the_vip_is_ordered_if_it_claims_it_and_a_real_server_is_not() {
        let mut holder = peer(Some(PEER));
        holder.asked(Question::Holder);
        assert!(holder.on_holder_echo(PEER, run().sequence(0), run()));
        assert_eq!(holder.take_due_order(&[]), None);
        assert_eq!(holder.take_due_order(&[PEER]), Some(true));
        holder.order_carried_out(false);
        assert_eq!(holder.verdict(), PeerVerdict::Holder);
        holder.order_carried_out(true);
        assert!(holder.wants_turns(), "it follows like any other, now");
    }

    #[test]
    fn who_learned_wrong_again_is_ordered_again_a_few_times_and_who_refused_is_not() {
        let mut stale = peer(Some(PEER));
        make_stale(&mut stale);
        let mut orders = 0;
        for _ in 0..10 {
            orders += u32::from(stale.take_due_order(&[]).is_some());
            stale.order = Some(answered(Outcome::Purged));
            stale.order_carried_out(false);
            assert_eq!(
                stale.take_due_order(&[]),
                None,
                "it has not been asked since"
            );
            for _ in 0..STALE_AFTER {
                stale.asked(Question::Echo);
            }
        }
        assert_eq!(orders, MOST_ORDERS);
        let mut refused = peer(Some(PEER));
        make_stale(&mut refused);
        refused.order = Some(answered(Outcome::Kept(Reason::Permanent)));
        assert_eq!(refused.take_due_order(&[]), None);
    }

    #[test]
    fn another_mac_of_ours_makes_every_answer_void() {
        let mut proven = peer(Some(PEER));
        proven.asked(Question::Echo);
        proven.on_echo(Instant::now(), PEER, run().sequence(0), run());
        proven.start_over(proven.from);
        assert_eq!(proven.verdict(), PeerVerdict::Silent);
        assert!(proven.wants_turns());
    }
}
