//! The frames that vipherald sends and parses.
//!
//! pnet_packet builds the frames. The parsers are our own, because received frames are hostile:
//! [`Frame::parse`] accepts octets of any length, never panics, and returns `None` for everything
//! but the frames below. [`Advert::parse`] does so for what keepalived sends.

mod arp;
mod echo;
mod header;
mod ip;
mod mld;
mod ndp;
mod vrrp;

use pnet_packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};

pub use arp::{Arp, ArpOperation};
pub use echo::{Echo, EchoKind, Token};
pub use header::Header;
pub use mld::Report;
pub use ndp::{ALL_NODES, Advertisement, Ndp, NdpMessage, Solicitation, solicited_node};
pub use vrrp::{Advert, VRRP_GROUPS};

use crate::address::Mac;

/// Octets of an Ethernet header: destination, source, type (no VLAN tag: the kernel strips it).
const ETHERNET_HEADER: usize = 14;

/// One Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Destination MAC.
    pub destination: Mac,
    /// Source MAC.
    pub source: Mac,
    /// What follows the Ethernet header.
    pub payload: Payload,
}

/// What follows the Ethernet header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// An ARP request or reply (RFC 826).
    Arp(Arp),
    /// A neighbour solicitation or advertisement (RFC 4861).
    Ndp(Ndp),
    /// An ICMP or ICMPv6 echo request or reply (RFC 792, RFC 4443).
    Echo(Echo),
    /// A multicast listener report (RFC 3810).
    Mld(Report),
}

impl Frame {
    /// The frame's octets, without the frame check sequence.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let (ether_type, body) = match &self.payload {
            Payload::Arp(arp) => (EtherTypes::Arp, arp.to_bytes()),
            Payload::Ndp(ndp) => (EtherTypes::Ipv6, ndp.to_bytes()),
            Payload::Mld(report) => (EtherTypes::Ipv6, report.to_bytes()),
            Payload::Echo(echo) if echo.source.is_ipv4() => (EtherTypes::Ipv4, echo.to_bytes()),
            Payload::Echo(echo) => (EtherTypes::Ipv6, echo.to_bytes()),
        };
        let mut bytes = vec![0; ETHERNET_HEADER];
        if let Some(mut ethernet) = MutableEthernetPacket::new(&mut bytes) {
            ethernet.set_destination(self.destination.octets().into());
            ethernet.set_source(self.source.octets().into());
            ethernet.set_ethertype(ether_type);
        }
        bytes.extend_from_slice(&body);
        bytes
    }

    /// Parses a frame, and ignores the padding after the payload.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(ETHERNET_HEADER)?;
        let payload = match EtherType(u16_at(header, 12)?) {
            EtherTypes::Arp => Payload::Arp(Arp::parse(body)?),
            EtherTypes::Ipv4 => Payload::Echo(Echo::parse_v4(body)?),
            EtherTypes::Ipv6 => match Ndp::parse(body) {
                Some(ndp) => Payload::Ndp(ndp),
                None => Payload::Echo(Echo::parse_v6(body)?),
            },
            _ => return None,
        };
        Some(Self {
            destination: mac_at(header, 0)?,
            source: mac_at(header, 6)?,
            payload,
        })
    }
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_be_bytes)
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    array_at(bytes, at).map(Mac::new)
}

#[cfg(test)]
mod tests;
