//! A host's neighbour table, read and watched through rtnetlink.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};

use crate::mac::Mac;

/// Room for one read; the kernel fills at most 32 KiB of it.
const BUFFER: usize = 64 * 1024;

/// A watch on hundreds of changes that nobody reads for a while must not overflow.
const WATCH_BUFFER: usize = 1024 * 1024;

const NLMSG_HEADER: usize = 16;
const NDMSG: usize = 12;

/// One entry of a neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// Whose entry it is.
    pub ip: IpAddr,
    /// What the kernel believes its MAC to be; nothing while the entry is INCOMPLETE or FAILED.
    pub mac: Option<Mac>,
    /// How sure the kernel is.
    pub state: State,
    /// The index of the interface it is reached through; see [`crate::Host::interface_index`].
    pub interface: u32,
}

/// The state of a neighbour table entry, as in RFC 4861 §7.3.2 and `ip-neighbour(8)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names")]
pub enum State {
    None,
    Incomplete,
    Reachable,
    Stale,
    Delay,
    Probe,
    Failed,
    Noarp,
    Permanent,
}

impl State {
    /// From the kernel's bit, `NUD_*`.
    fn from_nud(nud: u16) -> Self {
        match nud {
            libc::NUD_INCOMPLETE => Self::Incomplete,
            libc::NUD_REACHABLE => Self::Reachable,
            libc::NUD_STALE => Self::Stale,
            libc::NUD_DELAY => Self::Delay,
            libc::NUD_PROBE => Self::Probe,
            libc::NUD_FAILED => Self::Failed,
            libc::NUD_NOARP => Self::Noarp,
            libc::NUD_PERMANENT => Self::Permanent,
            _ => Self::None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_uppercase())
    }
}

/// A change of a neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourEvent {
    /// When the watch read it: at once, where someone waits.
    pub time: SystemTime,
    /// The entry as it is now, or as it last was.
    pub neighbour: Neighbour,
    /// Whether the entry was deleted.
    pub gone: bool,
}

/// A watch on a host's neighbour table.
pub struct NeighbourWatch {
    socket: OwnedFd,
}

impl NeighbourWatch {
    /// Opens a watch in the thread's network namespace.
    pub(crate) fn open() -> Self {
        let socket = netlink_socket();
        // The forced size needs privilege in the initial user namespace; what is left without it
        // is capped by net.core.rmem_max.
        if setsockopt(&socket, sockopt::RcvBufForce, &WATCH_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &WATCH_BUFFER).expect("any size is taken");
        }
        bind(
            socket.as_raw_fd(),
            &NetlinkAddr::new(0, libc::RTMGRP_NEIGH as u32),
        )
        .expect("everyone may watch neighbours");
        Self { socket }
    }

    /// The changes since the last look, without waiting.
    ///
    /// # Panics
    ///
    /// If some were lost because nobody had read them in time.
    pub fn events(&self) -> Vec<NeighbourEvent> {
        let mut events = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    let time = SystemTime::now();
                    events.extend(messages(&buffer[..length]).filter_map(|(kind, body)| {
                        let gone = kind == libc::RTM_DELNEIGH;
                        let neighbour = parse(body)?;
                        Some(NeighbourEvent {
                            time,
                            neighbour,
                            gone,
                        })
                    }));
                }
                Err(Errno::EAGAIN) => return events,
                Err(e) => panic!("neighbour watch: {e}"),
            }
        }
    }

    /// Waits for a change that `wanted` holds of. Changes before it are forgotten.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&NeighbourEvent) -> bool,
    ) -> Option<NeighbourEvent> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let events = Self::wait_any([self], left);
            if let Some((_, event)) = events.into_iter().find(|(_, event)| wanted(event)) {
                return Some(event);
            }
            if left.is_zero() {
                return None;
            }
        }
    }

    /// Waits until any of many watches has a change; gives all changes, each with its watch's
    /// position. Empty once `timeout` has passed.
    pub fn wait_any<'a>(
        watches: impl IntoIterator<Item = &'a Self>,
        timeout: Duration,
    ) -> Vec<(usize, NeighbourEvent)> {
        let watches: Vec<_> = watches.into_iter().collect();
        let mut ready: Vec<_> = watches
            .iter()
            .map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut ready, poll_timeout(timeout)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("neighbour watch: {e}"),
        }
        let has_news = |ready: &PollFd| ready.any().unwrap_or(true);
        let ready: Vec<_> = ready.iter().map(has_news).collect();
        let changed = watches
            .iter()
            .enumerate()
            .filter(|(position, _)| ready[*position]);
        changed
            .flat_map(|(position, watch)| {
                watch
                    .events()
                    .into_iter()
                    .map(move |event| (position, event))
            })
            .collect()
    }
}

