//! A Linux host on the link: its neighbour table, what changes it (RFC 826, RFC 4861 §7.2, and
//! Linux's deviations), and its answers.
//!
//! It knows nothing of the announcer; it receives and sends frames. Entries do not age, so that no
//! wrong entry disappears with time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use vipherald_core::address::Mac;
use vipherald_core::wire::{
    ALL_NODES, Advertisement, Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload,
    Solicitation, solicited_node,
};

/// Linux ignores late answers for an entry that changed within this time (`locktime`).
const LOCKTIME: Duration = Duration::from_secs(1);
/// Without an answer, a host repeats its request after this time.
const ASKS_AGAIN: Duration = Duration::from_secs(1);
/// The TTL or hop limit of what a host sends.
const HOP_LIMIT: u8 = 64;

/// A neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// None exists.
    None,
    /// Nobody answered.
    Failed,
    /// The host asked at that time.
    Incomplete(Duration),
    /// This MAC, since that time.
    Known(Mac, Duration),
    /// PERMANENT, with this MAC.
    Permanent(Mac),
}

impl Entry {
    fn mac(self) -> Option<Mac> {
        match self {
            Self::Known(mac, _) | Self::Permanent(mac) => Some(mac),
            Self::None | Self::Failed | Self::Incomplete(_) => None,
        }
    }
}

/// Configurations that deviate from the RFCs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Habits {
    /// It is off.
    pub(crate) dead: bool,
    /// `icmp_echo_ignore_all`, or a firewall that drops echo requests.
    pub(crate) ignores_echo: bool,
    /// A firewall drops all ARP and neighbour discovery.
    pub(crate) drops_resolution: bool,
    /// `arp_ignore=8`: it answers no ARP request, and learns nothing from a directed one.
    pub(crate) arp_ignore: bool,
    /// `drop_gratuitous_arp`, `drop_unsolicited_na`.
    pub(crate) drops_gratuitous: bool,
}

/// A host.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) ip: IpAddr,
    pub(crate) mac: Mac,
    pub(crate) habits: Habits,
    /// A VIP of the announcer that this host also has.
    pub(crate) holds: Option<IpAddr>,
    /// Its link-local address, if it has an IPv6 one.
    pub(crate) link_local: Option<IpAddr>,
    /// The MAC in its ARP answers and advertisements, as of a gateway with HSRP: its frames still come
    /// from its own.
    pub(crate) virtual_mac: Option<Mac>,
    /// The VIP is on `lo`, with `arp_ignore=1`, as on a real server of LVS.
    pub(crate) on_lo: bool,
    table: Vec<(IpAddr, Entry)>,
    /// Echo replies that wait for address resolution.
    waiting: Vec<Echo>,
}

impl Host {
    pub(crate) fn new(ip: IpAddr, mac: Mac) -> Self {
        Self {
            ip,
            mac,
            habits: Habits::default(),
            holds: None,
            link_local: link_local(ip),
            virtual_mac: None,
            on_lo: false,
            table: Vec::new(),
            waiting: Vec::new(),
        }
    }

    pub(crate) fn entry(&self, ip: IpAddr) -> Entry {
        let found = self.table.iter().find(|(known, _)| *known == ip);
        found.map_or(Entry::None, |(_, entry)| *entry)
    }

    /// The MAC that this host's frames for `ip` go to.
    pub(crate) fn follows(&self, ip: IpAddr) -> Option<Mac> {
        self.entry(ip).mac()
    }

    pub(crate) fn set(&mut self, ip: IpAddr, entry: Entry) {
        match self.table.iter_mut().find(|(known, _)| *known == ip) {
            Some((_, old)) => *old = entry,
            None => self.table.push((ip, entry)),
        }
    }

