//! Any sequence of what can happen to a run: no panic, no frame for a VIP that is not usable here,
//! not where it counts, superseded, or that was gone for longer than a run waits; never more frames
//! than the rate allows; and always an end, when it was said to be.

#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::announce::{Announcement, Claim, News, Pace, State};
use vipherald_core::ask::{Asker, Confirm, LinkView, Refusal, Transmit};
use vipherald_core::host::{
    Address, HostSnapshot, Link, Neighbour, NeighbourState, Place, PlacedVip, Usability,
};
use vipherald_core::wire::{
    Advertisement, Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload,
    Solicitation, Token,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fuzz_target!(|input: &[u8]| {
    // It ends where the input does.
    let _ = play(&mut Unstructured::new(input));
});

type Key = (IpAddr, InterfaceIndex);

fn key(claim: &Claim) -> Key {
    (claim.vip.ip(), claim.interface())
}

/// What the core was told, and what follows from it.
struct Told {
    placed: Vec<PlacedVip>,
    pace: Pace,
    links: BTreeMap<InterfaceIndex, Link>,
    /// The entries of every address, by prefix length.
    held: BTreeMap<Key, BTreeMap<u8, Usability>>,
    claims: usize,
    /// Since when claimed addresses are gone.
    gone: BTreeMap<Key, Instant>,
    /// Those that were gone for too long when a frame could have left.
    left: BTreeSet<Key>,
    superseded: BTreeSet<Key>,
    /// When peers are asked no more.
    end_at: Instant,
    watched: BTreeMap<Key, Instant>,
}

impl Told {
    /// Whether an address is on an interface that is there.
    fn is_here(&self, key: Key) -> bool {
        let mut entries = self.held.get(&key).into_iter().flatten();
        self.links.contains_key(&key.1) && entries.next().is_some()
    }

    /// A new claim is where it counts, on an interface whose neighbours can ask for it; and what is
    /// gone is gone since now.
    fn look_at_claims(&mut self, core: &Announcement, now: Instant) {
        for claim in &core.claims()[self.claims..] {
            let link = &self.links[&claim.interface()];
            let lower = link.lower.and_then(|lower| self.links.get(&lower));
            let counts = |one: &PlacedVip| one.vip == claim.vip && one.place.admits(link, lower);
            assert!(self.placed.iter().any(counts), "it counts elsewhere");
            assert!(link.is_askable(), "nobody can ask for it there");
            assert!(self.is_here(key(claim)), "it is not here");
        }
        self.claims = core.claims().len();
        for key in core.claims().iter().map(key) {
            if self.is_here(key) {
                self.gone.remove(&key);
            } else {
                self.gone.entry(key).or_insert(now);
            }
        }
        for claim in core.claims() {
            let key = key(claim);
            let left = self.left.contains(&key) || !self.is_here(key);
            assert_eq!(claim.state() == State::Left, left, "whether it left");
        }
    }

    /// A frame may leave only now.
    fn may_leave(&self, core: &Announcement, now: Instant, transmit: &Transmit) {
        let claim = core.claim_of(transmit);
        let key = key(claim);
        assert!(!self.left.contains(&key), "a frame after the address left");
        assert!(
            !self.superseded.contains(&key),
            "a frame beside a newer run"
        );
        let usable = |usability: &Usability| *usability == Usability::Usable;
        assert!(
            self.held
                .get(&key)
                .is_some_and(|entries| entries.values().any(usable)),
            "a frame for an address that is not usable here"
        );
        let link = &self.links[&claim.interface()];
        assert!(
            link.carrier && link.unlike_ethernet.is_none(),
            "a dead link"
        );
        let target = match &transmit.frame.payload {
            Payload::Arp(arp) => arp.target_ip.into(),
            Payload::Ndp(ndp) => match ndp.message {
                NdpMessage::Solicitation(ns) => ns.target.into(),
                NdpMessage::Advertisement(na) => na.target.into(),
            },
            // To a peer or to routers, whatever address it is for.
            Payload::Echo(_) | Payload::Mld(_) => IpAddr::from([0; 4]),
        };
        let end = if target == claim.vip.ip() {
            core.ends_at()
        } else {
            self.end_at
        };
        assert!(now < end, "a frame after the time was up");
    }

    fn hear_news(&mut self, core: &mut Announcement, now: Instant) {
        for news in core.take_news(now) {
            let key = |index: usize| key(&core.claims()[index]);
            match news {
                News::ConflictOver(index, _) => {
                    self.watched.remove(&key(index));
                    if !self.pace.conflict_watch.is_zero() {
                        self.end_at = self.end_at.max(now + self.pace.timeout);
                    }
                }
                News::ConflictWatched(index, _) => {
                    let until = now + self.pace.conflict_watch;
                    self.watched.insert(key(index), until);
                }
                _ => {}
            }
        }
        let latest = self
            .watched
            .values()
            .copied()
            .fold(self.end_at, Instant::max);
        let ends_at = core.ends_at();
        assert!(
            self.end_at <= ends_at && ends_at <= latest,
            "it ends at another time"
        );
    }

    /// Whether all that is gone could not come back any more.
    fn awaits_nothing(&self, now: Instant) -> bool {
        let settled = |key: &Key| self.left.contains(key) || self.superseded.contains(key);
        let mut gone = self.gone.iter();
        gone.all(|(key, since)| settled(key) || now >= *since + self.pace.wait)
    }
}

fn play(input: &mut Unstructured) -> Result<()> {
    let vips = [ip(4, 10), ip(6, 10), ip(4, 11)].map(|ip| Vip::try_from(ip).expect("a VIP"));
    let rate = NonZeroU32::new(input.int_in_range(1..=3000)?).expect("it is more than 0");
    let start = Instant::now();
    let pace = Pace {
        rate,
        wait: Duration::from_millis(input.int_in_range(0..=1000)?),
        timeout: TIMEOUT,
        arp_rate: NonZeroU32::new(input.int_in_range(0..=30)?),
        census: *input.choose(&[false, true])?,
        repeats: true,
        conflict_watch: Duration::from_secs(*input.choose(&[0, 0, 5, 90])?),
    };
    let mut placed = Vec::new();
    for vip in vips {
        let place = place(input)?;
        placed.push(PlacedVip { vip, place });
    }
    let mut core = Announcement::new(&placed, pace, 0x1234_5678_9abc_def0, start);
    let mut now = start;
    let mut told = Told {
        placed,
        pace,
        links: BTreeMap::new(),
        held: BTreeMap::new(),
        claims: 0,
        gone: BTreeMap::new(),
        left: BTreeSet::new(),
        superseded: BTreeSet::new(),
        end_at: start + TIMEOUT,
        watched: BTreeMap::new(),
    };
    let mut frames = 0_u64;
    loop {
        told.look_at_claims(&core, now);
        let mut polls = 0;
        loop {
            let transmit = core.poll_transmit(now);
            told.hear_news(&mut core, now);
            let Some(transmit) = transmit else {
                break;
            };
            told.may_leave(&core, now, &transmit);
            if polls > 3 || input.ratio(1, 8).unwrap_or(false) {
                core.refused(now, &transmit, Refusal::Other("ENOBUFS".to_owned()));
            } else {
                frames += 1;
                core.sent(now, &transmit);
            }
            polls += 1;
        }
        // Whoever is gone for so long when a frame could have left is gone for good.
        for (key, since) in &told.gone {
            if now >= *since + pace.wait && !told.superseded.contains(key) {
                told.left.insert(*key);
            }
        }
        let passed = now.duration_since(start).as_secs_f64();
        assert!(
            frames as f64 <= f64::from(rate.get()) * (1.0 + passed) + 1.0,
            "too fast"
        );
        if core.is_over(now) {
            assert!(
                now >= core.ends_at() || told.awaits_nothing(now),
                "it may come back"
            );
            return Ok(());
        }
        assert!(
            core.next_deadline(now) > now,
            "asked to wake up in the past"
        );
        assert!(
            core.next_deadline(now) <= core.ends_at(),
            "the end was missed"
        );
        if input.is_empty() {
            // Nothing happens any more.
            now = core.next_deadline(now);
            continue;
        }
        match input.int_in_range(0..=12)? {
            0 => {
                let link = link(input)?;
                core.link_changed(now, &link);
                told.links.insert(link.index, link);
            }
            1 => {
                let interface = interface(input)?;
                core.link_gone(now, interface);
                told.links.remove(&interface);
                told.held.retain(|(_, on), _| *on != interface);
            }
            2 | 3 => {
                let address = address(input)?;
                core.address_changed(now, &address);
                let entries = told.held.entry((address.ip, address.interface));
                entries
                    .or_default()
                    .insert(address.prefix_len, address.usability);
            }
            4 => {
                let address = address(input)?;
                core.address_gone(now, &address);
                let entries = told.held.entry((address.ip, address.interface));
                entries.or_default().remove(&address.prefix_len);
            }
            5 => {
                let mut addresses = Vec::new();
                told.held.clear();
                for _ in 0..input.int_in_range(0..=3)? {
                    let address = address(input)?;
                    let entries = told.held.entry((address.ip, address.interface));
                    entries
                        .or_default()
                        .insert(address.prefix_len, address.usability);
                    addresses.push(address);
                }
                core.addresses_are(now, &addresses);
            }
            6 => look_around(input, &mut core, now)?,
            7..=9 => {
                let interface = interface(input)?;
                let frame = frame(input)?;
                core.received(now, interface, &frame);
            }
            10 => now = core.next_deadline(now),
            11 => {
                let vip = *input.choose(&vips)?;
                let on = input.ratio(7, 8)?.then_some(interface(input)?);
                core.superseded(&[(vip, on)]);
                let taken = |key: &Key| key.0 == vip.ip() && on.is_none_or(|on| on == key.1);
                told.superseded
                    .extend(core.claims().iter().map(key).filter(taken));
            }
            _ => now += Duration::from_micros(input.int_in_range(1..=3_000_000)?),
        }
    }
}

/// Somewhere that a VIP counts.
fn place(input: &mut Unstructured) -> Result<Place> {
    Ok(match input.int_in_range(0..=7)? {
        0 => Place::On("if2".to_owned()),
        1 => Place::On("if3".to_owned()),
        2 => Place::Vmac {
            name: "vrrp.51".to_owned(),
            above: "if2".to_owned(),
        },
        _ => Place::Anywhere,
    })
}

fn ip(family: u8, host: u8) -> IpAddr {
    if family == 4 {
        IpAddr::from([10, 9, 0, host])
    } else {
        IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, host.into()])
    }
}

