//! Neighbour discovery (RFC 4861): neighbour solicitations and advertisements.

use std::net::Ipv6Addr;

use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::icmpv6::ndp::{
    MutableNdpOptionPacket, MutableNeighborAdvertPacket, NdpOptionType, NdpOptionTypes,
    NeighborAdvertFlags,
};

use super::ip::{ON_LINK, Packet, icmpv6_to_bytes};
use super::{Frame, Payload, array_at, mac_at};
use crate::address::Mac;

/// Octets before the options: type, code, checksum, flags or reserved, target.
const FIXED: usize = 24;
/// Octets of a link-layer address option for Ethernet.
const LLADDR_OPTION: usize = 8;
/// All nodes of a link (RFC 4291 §2.7.1), and the Ethernet group it maps to.
pub const ALL_NODES: (Ipv6Addr, Mac) = (
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    Mac::new([0x33, 0x33, 0, 0, 0, 1]),
);

/// A neighbour discovery message in its IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ndp {
    /// Source of the IPv6 packet.
    pub source: Ipv6Addr,
    /// Destination of the IPv6 packet.
    pub destination: Ipv6Addr,
    /// The message.
    pub message: NdpMessage,
}

/// The two messages of address resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NdpMessage {
    /// Who has the target?
    Solicitation(Solicitation),
    /// The sender has it.
    Advertisement(Advertisement),
}

/// A neighbour solicitation (RFC 4861 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    /// The address to resolve.
    pub target: Ipv6Addr,
    /// Source link-layer address option; absent when the source is `::`.
    pub source_lladdr: Option<Mac>,
}

/// A neighbour advertisement (RFC 4861 §4.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// R: the sender is a router.
    pub router: bool,
    /// S: it answers a solicitation.
    pub solicited: bool,
    /// O: it overrides a cached link-layer address.
    pub override_cached: bool,
    /// The advertised address.
    pub target: Ipv6Addr,
    /// Target link-layer address option.
    pub target_lladdr: Option<Mac>,
}

/// The solicited-node multicast address (RFC 4291 §2.7.1) and the Ethernet group it maps to.
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> (Ipv6Addr, Mac) {
    let [.., a, b, c] = address.octets();
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&[a, b, c]);
    (group.into(), Mac::new([0x33, 0x33, 0xff, a, b, c]))
}

impl Ndp {
    /// An unsolicited advertisement to all nodes (RFC 4861 §7.2.6, RFC 9568 §6.4.1): S=0, O=1,
    /// R if the interface forwards, with a target link-layer address option.
    #[must_use]
    pub fn unsolicited_advertisement(vip: Ipv6Addr, mac: Mac, router: bool) -> Frame {
        Frame {
            destination: ALL_NODES.1,
            source: mac,
            payload: Payload::Ndp(Self {
                source: vip,
                destination: ALL_NODES.0,
                message: NdpMessage::Advertisement(Advertisement {
                    router,
                    solicited: false,
                    override_cached: true,
                    target: vip,
                    target_lladdr: Some(mac),
                }),
            }),
        }
    }

    /// A solicitation from the VIP's new owner to one peer, unicast if its MAC is known.
    ///
    /// The peer creates or updates its entry for the VIP from the source link-layer address option,
    /// and answers (RFC 4861 §7.2.3).
    #[must_use]
    pub fn directed_solicitation(
        vip: Ipv6Addr,
        mac: Mac,
        peer: Ipv6Addr,
        known: Option<Mac>,
    ) -> Frame {
        let mut frame = Self::solicitation(vip, mac, peer);
        if let (Payload::Ndp(ndp), Some(known)) = (&mut frame.payload, known) {
            (frame.destination, ndp.destination) = (known, peer);
        }
        frame
    }

    /// A solicitation for the VIP: does another host have it?
    ///
    /// With an address of this host as source, `own`, only this host gets the answer. Without one
    /// the source is `::`, as in duplicate address detection (RFC 4862 §5.4.2), and the answer goes
    /// to all nodes: a second owner's answer then misleads them until the next round.
    #[must_use]
    pub fn probe(vip: Ipv6Addr, mac: Mac, own: Option<Ipv6Addr>) -> Frame {
        Self::solicitation(own.unwrap_or(Ipv6Addr::UNSPECIFIED), mac, vip)
    }