impl AsFd for NeighbourWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `poll` counts in milliseconds: round up, so that a wait of less is no busy loop.
fn poll_timeout(timeout: Duration) -> PollTimeout {
    let milliseconds = timeout.as_micros().div_ceil(1000);
    i32::try_from(milliseconds)
        .ok()
        .and_then(|ms| ms.try_into().ok())
        .unwrap_or(PollTimeout::MAX)
}

/// The whole neighbour table of the thread's network namespace, both families.
pub(crate) fn table() -> Vec<Neighbour> {
    let socket = netlink_socket();
    send(socket.as_raw_fd(), &dump_request(), MsgFlags::empty()).expect("rtnetlink takes requests");
    let mut table = Vec::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())
            .expect("rtnetlink answers requests");
        for (kind, body) in messages(&buffer[..length]) {
            match kind {
                libc::RTM_NEWNEIGH => table.extend(parse(body)),
                kind if i32::from(kind) == libc::NLMSG_DONE => return table,
                kind => panic!("unexpected rtnetlink message {kind}"),
            }
        }
    }
}

fn netlink_socket() -> OwnedFd {
    let (family, kind) = (AddressFamily::Netlink, SockType::Raw);
    socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )
    .expect("every host has rtnetlink")
}

/// "Tell me all neighbours": a message header and an `ndmsg` of zeros.
fn dump_request() -> [u8; NLMSG_HEADER + NDMSG] {
    let mut request = [0; NLMSG_HEADER + NDMSG];
    let length = u32::try_from(request.len()).expect("28 bytes");
    let flags = u16::try_from(libc::NLM_F_REQUEST | libc::NLM_F_DUMP).expect("flags of 16 bits");
    request[0..4].copy_from_slice(&length.to_ne_bytes());
    request[4..6].copy_from_slice(&libc::RTM_GETNEIGH.to_ne_bytes());
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    request
}

/// Splits a datagram into messages: (type, what follows the header).
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = datagram.get(..NLMSG_HEADER)?;
        let length = u32::from_ne_bytes(header[0..4].try_into().ok()?);
        let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
        let body;
        (body, datagram) = split(datagram, length as usize, NLMSG_HEADER)?;
        Some((kind, body))
    })
}

/// Reads an `ndmsg` and its attributes; `None` for what is no entry of ARP or NDP, such as a
/// bridge's forwarding table.
fn parse(body: &[u8]) -> Option<Neighbour> {
    let interface = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let nud = u16::from_ne_bytes(body.get(8..10)?.try_into().ok()?);
    let mut attributes = body.get(NDMSG..)?;
    let (mut ip, mut mac) = (None, None);
    while let Some(header) = attributes.get(..4) {
        let length = u16::from_ne_bytes([header[0], header[1]]);
        let kind = u16::from_ne_bytes([header[2], header[3]]);
        let value;
        (value, attributes) = split(attributes, length.into(), header.len())?;
        match (kind, value.len()) {
            (libc::NDA_DST, 4) => ip = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            (libc::NDA_DST, 16) => ip = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            (libc::NDA_LLADDR, 6) => mac = value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    Some(Neighbour {
        ip: ip?,
        mac,
        state: State::from_nud(nud),
        interface,
    })
}

/// Splits off an item of `length` bytes, padded to four, that begins with a header: (what follows
/// the header, the items after).
fn split(bytes: &[u8], length: usize, header: usize) -> Option<(&[u8], &[u8])> {
    let value = bytes.get(header..length)?;
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((value, rest))
}
