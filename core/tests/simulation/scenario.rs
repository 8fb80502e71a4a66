//! The circumstances of a run, which its seed determines.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use vipherald_core::address::Mac;
use vipherald_core::announce::Pace;
use vipherald_core::ask::Source;
use vipherald_core::host::Place;

use crate::peer::{Entry, Habits, Host};
use crate::rng::Rng;

/// The announcer's first MAC, its VMAC's MAC, and the MAC of the VIPs' previous owner.
pub(crate) const OWN_MAC: Mac = Mac::new([2, 0, 0, 0, 0xee, 1]);
pub(crate) const VIRTUAL_MAC: Mac = Mac::new([0, 0, 0x5e, 0, 1, 69]);
pub(crate) const OLD_OWNER: Mac = Mac::new([2, 0, 0, 0, 0xdd, 1]);
/// The interface with the host's own addresses, and the macvlan above it.
pub(crate) const BASE_NAME: &str = "eth0";
pub(crate) const VMAC_NAME: &str = "vrrp1.69";
pub(crate) const OWN4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
pub(crate) const OWN_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub(crate) const OWN6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);

/// The kinds of hosts on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It follows the first frame that it receives; until then it has no entry or a wrong one.
    Honest,
    /// It answers no ARP request, but a gratuitous one updates its entry.
    ArpIgnoring,
    /// It has a PERMANENT entry with the old owner's MAC.
    Permanent,
    /// It follows, but answers no echo.
    EchoIgnoring,
    /// It drops ARP and neighbour discovery.
    ResolutionDropping,
    /// Neither directed nor gratuitous requests change its table; oblique ones do.
    Deaf,
    /// It has the VIP, too.
    OtherOwner,
    /// It has the VIP on `lo`, like a real server of LVS.
    RealServer,
    /// It is off.
    Dead,
}

/// A switch or a host with proxy ARP that answers for a member.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proxy {
    pub(crate) mac: Mac,
    /// Whether it keeps the request from the member.
    pub(crate) absorbs: bool,
    /// A second proxy that answers, too.
    pub(crate) second: Option<Mac>,
}

/// A host on the link, and what the announcer's kernel knows about it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) kind: Kind,
    pub(crate) host: Host,
    pub(crate) source: Source,
    pub(crate) known_mac: Option<Mac>,
    /// Whether the kernel has just confirmed its entry for the member; else only an old entry tells of
    /// it.
    pub(crate) fresh: bool,
    /// Whether nobody knows it: it is in no table and no configuration.
    pub(crate) unknown: bool,
    pub(crate) proxy: Option<Proxy>,
    /// When no frame reaches or leaves it.
    pub(crate) dark: Option<(Duration, Duration)>,
    /// Whether it executes orders, even for PERMANENT entries.
    pub(crate) listens: bool,
}

impl Member {
    /// Whether it may not exist, for all that the announcer knows.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.source == Source::Learned && !self.fresh && !self.unknown
    }
}

/// When something happens.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    At(Duration),
    /// After this number of frames, even between two that leave at the same moment.
    AfterFrame(u32),
}

/// An event on the announcer's host or on the link.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    Arrives(usize),
    BecomesUsable(usize),
    DadFails(usize),
    Leaves(usize),
    Returns(usize),
    /// It returns, and duplicate address detection runs first.
    ReturnsTentative(usize),
    /// The entry with the second prefix length appears or disappears.
    Gains(usize),
    Loses(usize),
    /// The entry with the first prefix length disappears.
    LosesFirst(usize),
    /// netlink lost changes (ENOBUFS): the core gets all addresses anew.
    Overrun,
    /// The interface loses its carrier; or it is set down.
    CarrierLost {
        down: bool,
    },
    CarrierBack,
    MacChanges(Mac),
    LinkGone,
    /// The old owner's last gratuitous frame for a VIP.
    OldOwnerClaims(usize),
    /// A member that has the VIP announces it.
    OtherOwnerClaims(usize),
    /// A member that has the VIP removes it.
    OtherOwnerLetsGo(usize),
    /// It adds the VIP again, and announces it.
    OtherOwnerReturns(usize),
    /// The core receives a wrong answer.
    Stray,
    /// A member sends a packet for a VIP to whom its table says.
    Traffic(usize),
    /// An adversary sends what it can without knowing a nonce.
    Forgery,
}

