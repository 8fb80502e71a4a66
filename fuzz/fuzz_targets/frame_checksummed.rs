//! A frame that was right before it was bent, with its checksums mended after: so the octets that
//! follow a checksum are reached, too.
//!
//! The input's first octet chooses a frame and what is done to its end; then, for as long as there
//! are three octets, two say where to bend it and the third how.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use vipherald_core::address::Mac;
use vipherald_core::wire::{
    Advert, Advertisement, Arp, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload, Token,
};

const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

fuzz_target!(|input: &[u8]| {
    let Some((choice, bends)) = input.split_first() else {
        return;
    };
    let mut octets = match choice % 10 {
        8 => ADVERT_4.to_vec(),
        9 => ADVERT_6.to_vec(),
        number => {
            let frame = valid(number);
            let octets = frame.to_bytes();
            assert_eq!(Frame::parse(&octets), Some(frame));
            octets
        }
    };
    match choice / 10 % 4 {
        // Padded to the least length of a frame, or far beyond it.
        1 => octets.resize(60, 0xaa),
        2 => octets.resize(1514, 0),
        // VLAN-tagged.
        3 => drop(octets.splice(12..12, [0x81, 0, 0, 169])),
        _ => {}
    }
    for bend in bends.chunks_exact(3) {
        let at = usize::from(u16::from_be_bytes([bend[0], bend[1]]));
        if bend[0] & 0x80 != 0 {
            octets.truncate((at & 0x7fff) % (octets.len() + 1));
        } else if let Some(octet) = octets.get_mut(at) {
            *octet = bend[2];
        }
    }
    mend(&mut octets);
    if let Some(frame) = Frame::parse(&octets) {
        assert_eq!(Frame::parse(&frame.to_bytes()), Some(frame));
    }
    if let Some(advert) = Advert::parse(&octets) {
        assert!(advert.addresses.len() <= 255);
    }
});

/// Adverts of a master with two addresses, version 3.
const ADVERT_4: [u8; 50] = [
    0x01, 0x00, 0x5e, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x08,
    0x00, // Ethernet
    0x45, 0xc0, 0x00, 0x24, 0x00, 0x01, 0x00, 0x00, 0xff, 0x70, 0xd0, 0x8c, // IPv4
    10, 9, 0, 1, 224, 0, 0, 18, //
    0x31, 0x33, 0xc8, 0x02, 0x00, 0x64, 0x06, 0xee, 10, 9, 0, 100, 10, 9, 0, 101,
];
const ADVERT_6: [u8; 94] = [
    0x33, 0x33, 0x00, 0x00, 0x00, 0x12, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x86,
    0xdd, // Ethernet
    0x60, 0, 0, 0, 0, 0x28, 0x70, 0xff, // IPv6
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1, //
    0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, //
    0x31, 0x33, 0xc8, 0x02, 0x00, 0x64, 0, 0, //
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x99, //
    0xfd, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x01, 0x00,
];

fn valid(number: u8) -> Frame {
    let reply = |source: IpAddr, destination: IpAddr| Frame {
        destination: A,
        source: B,
        payload: Payload::Echo(Echo {
            source,
            destination,
            kind: EchoKind::Reply,
            token: Token {
                identifier: 0x1234,
                sequence: 0x5678,
                nonce: 0x9abc,
            },
            hop_limit: 64,
        }),
    };
    match number {
        0 => Arp::gratuitous_reply(A4, A),
        1 => Arp::directed_request(A4, A, B4, Some(B)),
        2 => Ndp::directed_solicitation(A6, A, B6, None),
        3 => Ndp::unsolicited_advertisement(A6, A, true),
        4 => Ndp::probe(A6, A, None),
        5 => reply(B4.into(), A4.into()),
        6 => reply(B6.into(), A6.into()),
        _ => Frame {
            destination: A,
            source: B,
            payload: Payload::Ndp(Ndp {
                source: B6,
                destination: A6,
                message: NdpMessage::Advertisement(Advertisement {
                    router: false,
                    solicited: true,
                    override_cached: true,
                    target: B6,
                    target_lladdr: Some(B),
                }),
            }),
        },
    }
}

/// Puts the right checksum of ICMP, ICMPv6 or VRRP wherever the headers say that there is one.
fn mend(octets: &mut [u8]) {
    let Some((ethernet, packet)) = octets.split_at_mut_checked(14) else {
        return;
    };
    let word = |packet: &[u8], at: usize| {
        let octets = packet.get(at..at + 2)?;
        Some(usize::from(octets[0]) << 8 | usize::from(octets[1]))
    };
    let span = match ethernet[12..14] {
        [0x08, 0x00] => {
            let header = packet.first().map(|first| usize::from(first & 0x0f) * 4);
            header.zip(word(packet, 2))
        }
        [0x86, 0xdd] => word(packet, 4).map(|length| (40, 40 + length)),
        _ => None,
    };
    let Some((from, to)) = span else {
        return;
    };
    let is_v6 = from == 40 && ethernet[12] == 0x86;
    let protocol = packet.get(if is_v6 { 6 } else { 9 }).copied().unwrap_or(0);
    let mut sum: u64 = 0;
    if is_v6 {
        let Some(addresses) = packet.get(8..40) else {
            return;
        };
        sum += u64::try_from(to - from).unwrap_or(0) + u64::from(protocol) + words(addresses);
    }
    let Some(message) = packet.get_mut(from..to) else {
        return;
    };
    let at = if protocol == 112 { 6 } else { 2 };
    let Some(field) = message.get_mut(at..at + 2) else {
        return;
    };
    field.fill(0);
    sum += words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    message[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn words(octets: &[u8]) -> u64 {
    octets
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}
