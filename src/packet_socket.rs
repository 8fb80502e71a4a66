//! A packet socket on one interface: frames out, and the answers in.
#![allow(unsafe_code)]

mod filter;
mod flood;

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Instant;
use std::{io, mem};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, recv, send,
    setsockopt, socket,
};
use socket2::{SockFilter, SockRef};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::ask::Listening;
use vipherald_core::host::Link;

use crate::privileges::{Capability, advice_on_call};
use crate::readable::Readable;
use filter::{LONGEST, answers, both_ways, nothing};
use flood::Budgets;

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

/// Room for the answers of some thousand peers at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet socket bound to one interface. It receives nothing before [`PacketSocket::listen`].
#[derive(Debug)]
pub struct PacketSocket {
    socket: Readable<OwnedFd>,
    interface: InterfaceIndex,
    listens: bool,
    wanted: Listening,
    budgets: Budgets,
    /// Frames sent since the budgets were settled.
    sent: Cell<u32>,
    /// Whether a flood was told.
    told: bool,
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
            budgets: Budgets::new(),
            sent: Cell::new(0),
            told: false,
        })
    }

    /// Starts to receive ARP, neighbour discovery and echo replies, unless it already does.
    ///
    /// # Errors
    /// If the kernel refuses, for instance because the interface is gone.
    pub fn listen(&mut self, link: &Link) -> Result<(), Error> {
        if !self.listens {
            self.receive_by(&answers(&self.wanted, self.budgets.shares()))
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
        self.filter_again()
    }

    fn filter_again(&self) -> io::Result<()> {
        if !self.listens {
            return Ok(());
        }
        let filter = answers(&self.wanted, self.budgets.shares());
        SockRef::from(self.socket.get()).attach_filter(&filter)
    }

    /// This frame was read: it counts for [`PacketSocket::settle`].
    pub fn was_read(&mut self, frame: &[u8]) {
        self.budgets.read(frame);
    }

    /// To call when frames were read. If more came in than a host can read at little cost, the kernel drops
    /// all but a random share from now on; echo replies, what is sent to this host alone, and the rest have a
    /// share each. Returns whether that happens for the first time.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn settle(&mut self, now: Instant) -> io::Result<bool> {
        if !self.budgets.settle(now, self.sent.take()) {
            return Ok(false);
        }
        self.filter_again()?;
        let is_new = !self.told && self.budgets.shares().are_small();
        self.told |= is_new;
        Ok(is_new)
    }

    /// Starts to receive ARP and neighbour discovery, including what this host sends.
    ///
    /// # Errors
    /// As [`PacketSocket::listen`].
    pub fn observe(&mut self, link: &Link) -> Result<(), Error> {
        self.receive_by(&both_ways())
            .map_err(|error| Error::open(link, error))
    }

    /// Receives nothing from now on. To close a socket takes 8-16 ms.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ignore_all(&self) -> io::Result<()> {
        SockRef::from(self.socket.get()).attach_filter(&nothing())
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
        send(self.socket.get().as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT)?;
        self.sent.set(self.sent.get().saturating_add(1));
        Ok(())
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
