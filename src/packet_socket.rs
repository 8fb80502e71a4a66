//! A packet socket on one interface: frames out, and the answers in.
#![allow(unsafe_code)]

mod filter;
mod flood;

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use std::time::Instant;
use std::{io, mem, thread};

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
    socket: Readable<ClosedAside>,
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
            socket: Readable::new(ClosedAside::new(socket)).map_err(|_| Errno::EMFILE)?,
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

    /// About how many frames the kernel dropped because of [`PacketSocket::settle`].
    #[must_use]
    pub fn unread(&self) -> u64 {
        self.budgets.unread()
    }

    /// Starts to receive ARP and neighbour discovery, including what this host sends.
    ///
    /// # Errors
    /// As [`PacketSocket::listen`].
    pub fn observe(&mut self, link: &Link) -> Result<(), Error> {
        self.receive_by(&both_ways())
            .map_err(|error| Error::open(link, error))
    }

    /// Receives nothing from now on. To close a socket takes a thread.
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

/// A packet socket that a thread closes. The kernel waits 8-16 ms for an RCU grace period before it lets go
/// of one: nothing else on this thread shall wait for that, nor for one such period after another.
#[derive(Debug)]
struct ClosedAside(ManuallyDrop<OwnedFd>);

impl ClosedAside {
    /// All that the thread needs, several times over.
    const STACK: usize = 64 * 1024;

    fn new(socket: OwnedFd) -> Self {
        Self(ManuallyDrop::new(socket))
    }
}

impl Drop for ClosedAside {
    fn drop(&mut self) {
        // SAFETY: nothing uses it after this.
        let socket = unsafe { ManuallyDrop::take(&mut self.0) };
        // Without a thread, this drops the closure, and that closes the socket.
        let _ = thread::Builder::new()
            .stack_size(Self::STACK)
            .spawn(move || drop(socket));
    }
}

impl AsFd for ClosedAside {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ClosedAside {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use vipherald_core::address::Mac;
    use vipherald_core::wire::Arp;

    use super::*;

    /// The loopback interface, which a new namespace has, but down.
    fn loopback() -> Link {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.unwrap().success());
        Link::ethernet(1, "lo", Mac::ZERO)
    }

    /// An ARP reply to a MAC.
    fn reply_to(mac: Mac) -> Vec<u8> {
        let claim = Arp::gratuitous_reply([10, 9, 0, 100].into(), Mac::new([2, 0, 0, 0, 0, 1]));
        let mut octets = claim.to_bytes();
        octets[..6].copy_from_slice(&mac.octets());
        octets
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_flood_to_one_host_whoever_that_is_is_dropped_and_costs_no_broadcast() {
        const SENT: usize = 200;
        let lo = loopback();
        let (own, other) = (Mac::ZERO, Mac::new([2, 0, 0, 0, 0, 9]));
        let sender = PacketSocket::open(&lo).unwrap();
        let mut socket = PacketSocket::open(&lo).unwrap();
        socket.listen(&lo).unwrap();
        let mut received = |mac: Mac| {
            (0..SENT).for_each(|_| sender.send(&reply_to(mac)).unwrap());
            std::iter::from_fn(|| socket.receive()).count()
        };
        assert_eq!([own, other, Mac::BROADCAST].map(&mut received), [SENT; 3]);
        let now = Instant::now();
        for _ in 0..16 {
            (0..20_000).for_each(|_| socket.was_read(&reply_to(other)));
            socket.settle(now).unwrap();
        }
        let mut received = |mac: Mac| {
            (0..SENT).for_each(|_| sender.send(&reply_to(mac)).unwrap());
            std::iter::from_fn(|| socket.receive()).count()
        };
        let [to_us, to_other, to_all] = [own, other, Mac::BROADCAST].map(&mut received);
        assert!(to_us + to_other < SENT / 10, "{to_us}, {to_other}");
        assert_eq!(to_all, SENT);
    }

    /// Only the time shows that nobody waits.
    #[tokio::test(flavor = "current_thread")]
    async fn nobody_waits_for_the_kernel_to_let_go_of_a_socket() {
        let lo = loopback();
        let closes = (0..10).map(|_| {
            let mut socket = PacketSocket::open(&lo).unwrap();
            socket.listen(&lo).unwrap();
            let began = Instant::now();
            drop(socket);
            began.elapsed()
        });
        // A busy machine may suspend a thread at any time, but not always.
        let fastest = closes.min().unwrap();
        assert!(fastest < Duration::from_millis(2), "{fastest:?}");
    }
}
