//! The IPv4 and IPv6 headers around echo, neighbour discovery and VRRP, and their checksums.

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

/// An IPv4 or IPv6 packet that is no fragment.
pub(super) struct Packet<'a, Ip> {
    pub(super) source: Ip,
    pub(super) destination: Ip,
    pub(super) hop_limit: u8,
    pub(super) protocol: IpNextHeaderProtocol,
    /// What follows the IP header, without padding.
    pub(super) payload: &'a [u8],
}

impl<'a> Packet<'a, Ipv6Addr> {
    /// Parses a packet. Extension headers count as its payload.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(IPV6_HEADER)?;
        if header[0] >> 4 != 6 {
            return None;
        }
        Some(Self {
            source: array_at::<16>(header, 8)?.into(),
            destination: array_at::<16>(header, 24)?.into(),
            hop_limit: header[7],
            protocol: IpNextHeaderProtocol(header[6]),
            payload: rest.get(..usize::from(u16_at(header, 4)?))?,
        })
    }

    /// Parses a packet without extension headers whose ICMPv6 message has a correct checksum.
    pub(super) fn with_icmpv6(packet: &'a [u8]) -> Option<Self> {
        let ip = Self::parse(packet)?;
        if ip.protocol != IpNextHeaderProtocols::Icmpv6 {
            return None;
        }
        let message = Icmpv6Packet::new(ip.payload)?;
        let expected = icmpv6::checksum(&message, &ip.source, &ip.destination);
        (u16_at(ip.payload, 2)? == expected).then_some(ip)
    }
}

impl<'a> Packet<'a, Ipv4Addr> {
    /// Parses a packet, with options or without.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Self> {
        let header_length = usize::from(packet.first()? & 0x0f) * 4;
        let total_length = usize::from(u16_at(packet, 2)?);
        let header = packet.get(..header_length)?;
        let fragment = u16_at(header, 6)? & 0x3fff;
        if header[0] >> 4 != 4 || header_length < IPV4_HEADER || fragment != 0 {
            return None;
        }
        Some(Self {
            source: array_at::<4>(header, 12)?.into(),
            destination: array_at::<4>(header, 16)?.into(),
            hop_limit: header[8],
            protocol: IpNextHeaderProtocol(header[9]),
            payload: packet.get(header_length..total_length)?,
        })
    }

    /// Parses a packet whose ICMP message has a correct checksum.
    pub(super) fn with_icmp(packet: &'a [u8]) -> Option<Self> {
        let ip = Self::parse(packet)?;
        if ip.protocol != IpNextHeaderProtocols::Icmp {
            return None;
        }
        (u16_at(ip.payload, 2)? == util::checksum(ip.payload, 1)).then_some(ip)
    }
}
