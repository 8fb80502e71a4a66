//! ARP (RFC 826) for IPv4 over Ethernet: 28 octets.

use std::net::Ipv4Addr;

use pnet_packet::arp::{ArpHardwareTypes, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::EtherTypes;

use super::{Frame, Payload, array_at, mac_at, u16_at};
use crate::address::Mac;

const LENGTH: usize = 28;

/// An ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Request or reply.
    pub operation: ArpOperation,
    /// Sender hardware address.
    pub sender_mac: Mac,
    /// Sender protocol address.
    pub sender_ip: Ipv4Addr,
    /// Target hardware address; meaningless in a request.
    pub target_mac: Mac,
    /// Target protocol address.
    pub target_ip: Ipv4Addr,
}

/// The operation field: the two values in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// Who has the target protocol address?
    Request,
    /// The sender has it.
    Reply,
}

impl Arp {
    /// Gratuitous ARP as a broadcast request: an ARP announcement (RFC 5227 §2.3).
    #[must_use]
    pub fn gratuitous_request(vip: Ipv4Addr, mac: Mac) -> Frame {
        Self::directed_request(vip, mac, vip, None)
    }

    /// Gratuitous ARP as a broadcast reply. Its target hardware address is the new MAC
    /// (RFC 5944 §4.6). With any other, Linux treats it as a late answer and applies `locktime`.
    #[must_use]
    pub fn gratuitous_reply(vip: Ipv4Addr, mac: Mac) -> Frame {
        Self {
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: vip,
            target_mac: mac,
            target_ip: vip,
        }
        .sent_to(Mac::BROADCAST)
    }

    /// A request from the VIP's new owner to one peer, unicast if its MAC is known.
    ///
    /// As the target, the peer enters the sender into its table even if it had no entry, and then
    /// answers (RFC 826).
    #[must_use]
    pub fn directed_request(vip: Ipv4Addr, mac: Mac, peer: Ipv4Addr, known: Option<Mac>) -> Frame {
        Self {
            operation: ArpOperation::Request,
            sender_mac: mac,
            sender_ip: vip,
            target_mac: Mac::ZERO,
            target_ip: peer,
        }
        .sent_to(known.unwrap_or(Mac::BROADCAST))
    }

    /// A broadcast request from the VIP's new owner that asks for nobody: no host has `nobody`.
    ///
    /// Linux does not treat it as gratuitous: it updates every entry for the VIP, also where
    /// `drop_gratuitous_arp` or `arp_ignore` is set, and creates none. It obeys `locktime`.
    #[must_use]
    pub fn oblique_request(vip: Ipv4Addr, mac: Mac, nobody: Ipv4Addr) -> Frame {
        Self::directed_request(vip, mac, nobody, None)
    }

    /// An ARP probe (RFC 5227 §2.1.1): does another host have the VIP? Its sender protocol address
    /// is zero, so that no table changes.
    #[must_use]
    pub fn probe(vip: Ipv4Addr, mac: Mac) -> Frame {
        Self::directed_request(Ipv4Addr::UNSPECIFIED, mac, vip, None)
    }

    fn sent_to(self, destination: Mac) -> Frame {
        Frame {
            destination,
            source: self.sender_mac,
            payload: Payload::Arp(self),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![0; LENGTH];
        if let Some(mut arp) = MutableArpPacket::new(&mut bytes) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(match self.operation {
                ArpOperation::Request => ArpOperations::Request,
                ArpOperation::Reply => ArpOperations::Reply,
            });
            arp.set_sender_hw_addr(self.sender_mac.octets().into());
            arp.set_sender_proto_addr(self.sender_ip);
            arp.set_target_hw_addr(self.target_mac.octets().into());
            arp.set_target_proto_addr(self.target_ip);
        }
        bytes
    }

    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
        if array_at(body, 0)? != ETHERNET_IPV4 {
            return None;
        }
        Some(Self {
            operation: match u16_at(body, 6)? {
                1 => ArpOperation::Request,
                2 => ArpOperation::Reply,
                _ => return None,
            },
            sender_mac: mac_at(body, 8)?,
            sender_ip: array_at::<4>(body, 14)?.into(),
            target_mac: mac_at(body, 18)?,
            target_ip: array_at::<4>(body, 24)?.into(),
        })
    }
}