    /// Receives a frame and returns its answers.
    pub(crate) fn receive(&mut self, now: Duration, frame: &Frame) -> Vec<Frame> {
        let mut out = Vec::new();
        let group = is_group(frame);
        let to_it = Some(frame.destination) == self.virtual_mac || frame.destination == self.mac;
        if self.habits.dead || !(group || to_it) {
            return out;
        }
        match &frame.payload {
            Payload::Arp(arp) if !self.habits.drops_resolution => {
                self.on_arp(now, group, arp, &mut out);
            }
            Payload::Ndp(ndp) if !self.habits.drops_resolution => {
                self.on_ndp(now, frame.destination, ndp, &mut out);
            }
            Payload::Echo(echo) => self.on_echo(now, echo, &mut out),
            _ => {}
        }
        out
    }

    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        self.has(ip) || self.holds == Some(ip)
    }

    /// Whether this is one of its own addresses.
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        self.ip == ip || self.link_local == Some(ip)
    }

    /// The MAC that it tells others.
    fn told_mac(&self) -> Mac {
        self.virtual_mac.unwrap_or(self.mac)
    }

    /// Whether this host answers requests for an address.
    fn answers_for(&self, ip: IpAddr) -> bool {
        self.has(ip) || (self.holds == Some(ip) && !self.on_lo)
    }

    /// RFC 826 as in Linux: first requests for this host, then updates of an entry.
    fn on_arp(&mut self, now: Duration, group: bool, arp: &Arp, out: &mut Vec<Frame>) {
        let (sender, target) = (IpAddr::from(arp.sender_ip), IpAddr::from(arp.target_ip));
        let request = arp.operation == ArpOperation::Request;
        if arp.sender_ip == Ipv4Addr::UNSPECIFIED {
            // A probe changes no table.
            if request && self.answers_for(target) && !self.habits.arp_ignore {
                out.push(self.arp_reply(arp));
            }
            return;
        }
        if self.owns(sender) {
            // A martian source: this host's own address.
            return;
        }
        if request && self.owns(target) {
            if !self.habits.arp_ignore && self.answers_for(target) {
                self.learn(now, sender, arp.sender_mac, true, true, out);
                out.push(self.arp_reply(arp));
            }
            return;
        }
        let gratuitous = sender == target && (request || arp.target_mac == arp.sender_mac);
        if gratuitous && self.habits.drops_gratuitous {
            return;
        }
        let answer = !request && !group;
        let incomplete = matches!(self.entry(sender), Entry::Incomplete(_));
        if self.entry(sender) != Entry::None && (!incomplete || answer || gratuitous) {
            self.learn(now, sender, arp.sender_mac, gratuitous, false, out);
        }
    }

    fn arp_reply(&self, request: &Arp) -> Frame {
        Frame {
            destination: request.sender_mac,
            source: self.mac,
            payload: Payload::Arp(Arp {
                operation: ArpOperation::Reply,
                sender_mac: self.told_mac(),
                sender_ip: request.target_ip,
                target_mac: request.sender_mac,
                target_ip: request.sender_ip,
            }),
        }
    }

    /// RFC 4861 §7.2.3 (solicitations) and §7.2.5 (advertisements).
    fn on_ndp(&mut self, now: Duration, destination: Mac, ndp: &Ndp, out: &mut Vec<Frame>) {
        let source = IpAddr::from(ndp.source);
        match ndp.message {
            NdpMessage::Solicitation(ns) => {
                let target = IpAddr::from(ns.target);
                let addressed =
                    [self.mac, self.told_mac(), solicited_node(ns.target).1].contains(&destination);
                if !addressed || !self.answers_for(target) || self.owns(source) {
                    return;
                }
                if ndp.source == Ipv6Addr::UNSPECIFIED {
                    // RFC 4862 §5.4.3: the owner of the address answers all nodes.
                    out.push(self.advertise(&ns, ndp.source, ALL_NODES.1));
                    return;
                }
                if let Some(mac) = ns.source_lladdr {
                    self.learn(now, source, mac, true, true, out);
                }
                // The answer goes to the MAC in the table, not to the source of the frame.
                if let Some(mac) = self.follows(source) {
                    out.push(self.advertise(&ns, ndp.source, mac));
                }
            }
            NdpMessage::Advertisement(na) => {
                let target = IpAddr::from(na.target);
                let dropped = self.habits.drops_gratuitous && !na.solicited;
                let Some(mac) = na.target_lladdr.filter(|_| !dropped && !self.owns(target)) else {
                    return;
                };
                let updates = match self.entry(target) {
                    Entry::Incomplete(_) => true,
                    Entry::Known(..) => na.override_cached,
                    Entry::None | Entry::Failed | Entry::Permanent(_) => false,
                };
                if updates {
                    self.learn(now, target, mac, true, false, out);
                }
            }
        }
    }

    fn advertise(&self, ns: &Solicitation, to: Ipv6Addr, mac: Mac) -> Frame {
        let solicited = to != Ipv6Addr::UNSPECIFIED;
        Frame {
            destination: mac,
            source: self.mac,
            payload: Payload::Ndp(Ndp {
                source: ns.target,
                destination: if solicited { to } else { ALL_NODES.0 },
                message: NdpMessage::Advertisement(Advertisement {
                    router: false,
                    solicited,
                    override_cached: true,
                    target: ns.target,
                    target_lladdr: Some(self.told_mac()),
                }),
            }),
        }
    }

    /// Enters a MAC into the table and sends the echo replies that waited for it. Without
    /// `overrides` an entry that changed within `locktime` stays; without `creates` there is no new
    /// entry.
    fn learn(
        &mut self,
        now: Duration,
        ip: IpAddr,
        mac: Mac,
        overrides: bool,
        creates: bool,
        out: &mut Vec<Frame>,
    ) {
        match self.entry(ip) {
            Entry::Permanent(_) => return,
            Entry::None if !creates => return,
            Entry::Known(_, since) if !overrides && now < since + LOCKTIME => return,
            _ => self.set(ip, Entry::Known(mac, now)),
        }
        let (ready, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|echo: &Echo| echo.destination == ip);
        self.waiting = waiting;
        out.extend(Vec::into_iter(ready).map(|echo| self.to(mac, Payload::Echo(echo))));
    }

    fn to(&self, destination: Mac, payload: Payload) -> Frame {
        Frame {
            destination,
            source: self.mac,
            payload,
        }
    }

    fn on_echo(&mut self, now: Duration, echo: &Echo, out: &mut Vec<Frame>) {
        // It answers an echo to all nodes from the address that fits the asker's.
        let source = match self.link_local {
            Some(link_local) if echo.destination == ALL_NODES.0 => link_local,
            _ => echo.destination,
        };
        let for_me = echo.kind == EchoKind::Request && self.owns(source);
        if !for_me || self.habits.ignores_echo || self.owns(echo.source) {
            return;
        }
        let reply = Echo {
            source,
            destination: echo.source,
            kind: EchoKind::Reply,
            hop_limit: HOP_LIMIT,
            ..*echo
        };
        match self.entry(echo.source) {
            Entry::Known(mac, _) | Entry::Permanent(mac) => {
                out.push(self.to(mac, Payload::Echo(reply)));
            }
            Entry::Incomplete(since) if now < since + ASKS_AGAIN => self.waiting.push(reply),
            Entry::None | Entry::Failed | Entry::Incomplete(_) => {
                self.set(echo.source, Entry::Incomplete(now));
                self.waiting.truncate(2);
                self.waiting.push(reply);
                out.push(self.resolve(echo.source));
            }
        }
    }

    /// The broadcast or multicast request for the MAC of `ip`.
    fn resolve(&self, ip: IpAddr) -> Frame {
        match (ip, self.ip) {
            (IpAddr::V4(wanted), IpAddr::V4(own)) => {
                Arp::directed_request(own, self.mac, wanted, None)
            }
            (IpAddr::V6(wanted), IpAddr::V6(own)) => {
                Ndp::directed_solicitation(own, self.mac, wanted, None)
            }
            _ => unreachable!("a host has addresses of one family"),
        }
    }
}

