//! Who they are that answer for a VIP, where its answers alone do not tell.
//!
//! A MAC that this host sends to and that answered no broadcast may be its owner's all the same (bond
//! mode balance-alb has two): it is asked itself, by unicast. An echo request *to the VIP*, with TTL
//! 1, is answered only by a host that has it, through whichever card it came in: that tells two
//! cards of one host from two hosts. And who answers for addresses that nobody has is a proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::address::{Mac, Prefix, Vip};
use crate::ask::LAST_ANSWER;
use crate::wire::{Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload};

/// Between two frames that ask the same.
const GAP: Duration = Duration::from_millis(12);
/// Addresses that nobody has, for which a MAC is asked. One could be its own without anybody
/// knowing; all of them are not.
const UNUSED: usize = 3;
/// What their last bits differ by from the VIP's: near it, so that they are routed alike, and no
/// neat numbers, which hosts have.
const DISTANCES: [u8; 8] = [0x2d, 0x13, 0x36, 0x1b, 0x29, 0x0e, 0x35, 0x17];

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct AskedFrom {
    /// The interface's MAC.
    pub mac: Mac,
    /// An own address there of the VIP's family, that is no VIP.
    pub ip: Option<IpAddr>,
    /// Tells this run's echoes from others'.
    pub identifier: u16,
}

/// What a MAC is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum About {
    /// For the VIP, as duplicate address detection does, so that no table changes.
    Vip,
    /// For an address that nobody has.
    Unused(IpAddr),
    /// For the VIP, from this host's own address: who answers knows that from now on.
    Known,
    /// For an echo from the VIP.
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

/// Questions to some MACs about one VIP, each repeated until it is answered or chance explains its
/// silence no more.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    vip: Vip,
    from: AskedFrom,
    enough: u32,
    end_at: Instant,
    last_asked: Option<Instant>,
    questions: Vec<Question>,
    frames: u32,
}

impl Identity {
    /// `enough` questions are not lost all by chance; `wait` is how long they may take.
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

    /// Asks a MAC itself for the VIP.
    pub(super) fn ask_for_vip(&mut self, to: Mac, now: Instant) {
        self.ask(to, About::Vip, now);
    }

    /// Makes this host known to a MAC that answers for the VIP, before an echo is asked for. From no
    /// own address it can't be.
    pub(super) fn introduce(&mut self, to: Mac, now: Instant) {
        if self.from.ip.is_some() {
            self.ask(to, About::Known, now);
        }
    }

    /// Asks whether the VIP is behind a MAC: unless it says so itself, or says nothing, when it is
    /// asked for the VIP.
    pub(super) fn ask_for_echo(&mut self, to: Mac, now: Instant) {
        if self.from.ip.is_some() {
            self.ask(to, About::Echo, now);
        }
    }

    /// Asks whether a MAC answers for others: for `unused` addresses.
    pub(super) fn ask_for_unused(&mut self, to: Mac, unused: &[IpAddr], now: Instant) {
        if unused.len() >= UNUSED {
            for ip in unused {
                self.ask(to, About::Unused(*ip), now);
            }
        }
    }

    /// The MAC that answered for the VIP when `to` was asked for it.
    pub(super) fn answered_for_vip(&self, to: Mac) -> Option<Mac> {
        self.answer(to, About::Vip)
    }

    /// The MAC that the echo from the VIP came from when it was asked for behind `to`.
    pub(super) fn echoed(&self, to: Mac) -> Option<Mac> {
        self.answer(to, About::Echo)
    }

    fn answer(&self, to: Mac, about: About) -> Option<Mac> {
        let mut questions = self.questions.iter();
        questions
            .find(|one| one.to == to && one.about == about)?
            .answer
    }

    /// Whether a MAC answers for addresses that nobody has.
    pub(super) fn is_proxy(&self, mac: Mac) -> bool {
        let mut any = false;
        self.questions
            .iter()
            .filter(|one| one.to == mac && matches!(one.about, About::Unused(_)))
            .all(|one| {
                any = true;
                one.answer == Some(mac)
            })
            && any
    }

