//! A packet socket on one interface: frames out, and the answers in.
#![allow(unsafe_code)]

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};
use std::{io, mem};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send,
    setsockopt, socket,
};
use socket2::{SockFilter, SockRef};
use vipherald_core::address::{InterfaceIndex, Mac};
use vipherald_core::ask::Listening;
use vipherald_core::host::Link;

use crate::privileges::{Capability, advice_on_call};
use crate::readable::Readable;

/// Why a packet socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks `CAP_NET_RAW`.
    #[error("cannot open a packet socket on {interface}: {}", Capability::NetRaw.advice())]
    NotAllowed {
        /// The interface's name.
        interface: String,
    },
    /// Anything else.
    #[error("cannot open a packet socket on {interface}: {source}{}", advice_on_call(.source))]
    Open {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// The error of this interface or this moment alone; `None` if the process lacks the capability.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::NotAllowed { .. } => None,
            Self::Open { source, .. } => {
                Some(source.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            }
        }
    }

    fn open(link: &Link, source: impl Into<io::Error>) -> Self {
        Self::Open {
            interface: link.name.clone(),
            source: source.into(),
        }
    }
}

/// Octets of the longest frame to receive; a longer one is no answer.
const LONGEST: u16 = 1514;
/// Room for the answers of some thousand peers at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet socket bound to one interface. It receives nothing before [`PacketSocket::listen`].
#[derive(Debug)]
pub struct PacketSocket {
    socket: Readable<OwnedFd>,
    interface: InterfaceIndex,
    listens: bool,
    wanted: Listening,
}

impl PacketSocket {
    /// Opens a socket that sends on `link`.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or if the interface is gone.
    pub fn open(link: &Link) -> Result<Self, Error> {
        Self::bound_to(link.index).map_err(|errno| match errno {
            Errno::EPERM | Errno::EACCES => Error::NotAllowed {
                interface: link.name.clone(),
            },
            errno => Error::open(link, errno),
        })
    }

    fn bound_to(interface: InterfaceIndex) -> nix::Result<Self> {
        // With protocol 0 a socket receives nothing, and so bind does not wait 8-16 ms for an RCU
        // grace period.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        bind(socket.as_raw_fd(), &link_address(interface, 0)?)?;
        Ok(Self {
            socket: Readable::new(socket).map_err(|_| Errno::EMFILE)?,
            interface,
            listens: false,
            wanted: Listening::default(),
        })
    }

    /// Starts to receive ARP, neighbour discovery and echo replies, unless it already does.
    ///
    /// # Errors
    /// If the kernel refuses, for instance because the interface is gone.
    pub fn listen(&mut self, link: &Link) -> Result<(), Error> {
        if !self.listens {
            self.receive_by(&filter(&self.wanted))
                .map_err(|error| Error::open(link, error))?;
            self.listens = true;
        }
        Ok(())
    }

    /// Receives this besides answers, once it listens.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn admit(&mut self, wanted: Listening) -> io::Result<()> {
        self.wanted = wanted;
        if !self.listens {
            return Ok(());
        }
        SockRef::from(self.socket.get()).attach_filter(&filter(&self.wanted))
    }

    /// Starts to receive ARP and neighbour discovery, including what this host sends.
    ///
    /// # Errors
    /// As [`PacketSocket::listen`].
    pub fn observe(&mut self, link: &Link) -> Result<(), Error> {
        self.receive_by(&BOTH_WAYS)
            .map_err(|error| Error::open(link, error))
    }

    fn receive_by(&self, filter: &[SockFilter]) -> io::Result<()> {
        let socket = self.socket.get();
        // Before the bind, so that nothing else gets in.
        SockRef::from(socket).attach_filter(filter)?;
        // More than net.core.rmem_max needs CAP_NET_ADMIN; without it, keep the default.
        let _ = setsockopt(socket, RcvBufForce, &RECEIVE_BUFFER);
        let all = u16::try_from(libc::ETH_P_ALL).map_err(io::Error::other)?;
        bind(socket.as_raw_fd(), &link_address(self.interface, all)?)?;
        Ok(())
    }

    /// Ready when there may be a frame to receive.
    ///
    /// # Errors
    /// If the runtime can no longer watch the socket.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(context)
    }

    /// The next frame that came in. Never waits.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; LONGEST.into()];
        loop {
            let socket = self.socket.get().as_raw_fd();
            match recv(socket, &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    frame.truncate(length);
                    return Some(frame);
                }
                Err(Errno::EINTR) => {}
                // ENETDOWN, too, once after the interface went down.
                Err(_) => return None,
            }
        }
    }

    /// Queues a frame on the interface. Never waits.
    ///
    /// # Errors
    /// `ENOBUFS` when the queue is full, `ENETDOWN` when the interface is down, `ENXIO` when it
    /// is gone.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.socket.get().as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)
    }
}

