//! Hosts, frames and answers for the unit tests.

use crate::address::{InterfaceIndex, Mac, Vip};
use crate::host::{Address, Neighbour, NeighbourState, Usability};
use crate::order::{Done, Fate, Outcome};
use crate::wire::{
    Advertisement, Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload,
};

pub(crate) const OWN: Mac = mac(1);
pub(crate) const A: Mac = mac(0xa);
pub(crate) const B: Mac = mac(0xb);

pub(crate) const fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

/// A usable address, as in `10.0.0.1/24`.
pub(crate) fn address(text: &str, interface: InterfaceIndex) -> Address {
    let (ip, prefix_len) = text.split_once('/').unwrap();
    Address {
        ip: ip.parse().unwrap(),
        interface,
        prefix_len: prefix_len.parse().unwrap(),
        usability: Usability::Usable,
    }
}

pub(crate) fn neighbour(ip: &str, mac: Mac, state: NeighbourState) -> Neighbour {
    Neighbour {
        ip: ip.parse().unwrap(),
        mac: Some(mac),
        state,
        externally_learned: false,
        confirmed: None,
    }
}

/// The answer of the host at `from` to an ARP request, a solicitation or an echo request.
pub(crate) fn reply(to: &Frame, from: Mac) -> Frame {
    let payload = match to.payload {
        Payload::Arp(arp) => Payload::Arp(Arp {
            operation: ArpOperation::Reply,
            sender_mac: from,
            sender_ip: arp.target_ip,
            target_mac: arp.sender_mac,
            target_ip: arp.sender_ip,
        }),
        Payload::Ndp(Ndp {
            source,
            message: NdpMessage::Solicitation(ns),
            ..
        }) => Payload::Ndp(Ndp {
            source: ns.target,
            destination: source,
            message: NdpMessage::Advertisement(Advertisement {
                router: false,
                solicited: true,
                override_cached: true,
                target: ns.target,
                target_lladdr: Some(from),
            }),
        }),
        Payload::Ndp(_) | Payload::Mld(_) => unreachable!("it asks nothing"),
        Payload::Echo(echo) => Payload::Echo(Echo {
            source: echo.destination,
            destination: echo.source,
            kind: EchoKind::Reply,
            hop_limit: 64,
            ..echo
        }),
    };
    Frame {
        destination: to.source,
        source: from,
        payload,
    }
}

/// The answer to an order.
pub(crate) fn answered(vip: Vip, outcome: Outcome) -> Fate {
    let done = Done {
        vip,
        outcome,
        was: None,
        now: None,
        interface: String::new(),
    };
    Fate::Answered { done, skew: None }
}