    /// The frames that left.
    pub(super) fn frames(&self) -> u32 {
        self.frames
    }

    fn is_open(&self, question: &Question) -> bool {
        let waits = question.about == About::Echo && !self.may_echo(question.to);
        !waits && question.answer.is_none() && question.asked < self.enough
    }

    fn may_echo(&self, to: Mac) -> bool {
        // A host that does not know this one, on whichever card it answers by, would ask for it,
        // from the VIP, and so change the entry that is only to be looked at.
        let mut introduced = self.questions.iter();
        let known = introduced.all(|one| one.about != About::Known || one.answer.is_some());
        let mut for_vip = self.questions.iter();
        let told = for_vip.find(|one| one.about == About::Vip && one.to == to);
        known && told.is_none_or(|one| one.answer.is_some_and(|by| by != to))
    }

    /// The question that is asked next.
    fn due(&self) -> Option<(usize, &Question)> {
        let open = self.questions.iter().enumerate();
        open.filter(|(_, one)| self.is_open(one))
            .min_by_key(|(_, one)| one.due)
    }

    /// The question that may leave now.
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
            (About::Known, IpAddr::V4(vip)) => {
                Some(Arp::directed_request(from_v4, mac, vip, Some(question.to)))
            }
            (About::Vip | About::Known, IpAddr::V6(vip)) => {
                Some(ask_at(question.to, vip, mac, from_v6))
            }
            (About::Unused(IpAddr::V4(ip)), _) => {
                Some(Arp::directed_request(from_v4, mac, ip, Some(question.to)))
            }
            (About::Unused(IpAddr::V6(ip)), _) => Some(ask_at(question.to, ip, mac, from_v6)),
            (About::Echo, vip) => Some(Echo::request(
                (own?, mac),
                (vip, question.to),
                self.from.identifier,
                u16::try_from(at).ok()?,
            )),
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

    /// A frame came in on the interface.
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
                let question = self.questions.get_mut(usize::from(echo.sequence));
                if let Some(question) = question.filter(|one| one.about == About::Echo) {
                    question.answer.get_or_insert(frame.source);
                }
            }
            _ => {}
        }
    }

    fn is_ours(&self, echo: &Echo) -> bool {
        echo.kind == EchoKind::Reply
            && echo.identifier == self.from.identifier
            && echo.source == self.vip.ip()
            && Some(echo.destination) == self.from.ip
    }

    /// Somebody says that `ip` is at `mac`, and `fits` what was asked.
    fn on_answer(&mut self, ip: IpAddr, mac: Mac, fits: impl Fn(About) -> bool) {
        let vip = self.vip.ip();
        for question in &mut self.questions {
            let target = match question.about {
                About::Vip | About::Known => vip,
                About::Unused(unused) => unused,
                About::Echo => continue,
            };
            // By another card than the one that was asked, only for the VIP.
            let may_answer = mac == question.to || question.about == About::Vip;
            let better = question.answer.is_none() || mac == question.to;
            if ip == target && fits(question.about) && may_answer && better {
                question.answer = Some(mac);
            }
        }
    }

    /// Whether nothing more is asked, and no answer can come any more.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        let all_answered = self.questions.iter().all(|one| one.answer.is_some());
        let asks = self.due().is_some() && now < self.end_at;
        all_answered || !asks && self.last_answer_until().is_none_or(|until| until <= now)
    }

    fn last_answer_until(&self) -> Option<Instant> {
        self.last_asked.map(|at| at + LAST_ANSWER)
    }

    /// When to look again if nothing happens before.
    pub(super) fn next_deadline(&self, now: Instant) -> Instant {
        match self.due().filter(|_| now < self.end_at) {
            Some((_, question)) => question.due.min(self.end_at),
            None => self.last_answer_until().unwrap_or(now),
        }
    }
}

/// A solicitation to one MAC, without the detour over the solicited-node group.
fn ask_at(to: Mac, target: Ipv6Addr, mac: Mac, own: Option<Ipv6Addr>) -> Frame {
    let mut frame = Ndp::probe(target, mac, own);
    frame.destination = to;
    if let Payload::Ndp(ndp) = &mut frame.payload {
        ndp.destination = target;
    }
    frame
}