    /// A solicitation to the solicited-node address of `target`. RFC 4861 §4.3 forbids the option
    /// if the source is `::`.
    fn solicitation(source: Ipv6Addr, mac: Mac, target: Ipv6Addr) -> Frame {
        let (group, group_mac) = solicited_node(target);
        Frame {
            destination: group_mac,
            source: mac,
            payload: Payload::Ndp(Self {
                source,
                destination: group,
                message: NdpMessage::Solicitation(Solicitation {
                    target,
                    source_lladdr: (!source.is_unspecified()).then_some(mac),
                }),
            }),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let (kind, flags, target, option, lladdr) = match self.message {
            NdpMessage::Solicitation(ns) => (
                Icmpv6Types::NeighborSolicit,
                0,
                ns.target,
                NdpOptionTypes::SourceLLAddr,
                ns.source_lladdr,
            ),
            NdpMessage::Advertisement(na) => (
                Icmpv6Types::NeighborAdvert,
                flags(&na),
                na.target,
                NdpOptionTypes::TargetLLAddr,
                na.target_lladdr,
            ),
        };
        let mut message = vec![0; FIXED];
        // A solicitation has the same layout, with reserved bits instead of flags.
        if let Some(mut packet) = MutableNeighborAdvertPacket::new(&mut message) {
            packet.set_icmpv6_type(kind);
            packet.set_flags(flags);
            packet.set_target_addr(target);
        }
        if let Some(mac) = lladdr {
            message.extend_from_slice(&lladdr_option(option, mac));
        }
        icmpv6_to_bytes(self.source, self.destination, ON_LINK, message)
    }

    /// Parses and validates a message (RFC 4861 §7.1.1, §7.1.2): hop limit 255, code 0, a target
    /// that is not multicast, options whose length is not zero and within the packet.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let ip = Packet::with_icmpv6(packet)?;
        let [kind, code] = array_at(ip.payload, 0)?;
        let target = Ipv6Addr::from(array_at::<16>(ip.payload, 8)?);
        if ip.hop_limit != ON_LINK || code != 0 || target.is_multicast() {
            return None;
        }
        let options = ip.payload.get(FIXED..)?;
        let message = if kind == Icmpv6Types::NeighborSolicit.0 {
            NdpMessage::Solicitation(Solicitation {
                target,
                source_lladdr: find_lladdr(options, NdpOptionTypes::SourceLLAddr)?,
            })
        } else if kind == Icmpv6Types::NeighborAdvert.0 {
            let flags = *ip.payload.get(4)?;
            NdpMessage::Advertisement(Advertisement {
                router: flags & NeighborAdvertFlags::Router != 0,
                solicited: flags & NeighborAdvertFlags::Solicited != 0,
                override_cached: flags & NeighborAdvertFlags::Override != 0,
                target,
                target_lladdr: find_lladdr(options, NdpOptionTypes::TargetLLAddr)?,
            })
        } else {
            return None;
        };
        Some(Self {
            source: ip.source,
            destination: ip.destination,
            message,
        })
    }
}

fn flags(na: &Advertisement) -> u8 {
    [
        (na.router, NeighborAdvertFlags::Router),
        (na.solicited, NeighborAdvertFlags::Solicited),
        (na.override_cached, NeighborAdvertFlags::Override),
    ]
    .into_iter()
    .filter(|(set, _)| *set)
    .fold(0, |all, (_, flag)| all | flag)
}

fn lladdr_option(kind: NdpOptionType, mac: Mac) -> [u8; LLADDR_OPTION] {
    let mut bytes = [0; LLADDR_OPTION];
    if let Some(mut option) = MutableNdpOptionPacket::new(&mut bytes) {
        option.set_option_type(kind);
        // In units of 8 octets.
        option.set_length(1);
        option.set_data(&mac.octets());
    }
    bytes
}

/// Finds a link-layer address option. `None` if the options are malformed, `Some(None)` if it is
/// absent.
fn find_lladdr(mut options: &[u8], wanted: NdpOptionType) -> Option<Option<Mac>> {
    let mut found = None;
    while !options.is_empty() {
        let [kind, units] = array_at(options, 0)?;
        let length = usize::from(units) * 8;
        if length == 0 {
            return None;
        }
        let option = options.get(..length)?;
        if kind == wanted.0 && length == LLADDR_OPTION && found.is_none() {
            found = mac_at(option, 2);
        }
        options = options.get(length..)?;
    }
    Some(found)
}
