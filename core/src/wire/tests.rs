//! Every format in both directions, against octets captured between two Linux 6.18 hosts; and
//! truncated and corrupted frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;

const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);
const A4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const B4: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 2);
const A6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 1);
const B6: Ipv6Addr = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, 2);

const ARP_REQUEST: &str = "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
    020000000001 0a090001 000000000000 0a090002";
const ARP_REPLY: &str = "020000000001 020000000002 0806 0001 0800 06 04 0002
    020000000002 0a090002 020000000001 0a090001";
const ECHO_REPLY_4: &str = "020000000001 020000000002 0800 45 00 0024 a502 0000 40 01 c1c2
    0a090002 0a090001 00 00 a3aa 4c40 0001 0102030405060708";
const SOLICITATION: &str = "3333ff000002 020000000001 86dd 60000000 0020 3a ff
    fd090000000000000000000000000001 ff0200000000000000000001ff000002
    87 00 7d85 00000000 fd090000000000000000000000000002 01 01 020000000001";
const ADVERTISEMENT: &str = "020000000001 020000000002 86dd 60000000 0020 3a ff
    fd090000000000000000000000000002 fd090000000000000000000000000001
    88 00 1c7f 60000000 fd090000000000000000000000000002 02 01 020000000002";
const ECHO_REPLY_6: &str = "020000000001 020000000002 86dd 60022dab 0010 3a 40
    fd090000000000000000000000000002 fd090000000000000000000000000001
    81 00 2848 4c41 0001 0102030405060708";
/// For the group of `A6`, which is also that of its link-local address.
const LISTENER_REPORT: &str = "333300000016 020000000001 86dd 60000000 0024 00 01
    fe80000000000000000000fffe000001 ff020000000000000000000000000016
    3a00 0502 0000 0100 8f00 7207 0000 0001 04 00 0000 ff0200000000000000000001ff000001";
/// A probe with a nonce option (RFC 7527) instead of a link-layer address.
const DAD_PROBE: &str = "3333ff000001 020000000001 86dd 60000000 0020 3a ff
    00000000000000000000000000000000 ff0200000000000000000001ff000001
    87 00 8eba 00000000 fe8000000000000000 0000fffe000001 0e01 5bfd26e75d7d";

/// Of keepalived 2.2.7 as master: version 2 with two addresses, with a password, version 3 with two, and
/// version 3 for IPv6.
const ADVERT_2: &str = "01005e000012 32b4f5b47751 0800 45c0002c00010000 ff70 d084
    0a090001 e0000012 21 33 c8 02 0001 01ee 0a090064 0a090065 0000000000000000";
const ADVERT_PASSWORD: &str = "01005e000012 12d31e27a615 0800 45c0002800010000 ff70 d088
    0a090001 e0000012 21 33 c8 01 0101 cf10 0a090064 7365637265740000";
const ADVERT_3: &str = "01005e000012 4a549c5667f9 0800 45c0002400010000 ff70 d08c
    0a090001 e0000012 31 33 c8 02 0064 06ee 0a090064 0a090065";
const ADVERT_6: &str = "333300000012 96482c560dce 86dd 6c02fb66 0028 70 ff
    fe8000000000000094482cfffe560dce ff020000000000000000000000000012
    31 33 c8 02 0064 3da7 fe800000000000000000000000000099 fd090000000000000000000000000100";
const ADVERTS: [&str; 4] = [ADVERT_2, ADVERT_PASSWORD, ADVERT_3, ADVERT_6];

const CAPTURED: [&str; 6] = [
    ARP_REQUEST,
    ARP_REPLY,
    ECHO_REPLY_4,
    SOLICITATION,
    ADVERTISEMENT,
    ECHO_REPLY_6,
];

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
        .collect()
}

fn from_b_to_a(payload: Payload) -> Frame {
    Frame {
        destination: A,
        source: B,
        payload,
    }
}

#[test]
fn arp_matches_the_capture() {
    let reply = from_b_to_a(Payload::Arp(Arp {
        operation: ArpOperation::Reply,
        sender_mac: B,
        sender_ip: B4,
        target_mac: A,
        target_ip: A4,
    }));
    assert_eq!(Frame::parse(&octets(ARP_REPLY)), Some(reply.clone()));
    assert_eq!(reply.to_bytes(), octets(ARP_REPLY));
    let request = Frame::parse(&octets(ARP_REQUEST)).unwrap();
    assert_eq!(request.destination, Mac::BROADCAST);
    assert_eq!(request.to_bytes(), octets(ARP_REQUEST));
}

