//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 §4): the traffic that proves a neighbour's cache.

use std::net::IpAddr;

use pnet_packet::icmp::IcmpTypes;
use pnet_packet::icmpv6::Icmpv6Types;

use super::ip::{Icmp, Icmpv6, icmp_to_bytes, icmpv6_to_bytes};
use super::{Frame, Payload, array_at, u16_at};
use crate::address::Mac;

/// Octets of an echo message without data.
const LENGTH: usize = 8;

/// An echo request or reply; both addresses are of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Source of the IP packet.
    pub source: IpAddr,
    /// Destination of the IP packet.
    pub destination: IpAddr,
    /// Request or reply.
    pub kind: EchoKind,
    /// Tells one asker's echoes from another's.
    pub identifier: u16,
    /// Tells one echo from the next.
    pub sequence: u16,
}

/// Request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoKind {
    /// Please answer.
    Request,
    /// The answer.
    Reply,
}

impl Echo {
    /// An echo request between two hosts of a link, each given with its MAC.
    #[must_use]
    pub fn request(
        (source, source_mac): (IpAddr, Mac),
        (destination, destination_mac): (IpAddr, Mac),
        identifier: u16,
        sequence: u16,
    ) -> Frame {
        Frame {
            destination: destination_mac,
            source: source_mac,
            payload: Payload::Echo(Self {
                source,
                destination,
                kind: EchoKind::Request,
                identifier,
                sequence,
            }),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let kind = match self.kind {
                    EchoKind::Request => IcmpTypes::EchoRequest,
                    EchoKind::Reply => IcmpTypes::EchoReply,
                };
                icmp_to_bytes(source, destination, self.message(kind.0))
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let kind = match self.kind {
                    EchoKind::Request => Icmpv6Types::EchoRequest,
                    EchoKind::Reply => Icmpv6Types::EchoReply,
                };
                icmpv6_to_bytes(source, destination, 1, self.message(kind.0))
            }
            // No such packet exists.
            _ => Vec::new(),
        }
    }

    fn message(self, kind: u8) -> Vec<u8> {
        let mut message = vec![0; LENGTH];
        message[0] = kind;
        message[4..6].copy_from_slice(&self.identifier.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message
    }

    pub(super) fn parse_v4(packet: &[u8]) -> Option<Self> {
        let ip = Icmp::parse(packet)?;
        Self::from_message(
            ip.source.into(),
            ip.destination.into(),
            ip.message,
            (IcmpTypes::EchoRequest.0, IcmpTypes::EchoReply.0),
        )
    }

    pub(super) fn parse_v6(packet: &[u8]) -> Option<Self> {
        let ip = Icmpv6::parse(packet)?;
        Self::from_message(
            ip.source.into(),
            ip.destination.into(),
            ip.message,
            (Icmpv6Types::EchoRequest.0, Icmpv6Types::EchoReply.0),
        )
    }

    fn from_message(
        source: IpAddr,
        destination: IpAddr,
        message: &[u8],
        (request, reply): (u8, u8),
    ) -> Option<Self> {
        let [kind, code] = array_at(message, 0)?;
        let kind = match (kind, code) {
            (kind, 0) if kind == request => EchoKind::Request,
            (kind, 0) if kind == reply => EchoKind::Reply,
            _ => return None,
        };
        Some(Self {
            source,
            destination,
            kind,
            identifier: u16_at(message, 4)?,
            sequence: u16_at(message, 6)?,
        })
    }
}
