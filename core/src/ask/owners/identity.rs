//! Identifies the owners of a VIP if their answers are ambiguous.
//!
//! A MAC that this host sends to may belong to the owner although it answered no broadcast (bond mode
//! balance-alb uses two MACs): so it gets a unicast request. Only a host that has the VIP answers an
//! echo request *to the VIP* with TTL 1, through any of its cards: that tells two cards of one host
//! from two hosts. A MAC that answers for unused addresses is a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::address::{Mac, Prefix, Vip};
use crate::ask::{EchoId, LAST_ANSWER};
use crate::wire::{Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload, Token};

/// The gap between two frames of the same question.
const GAP: Duration = Duration::from_millis(12);
/// How many unused addresses to ask a MAC for. A host may have one of them after all, but not each.
const UNUSED: usize = 3;
/// The XOR of their last bits with the VIP's: near it, so that routes treat them alike, and no round
/// numbers, which hosts often have.
const DISTANCES: [u8; 8] = [0x2d, 0x13, 0x36, 0x1b, 0x29, 0x0e, 0x35, 0x17];

/// The source of questions.
#[derive(Clone, Copy, Debug)]
pub struct AskedFrom {
    /// The interface's MAC.
    pub mac: Mac,
    /// An own address there of the VIP's family, not a VIP.
    pub ip: Option<IpAddr>,
    /// Secret, and different in each run: it makes this run's echoes its own.
    pub seed: u64,
}

/// What to ask a MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// The VIP, as duplicate address detection asks, so that no entry changes.
    Vip,
    /// An unused address.
    Unused(IpAddr),
    /// The VIP, from this host's own address: that gives the owner an entry for this host.
    Introduction,
    /// An echo to the VIP.
    Echo,
}

#[derive(Clone, Debug)]
struct Question {
    to: Mac,
    about: About,
    asked: u32,
    due: Instant,
    /// The MAC that answered.
    answer: Option<Mac>,
}

/// Questions to some MACs about one VIP. Each repeats until an answer, or until chance no longer
/// explains the silence.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    vip: Vip,
    from: AskedFrom,
    echoes: EchoId,
    enough: u32,
    end_at: Instant,
    last_asked: Option<Instant>,
    questions: Vec<Question>,
    frames: u32,
}

impl Identity {
    /// `enough` unanswered questions rule out chance; `wait` is how long they may take.
    pub(super) fn new(
        vip: Vip,
        from: AskedFrom,
        enough: u32,
        wait: Duration,
        now: Instant,
    ) -> Self {
        Self {
            vip,
            from,
            echoes: EchoId::new(from.seed),
            enough,
            end_at: now + wait,
            last_asked: None,
            questions: Vec::new(),
            frames: 0,
        }
    }

    fn ask(&mut self, to: Mac, about: About, now: Instant) {
        self.questions.push(Question {
            to,
            about,
            asked: 0,
            due: now,
            answer: None,
        });
    }

    /// Asks a MAC for the VIP.
    pub(super) fn ask_for_vip(&mut self, to: Mac, now: Instant) {
        self.ask(to, About::Vip, now);
    }

    /// Makes a host that answers for the VIP create an entry for this one, before any echo. That takes an
    /// own address.
    pub(super) fn introduce(&mut self, to: Mac, now: Instant) {
        if self.from.ip.is_some() {
            self.ask(to, About::Introduction, now);
        }
    }

    /// Asks whether the VIP is behind a MAC, unless that MAC itself answers for the VIP or is silent.
    pub(super) fn ask_for_echo(&mut self, to: Mac, now: Instant) {
        if self.from.ip.is_some() {
            self.ask(to, About::Echo, now);
        }
    }

    /// Asks whether a MAC answers for `unused` addresses.
    pub(super) fn ask_for_unused(&mut self, to: Mac, unused: &[IpAddr], now: Instant) {
        if unused.len() >= UNUSED {
            for ip in unused {
                self.ask(to, About::Unused(*ip), now);
            }
        }
    }