/// Addresses near the VIP that nobody is known to have. `known` are those that somebody has;
/// `subnet` is the VIP's.
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

    const OWN: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const A: Mac = Mac::new([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 0xb]);
    const WAIT: Duration = Duration::from_secs(1);

    fn vip() -> Vip {
        "10.0.0.100".parse().unwrap()
    }

    fn identity(now: Instant) -> Identity {
        let asker = AskedFrom {
            mac: OWN,
            ip: Some([10, 0, 0, 1].into()),
            identifier: 7,
        };
        Identity::new(vip(), asker, 12, WAIT, now)
    }

    /// Asks to the end; `answer` plays the others. Gives how long it took.
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

    fn reply(to: &Frame, from: Mac) -> Option<Frame> {
        let payload = match to.payload {
            Payload::Arp(arp) => Payload::Arp(Arp {
                operation: ArpOperation::Reply,
                sender_mac: from,
                sender_ip: arp.target_ip,
                target_mac: arp.sender_mac,
                target_ip: arp.sender_ip,
            }),
            Payload::Echo(echo) => Payload::Echo(Echo {
                source: echo.destination,
                destination: echo.source,
                kind: EchoKind::Reply,
                ..echo
            }),
            Payload::Ndp(_) => return None,
        };
        Some(Frame {
            destination: to.source,
            source: from,
            payload,
        })
    }

    fn is_echo(frame: &Frame) -> bool {
        matches!(frame.payload, Payload::Echo(_))
    }

    #[test]
    fn a_mac_that_answers_itself_or_through_another_card_is_told() {
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
                answers.then(|| reply(frame, by))?
            });
            assert_eq!(asked.answered_for_vip(A), Some(by));
            // Who answers itself is asked for no echo.
            let echoed = (echoes && by == B).then_some(B);
            assert_eq!(asked.echoed(A), echoed);
        }
    }

    #[test]
    fn who_is_silent_is_asked_often_and_not_for_ever() {
        let now = Instant::now();
        let mut asked = identity(now);
        asked.ask_for_vip(A, now);
        asked.ask_for_echo(A, now);
        let took = play(&mut asked, now, |_| None);
        assert_eq!((asked.answered_for_vip(A), asked.frames()), (None, 12));
        assert!(took < Duration::from_millis(500), "{took:?}");
    }

    #[test]
    fn who_answers_for_every_unused_address_is_a_proxy() {
        let now = Instant::now();
        let subnet = Prefix::new([10, 0, 0, 1].into(), 24);
        let unused = unused_near(vip(), subnet, |_| false);
        assert_eq!(unused.len(), UNUSED);
        let mut asked = identity(now);
        for mac in [A, B] {
            asked.ask_for_unused(mac, &unused, now);
        }
        let mut spared = 0;
        play(&mut asked, now, |frame| {
            // B has one of the addresses by chance.
            let answers = frame.destination == A || {
                spared += 1;
                spared == 1
            };
            answers.then(|| reply(frame, frame.destination))?
        });
        assert!(asked.is_proxy(A) && !asked.is_proxy(B));
        assert!(!identity(now).is_proxy(A), "nobody was asked");
    }

    #[test]
    fn unused_addresses_are_in_the_subnet_and_nobodys() {
        let near = |length, known: &[&str]| {
            let subnet = Prefix::new(vip().ip(), length);
            unused_near(vip(), subnet, |ip| known.contains(&&*ip.to_string()))
        };
        let strings = |ips: Vec<IpAddr>| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(
            strings(near(24, &["10.0.0.73"])),
            ["10.0.0.119", "10.0.0.82", "10.0.0.127"]
        );
        assert_eq!(
            near(31, &[]),
            [""; 0].map(|ip| ip.parse::<IpAddr>().unwrap())
        );
        let subnet: Prefix = "fd00::/64".parse().unwrap();
        let of_v6 = unused_near("fd00::100".parse().unwrap(), subnet, |_| false);
        assert_eq!(strings(of_v6)[0], "fd00::12d");
    }
}
