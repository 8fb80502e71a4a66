//! Any sequence of what can happen to a run: no panic, no frame for a VIP that left or is not
//! usable, never more frames than the rate allows, and always an end.

#![no_main]

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;
use vipherald::address::{InterfaceIndex, Mac, Vip};
use vipherald::announce::{Announcement, Confirm, Pace, Surroundings};
use vipherald::kernel::{Address, Link, Neighbour, NeighbourState, Usability};
use vipherald::wire::{
    Advertisement, Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload, Solicitation,
};

const TIMEOUT: Duration = Duration::from_secs(60);

fuzz_target!(|input: &[u8]| {
    // It ends where the input does.
    let _ = play(&mut Unstructured::new(input));
});

fn play(input: &mut Unstructured) -> Result<()> {
    let vips = [ip(4, 10), ip(6, 10), ip(4, 11)].map(|ip| Vip::try_from(ip).expect("a VIP"));
    let rate = NonZeroU32::new(input.int_in_range(1..=3000)?).expect("it is more than 0");
    let start = Instant::now();
    let pace = Pace {
        rate,
        wait: Duration::from_millis(input.int_in_range(0..=1000)?),
        timeout: TIMEOUT,
    };
    let mut core = Announcement::new(&vips, None, pace, 0x1234_5678_9abc_def0, start);
    let mut now = start;
    // What was told of the addresses that the run is about, by (address, interface).
    let mut held: Vec<Address> = Vec::new();
    let mut left: Vec<(IpAddr, InterfaceIndex)> = Vec::new();
    let mut frames = 0_u64;
    loop {
        let mut polls = 0;
        while let Some(transmit) = core.poll_transmit(now) {
            let claim = core.claim_of(&transmit);
            let key = (claim.vip.ip(), claim.interface());
            assert!(!left.contains(&key), "a frame after the address left");
            let address = held
                .iter()
                .find(|address| (address.ip, address.interface) == key);
            assert_eq!(
                address.map(|address| address.usability),
                Some(Usability::Usable),
                "a frame for an address that is not usable here"
            );
            if polls > 3 || input.ratio(1, 8).unwrap_or(false) {
                core.refused(now, &transmit, Errno::ENOBUFS);
            } else {
                frames += 1;
                core.sent(now, &transmit);
            }
            polls += 1;
        }
        // Whoever is gone when a frame could have left is gone for good.
        for claim in core.claims() {
            let key = (claim.vip.ip(), claim.interface());
            let here = held
                .iter()
                .any(|address| (address.ip, address.interface) == key);
            if !here && !left.contains(&key) {
                left.push(key);
            }
        }
        let passed = now.duration_since(start).as_secs_f64();
        assert!(
            frames as f64 <= f64::from(rate.get()) * (1.0 + passed) + 1.0,
            "too fast"
        );
        if core.is_over(now) {
            return Ok(());
        }
        assert!(
            core.next_deadline(now) > now,
            "asked to wake up in the past"
        );
        assert!(
            core.next_deadline(now) <= start + TIMEOUT,
            "the end was missed"
        );
        if input.is_empty() {
            // Nothing happens any more.
            now = core.next_deadline(now);
            continue;
        }
        match input.int_in_range(0..=11)? {
            0 => {
                let link = link(input)?;
                core.link_changed(now, &link);
            }
            1 => {
                let interface = interface(input)?;
                core.link_gone(interface);
                held.retain(|address| address.interface != interface);
            }
            2 | 3 => {
                let address = address(input)?;
                let known = core.unknown_link_of(&address).is_none();
                core.address_changed(now, &address);
                held.retain(|old| (old.ip, old.interface) != (address.ip, address.interface));
                if known {
                    held.push(address);
                }
            }
            4 => {
                let address = address(input)?;
                core.address_gone(&address);
                held.retain(|old| (old.ip, old.interface) != (address.ip, address.interface));
            }
            5 => {
                let mut addresses = Vec::new();
                for _ in 0..input.int_in_range(0..=3)? {
                    let address = address(input)?;
                    let twice = addresses.iter().any(|other: &Address| {
                        (other.ip, other.interface) == (address.ip, address.interface)
                    });
                    if core.unknown_link_of(&address).is_none() && !twice {
                        addresses.push(address);
                    }
                }
                core.addresses_are(now, &addresses);
                held = addresses;
            }
            6 => look_around(input, &mut core, now)?,
            7..=9 => {
                let interface = interface(input)?;
                let frame = frame(input)?;
                core.received(now, interface, &frame);
            }
            10 => now = core.next_deadline(now),
            _ => now += Duration::from_micros(input.int_in_range(1..=3_000_000)?),
        }
    }
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
    let carrier = input.ratio(7, 8)?;
    Ok(Link {
        index,
        name: format!("if{}", index.0),
        mac: Some(any_mac(input)?).filter(|mac| mac.is_unicast()),
        up: true,
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
    let mut surroundings = Vec::new();
    for _ in 0..input.int_in_range(1..=2)? {
        let mut around = Surroundings::of(link(input)?);
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
                }),
            }
        }
        surroundings.push(around);
    }
    let configured = [any_ip(input)?, any_ip(input)?];
    let confirm = *input.choose(&[Confirm::All, Confirm::Peers, Confirm::None])?;
    core.surroundings_are(now, &surroundings, [any_mac(input)?], &configured, confirm);
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
                identifier: 0x1234,
                sequence: 0x5678_u16.wrapping_add(input.int_in_range(0..=5)?),
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