/// The state of an address at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beginning {
    Usable,
    Tentative,
    Absent,
}

/// A VIP of a run.
#[derive(Clone, Debug)]
pub(crate) struct PlannedVip {
    pub(crate) ip: IpAddr,
    pub(crate) beginning: Beginning,
    pub(crate) place: Place,
    /// Whether it has two entries at the start, with different prefix lengths.
    pub(crate) twice: bool,
}

/// The circumstances of a run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) pace: Pace,
    pub(crate) vips: Vec<PlannedVip>,
    /// Whether the VIPs are on a macvlan above the interface with the host's own addresses.
    pub(crate) vmac: bool,
    /// Whether the interface is down at the start.
    pub(crate) begins_down: bool,
    pub(crate) members: Vec<Member>,
    /// A configured peer that is not on the VIP's link.
    pub(crate) offlink: Option<IpAddr>,
    /// Frames lost per thousand and receiver, from and to the announcer.
    pub(crate) loss_out: u64,
    pub(crate) loss_in: u64,
    pub(crate) duplicated: u64,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    /// When the announcer's switch port starts to forward.
    pub(crate) port_opens: Duration,
    pub(crate) blackouts: Vec<(Duration, Duration)>,
    /// When orders start to get through.
    pub(crate) orders_from: Duration,
    /// Frames per thousand that the announcer's queue refuses.
    pub(crate) refused: u64,
    /// ARP frames per thousand that have to wait for the link's budget.
    pub(crate) over_budget: u64,
    /// Whether the old owner forwards packets for the VIPs that still reach it.
    pub(crate) old_owner_forwards: bool,
    /// Whether something on the way out drops the frames from the VIPs.
    pub(crate) blocked: bool,
    /// Whether somebody on the link forges frames.
    pub(crate) adversary: bool,
    /// How late the driver may wake up.
    pub(crate) lateness: Duration,
    /// How long it takes to read the kernel's tables.
    pub(crate) table_delay: Duration,
    pub(crate) happenings: Vec<(When, Happening)>,
    /// Whether every frame makes a round trip through octets.
    pub(crate) on_the_wire: bool,
}

/// Where a VIP counts: anywhere, on its interface, or, rarely, on another one.
fn draw_place(rng: &mut Rng, vmac: bool) -> Place {
    let on = |name: &str| Place::On(name.to_owned());
    let vmac_named = |name: &str| Place::Vmac {
        name: name.to_owned(),
        above: BASE_NAME.to_owned(),
    };
    match rng.below(20) {
        0 => on("elsewhere"),
        1..6 if vmac => vmac_named(VMAC_NAME),
        // The name was taken, so keepalived chose another one.
        6..9 if vmac => vmac_named("vrrp.69"),
        9..12 if vmac => on(VMAC_NAME),
        1..9 => on(BASE_NAME),
        _ => Place::Anywhere,
    }
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A unique MAC.
fn mac(group: u8, number: usize) -> Mac {
    let [.., a, b] = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
    Mac::new([2, 0, 0, group, a, b])
}

pub(crate) fn member_ip(four: bool, number: usize) -> IpAddr {
    let number = u32::try_from(number).unwrap_or(u32::MAX) + 0x100;
    if four {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 9, 0, 0).to_bits() + number).into()
    } else {
        Ipv6Addr::from_bits(
            Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 0).to_bits() + u128::from(number),
        )
        .into()
    }
}

