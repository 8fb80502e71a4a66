//! The IPv4 and IPv6 headers around echo and neighbour discovery, and their checksums.

use std::net::{Ipv4Addr, Ipv6Addr};

use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::util;

use super::{array_at, u16_at};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Only a sender on the same link can deliver this hop limit (RFC 4861 §7.1).
pub(super) const ON_LINK: u8 = 255;

/// The IPv6 packet with an ICMPv6 message, whose checksum this fills in.
pub(super) fn icmpv6_to_bytes(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    message: Vec<u8>,
) -> Vec<u8> {
    let icmpv6 = IpNextHeaderProtocols::Icmpv6;
    ipv6_to_bytes(source, destination, hop_limit, (icmpv6, &[]), message)
}

/// The same behind extension headers, the first of which is of type `first`.
pub(super) fn ipv6_to_bytes(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    (first, extensions): (IpNextHeaderProtocol, &[u8]),
    mut message: Vec<u8>,
) -> Vec<u8> {
    let sum = Icmpv6Packet::new(&message).map(|p| icmpv6::checksum(&p, &source, &destination));
    if let (Some(sum), Some(field)) = (sum, message.get_mut(2..4)) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut bytes = vec![0; IPV6_HEADER];
    if let Some(mut ip) = MutableIpv6Packet::new(&mut bytes) {
        ip.set_version(6);
        // Our messages have tens of octets.
        let length = extensions.len() + message.len();
        ip.set_payload_length(u16::try_from(length).unwrap_or(u16::MAX));
        ip.set_next_header(first);
        ip.set_hop_limit(hop_limit);
        ip.set_source(source);
        ip.set_destination(destination);
    }
    bytes.extend_from_slice(extensions);
    bytes.append(&mut message);
    bytes
}

/// The IPv4 packet with an ICMP message, with both checksums.
pub(super) fn icmp_to_bytes(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    mut message: Vec<u8>,
) -> Vec<u8> {
    let sum = util::checksum(&message, 1);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    let mut bytes = vec![0; IPV4_HEADER];
    if let Some(mut ip) = MutableIpv4Packet::new(&mut bytes) {
        ip.set_version(4);
        ip.set_header_length(5);
        ip.set_total_length(u16::try_from(IPV4_HEADER + message.len()).unwrap_or(u16::MAX));
        ip.set_ttl(ttl);
        ip.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
        ip.set_source(source);
        ip.set_destination(destination);
        let sum = ipv4::checksum(&ip.to_immutable());
        ip.set_checksum(sum);
    }
    bytes.append(&mut message);
    bytes
}

/// The ICMPv6 message of an IPv6 packet without extension headers; its checksum is correct.
pub(super) struct Icmpv6<'a> {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) hop_limit: u8,
    pub(super) message: &'a [u8],
}

impl<'a> Icmpv6<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(IPV6_HEADER)?;
        if header[0] >> 4 != 6 || IpNextHeaderProtocol(header[6]) != IpNextHeaderProtocols::Icmpv6 {
            return None;
        }
        let message = rest.get(..usize::from(u16_at(header, 4)?))?;
        let source = Ipv6Addr::from(array_at::<16>(header, 8)?);
        let destination = Ipv6Addr::from(array_at::<16>(header, 24)?);
        let expected = icmpv6::checksum(&Icmpv6Packet::new(message)?, &source, &destination);
        (u16_at(message, 2)? == expected).then_some(Self {
            source,
            destination,
            hop_limit: header[7],
            message,
        })
    }
}

/// The ICMP message of an unfragmented IPv4 packet; its checksum is correct.
pub(super) struct Icmp<'a> {
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) ttl: u8,
    pub(super) message: &'a [u8],
}

impl<'a> Icmp<'a> {
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let header_length = usize::from(packet.first()? & 0x0f) * 4;
        let total_length = usize::from(u16_at(packet, 2)?);
        let header = packet.get(..header_length)?;
        let fragment = u16_at(header, 6)? & 0x3fff;
        if header[0] >> 4 != 4
            || header_length < IPV4_HEADER
            || fragment != 0
            || IpNextHeaderProtocol(header[9]) != IpNextHeaderProtocols::Icmp
        {
            return None;
        }
        let message = packet.get(header_length..total_length)?;
        (u16_at(message, 2)? == util::checksum(message, 1)).then_some(Self {
            source: array_at::<4>(header, 12)?.into(),
            destination: array_at::<4>(header, 16)?.into(),
            ttl: header[8],
            message,
        })
    }
}