    /// The MAC that answered a request for the VIP to `to`.
    pub(super) fn answered_for_vip(&self, to: Mac) -> Option<Mac> {
        self.answer(to, About::Vip)
    }

    /// The MAC that answered an echo request to the VIP, sent to `to`.
    pub(super) fn echoed(&self, to: Mac) -> Option<Mac> {
        self.answer(to, About::Echo)
    }

    fn answer(&self, to: Mac, about: About) -> Option<Mac> {
        let mut questions = self.questions.iter();
        questions
            .find(|one| one.to == to && one.about == about)?
            .answer
    }

    /// Whether a MAC answered for every unused address.
    pub(super) fn is_proxy(&self, mac: Mac) -> bool {
        let is_its = |one: &&Question| one.to == mac && matches!(one.about, About::Unused(_));
        let mut its = self.questions.iter().filter(is_its).peekable();
        its.peek().is_some() && its.all(|one| one.answer == Some(mac))
    }

    /// Sent frames.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    fn is_open(&self, question: &Question) -> bool {
        let waits = question.about == About::Echo && !self.may_echo(question.to);
        !waits && question.answer.is_none() && question.asked < self.enough
    }

    fn may_echo(&self, to: Mac) -> bool {
        // A host without an entry for this one would ask for it from the VIP, by any of its cards, and
        // so change the entry under test.
        let mut introduced = self.questions.iter();
        let known = introduced.all(|one| one.about != About::Introduction || one.answer.is_some());
        let mut for_vip = self.questions.iter();
        let asked = for_vip.find(|one| one.about == About::Vip && one.to == to);
        known && asked.is_none_or(|one| one.answer.is_some_and(|by| by != to))
    }

    /// The next question.
    fn due(&self) -> Option<(usize, &Question)> {
        let open = self.questions.iter().enumerate();
        open.filter(|(_, one)| self.is_open(one))
            .min_by_key(|(_, one)| one.due)
    }

    /// The frame that may leave now.
    pub(super) fn poll_transmit(&self, now: Instant) -> Option<Frame> {
        let (at, question) = self.due().filter(|(_, one)| one.due <= now)?;
        (now < self.end_at).then(|| self.frame(at, question))?
    }

    fn frame(&self, at: usize, question: &Question) -> Option<Frame> {
        let AskedFrom { mac, ip: own, .. } = self.from;
        let (from_v4, from_v6) = match own {
            Some(IpAddr::V4(v4)) => (v4, None),
            Some(IpAddr::V6(v6)) => (Ipv4Addr::UNSPECIFIED, Some(v6)),
            None => (Ipv4Addr::UNSPECIFIED, None),
        };
        match (question.about, self.vip.ip()) {
            (About::Vip, IpAddr::V4(vip)) => Some(Arp::directed_request(
                Ipv4Addr::UNSPECIFIED,
                mac,
                vip,
                Some(question.to),
            )),
            (About::Introduction, IpAddr::V4(vip)) => {
                Some(Arp::directed_request(from_v4, mac, vip, Some(question.to)))
            }
            (About::Vip | About::Introduction, IpAddr::V6(vip)) => {
                Some(solicit_at(question.to, vip, mac, from_v6))
            }
            (About::Unused(IpAddr::V4(ip)), _) => {
                Some(Arp::directed_request(from_v4, mac, ip, Some(question.to)))
            }
            (About::Unused(IpAddr::V6(ip)), _) => Some(solicit_at(question.to, ip, mac, from_v6)),
            (About::Echo, vip) => {
                let token = self.token(u32::try_from(at).ok()?)?;
                Some(Echo::request((own?, mac), (vip, question.to), token))
            }
        }
    }

    /// What the reply to the echo of the question at this place repeats.
    fn token(&self, at: u32) -> Option<Token> {
        let about = (0, self.vip.ip(), self.from.ip?);
        Some(self.echoes.token(about, at))
    }

    /// No question may leave until then.
    pub(super) fn wait(&mut self, now: Instant, until: Instant) {
        for question in self.questions.iter_mut().filter(|one| one.due <= now) {
            question.due = until;
        }
    }

    /// The question left, or could not leave.
    pub(super) fn sent(&mut self, now: Instant, left: bool) {
        let Some((at, _)) = self.due() else { return };
        self.questions[at].due = now + GAP;
        if left {
            self.questions[at].asked += 1;
            self.frames += 1;
            self.last_asked = Some(now);
        }
    }

    /// The interface received a frame.
    pub(super) fn received(&mut self, frame: &Frame) {
        if frame.destination != self.from.mac {
            return;
        }
        let has_address = self.from.ip.is_some();
        match frame.payload {
            Payload::Arp(arp) if arp.operation == ArpOperation::Reply => {
                let to_probe = arp.target_ip.is_unspecified();
                self.on_answer(arp.sender_ip.into(), arp.sender_mac, |about| match about {
                    About::Vip => to_probe,
                    _ => to_probe != has_address,
                });
            }
            Payload::Ndp(ndp) => {
                if let NdpMessage::Advertisement(na) = ndp.message {
                    let mac = na.target_lladdr.unwrap_or(frame.source);
                    self.on_answer(na.target.into(), mac, |_| true);
                }
            }
            Payload::Echo(echo) if self.is_ours(&echo) => {
                let at = self.echoes.number(echo.token);
                let at = at.filter(|at| self.token(*at) == Some(echo.token));
                let question = at.and_then(|at| self.questions.get_mut(usize::try_from(at).ok()?));
                if let Some(question) = question.filter(|one| one.about == About::Echo) {
                    question.answer.get_or_insert(frame.source);
                }
            }
            _ => {}
        }
    }

    fn is_ours(&self, echo: &Echo) -> bool {
        echo.kind == EchoKind::Reply
            && echo.source == self.vip.ip()
            && Some(echo.destination) == self.from.ip
    }

    /// A host answers that `ip` is at `mac`, in a form that `fits` some questions.
    fn on_answer(&mut self, ip: IpAddr, mac: Mac, fits: impl Fn(About) -> bool) {
        let vip = self.vip.ip();
        for question in &mut self.questions {
            let target = match question.about {
                About::Vip | About::Introduction => vip,
                About::Unused(unused) => unused,
                About::Echo => continue,
            };
            // Only for the VIP does an answer from another card count.
            let may_answer = mac == question.to || question.about == About::Vip;
            let better = question.answer.is_none() || mac == question.to;
            if ip == target && fits(question.about) && may_answer && better {
                question.answer = Some(mac);
            }
        }
    }

    /// Whether no question is left, and no answer can come.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let all_answered = self.questions.iter().all(|one| one.answer.is_some());
        let asks = self.due().is_some() && now < self.end_at;
        all_answered || !asks && self.last_answer_until().is_none_or(|until| until <= now)
    }

    fn last_answer_until(&self) -> Option<Instant> {
        self.last_asked.map(|at| at + LAST_ANSWER)
    }

    /// When to poll again if nothing happens earlier.
    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        match self.due().filter(|_| now < self.end_at) {
            Some((_, question)) => question.due.min(self.end_at),
            None => self.last_answer_until().unwrap_or(now),
        }
    }
}