impl Scenario {
    /// One VIP, one host that follows, no faults.
    pub(crate) fn quiet() -> Self {
        let vip = IpAddr::from([10, 9, 0, 10]);
        let mut host = Host::new(member_ip(true, 0), mac(1, 0));
        host.set(vip, Entry::Known(OLD_OWNER, Duration::ZERO));
        host.set(OWN4.into(), Entry::Known(OWN_MAC, Duration::ZERO));
        Self {
            seed: 0,
            pace: Pace {
                rate: NonZeroU32::MIN.saturating_add(1999),
                wait: millis(1000),
                timeout: millis(60_000),
                conflict_watch: Duration::ZERO,
                arp_rate: None,
                census: true,
                repeats: true,
            },
            vips: vec![PlannedVip {
                ip: vip,
                beginning: Beginning::Usable,
                place: Place::Anywhere,
                twice: false,
            }],
            vmac: false,
            begins_down: false,
            members: vec![Member {
                kind: Kind::Honest,
                source: Source::Gateway,
                known_mac: Some(host.mac),
                fresh: true,
                unknown: false,
                host,
                proxy: None,
                dark: None,
                listens: false,
            }],
            offlink: None,
            loss_out: 0,
            loss_in: 0,
            duplicated: 0,
            delay: Duration::from_micros(50),
            jitter: millis(1),
            port_opens: Duration::ZERO,
            blackouts: Vec::new(),
            orders_from: Duration::ZERO,
            refused: 0,
            over_budget: 0,
            old_owner_forwards: false,
            blocked: false,
            adversary: false,
            lateness: Duration::ZERO,
            table_delay: millis(1),
            happenings: Vec::new(),
            on_the_wire: true,
        }
    }