#[test]
fn neighbour_discovery_matches_the_capture() {
    let (group, group_mac) = solicited_node(B6);
    let solicitation = Frame {
        destination: group_mac,
        source: A,
        payload: Payload::Ndp(Ndp {
            source: A6,
            destination: group,
            message: NdpMessage::Solicitation(Solicitation {
                target: B6,
                source_lladdr: Some(A),
            }),
        }),
    };
    let advertisement = from_b_to_a(Payload::Ndp(Ndp {
        source: B6,
        destination: A6,
        message: NdpMessage::Advertisement(Advertisement {
            router: false,
            solicited: true,
            override_cached: true,
            target: B6,
            target_lladdr: Some(B),
        }),
    }));
    for (frame, captured) in [(solicitation, SOLICITATION), (advertisement, ADVERTISEMENT)] {
        assert_eq!(Frame::parse(&octets(captured)), Some(frame.clone()));
        assert_eq!(frame.to_bytes(), octets(captured));
    }
    let Some(Payload::Ndp(probe)) = Frame::parse(&octets(DAD_PROBE)).map(|frame| frame.payload)
    else {
        panic!("a probe with a nonce is still a solicitation");
    };
    assert_eq!(probe.source, Ipv6Addr::UNSPECIFIED);
}

#[test]
fn captured_echo_replies_are_parsed() {
    for (captured, source, destination, identifier) in [
        (ECHO_REPLY_4, IpAddr::V4(B4), IpAddr::V4(A4), 0x4c40),
        (ECHO_REPLY_6, IpAddr::V6(B6), IpAddr::V6(A6), 0x4c41),
    ] {
        let reply = from_b_to_a(Payload::Echo(Echo {
            source,
            destination,
            kind: EchoKind::Reply,
            token: Token {
                identifier,
                sequence: 1,
                nonce: 0x0102_0304_0506_0708,
            },
            hop_limit: 64,
        }));
        assert_eq!(Frame::parse(&octets(captured)), Some(reply));
    }
}

#[test]
fn echo_requests_and_flags_survive_the_round_trip() {
    for (source, destination) in [
        (IpAddr::V4(A4), IpAddr::V4(B4)),
        (IpAddr::V6(A6), IpAddr::V6(B6)),
    ] {
        let token = Token {
            identifier: 0xbeef,
            sequence: 0xffff,
            nonce: u64::MAX - 1,
        };
        let echo = Echo::request((source, A), (destination, B), token);
        assert_eq!(Frame::parse(&echo.to_bytes()), Some(echo));
    }
    for flag in 0..3 {
        let advertisement = from_b_to_a(Payload::Ndp(Ndp {
            source: B6,
            destination: A6,
            message: NdpMessage::Advertisement(Advertisement {
                router: flag == 0,
                solicited: flag == 1,
                override_cached: flag == 2,
                target: B6,
                target_lladdr: None,
            }),
        }));
        let parsed = Frame::parse(&advertisement.to_bytes());
        assert_eq!(parsed, Some(advertisement));
    }
}

#[test]
fn listener_reports_match_the_capture() {
    let report = Report {
        source: "fe80::ff:fe00:1".parse().unwrap(),
        address: A6,
    };
    let frame = report.frame(A);
    assert_eq!(frame.to_bytes(), octets(LISTENER_REPORT));
    assert_eq!(Frame::parse(&frame.to_bytes()), None, "it is no answer");
}

#[test]
fn the_header_of_any_frame_tells_who_is_alive() {
    let (a4, a6) = (Some(IpAddr::V4(A4)), Some(IpAddr::V6(A6)));
    let (b4, b6) = (IpAddr::V4(B4), IpAddr::V6(B6));
    for (captured, wanted, sender) in [
        (ARP_REPLY, None, None),
        (ADVERTISEMENT, None, None),
        (ECHO_REPLY_4, a4, Some((b4, 64))),
        (ECHO_REPLY_6, a6, Some((b6, 64))),
    ] {
        let header = Header {
            destination: A,
            source: B,
            wanted,
            sender,
        };
        assert_eq!(Header::parse(&octets(captured)), Some(header));
    }
    let request = Header::parse(&octets(ARP_REQUEST)).unwrap();
    assert_eq!(request.wanted, Some(B4.into()));
    // A bridge protocol data unit comes through ports that forward nothing.
    let mut bpdu = octets(ARP_REPLY);
    bpdu[12..14].copy_from_slice(&[0, 0x26]);
    assert_eq!(Header::parse(&bpdu), None);
    assert_eq!(Header::parse(&bpdu[..13]), None);
}

