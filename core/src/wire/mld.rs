//! Multicast listener reports (MLDv2, RFC 3810): sent, never parsed.

use std::net::Ipv6Addr;

use pnet_packet::ip::IpNextHeaderProtocols;

use super::ip::ipv6_to_bytes;
use super::{Frame, Payload, solicited_node};
use crate::address::Mac;

/// All routers that understand MLDv2 (RFC 3810 §5.2.14), and the Ethernet group it maps to.
const ALL_ROUTERS: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16),
    Mac::new([0x33, 0x33, 0, 0, 0, 0x16]),
);
/// Hop-by-hop options: ICMPv6 follows; router alert, value 0 (RFC 2711), and padding.
const ROUTER_ALERT: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
/// The message type of a version 2 report (RFC 3810 §5.2).
const REPORT: u8 = 143;
/// The record type CHANGE_TO_EXCLUDE_MODE without sources: wants everything for the group.
const TO_EXCLUDE: u8 = 4;

/// A report that this host listens to the solicited-node group of an address.
///
/// A switch that snoops MLD delivers neighbour solicitations for the address only after it saw one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Source of the IPv6 packet: link-local (RFC 3810 §5.2.13).
    pub source: Ipv6Addr,
    /// The address whose group it is about.
    pub address: Ipv6Addr,
}

impl Report {
    /// The frame.
    #[must_use]
    pub fn frame(self, mac: Mac) -> Frame {
        Frame {
            destination: ALL_ROUTERS.1,
            source: mac,
            payload: Payload::Mld(self),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        // Type, code, checksum, reserved, and the number of records.
        let mut message = vec![REPORT, 0, 0, 0, 0, 0, 0, 1];
        // Record type, auxiliary data, number of sources.
        message.extend_from_slice(&[TO_EXCLUDE, 0, 0, 0]);
        message.extend_from_slice(&solicited_node(self.address).0.octets());
        let first = (IpNextHeaderProtocols::Hopopt, &ROUTER_ALERT[..]);
        ipv6_to_bytes(self.source, ALL_ROUTERS.0, 1, first, message)
    }
}