    /// A run with up to 80 members.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let members = match rng.below(100) {
            0..60 => 1 + rng.index(6),
            60..95 => 5 + rng.index(15),
            _ => 20 + rng.index(60),
        };
        Self::with_members(seed, members)
    }

    pub(crate) fn with_members(seed: u64, members: usize) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let families: &[bool] = rng.pick(&[&[true][..], &[false], &[true, false]]);
        let vmac = rng.permille(200);
        let vips: Vec<_> = (0..rng.pick(&[1, 1, 1, 2, 4]))
            .map(|number| {
                let four = families[number % families.len()];
                let ip: IpAddr = if four {
                    [10, 9, 0, 10 + u8::try_from(number).unwrap_or(0)].into()
                } else {
                    Ipv6Addr::from_bits(OWN6.to_bits() + 0x10 + number as u128).into()
                };
                let beginning = match rng.below(20) {
                    0 => Beginning::Absent,
                    1 | 2 if !four => Beginning::Tentative,
                    _ => Beginning::Usable,
                };
                PlannedVip {
                    ip,
                    beginning,
                    place: draw_place(&mut rng, vmac),
                    twice: rng.permille(150),
                }
            })
            .collect();
        let clean = rng.permille(400);
        let loss = |rng: &mut Rng| {
            if clean {
                0
            } else {
                rng.pick(&[0, 50, 300, 600])
            }
        };
        let slow = rng.permille(50);
        let mut scenario = Self {
            seed,
            pace: Pace {
                rate: NonZeroU32::new(rng.pick(&[2000, 2000, 2000, 200, 15]))
                    .unwrap_or(NonZeroU32::MIN),
                wait: rng.pick(&[millis(1000), millis(1000), Duration::ZERO]),
                timeout: if rng.permille(900) {
                    Duration::from_secs(60)
                } else {
                    millis(1) + rng.up_to(Duration::from_secs(12))
                },
                conflict_watch: Duration::from_secs(rng.pick(&[0, 0, 5, 30])),
                arp_rate: NonZeroU32::new(rng.pick(&[0, 0, 0, 0, 0, 0, 0, 15])),
                census: rng.permille(800),
                repeats: true,
            },
            vmac,
            begins_down: rng.permille(30),
            loss_out: loss(&mut rng),
            loss_in: loss(&mut rng),
            duplicated: rng.pick(&[0, 0, 20, 200]),
            delay: if slow {
                millis(100)
            } else {
                Duration::from_micros(50)
            },
            jitter: if slow {
                millis(150)
            } else {
                rng.pick(&[1, 1, 10]) * millis(1)
            },
            port_opens: match rng.below(10) {
                0 => rng.up_to(Duration::from_secs(20)),
                _ => Duration::ZERO,
            },
            blackouts: Vec::new(),
            orders_from: Duration::from_secs(rng.pick(&[0, 0, 0, 20])),
            refused: rng.pick(&[0, 0, 0, 50, 500]),
            over_budget: rng.pick(&[0, 0, 0, 0, 0, 0, 20, 300]),
            old_owner_forwards: rng.permille(300),
            blocked: rng.permille(40),
            adversary: rng.permille(60),
            lateness: rng.pick(&[Duration::ZERO, Duration::ZERO, millis(3)]),
            table_delay: rng.up_to(millis(rng.clone().pick(&[1, 20]))),
            happenings: Vec::new(),
            on_the_wire: members < 100 && rng.permille(125),
            members: Vec::new(),
            offlink: rng.permille(100).then(|| {
                if families[0] {
                    [192, 0, 2, 1].into()
                } else {
                    "2001:db8::1".parse().unwrap_or(OWN6.into())
                }
            }),
            vips,
        };
        if !clean && rng.permille(200) {
            let from = rng.up_to(Duration::from_secs(12));
            scenario
                .blackouts
                .push((from, from + rng.up_to(Duration::from_secs(8))));
        }
        // Sometimes all members are dead gateways.
        let only = rng.permille(30).then_some(Kind::Dead);
        for number in 0..members {
            let member = scenario.draw_member(&mut rng, number, only, clean);
            scenario.members.push(member);
        }
        scenario.draw_happenings(&mut rng);
        scenario
    }

    /// Removes what keeps a run from ending before its timeout.
    pub(crate) fn settle(&mut self) {
        self.pace.rate = NonZeroU32::MIN.saturating_add(1999);
        self.pace.timeout = Duration::from_secs(600);
        self.pace.arp_rate = None;
        (self.over_budget, self.blocked) = (0, false);
        self.happenings.clear();
        self.blackouts.clear();
        (self.loss_out, self.loss_in) = (0, 0);
        for member in &mut self.members {
            member.source = Source::Learned;
            member.dark = None;
            (member.fresh, member.unknown) = (true, false);
            member.known_mac = member.known_mac.or(Some(member.host.mac));
        }
    }

    /// Whether the core can probe for a VIP's owners after the rounds. For an IPv6 VIP on an
    /// interface without another address, a probe would mislead all nodes.
    pub(crate) fn can_look(&self, vip: usize) -> bool {
        self.vips[vip].ip.is_ipv4() || !self.vmac
    }

    /// Whether every answer arrives before the next question.
    pub(crate) fn is_prompt(&self) -> bool {
        self.delay + self.jitter <= millis(2)
    }

    /// Whether no frame is lost after the switch port opens.
    pub(crate) fn is_lossless(&self) -> bool {
        self.loss_in + self.loss_out == 0
            && self.blackouts.is_empty()
            && self.members.iter().all(|member| member.dark.is_none())
            && self.delay < millis(50)
    }

    /// The MAC in the first announcements.
    pub(crate) fn announced_mac(&self) -> Mac {
        if self.vmac { VIRTUAL_MAC } else { OWN_MAC }
    }

    fn draw_member(&self, rng: &mut Rng, number: usize, only: Option<Kind>, clean: bool) -> Member {
        let vip = self.vips[number % self.vips.len()].ip;
        let four = vip.is_ipv4();
        let kind = only.unwrap_or_else(|| match rng.below(100) {
            0..5 if four => Kind::ArpIgnoring,
            5..12 => Kind::Permanent,
            12..18 => Kind::EchoIgnoring,
            18..22 => Kind::ResolutionDropping,
            22..24 if four => Kind::Deaf,
            24..26 if number < 20 => Kind::OtherOwner,
            26..30 => Kind::RealServer,
            30..37 => Kind::Dead,
            _ => Kind::Honest,
        });
        let mut host = Host::new(member_ip(four, number), mac(1, number));
        host.habits = Habits {
            dead: kind == Kind::Dead,
            ignores_echo: kind == Kind::EchoIgnoring
                || (kind == Kind::Permanent && rng.permille(100)),
            drops_resolution: kind == Kind::ResolutionDropping,
            arp_ignore: matches!(kind, Kind::ArpIgnoring | Kind::Deaf),
            drops_gratuitous: kind == Kind::Deaf || (kind == Kind::Honest && rng.permille(200)),
        };
        host.holds = matches!(kind, Kind::OtherOwner | Kind::RealServer).then_some(vip);
        host.on_lo = kind == Kind::RealServer;
        let vips = self.vips.iter().map(|vip| vip.ip);
        for vip in vips.filter(|vip| vip.is_ipv4() == four) {
            let old = Entry::Known(OLD_OWNER, Duration::ZERO);
            let entry = match kind {
                Kind::Permanent => Entry::Permanent(OLD_OWNER),
                Kind::Deaf | Kind::ResolutionDropping => old,
                _ => match rng.below(10) {
                    0..2 => Entry::None,
                    2 => Entry::Failed,
                    3 => Entry::Known(self.announced_mac(), Duration::ZERO),
                    _ => old,
                },
            };
            host.set(vip, entry);
        }
        let own: IpAddr = if four { OWN4.into() } else { OWN6.into() };
        host.set(own, Entry::Known(OWN_MAC, Duration::ZERO));
        if !four && rng.permille(700) {
            let entry = Entry::Known(OWN_MAC, Duration::ZERO);
            host.set(OWN_LINK_LOCAL.into(), entry);
        }
        let source = if only.is_some() {
            Source::Gateway
        } else if kind == Kind::Dead && rng.permille(900) {
            // A dead required peer makes the run last until its timeout.
            Source::Learned
        } else if number == 0 {
            Source::Gateway
        } else {
            rng.pick(&[
                Source::Configured,
                Source::Learned,
                Source::Learned,
                Source::Learned,
            ])
        };
        let known_mac = match rng.below(100) {
            // Its network card was replaced after the kernel learned the MAC.
            0..3 => Some(mac(2, number)),
            3..20 if source != Source::Learned => None,
            _ => Some(host.mac),
        };
        let proxy = rng.permille(40).then(|| Proxy {
            mac: mac(3, number),
            absorbs: rng.permille(500),
            second: rng.permille(300).then(|| mac(4, number)),
        });
        let dark = (!clean && rng.permille(50)).then(|| {
            let from = rng.up_to(Duration::from_secs(3));
            (from, from + rng.up_to(Duration::from_secs(30)))
        });
        let unknown = only.is_none() && number > 0 && rng.permille(150);
        let source = if unknown { Source::Learned } else { source };
        let plain = proxy.is_none() && host.holds.is_none();
        if source == Source::Gateway && plain && rng.permille(200) {
            host.virtual_mac = Some(mac(5, number));
        }
        let known_mac = match host.virtual_mac {
            Some(told) => known_mac.map(|_| told),
            None if unknown => Some(host.mac),
            None => known_mac,
        };
        Member {
            kind,
            host,
            source,
            known_mac,
            fresh: rng.permille(600),
            unknown,
            proxy: proxy.filter(|_| !unknown),
            listens: kind == Kind::OtherOwner && rng.permille(300),
            dark,
        }
    }

    fn draw_happenings(&mut self, rng: &mut Rng) {
        let moment = |rng: &mut Rng| {
            rng.up_to(
                rng.clone()
                    .pick(&[millis(60), millis(3000), millis(15_000)]),
            )
        };
        let mut happenings = Vec::new();
        let mut at = |when: Duration, what| happenings.push((When::At(when), what));
        for (index, vip) in self.vips.iter().enumerate() {
            match vip.beginning {
                Beginning::Usable => {}
                Beginning::Absent if rng.permille(200) => {}
                Beginning::Absent => {
                    at(rng.up_to(millis(1500)), Happening::Arrives(index));
                }
                Beginning::Tentative if rng.permille(300) => {
                    at(rng.up_to(millis(1500)), Happening::DadFails(index));
                }
                Beginning::Tentative => {
                    at(rng.up_to(millis(2000)), Happening::BecomesUsable(index));
                }
            }
        }
        for _ in 0..rng.pick(&[0, 0, 2]) {
            at(
                rng.up_to(millis(150)),
                Happening::OldOwnerClaims(rng.index(self.vips.len())),
            );
        }
        for (index, member) in self.members.iter().enumerate() {
            if member.kind != Kind::OtherOwner {
                continue;
            }
            if rng.permille(500) {
                at(
                    rng.up_to(Duration::from_secs(8)),
                    Happening::OtherOwnerClaims(index),
                );
            }
            // Those that listen let go on an order.
            if !member.listens && rng.permille(600) {
                let gone = rng.up_to(Duration::from_secs(rng.clone().pick(&[1, 12, 45])));
                at(gone, Happening::OtherOwnerLetsGo(index));
                if rng.permille(200) {
                    let back = gone + rng.up_to(Duration::from_secs(15));
                    at(back, Happening::OtherOwnerReturns(index));
                }
            }
        }
        if self.begins_down {
            at(rng.up_to(millis(1500)), Happening::CarrierBack);
        }
        for index in 0..self.vips.len() {
            // The prefix length changes: the new entry appears before the old one disappears, or
            // after.
            match rng.below(12) {
                0 => {
                    let first = moment(rng);
                    at(first, Happening::Gains(index));
                    at(first + moment(rng), Happening::LosesFirst(index));
                }
                1 => {
                    let first = moment(rng);
                    at(first, Happening::LosesFirst(index));
                    at(first + rng.up_to(millis(1200)), Happening::Gains(index));
                }
                2 => at(moment(rng), Happening::Loses(index)),
                3 => at(moment(rng), Happening::Overrun),
                _ => {}
            }
        }
        for _ in 0..rng.pick(&[0, 5, 40]) {
            at(rng.up_to(Duration::from_secs(2)), Happening::Stray);
        }
        for _ in 0..rng.pick(&[0, 0, 3]) {
            let member = rng.index(self.members.len());
            at(
                rng.up_to(Duration::from_secs(10)),
                Happening::Traffic(member),
            );
        }
        if self.adversary {
            for _ in 0..60 {
                at(rng.up_to(Duration::from_secs(6)), Happening::Forgery);
            }
        }
        match rng.below(100) {
            0..20 => {
                let vip = rng.index(self.vips.len());
                if rng.permille(300) {
                    let frames = u32::try_from(rng.below(60)).unwrap_or(0);
                    happenings.push((When::AfterFrame(frames), Happening::Leaves(vip)));
                } else {
                    let leaves = moment(rng);
                    happenings.push((When::At(leaves), Happening::Leaves(vip)));
                    if rng.permille(600) {
                        let wait = self.pace.wait.max(millis(60));
                        let gone = rng.pick(&[millis(1), wait / 2, wait * 3]);
                        let back = leaves + millis(1) + rng.up_to(gone);
                        if rng.permille(300) {
                            happenings.push((When::At(back), Happening::ReturnsTentative(vip)));
                            let usable = back + rng.up_to(millis(2000));
                            happenings.push((When::At(usable), Happening::BecomesUsable(vip)));
                        } else {
                            happenings.push((When::At(back), Happening::Returns(vip)));
                        }
                    }
                }
            }
            20..30 => {
                let lost = moment(rng);
                let down = rng.permille(300);
                happenings.push((When::At(lost), Happening::CarrierLost { down }));
                let up = lost + moment(rng);
                happenings.push((When::At(up), Happening::CarrierBack));
            }
            30..40 => {
                let mac = Mac::new([2, 0, 0, 0, 0xee, 2]);
                happenings.push((When::At(moment(rng)), Happening::MacChanges(mac)));
            }
            40..43 => happenings.push((When::At(moment(rng)), Happening::LinkGone)),
            _ => {}
        }
        self.happenings = happenings;
    }
}