#[test]
fn announcements_follow_the_rfcs() {
    for (announcement, expected) in [
        (
            Arp::gratuitous_request(A4, A),
            "ffffffffffff 020000000001 0806 0001 0800 06 04 0001
             020000000001 0a090001 000000000000 0a090001",
        ),
        (
            Arp::gratuitous_reply(A4, A),
            "ffffffffffff 020000000001 0806 0001 0800 06 04 0002
             020000000001 0a090001 020000000001 0a090001",
        ),
    ] {
        assert_eq!(announcement.to_bytes(), octets(expected));
    }
    let advertisement = Ndp::unsolicited_advertisement(A6, A, true);
    assert_eq!(
        advertisement.destination,
        Mac::new([0x33, 0x33, 0, 0, 0, 1])
    );
    let expected = Ndp {
        source: A6,
        destination: "ff02::1".parse().unwrap(),
        message: NdpMessage::Advertisement(Advertisement {
            router: true,
            solicited: false,
            override_cached: true,
            target: A6,
            target_lladdr: Some(A),
        }),
    };
    assert_eq!(advertisement.payload, Payload::Ndp(expected));
}

#[test]
fn padding_changes_nothing() {
    for captured in CAPTURED {
        let mut padded = octets(captured);
        padded.resize(128, 0xa5);
        assert_eq!(Frame::parse(&padded), Frame::parse(&octets(captured)));
    }
}

#[test]
fn a_truncated_frame_is_rejected() {
    for captured in CAPTURED {
        let whole = octets(captured);
        for length in 0..whole.len() {
            let parsed = Frame::parse(&whole[..length]);
            assert_eq!(parsed, None, "{length} of {captured}");
        }
    }
}

#[test]
fn a_checksum_detects_a_corrupted_octet() {
    for captured in [ECHO_REPLY_4, SOLICITATION, ADVERTISEMENT, ECHO_REPLY_6] {
        let message = if captured == ECHO_REPLY_4 { 34 } else { 54 };
        for at in message..octets(captured).len() {
            let mut corrupted = octets(captured);
            corrupted[at] ^= 0x10;
            assert_eq!(Frame::parse(&corrupted), None, "octet {at} of {captured}");
        }
    }
}

/// Parses the captured advertisement with one octet changed and the ICMPv6 checksum corrected.
fn changed_advertisement((at, value): (usize, u8)) -> Option<Frame> {
    let mut frame = octets(ADVERTISEMENT);
    frame[at] = value;
    let source: [u8; 16] = frame[22..38].try_into().unwrap();
    let destination: [u8; 16] = frame[38..54].try_into().unwrap();
    let sum = pnet_packet::icmpv6::checksum(
        &pnet_packet::icmpv6::Icmpv6Packet::new(&frame[54..]).unwrap(),
        &source.into(),
        &destination.into(),
    );
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
    Frame::parse(&frame)
}

#[test]
fn an_invalid_advertisement_is_rejected() {
    assert!(changed_advertisement((21, 255)).is_some());
    for (what, change) in [
        ("hop limit 254: it may have crossed a router", (21, 254)),
        ("code 1", (55, 1)),
        ("a multicast target", (62, 0xff)),
        ("an option of length 0", (79, 0)),
        ("an option longer than the packet", (79, 2)),
    ] {
        assert_eq!(changed_advertisement(change), None, "{what}");
    }
    let other_option = changed_advertisement((78, 1)).unwrap();
    assert!(matches!(
        other_option.payload,
        Payload::Ndp(Ndp {
            message: NdpMessage::Advertisement(Advertisement {
                target_lladdr: None,
                ..
            }),
            ..
        })
    ));
}

#[test]
fn other_protocols_and_fragments_are_rejected() {
    for (what, captured, at, value) in [
        ("IP version 6", ECHO_REPLY_4, 14, 0x65),
        ("an IPv4 header of 8 octets", ECHO_REPLY_4, 14, 0x42),
        ("a fragment", ECHO_REPLY_4, 20, 0x20),
        ("UDP over IPv4", ECHO_REPLY_4, 23, 17),
        ("IP version 4", ECHO_REPLY_6, 14, 0x40),
        ("UDP over IPv6", ECHO_REPLY_6, 20, 17),
        ("ARP for IEEE 802 hardware", ARP_REPLY, 15, 6),
        ("ARP for IPv6", ARP_REPLY, 16, 0x86),
        ("ARP with MACs of 8 octets", ARP_REPLY, 18, 8),
        ("ARP with addresses of 16 octets", ARP_REPLY, 19, 16),
        ("ARP operation 3", ARP_REPLY, 21, 3),
    ] {
        let mut other = octets(captured);
        other[at] = value;
        assert_eq!(Frame::parse(&other), None, "{what}");
    }
    let mut vlan_tagged = octets(ARP_REPLY);
    vlan_tagged.splice(12..12, [0x81, 0x00, 0x00, 0xa9]);
    assert_eq!(Frame::parse(&vlan_tagged), None);
}

