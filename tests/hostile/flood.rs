//! Forged frames, as fast as one processor sends them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use vipherald_core::address::Mac;
use vipherald_core::wire::{
    Advertisement, Arp, ArpOperation, Echo, EchoKind, Frame, Ndp, NdpMessage, Payload,
    Solicitation, Token,
};
use vipherald_lab::Host;

use crate::common::vrrp::advert;

/// What the frames are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forged {
    /// Claims of a VIP, each by another MAC: ARP replies, or neighbour advertisements.
    Claims(IpAddr),
    /// Questions for an address, each by another host with another MAC: ARP requests by hosts of
    /// 10.9.128.0/17, or neighbour solicitations by hosts of fd09::8000/113.
    Senders(IpAddr),
    /// VRRP adverts of a VIP, each by another master.
    Adverts(IpAddr),
    /// What would answer a new owner's questions, if it were not guessed.
    Guesses(Guesses),
    /// Frames of a protocol that nobody speaks.
    Junk,
}

/// Frames about a VIP.
pub(crate) type Forge = fn(IpAddr) -> Forged;

/// What an adversary knows who sees broadcasts alone: addresses and MACs, but no question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guesses {
    pub(crate) vip: IpAddr,
    /// The new owner.
    pub(crate) own: (IpAddr, Mac),
    /// Those that it asks.
    pub(crate) peers: [(IpAddr, Mac); 2],
}

impl Guesses {
    /// A frame for the owner alone, as if one of the peers had sent it.
    fn frame(&self, random: u64, mut nonce: u64) -> Vec<u8> {
        let [kind, who, whose, x, identifier @ .., y, z] = random.to_be_bytes();
        let (peer, mac) = self.peers[usize::from(who) % self.peers.len()];
        let source = match whose % 4 {
            0 => Mac::new([2, 0xee, 0, 0, x, y]),
            _ => mac,
        };
        if nonce.is_multiple_of(16) {
            nonce = 0;
        }
        let echo = |kind, from, to| {
            Payload::Echo(Echo {
                source: from,
                destination: to,
                kind,
                token: Token {
                    identifier: u16::from_be_bytes(identifier),
                    sequence: u16::from_be_bytes([y, z]),
                    nonce,
                },
                hop_limit: if x.is_multiple_of(2) { 64 } else { 63 },
            })
        };
        let (own, owner_mac) = self.own;
        let payload = match kind % 6 {
            0 => echo(EchoKind::Reply, peer, self.vip),
            1 => echo(EchoKind::Reply, peer, own),
            2 => echo(EchoKind::Reply, self.vip, own),
            3 => echo(EchoKind::Request, peer, self.vip),
            asks => self.answer((peer, source), if asks == 4 { self.vip } else { own }),
        };
        let frame = Frame {
            destination: owner_mac,
            source,
            payload,
        };
        frame.to_bytes()
    }

    /// The answer to a directed request.
    fn answer(&self, (peer, mac): (IpAddr, Mac), to: IpAddr) -> Payload {
        match (peer, to) {
            (IpAddr::V4(peer), IpAddr::V4(to)) => Payload::Arp(Arp {
                operation: ArpOperation::Reply,
                sender_mac: mac,
                sender_ip: peer,
                target_mac: self.own.1,
                target_ip: to,
            }),
            (IpAddr::V6(peer), IpAddr::V6(to)) => Payload::Ndp(Ndp {
                source: peer,
                destination: to,
                message: NdpMessage::Advertisement(Advertisement {
                    router: false,
                    solicited: true,
                    override_cached: true,
                    target: peer,
                    target_lladdr: Some(mac),
                }),
            }),
            _ => panic!("{self:?}: of two families"),
        }
    }
}

/// A raw sender on a host's `eth0`.
pub(crate) struct Flooder {
    socket: OwnedFd,
    forged: Forged,
    /// The state of a xorshift generator (Marsaglia, 2003): the frames only have to differ.
    state: u64,
}

impl Flooder {
    pub(crate) fn on(host: &Host, forged: Forged) -> Self {
        Self {
            socket: host.packet_socket(),
            forged,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Sends for some time, or until `ends`. Gives the number of frames.
    pub(crate) fn send_for(&mut self, time: Duration, ends: &AtomicBool) -> u64 {
        const LOOK_AFTER: u64 = 64;
        let began = Instant::now();
        let mut sent = 0;
        while began.elapsed() < time && !ends.load(Ordering::SeqCst) {
            for _ in 0..LOOK_AFTER {
                let frame = self.frame();
                // A full queue loses a frame, as any link does.
                let flags = MsgFlags::MSG_DONTWAIT;
                sent += u64::from(send(self.socket.as_raw_fd(), &frame, flags).is_ok());
            }
        }
        sent
    }

    fn frame(&mut self) -> Vec<u8> {
        let [a, b, c, d, e, f, ..] = self.next().to_be_bytes();
        let mac = [2, 0xee, a, b, c, d];
        match self.forged {
            Forged::Claims(vip) => claim(vip, mac),
            Forged::Senders(IpAddr::V4(asked)) => {
                arp(1, mac, Ipv4Addr::new(10, 9, e | 0x80, f), asked)
            }
            Forged::Senders(IpAddr::V6(asked)) => {
                let host = u16::from_be_bytes([e | 0x80, f]);
                solicitation(mac, host, asked)
            }
            Forged::Adverts(vip) => advert(vip, vipherald_lab::Mac(mac)),
            Forged::Guesses(guesses) => guesses.frame(self.next(), self.next()),
            Forged::Junk => [&[0xff; 6][..], &mac, &[0x88, 0xb5], &[0; 46]].concat(),
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }
}

/// A claim of a VIP by a MAC, to everyone.
pub(crate) fn claim(vip: IpAddr, mac: [u8; 6]) -> Vec<u8> {
    match vip {
        IpAddr::V4(vip) => arp(2, mac, vip, vip),
        IpAddr::V6(vip) => advertisement(mac, vip),
    }
}

/// An ARP frame to everyone (RFC 826).
fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head: &[u8] = &[8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    let (sender, target) = (sender.octets(), target.octets());
    [&[0xff; 6], &mac, head, &mac, &sender, &[0xff; 6], &target].concat()
}

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An unsolicited neighbour advertisement to all nodes (RFC 4861 §4.4).
fn advertisement(mac: [u8; 6], target: Ipv6Addr) -> Vec<u8> {
    let [_, _, a, b, c, d] = mac.map(u16::from);
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, a, b, c, d);
    let advertisement = Advertisement {
        router: false,
        solicited: false,
        override_cached: true,
        target,
        target_lladdr: Some(Mac::new(mac)),
    };
    to_all(mac, source, NdpMessage::Advertisement(advertisement))
}

/// A neighbour solicitation to all nodes (RFC 4861 §4.3).
fn solicitation(mac: [u8; 6], host: u16, target: Ipv6Addr) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, host);
    let solicitation = Solicitation {
        target,
        source_lladdr: Some(Mac::new(mac)),
    };
    to_all(mac, source, NdpMessage::Solicitation(solicitation))
}

fn to_all(mac: [u8; 6], source: Ipv6Addr, message: NdpMessage) -> Vec<u8> {
    let frame = Frame {
        destination: Mac::new([0x33, 0x33, 0, 0, 0, 1]),
        source: Mac::new(mac),
        payload: Payload::Ndp(Ndp {
            source,
            destination: ALL_NODES,
            message,
        }),
    };
    frame.to_bytes()
}