/// A unicast solicitation.
fn solicit_at(to: Mac, target: Ipv6Addr, mac: Mac, own: Option<Ipv6Addr>) -> Frame {
    let mut frame = Ndp::probe(target, mac, own);
    frame.destination = to;
    if let Payload::Ndp(ndp) = &mut frame.payload {
        ndp.destination = target;
    }
    frame
}

/// Addresses in the VIP's `subnet` near it that are not `known` to be in use.
pub fn unused_near(vip: Vip, subnet: Prefix, known: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
    let at = |distance: u8| match vip.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ u32::from(distance)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() ^ u128::from(distance)).into(),
    };
    let everyone = subnet.broadcast();
    let first = everyone.map(|_| subnet.first());
    DISTANCES
        .map(at)
        .into_iter()
        .filter(|ip| subnet.contains(*ip) && !known(*ip))
        .filter(|ip| everyone.is_none_or(|all| IpAddr::V4(all) != *ip) && Some(*ip) != first)
        .take(UNUSED)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::testing::{A, B, OWN, reply};

    const WAIT: Duration = Duration::from_secs(1);

    fn vip() -> Vip {
        "10.0.0.100".parse().unwrap()
    }

    fn identity(now: Instant) -> Identity {
        let asker = AskedFrom {
            mac: OWN,
            ip: Some([10, 0, 0, 1].into()),
            seed: 7,
        };
        Identity::new(vip(), asker, 12, WAIT, now)
    }

    /// Asks to the end; `answer` plays the other hosts. Returns how long it took.
    fn play(
        asked: &mut Identity,
        start: Instant,
        mut answer: impl FnMut(&Frame) -> Option<Frame>,
    ) -> Duration {
        let mut now = start;
        while !asked.is_over(now) {
            while let Some(frame) = asked.poll_transmit(now) {
                asked.sent(now, true);
                if let Some(answer) = answer(&frame) {
                    asked.received(&answer);
                }
            }
            now = asked.next_deadline(now).max(now + Duration::from_millis(1));
        }
        now - start
    }

    fn is_echo(frame: &Frame) -> bool {
        matches!(frame.payload, Payload::Echo(_))
    }

    #[test]
    fn a_mac_answers_itself_or_through_another_card() {
        let now = Instant::now();
        for (by, echoes) in [(A, true), (B, true), (B, false)] {
            let mut asked = identity(now);
            asked.ask_for_vip(A, now);
            asked.introduce(B, now);
            asked.ask_for_echo(A, now);
            let mut introduced = false;
            play(&mut asked, now, |frame| {
                introduced |= frame.destination == B;
                assert!(introduced || !is_echo(frame));
                let answers = echoes || !is_echo(frame);
                let by = if frame.destination == B { B } else { by };
                answers.then(|| reply(frame, by))
            });
            assert_eq!(asked.answered_for_vip(A), Some(by));
            // A MAC that answers itself gets no echo request.
            let echoed = (echoes && by == B).then_some(B);
            assert_eq!(asked.echoed(A), echoed);
        }
    }

    #[test]
    fn a_silent_mac_gets_a_bounded_number_of_questions() {
        let now = Instant::now();
        let mut asked = identity(now);
        asked.ask_for_vip(A, now);
        asked.ask_for_echo(A, now);
        let took = play(&mut asked, now, |_| None);
        assert_eq!((asked.answered_for_vip(A), asked.frames()), (None, 12));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }

    #[test]
    fn a_mac_that_answers_for_every_unused_address_is_a_proxy() {
        let now = Instant::now();
        let subnet = Prefix::new([10, 0, 0, 1].into(), 24);
        let unused = unused_near(vip(), subnet, |_| false);
        assert_eq!(unused.len(), UNUSED);
        let mut asked = identity(now);
        for mac in [A, B] {
            asked.ask_for_unused(mac, &unused, now);
        }
        let mut asked_b = 0;
        play(&mut asked, now, |frame| {
            // B has one of the addresses by chance.
            let answers = frame.destination == A || {
                asked_b += 1;
                asked_b == 1
            };
            answers.then(|| reply(frame, frame.destination))
        });
        assert!(asked.is_proxy(A) && !asked.is_proxy(B));
        assert!(!identity(now).is_proxy(A), "no question left");
    }

    #[test]
    fn unused_addresses_are_in_the_subnet_and_not_in_use() {
        let near = |length, known: &[&str]| {
            let subnet = Prefix::new(vip().ip(), length);
            unused_near(vip(), subnet, |ip| known.contains(&&*ip.to_string()))
        };
        let strings = |ips: Vec<IpAddr>| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(
            strings(near(24, &["10.0.0.73"])),
            ["10.0.0.119", "10.0.0.82", "10.0.0.127"]
        );
        assert!(near(31, &[]).is_empty());
        let subnet: Prefix = "fd00::/64".parse().unwrap();
        let of_v6 = unused_near("fd00::100".parse().unwrap(), subnet, |_| false);
        assert_eq!(strings(of_v6)[0], "fd00::12d");
    }
}