/// `protocol` is in host byte order.
fn link_address(interface: InterfaceIndex, protocol: u16) -> nix::Result<LinkAddr> {
    let index = i32::try_from(interface.0).map_err(|_| Errno::ENODEV)?;
    // SAFETY: `sockaddr_ll` is plain data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EAFNOSUPPORT)?;
    address.sll_ifindex = index;
    address.sll_protocol = protocol.to_be();
    let length = libc::socklen_t::try_from(size_of_val(&address)).ok();
    // SAFETY: the pointer is to a whole, initialised `sockaddr_ll`, and `length` is its size.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), length) }.ok_or(Errno::EINVAL)
}

/// What may come in, as a classic BPF program (Documentation/networking/filter.rst) over the Ethernet
/// frame: answers, and what is `wanted` besides; none that this host sends, and none of another VLAN,
/// whose tag the kernel has stripped from the octets. (VLAN 0 is no VLAN, only a priority.) The parser
/// checks everything again: the filter only saves a busy host the copies.
fn filter(wanted: &Listening) -> Vec<SockFilter> {
    let mut program = Vec::from(OF_THIS_LINK);
    if wanted.any {
        program.extend(ANY);
    } else {
        program.extend(ANSWERS);
        if !wanted.from.is_empty() || wanted.from_all_but.is_some() {
            program.extend(traffic(wanted));
        }
    }
    program.push(DROP);
    program
}

/// Drops the rest.
const DROP: SockFilter = op(libc::BPF_RET | libc::BPF_K, 0, 0, 0);
const ADMIT: SockFilter = op(libc::BPF_RET | libc::BPF_K, 0, 0, LONGEST as u32);
/// Admits the headers.
const ADMIT_HEADERS: SockFilter = op(libc::BPF_RET | libc::BPF_K, 0, 0, 64);

/// Drops what this host sends and what has the tag of another VLAN.
const OF_THIS_LINK: [SockFilter; 8] = [
    load(BYTE, about_packet(libc::SKF_AD_PKTTYPE)),
    equal(libc::PACKET_OUTGOING as u32, 0, 1),
    DROP,
    load(BYTE, about_packet(libc::SKF_AD_VLAN_TAG_PRESENT)),
    equal(0, 3, 0),
    load(HALF, about_packet(libc::SKF_AD_VLAN_TAG)),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, VLAN_ID),
    DROP,
];
/// The bits of a tag that name the VLAN (IEEE 802.1Q); the others are the priority.
const VLAN_ID: u32 = 0x0fff;

/// Admits ARP, IPv4 and IPv6: what a port that forwards lets through.
const ANY: [SockFilter; 5] = [
    load(HALF, 12),
    equal(libc::ETH_P_ARP as u32, 2, 0),
    equal(libc::ETH_P_IP as u32, 1, 0),
    equal(libc::ETH_P_IPV6 as u32, 0, 1),
    ADMIT,
];

/// Admits ARP, ICMP echo replies, ICMPv6 echo replies, neighbour solicitations and advertisements.
const ANSWERS: [SockFilter; 18] = [
    load(HALF, 12),
    equal(libc::ETH_P_ARP as u32, 15, 0),
    equal(libc::ETH_P_IP as u32, 0, 7),
    // IPv4: ICMP, no fragment, an echo reply behind a header of any length.
    load(BYTE, 23),
    equal(libc::IPPROTO_ICMP as u32, 0, 13),
    load(HALF, 20),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 11, 0, 0x3fff),
    op(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, 0, 0, 14),
    op(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, 0, 0, 14),
    equal(0, 7, 8),
    equal(libc::ETH_P_IPV6 as u32, 0, 7),
    // IPv6: ICMPv6 without extension headers, of one of three types.
    load(BYTE, 20),
    equal(libc::IPPROTO_ICMPV6 as u32, 0, 5),
    load(BYTE, 54),
    equal(129, 2, 0),
    equal(135, 1, 0),
    equal(136, 0, 1),
    ADMIT,
];

