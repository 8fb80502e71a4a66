//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 §4). An echo reply shows which MAC its sender uses.

use std::net::IpAddr;

use pnet_packet::icmp::IcmpTypes;
use pnet_packet::icmpv6::Icmpv6Types;

use super::ip::{Packet, icmp_to_bytes, icmpv6_to_bytes};
use super::{Frame, Payload, array_at, u16_at};
use crate::address::Mac;

/// Octets of an echo message up to its data.
const HEADER: usize = 8;
/// Octets of the data: the nonce.
const DATA: usize = 8;

/// An echo request or reply. Both addresses have the same family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// Source of the IP packet.
    pub source: IpAddr,
    /// Destination of the IP packet.
    pub destination: IpAddr,
    /// Request or reply.
    pub kind: EchoKind,
    /// What the reply repeats from the request.
    pub token: Token,
    /// The TTL or hop limit that is left: each router takes one.
    pub hop_limit: u8,
}

/// What an echo reply repeats from its request. Only who received the request knows all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// Identifies the sender of the requests.
    pub identifier: u16,
    /// Numbers its requests.
    pub sequence: u16,
    /// The data: cannot be guessed.
    pub nonce: u64,
}

/// Request or reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EchoKind {
    /// A request.
    Request,
    /// The reply.
    Reply,
}

impl EchoKind {
    fn icmp_type(self) -> u8 {
        match self {
            Self::Request => IcmpTypes::EchoRequest.0,
            Self::Reply => IcmpTypes::EchoReply.0,
        }
    }

    fn icmpv6_type(self) -> u8 {
        match self {
            Self::Request => Icmpv6Types::EchoRequest.0,
            Self::Reply => Icmpv6Types::EchoReply.0,
        }
    }
}

impl Echo {
    /// An echo request between two hosts of a link, each with its MAC. It crosses no router.
    #[must_use]
    pub fn request(
        (source, source_mac): (IpAddr, Mac),
        (destination, destination_mac): (IpAddr, Mac),
        token: Token,
    ) -> Frame {
        Frame {
            destination: destination_mac,
            source: source_mac,
            payload: Payload::Echo(Self {
                source,
                destination,
                kind: EchoKind::Request,
                token,
                hop_limit: 1,
            }),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let message = self.message(self.kind.icmp_type());
                icmp_to_bytes(source, destination, self.hop_limit, message)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => icmpv6_to_bytes(
                source,
                destination,
                self.hop_limit,
                self.message(self.kind.icmpv6_type()),
            ),
            // No such packet exists.
            _ => Vec::new(),
        }
    }

    fn message(self, icmp_type: u8) -> Vec<u8> {
        let mut message = vec![0; HEADER + DATA];
        message[0] = icmp_type;
        message[4..6].copy_from_slice(&self.token.identifier.to_be_bytes());
        message[6..HEADER].copy_from_slice(&self.token.sequence.to_be_bytes());
        message[HEADER..].copy_from_slice(&self.token.nonce.to_be_bytes());
        message
    }

    pub(super) fn parse_v4(packet: &[u8]) -> Option<Self> {
        let ip = Packet::with_icmp(packet)?;
        let ends = (ip.source.into(), ip.destination.into());
        Self::from_message(ends, ip.hop_limit, ip.payload, EchoKind::icmp_type)
    }

    pub(super) fn parse_v6(packet: &[u8]) -> Option<Self> {
        let ip = Packet::with_icmpv6(packet)?;
        let ends = (ip.source.into(), ip.destination.into());
        Self::from_message(ends, ip.hop_limit, ip.payload, EchoKind::icmpv6_type)
    }

    fn from_message(
        (source, destination): (IpAddr, IpAddr),
        hop_limit: u8,
        message: &[u8],
        type_of: fn(EchoKind) -> u8,
    ) -> Option<Self> {
        let type_and_code: [u8; 2] = array_at(message, 0)?;
        let kinds = [EchoKind::Request, EchoKind::Reply];
        Some(Self {
            source,
            destination,
            kind: kinds
                .into_iter()
                .find(|kind| type_and_code == [type_of(*kind), 0])?,
            token: Token {
                identifier: u16_at(message, 4)?,
                sequence: u16_at(message, 6)?,
                nonce: array_at(message, HEADER).map(u64::from_be_bytes)?,
            },
            hop_limit,
        })
    }
}
