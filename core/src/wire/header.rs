//! The addresses of any received frame: who is alive, and for whom its frames are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::ethernet::{EtherType, EtherTypes};
use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::ip::IpNextHeaderProtocols;

use super::{ETHERNET_HEADER, array_at, mac_at, u16_at};
use crate::address::Mac;

/// The operation of an ARP request (RFC 826).
const ARP_REQUEST: u16 = 1;

/// The addresses of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Destination MAC.
    pub destination: Mac,
    /// Source MAC.
    pub source: Mac,
    /// For whom it is: the destination of the IP packet in it, or the address that an ARP request asks
    /// for. `None` for ARP replies and neighbour advertisements: some hosts send these to whoever asked,
    /// whatever their table says.
    pub wanted: Option<IpAddr>,
    /// Who sent the IP packet, and over how many routers it may still go. `None` for ARP.
    pub sender: Option<(IpAddr, u8)>,
}

impl Header {
    /// Parses the headers of a frame of ARP, IPv4 or IPv6.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(ETHERNET_HEADER)?;
        let v4 = |at| array_at::<4>(body, at).map(|ip| Ipv4Addr::from(ip).into());
        let octet = |at: usize| body.get(at).copied();
        let v6 = |at| array_at::<16>(body, at).map(|ip| Ipv6Addr::from(ip).into());
        let (sender, wanted) = match EtherType(u16_at(header, 12)?) {
            EtherTypes::Arp if u16_at(body, 6) == Some(ARP_REQUEST) => (None, v4(24)),
            EtherTypes::Arp => (None, None),
            EtherTypes::Ipv4 => (v4(12).zip(octet(8)), v4(16)),
            EtherTypes::Ipv6 if is_advertisement(body) => (None, None),
            EtherTypes::Ipv6 => (v6(8).zip(octet(7)), v6(24)),
            _ => return None,
        };
        Some(Self {
            destination: mac_at(header, 0)?,
            source: mac_at(header, 6)?,
            wanted,
            sender,
        })
    }
}

/// Whether an IPv6 packet is a neighbour advertisement: ICMPv6 without extension headers, type 136.
fn is_advertisement(packet: &[u8]) -> bool {
    packet.get(6) == Some(&IpNextHeaderProtocols::Icmpv6.0)
        && packet.get(40) == Some(&Icmpv6Types::NeighborAdvert.0)
}