/// One of few addresses, so that they meet.
fn any_ip(input: &mut Unstructured) -> Result<IpAddr> {
    Ok(ip(
        *input.choose(&[4, 6])?,
        *input.choose(&[1, 2, 3, 10, 11])?,
    ))
}

fn any_mac(input: &mut Unstructured) -> Result<Mac> {
    Ok(match input.int_in_range(0..=5)? {
        0 => Mac::BROADCAST,
        1 => Mac::ZERO,
        last => Mac::new([2, 0, 0, 0, 0, last]),
    })
}

fn interface(input: &mut Unstructured) -> Result<InterfaceIndex> {
    Ok(InterfaceIndex(input.int_in_range(2..=3)?))
}

fn link(input: &mut Unstructured) -> Result<Link> {
    let index = interface(input)?;
    let up = input.ratio(15, 16)?;
    let carrier = up && input.ratio(7, 8)?;
    Ok(Link {
        index,
        name: format!("if{}", index.0),
        mac: Some(any_mac(input)?).filter(|mac| mac.is_unicast()),
        up,
        carrier,
        unlike_ethernet: input.ratio(1, 32)?.then_some("is a loopback interface"),
        forwards_ipv6: input.arbitrary()?,
        lower: (index.0 == 3).then_some(InterfaceIndex(2)),
    })
}