/// Admits the headers of packets that some hosts send to this one for some addresses. Of those it compares
/// the last four octets.
fn traffic(wanted: &Listening) -> Vec<SockFilter> {
    let mut program = vec![
        load(BYTE, about_packet(libc::SKF_AD_PKTTYPE)),
        equal(libc::PACKET_HOST as u32, 1, 0),
        DROP,
        load(HALF, 12),
        equal(libc::ETH_P_IP as u32, 2, 0),
        equal(libc::ETH_P_IPV6 as u32, 3, 0),
        DROP,
        load(WORD, 30),
        jump(1),
        load(WORD, 50),
    ];
    for (at, to) in wanted.to.iter().enumerate() {
        let last = match to {
            IpAddr::V4(to) => to.to_bits(),
            IpAddr::V6(to) => last_word(to.octets()),
        };
        program.push(equal(last, 0, 1));
        // Over the rest of the comparisons and the DROP behind them.
        let rest = wanted.to.len() - at - 1;
        program.push(jump(u32::try_from(2 * rest + 1).unwrap_or(u32::MAX)));
    }
    program.push(DROP);
    for from in &wanted.from {
        program.extend(if_from(*from, ADMIT_HEADERS));
    }
    if let Some(but) = &wanted.from_all_but {
        but.iter()
            .for_each(|from| program.extend(if_from(*from, DROP)));
        program.push(ADMIT_HEADERS);
    }
    program
}

/// What becomes of a frame with this source.
fn if_from(from: Mac, verdict: SockFilter) -> [SockFilter; 5] {
    let [a, b, c, d, e, f] = from.octets();
    [
        load(WORD, 6),
        equal(u32::from_be_bytes([a, b, c, d]), 0, 3),
        load(HALF, 10),
        equal(u16::from_be_bytes([e, f]).into(), 0, 1),
        verdict,
    ]
}

fn last_word(octets: [u8; 16]) -> u32 {
    let [.., a, b, c, d] = octets;
    u32::from_be_bytes([a, b, c, d])
}

/// What may come in or go out: ARP, neighbour solicitations and advertisements.
static BOTH_WAYS: [SockFilter; 15] = [
    load(BYTE, about_packet(libc::SKF_AD_VLAN_TAG_PRESENT)),
    equal(0, 3, 0),
    load(HALF, about_packet(libc::SKF_AD_VLAN_TAG)),
    op(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, VLAN_ID),
    DROP,
    load(HALF, 12),
    equal(libc::ETH_P_ARP as u32, 6, 0),
    equal(libc::ETH_P_IPV6 as u32, 0, 6),
    load(BYTE, 20),
    equal(libc::IPPROTO_ICMPV6 as u32, 0, 4),
    load(BYTE, 54),
    equal(135, 1, 0),
    equal(136, 0, 1),
    ADMIT,
    DROP,
];

const BYTE: u32 = libc::BPF_B;
const HALF: u32 = libc::BPF_H;
const WORD: u32 = libc::BPF_W;

/// Skips this many instructions.
const fn jump(over: u32) -> SockFilter {
    op(libc::BPF_JMP | libc::BPF_JA, 0, 0, over)
}

const fn load(width: u32, at: u32) -> SockFilter {
    op(libc::BPF_LD | width | libc::BPF_ABS, 0, 0, at)
}

/// Skips `yes` instructions if what was loaded is `value`, else `no`.
const fn equal(value: u32, yes: u8, no: u8) -> SockFilter {
    op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, no, value)
}

#[expect(clippy::cast_possible_truncation)]
const fn op(code: u32, yes: u8, no: u8, value: u32) -> SockFilter {
    SockFilter::new(code as u16, yes, no, value)
}

#[expect(clippy::cast_sign_loss)]
const fn about_packet(what: i32) -> u32 {
    (libc::SKF_AD_OFF + what) as u32
}