/// The link-local address of the host with this IPv6 address.
fn link_local(ip: IpAddr) -> Option<IpAddr> {
    const INTERFACE: u128 = (1 << 64) - 1;
    match ip {
        IpAddr::V6(ip) => {
            let bits = (0xfe80 << 112) | (ip.to_bits() & INTERFACE);
            Some(Ipv6Addr::from_bits(bits).into())
        }
        IpAddr::V4(_) => None,
    }
}

/// Whether a frame goes to a broadcast or multicast address.
pub(crate) fn is_group(frame: &Frame) -> bool {
    frame.destination.octets()[0] & 1 == 1
}

#[cfg(test)]
mod tests {
    use vipherald_core::wire::Token;

    use super::*;

    const NOW: Duration = Duration::from_secs(100);
    const OLD: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const NEW: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
    const VIP4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 10);
    const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0x10);

    fn host(entry: Entry) -> (Host, Host) {
        let mac = Mac::new([2, 0, 0, 0, 0, 9]);
        let mut four = Host::new(IpAddr::from([10, 9, 0, 9]), mac);
        let mut six = Host::new("fd09::9".parse().unwrap(), mac);
        four.set(VIP4.into(), entry);
        six.set(VIP6.into(), entry);
        (four, six)
    }

    const TOKEN: Token = Token {
        identifier: 7,
        sequence: 1,
        nonce: 9,
    };

    /// The entry after a gratuitous request, a gratuitous reply, an unsolicited advertisement, a
    /// directed request, a directed solicitation and an oblique request; and the number of answers.
    fn outcomes(entry: Entry, habits: Habits) -> [(Option<Mac>, usize); 6] {
        let (mut four, mut six) = host(entry);
        (four.habits, six.habits) = (habits, habits);
        let (IpAddr::V4(ip4), IpAddr::V6(ip6)) = (four.ip, six.ip) else {
            unreachable!();
        };
        let receives = |host: &Host, frame: Frame| {
            let mut host = host.clone();
            let answers = host.receive(NOW, &frame).len();
            let vip = if host.ip.is_ipv4() {
                IpAddr::from(VIP4)
            } else {
                VIP6.into()
            };
            (host.follows(vip), answers)
        };
        [
            receives(&four, Arp::gratuitous_request(VIP4, NEW)),
            receives(&four, Arp::gratuitous_reply(VIP4, NEW)),
            receives(&six, Ndp::unsolicited_advertisement(VIP6, NEW, false)),
            receives(&four, Arp::directed_request(VIP4, NEW, ip4, None)),
            receives(&six, Ndp::directed_solicitation(VIP6, NEW, ip6, None)),
            receives(
                &four,
                Arp::oblique_request(VIP4, NEW, [10, 9, 255, 255].into()),
            ),
        ]
    }

    #[test]
    fn a_host_behaves_as_measured_on_linux() {
        let plain = Habits::default();
        let (old, new) = (Some(OLD), Some(NEW));
        let recent = Entry::Known(OLD, NOW - Duration::from_millis(10));
        let drops_gratuitous = Habits {
            drops_gratuitous: true,
            ..plain
        };
        let aged = Entry::Known(OLD, NOW - LOCKTIME);
        for (entry, habits, gratuitous, directed, oblique) in [
            (Entry::None, plain, [None, None, None], new, None),
            (recent, plain, [new, new, new], new, old),
            (aged, plain, [new, new, new], new, new),
            (Entry::Failed, plain, [new, new, None], new, new),
            (Entry::Permanent(OLD), plain, [old, old, old], old, old),
            (recent, drops_gratuitous, [old, old, old], new, old),
            (aged, drops_gratuitous, [old, old, old], new, new),
        ] {
            let [a, b, c] = gratuitous.map(|mac| (mac, 0));
            let expected = [a, b, c, (directed, 1), (directed, 1), (oblique, 0)];
            assert_eq!(outcomes(entry, habits), expected, "{entry:?} {habits:?}");
        }
        let drops_resolution = Habits {
            drops_resolution: true,
            ..plain
        };
        assert_eq!(outcomes(aged, drops_resolution), [(old, 0); 6]);
        let arp_ignore = Habits {
            arp_ignore: true,
            ..plain
        };
        assert_eq!(outcomes(recent, arp_ignore)[..2], [(new, 0), (new, 0)]);
        assert_eq!(outcomes(recent, arp_ignore)[3], (old, 0));
        assert_eq!(outcomes(aged, arp_ignore)[5], (new, 0));
    }

    #[test]
    fn a_host_answers_an_echo_to_all_nodes_from_its_link_local_address() {
        let (mut four, mut six) = host(Entry::None);
        let asker: IpAddr = "fe80::1".parse().unwrap();
        let census = Echo::request((asker, NEW), (ALL_NODES.0.into(), ALL_NODES.1), TOKEN);
        assert!(four.receive(NOW, &census).is_empty());
        let asks = six.receive(NOW, &census);
        assert!(
            matches!(asks[0].payload, Payload::Ndp(_)),
            "it resolves the asker"
        );
        six.set(asker, Entry::Known(OLD, NOW));
        let answer = &six.receive(NOW, &census)[0];
        assert_eq!(answer.destination, OLD, "the MAC of its entry");
        let Payload::Echo(echo) = answer.payload else {
            panic!("{answer:?}");
        };
        assert_eq!((Some(echo.source), echo.token), (six.link_local, TOKEN));
        assert_eq!(echo.hop_limit, HOP_LIMIT);
    }

    #[test]
    fn locktime_delays_a_gratuitous_reply_with_another_target_mac() {
        let odd = |since| {
            let (mut four, _) = host(Entry::Known(OLD, since));
            let mut frame = Arp::gratuitous_reply(VIP4, NEW);
            if let Payload::Arp(arp) = &mut frame.payload {
                arp.target_mac = Mac::BROADCAST;
            }
            four.receive(NOW, &frame);
            four.follows(VIP4.into())
        };
        assert_eq!(odd(NOW - Duration::from_millis(999)), Some(OLD));
        assert_eq!(odd(NOW - LOCKTIME), Some(NEW));
    }

    /// Sends an echo to the VIP from another address, whose MAC the host knows.
    fn echoes_for_the_vip(host: &mut Host) -> Vec<Frame> {
        let (own, vip): (IpAddr, IpAddr) = if host.ip.is_ipv4() {
            ([10, 9, 0, 1].into(), VIP4.into())
        } else {
            ("fd09::1".parse().unwrap(), VIP6.into())
        };
        host.set(own, Entry::Known(NEW, NOW));
        let echo = Echo::request((own, NEW), (vip, host.mac), TOKEN);
        host.receive(NOW, &echo)
    }

    #[test]
    fn a_host_with_the_vip_on_lo_answers_only_echoes_to_the_vip() {
        let (mut four, mut six) = host(Entry::Known(OLD, NOW));
        assert!(echoes_for_the_vip(&mut four).is_empty(), "it has no VIP");
        for (host, vip) in [(&mut four, IpAddr::from(VIP4)), (&mut six, VIP6.into())] {
            (host.holds, host.on_lo) = (Some(vip), true);
            let answers = echoes_for_the_vip(host);
            let [answer] = &answers[..] else {
                panic!("{answers:?}");
            };
            assert!(matches!(answer.payload, Payload::Echo(echo) if echo.source == vip));
            let from_it = Echo::request((vip, NEW), (host.ip, host.mac), TOKEN);
            assert!(host.receive(NOW, &from_it).is_empty(), "martian");
        }
        let (IpAddr::V4(ip4), IpAddr::V6(ip6)) = (four.ip, six.ip) else {
            unreachable!();
        };
        let asks = |from| Arp::directed_request(from, NEW, VIP4, None);
        for question in [
            Arp::probe(VIP4, NEW),
            asks([10, 9, 0, 1].into()),
            Arp::directed_request(VIP4, NEW, ip4, None),
        ] {
            assert!(four.receive(NOW, &question).is_empty());
        }
        for question in [
            Ndp::probe(VIP6, NEW, None),
            Ndp::directed_solicitation(VIP6, NEW, ip6, None),
        ] {
            assert!(six.receive(NOW, &question).is_empty());
        }
    }

    #[test]
    fn a_second_owner_answers_only_probes_and_echoes_to_the_vip() {
        let (mut four, mut six) = host(Entry::None);
        (four.holds, six.holds) = (Some(VIP4.into()), Some(VIP6.into()));
        let (IpAddr::V4(ip4), IpAddr::V6(ip6)) = (four.ip, six.ip) else {
            unreachable!();
        };
        let request = Arp::directed_request(VIP4, NEW, ip4, None);
        assert!(four.receive(NOW, &request).is_empty());
        let solicitation = Ndp::directed_solicitation(VIP6, NEW, ip6, None);
        assert!(six.receive(NOW, &solicitation).is_empty());
        assert_eq!(echoes_for_the_vip(&mut four).len(), 1);
        assert_eq!(echoes_for_the_vip(&mut six).len(), 1);
        assert_eq!(four.receive(NOW, &Arp::probe(VIP4, NEW)).len(), 1);
        let answers = six.receive(NOW, &Ndp::probe(VIP6, NEW, None));
        assert_eq!(answers[0].destination, ALL_NODES.1);
    }
}