fn address(input: &mut Unstructured) -> Result<Address> {
    Ok(Address {
        ip: any_ip(input)?,
        interface: interface(input)?,
        prefix_len: *input.choose(&[0, 24, 32, 64, 128])?,
        usability: *input.choose(&[
            Usability::Usable,
            Usability::Usable,
            Usability::Tentative,
            Usability::DadFailed,
        ])?,
    })
}

fn look_around(input: &mut Unstructured, core: &mut Announcement, now: Instant) -> Result<()> {
    let mut views = Vec::new();
    for _ in 0..input.int_in_range(1..=2)? {
        let mut around = LinkView::of(link(input)?);
        let index = around.link.index;
        for _ in 0..input.int_in_range(0..=4)? {
            match input.int_in_range(0..=2)? {
                0 => around.addresses.push(Address {
                    interface: index,
                    ..address(input)?
                }),
                1 => around.gateways.push(any_ip(input)?),
                _ => around.neighbours.push(Neighbour {
                    ip: any_ip(input)?,
                    mac: input.ratio(7, 8)?.then_some(any_mac(input)?),
                    state: *input.choose(&[NeighbourState::Stale, NeighbourState::Failed])?,
                    externally_learned: false,
                    confirmed: None,
                }),
            }
        }
        views.push(around);
    }
    let configured = [any_ip(input)?, any_ip(input)?];
    let confirm = *input.choose(&[Confirm::All, Confirm::Peers, Confirm::None])?;
    let host = HostSnapshot {
        links: views.iter().map(|one| one.link.clone()).collect(),
        addresses: views.iter().flat_map(|one| one.addresses.clone()).collect(),
    };
    core.links_are(views, &host, &configured, confirm);
    while core.find_peers(now) {}
    Ok(())
}

