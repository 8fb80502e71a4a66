//! ARP and the other frames that tests read and forge: octets at their offsets (RFC 826, RFC 791,
//! RFC 8200 §3), with nothing of the code under test.

use std::net::{IpAddr, Ipv4Addr};

use vipherald_lab::{Direction, Frame, Mac};

pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arp {
    /// 1: a request; 2: a reply.
    pub(crate) operation: u8,
    pub(crate) sender: (Mac, Ipv4Addr),
    pub(crate) target: (Mac, Ipv4Addr),
}

impl Arp {
    pub(crate) fn read(frame: &Frame) -> Option<Self> {
        if frame.ether_type() != ARP {
            return None;
        }
        let body = frame.payload();
        let party = |at: usize| {
            let ip = <[u8; 4]>::try_from(&body[at + 6..at + 10]).unwrap();
            (mac_at(body, at), ip.into())
        };
        Some(Self {
            operation: body[7],
            sender: party(8),
            target: party(18),
        })
    }

    pub(crate) fn frame(&self, source: Mac, destination: Mac) -> Vec<u8> {
        let mut frame = [destination.0, source.0].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, self.operation]);
        for (mac, ip) in [self.sender, self.target] {
            frame.extend(mac.0);
            frame.extend(ip.octets());
        }
        frame
    }
}

pub(crate) fn mac_at(bytes: &[u8], at: usize) -> Mac {
    Mac(bytes[at..at + 6].try_into().unwrap())
}

/// Whether it is an ARP request for an address, whoever sent it.
pub(crate) fn is_request_for(frame: &Frame, target: Ipv4Addr) -> bool {
    Arp::read(frame).is_some_and(|arp| arp.operation == 1 && arp.target.1 == target)
}

/// Whether the captured host sent it.
pub(crate) fn is_sent(frame: &Frame) -> bool {
    frame.direction == Direction::FromHost
}

/// Whether an address is anywhere in it.
pub(crate) fn contains(frame: &Frame, ip: IpAddr) -> bool {
    let octets = match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    frame.bytes.windows(octets.len()).any(|part| part == octets)
}
