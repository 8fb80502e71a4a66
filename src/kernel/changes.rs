//! Changes on this host during a run.

use std::task::{Context, Poll};
use std::{io, mem};

use rtnetlink::constants::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};
use vipherald_core::address::InterfaceIndex;
use vipherald_core::host::{Address, Link};

use super::Error;
use super::addresses::address_of;
use super::links::link_of;
use crate::readable::Readable;

/// A change that the kernel reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An address was added, or its flags changed.
    Address(Address),
    /// An address was removed.
    AddressGone(Address),
    /// An interface was added, or something about it changed.
    Link(Link),
    /// An interface was removed.
    LinkGone(InterfaceIndex),
}

/// The most datagrams to read at once. Each has one change, or a few.
const MOST_AT_ONCE: usize = 256;

/// Whether [`Changes::drain`] got every change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Drained {
    /// It did, up to this moment.
    Complete,
    /// More wait: what holds now is not known before the next calls.
    More,
    /// It found no more, but some were lost: ask for what holds now.
    Overrun,
}

/// A subscription to address and link changes of this network namespace.
///
/// The kernel queues a change before the system call that makes it returns, so once [`Changes::drain`]
/// finds the queue empty, it has passed on every change that happened before. That is why this is a
/// socket of its own, read directly: the connection for requests delivers messages only when its task
/// next runs. (One change comes some milliseconds later: an IPv6 address that is added without duplicate
/// address detection, as keepalived does. Nothing is announced before it is reported.)
#[derive(Debug)]
pub struct Changes {
    socket: Readable<Socket>,
    buffer: Vec<u8>,
    /// Whether some were lost. Those that still wait are older, so only when none is left does an answer
    /// tell what holds.
    lost: bool,
}

impl Changes {
    /// Subscribes. Needs a running tokio runtime.
    ///
    /// # Errors
    /// [`Error::Open`] if the process may open no more sockets.
    pub fn subscribe() -> Result<Self, Error> {
        let open = || -> io::Result<Readable<Socket>> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            let groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
            socket.bind(&SocketAddr::new(0, groups))?;
            Readable::new(socket)
        };
        Ok(Self {
            socket: open().map_err(Error::Open)?,
            // Large enough for any of these messages: a link's is the largest, a few KiB.
            buffer: Vec::with_capacity(32 * 1024),
            lost: false,
        })
    }

    /// Ready when there may be changes to drain.
    ///
    /// # Errors
    /// If the runtime can no longer watch the socket.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_readable(context)
    }

    /// Passes on, in order, changes that happened before the call: all of them, unless it returns
    /// [`Drained::More`]. Never waits.
    ///
    /// # Errors
    /// [`Error::NoAnswer`] if the socket broke.
    pub fn drain(&mut self, mut on_change: impl FnMut(Change)) -> Result<Drained, Error> {
        for _ in 0..MOST_AT_ONCE {
            self.buffer.clear();
            match self.socket.get().recv_from(&mut self.buffer, 0) {
                Ok(_) => self.lost |= parse(&self.buffer, &mut on_change).is_none(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let lost = mem::take(&mut self.lost);
                    return Ok(if lost {
                        Drained::Overrun
                    } else {
                        Drained::Complete
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The queue was full and messages were dropped.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => self.lost = true,
                Err(error) => {
                    return Err(Error::NoAnswer {
                        doing: "report address changes".to_owned(),
                        reason: error.to_string(),
                    });
                }
            }
        }
        Ok(Drained::More)
    }
}

/// Reads the messages of one datagram. `None`: one of them makes no sense.
fn parse(mut datagram: &[u8], on_change: &mut impl FnMut(Change)) -> Option<()> {
    while !datagram.is_empty() {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(datagram).ok()?;
        let length = usize::try_from(message.header.length).ok()?.max(1);
        // Messages are aligned to 4 octets.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        let NetlinkPayload::InnerMessage(message) = message.payload else {
            continue;
        };
        let change = match message {
            RouteNetlinkMessage::NewAddress(m) => address_of(&m).map(Change::Address),
            RouteNetlinkMessage::DelAddress(m) => address_of(&m).map(Change::AddressGone),
            // A bridge reports its ports in the same group, with its own family; a port that leaves
            // a bridge still exists.
            RouteNetlinkMessage::NewLink(m)
                if m.header.interface_family == AddressFamily::Unspec =>
            {
                Some(Change::Link(link_of(&m)))
            }
            RouteNetlinkMessage::DelLink(m)
                if m.header.interface_family == AddressFamily::Unspec =>
            {
                Some(Change::LinkGone(InterfaceIndex(m.header.index)))
            }
            _ => None,
        };
        if let Some(change) = change {
            on_change(change);
        }
    }
    Some(())
}