fn frame(input: &mut Unstructured) -> Result<Frame> {
    let (IpAddr::V4(a4), IpAddr::V4(b4)) = (ip(4, octet(input)?), ip(4, octet(input)?)) else {
        unreachable!();
    };
    let (IpAddr::V6(a6), IpAddr::V6(b6)) = (ip(6, octet(input)?), ip(6, octet(input)?)) else {
        unreachable!();
    };
    let mac = any_mac(input)?;
    let payload = match input.int_in_range(0..=4)? {
        0 => Payload::Arp(Arp {
            operation: *input.choose(&[ArpOperation::Request, ArpOperation::Reply])?,
            sender_mac: mac,
            sender_ip: a4,
            target_mac: any_mac(input)?,
            target_ip: b4,
        }),
        1 => Payload::Ndp(Ndp {
            source: a6,
            destination: b6,
            message: NdpMessage::Solicitation(Solicitation {
                target: b6,
                source_lladdr: input.arbitrary::<bool>()?.then_some(mac),
            }),
        }),
        2 => Payload::Ndp(Ndp {
            source: a6,
            destination: b6,
            message: NdpMessage::Advertisement(Advertisement {
                router: false,
                solicited: input.arbitrary()?,
                override_cached: input.arbitrary()?,
                target: a6,
                target_lladdr: input.arbitrary::<bool>()?.then_some(mac),
            }),
        }),
        four => {
            let four = four == 3;
            Payload::Echo(Echo {
                source: if four { a4.into() } else { a6.into() },
                destination: if four { b4.into() } else { b6.into() },
                kind: EchoKind::Reply,
                token: Token {
                    identifier: 0x1234,
                    sequence: 0x5678_u16.wrapping_add(input.int_in_range(0..=5)?),
                    nonce: input.arbitrary()?,
                },
                hop_limit: *input.choose(&[63, 64, 255])?,
            })
        }
    };
    Ok(Frame {
        destination: any_mac(input)?,
        source: if input.ratio(3, 4)? {
            mac
        } else {
            any_mac(input)?
        },
        payload,
    })
}

fn octet(input: &mut Unstructured) -> Result<u8> {
    input.choose(&[1, 2, 3, 10, 11]).copied()
}