#[test]
fn captured_adverts_are_parsed() {
    for (captured, mac, addresses) in [
        (ADVERT_2, "32:b4:f5:b4:77:51", "10.9.0.100 10.9.0.101"),
        (ADVERT_PASSWORD, "12:d3:1e:27:a6:15", "10.9.0.100"),
        (ADVERT_3, "4a:54:9c:56:67:f9", "10.9.0.100 10.9.0.101"),
        (ADVERT_6, "96:48:2c:56:0d:ce", "fe80::99 fd09::100"),
    ] {
        let addresses = addresses.split(' ').map(|ip| ip.parse().unwrap());
        let advert = Advert {
            source: mac.parse().unwrap(),
            addresses: addresses.collect(),
        };
        assert_eq!(Advert::parse(&octets(captured)), Some(advert.clone()));
        assert_eq!(Frame::parse(&octets(captured)), None);
        let mut padded = octets(captured);
        padded.resize(128, 0xa5);
        assert_eq!(Advert::parse(&padded), Some(advert));
    }
    for captured in CAPTURED {
        assert_eq!(Advert::parse(&octets(captured)), None);
    }
}

/// Parses an advert with some octets changed and its checksum corrected, with the pseudo-header or without.
fn changed_advert(captured: &str, changes: &[(usize, u8)], with_header: bool) -> Option<Advert> {
    let mut frame = octets(captured);
    for (at, value) in changes {
        frame[*at] = *value;
    }
    let is_v6 = captured == ADVERT_6;
    let (message, ends) = if is_v6 { (54, 22..54) } else { (34, 26..34) };
    frame[message + 6..message + 8].fill(0);
    let mut summed = frame[message..].to_vec();
    if with_header {
        let length = u8::try_from(frame.len() - message).unwrap();
        summed.extend_from_slice(&frame[ends]);
        summed.extend_from_slice(&[0, 112, 0, length]);
    }
    let sum = pnet_packet::util::checksum(&summed, usize::MAX);
    frame[message + 6..message + 8].copy_from_slice(&sum.to_be_bytes());
    Advert::parse(&frame)
}

#[test]
fn both_readings_of_the_ipv4_checksum_are_taken_and_no_third() {
    for (captured, without, with) in [
        (ADVERT_2, true, false),
        (ADVERT_3, true, true),
        (ADVERT_6, false, true),
    ] {
        for (with_header, taken) in [(false, without), (true, with)] {
            let advert = changed_advert(captured, &[], with_header);
            assert_eq!(advert.is_some(), taken, "{captured} {with_header}");
        }
    }
}

#[test]
fn an_advert_that_is_truncated_or_corrupted_is_none() {
    for captured in ADVERTS {
        let whole = octets(captured);
        for length in 0..whole.len() {
            assert_eq!(
                Advert::parse(&whole[..length]),
                None,
                "{length} of {captured}"
            );
        }
        let message = if captured == ADVERT_6 { 54 } else { 34 };
        for at in message..whole.len() {
            let mut corrupted = whole.clone();
            corrupted[at] ^= 0x10;
            assert_eq!(Advert::parse(&corrupted), None, "octet {at} of {captured}");
        }
    }
}

#[test]
fn a_release_and_what_no_master_sends_is_no_advert() {
    for (what, change) in [
        ("a release: priority 0", (36, 0)),
        ("router 0", (35, 0)),
        ("a TTL of 254: it may have crossed a router", (22, 254)),
        ("version 4", (34, 0x41)),
        ("version 1", (34, 0x11)),
        ("type 2", (34, 0x32)),
        ("more addresses than there are", (37, 3)),
        ("UDP", (23, 17)),
        ("authenticated by IPsec", (23, 51)),
        ("a fragment", (20, 0x20)),
        ("IPv6's ether type", (12, 0x86)),
    ] {
        assert_eq!(changed_advert(ADVERT_3, &[change], false), None, "{what}");
    }
    let fewer = changed_advert(ADVERT_3, &[(37, 1)], false).unwrap();
    assert_eq!(fewer.addresses.len(), 1);
    for (what, change) in [
        ("a release", (56, 0)),
        ("a hop limit of 254", (21, 254)),
        ("version 2", (54, 0x21)),
        ("more addresses than there are", (57, 255)),
        ("an extension header", (20, 0)),
    ] {
        assert_eq!(changed_advert(ADVERT_6, &[change], true), None, "{what}");
    }
}
