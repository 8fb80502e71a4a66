//! VRRP advertisements, versions 2 (RFC 3768) and 3 (RFC 9568): parsed, never sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_packet::ethernet::{EtherType, EtherTypes};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::util;

use super::ip::{ON_LINK, Packet};
use super::{ETHERNET_HEADER, array_at, mac_at, u16_at};
use crate::address::Mac;

/// The groups to which masters send (RFC 9568 §5.1).
pub const VRRP_GROUPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(224, 0, 0, 18)),
    IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12)),
];
/// Octets before the addresses: version and type, router, priority, count, interval, checksum.
const FIXED: usize = 8;
/// The 16-bit word with the checksum.
const CHECKSUM: usize = 3;
/// A version, in the upper four bits, and the type of an advertisement.
const VERSION_2: u8 = 0x21;
const VERSION_3: u8 = 0x31;

/// A master says that it has these addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// Source MAC of the frame: the master's own, or the virtual router's.
    pub source: Mac,
    /// The virtual addresses, for IPv6 a link-local one, too.
    pub addresses: Vec<IpAddr>,
}

impl Advert {
    /// Parses a frame. A release (priority 0) is none of these: its sender gives the addresses up.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(ETHERNET_HEADER)?;
        let addresses = match EtherType(u16_at(header, 12)?) {
            EtherTypes::Ipv4 => {
                let message = message_v4(&Packet::<Ipv4Addr>::parse(body)?)?;
                addresses(message, |octets: [u8; 4]| octets.into())
            }
            EtherTypes::Ipv6 => {
                let message = message_v6(&Packet::<Ipv6Addr>::parse(body)?)?;
                addresses(message, |octets: [u8; 16]| octets.into())
            }
            _ => None,
        };
        Some(Self {
            source: mac_at(header, 6)?,
            addresses: addresses?,
        })
    }
}

/// The VRRP message of a packet that no router forwarded; its checksum is correct.
fn message_v4<'a>(ip: &Packet<'a, Ipv4Addr>) -> Option<&'a [u8]> {
    let (message, vrrp) = (ip.payload, IpNextHeaderProtocols::Vrrp);
    if ip.protocol != vrrp || ip.hop_limit != ON_LINK {
        return None;
    }
    let of_message = || util::checksum(message, CHECKSUM);
    let with_header =
        || util::ipv4_checksum(message, CHECKSUM, &[], &ip.source, &ip.destination, vrrp);
    let sum = u16_at(message, 2 * CHECKSUM)?;
    let is_correct = match *message.first()? {
        VERSION_2 => sum == of_message(),
        // RFC 5798 does not say clearly whether a pseudo-header is part of it, and both are in use.
        VERSION_3 => sum == with_header() || sum == of_message(),
        _ => false,
    };
    is_correct.then_some(message)
}

/// The same of an IPv6 packet.
fn message_v6<'a>(ip: &Packet<'a, Ipv6Addr>) -> Option<&'a [u8]> {
    let (message, vrrp) = (ip.payload, IpNextHeaderProtocols::Vrrp);
    if ip.protocol != vrrp || ip.hop_limit != ON_LINK || *message.first()? != VERSION_3 {
        return None;
    }
    let sum = u16_at(message, 2 * CHECKSUM)?;
    let expected = util::ipv6_checksum(message, CHECKSUM, &[], &ip.source, &ip.destination, vrrp);
    (sum == expected).then_some(message)
}

/// The addresses in a message, of `N` octets each. What follows them, such as a password, says nothing.
fn addresses<const N: usize>(message: &[u8], read: fn([u8; N]) -> IpAddr) -> Option<Vec<IpAddr>> {
    let [_, router, priority, count] = array_at(message, 0)?;
    if router == 0 || priority == 0 {
        return None;
    }
    let address = |number| array_at(message, FIXED + usize::from(number) * N).map(read);
    (0..count).map(address).collect()
}
