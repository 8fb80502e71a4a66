//! The sockets that orders and answers leave from and come in at.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::env;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::task::{Context, Poll};
use std::time::Instant;

use log::{debug, trace, warn};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg};
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::order::Keys;
use vipherald_core::order::message::{ANSWER_LENGTH, Id};
use vipherald_core::order::outbox::{Datagram, Outbox, PeerAnswer, Retry, Route};

use super::wall_clock;
use crate::key_file;
use crate::readable::Readable;
use crate::settings::Orders;

/// Datagrams of one socket that are read before the run's other work goes on.
const AT_ONCE: usize = 64;

/// The folder of this unit's credentials, if systemd gave it any.
pub(crate) fn credentials() -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Random bits that nobody can guess.
pub(crate) fn random_id() -> io::Result<Id> {
    let mut id = Id::default();
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(id)
}

/// A outbox with its sockets: one for each outgoing, so that the kernel tells which peer's port is
/// closed, and passes nothing on that comes from elsewhere.
#[derive(Debug)]
pub(crate) struct OrderSockets {
    outbox: Outbox,
    port: u16,
    sockets: HashMap<u64, Readable<UdpSocket>>,
}

impl OrderSockets {
    /// Reads the keys. `None` if there are none, or none that can be used, which is told.
    pub(crate) fn open(settings: &Orders, instance: &str) -> Option<Self> {
        if settings.key_files.is_empty() {
            return None;
        }
        match key_file::read(&settings.key_files, credentials().as_deref()) {
            Ok(keys) => Some(Self::new(keys, settings.port.get(), instance)),
            Err(error) => {
                warn!("no peer is ordered to purge: {error}");
                None
            }
        }
    }

    pub(crate) fn new(keys: Keys, port: u16, instance: &str) -> Self {
        Self {
            outbox: Outbox::new(keys, instance.to_owned()),
            port,
            sockets: HashMap::new(),
        }
    }

    pub(crate) fn request(&mut self, now: Instant, route: Route, retry: Retry, vip: (Vip, Mac)) {
        self.outbox.request(now, route, retry, vip);
    }

    /// Drops the orders about what `holds` no longer, and closes what nobody needs.
    pub(crate) fn retain(&mut self, holds: impl Fn(InterfaceIndex, Vip, Mac) -> bool) {
        self.outbox.retain(holds);
        let outbox = &self.outbox;
        self.sockets.retain(|outgoing, _| outbox.is_open(*outgoing));
    }

    /// Sends one datagram that is due. Whether there was one. None leaves from one of `vips`:
    /// whoever follows a wrong MAC could not answer there.
    pub(crate) fn send_next(&mut self, now: Instant, vips: &[Vip]) -> bool {
        let Ok(id) = random_id() else {
            return false;
        };
        let Some(datagram) = self.outbox.poll(now, wall_clock(), || id) else {
            return false;
        };
        let to = datagram.route.to;
        match self.deliver(&datagram, vips) {
            Ok(()) => trace!("order to {to} sent"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.outbox.refused(datagram.outgoing);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                debug!("no order to {to}: there is no own address to send it from");
                self.outbox.give_up(datagram.outgoing);
            }
            Err(error) => debug!("order to {to}: {error}"),
        }
        true
    }

    fn deliver(&mut self, datagram: &Datagram, vips: &[Vip]) -> io::Result<()> {
        let to = socket_address(datagram.route, self.port);
        let socket = match self.sockets.entry(datagram.outgoing) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(Readable::new(open(datagram, to, vips)?)?),
        };
        let socket = socket.get();
        let sent = match datagram.broadcast {
            true => socket.send_to(&datagram.datagram, to),
            false => socket.send(&datagram.datagram),
        };
        sent.map(drop)
    }

    /// The answers that came in.
    pub(crate) fn hear(&mut self) -> Vec<PeerAnswer> {
        let mut all = Vec::new();
        let mut buffer = [0; ANSWER_LENGTH.1 + 1];
        for (outgoing, socket) in &self.sockets {
            for _ in 0..AT_ONCE {
                match socket.get().recv_from(&mut buffer) {
                    Ok((length, from)) => {
                        all.extend(self.outbox.on_answer(from.ip(), &buffer[..length]));
                    }
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        self.outbox.refused(*outgoing);
                    }
                    Err(_) => break,
                }
            }
        }
        all
    }

    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut any = Poll::Pending;
        for socket in self.sockets.values() {
            if let Poll::Ready(ready) = socket.poll_readable(context) {
                any = Poll::Ready(ready);
            }
        }
        any
    }

    pub(crate) fn is_waiting(&self, now: Instant) -> bool {
        self.outbox.is_waiting(now)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.outbox.next_due()
    }
}

fn open(datagram: &Datagram, to: SocketAddr, vips: &[Vip]) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() {
        IpAddr::from([0, 0, 0, 0])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let from = SocketAddr::new(datagram.route.from.unwrap_or(any), 0);
    let socket = UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    if datagram.broadcast {
        // The answers come from everywhere.
        socket.set_broadcast(true)?;
    } else {
        socket.connect(to)?;
    }
    let own = socket.local_addr()?.ip();
    if vips.iter().any(|vip| vip.ip() == own) {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    Ok(socket)
}

fn socket_address(route: Route, port: u16) -> SocketAddr {
    match route.to {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, port, 0, route.interface.0).into()
        }
        ip => SocketAddr::new(ip, port),
    }
}

/// Sends an answer from the address that was asked, for its sender hears no other. An answer that
/// can't be sent is lost: the order comes again.
pub(super) fn send_from(socket: BorrowedFd<'_>, to: SocketAddr, from: IpAddr, datagram: &[u8]) {
    let v4 = |ip: std::net::Ipv4Addr| libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: u32::from_ne_bytes(ip.octets()),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    let v6 = |ip: Ipv6Addr| libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: ip.octets(),
        },
        ipi6_ifindex: 0,
    };
    let octets = [IoSlice::new(datagram)];
    let storage = SockaddrStorage::from(to);
    let send = |control: &[ControlMessage<'_>]| {
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), &octets, control, flags, Some(&storage))
    };
    let sent = match (to, from) {
        (SocketAddr::V4(_), IpAddr::V4(from)) => send(&[ControlMessage::Ipv4PacketInfo(&v4(from))]),
        // A socket of both families has IPv4 addresses mapped.
        (SocketAddr::V6(_), IpAddr::V4(from)) => {
            send(&[ControlMessage::Ipv6PacketInfo(&v6(from.to_ipv6_mapped()))])
        }
        (SocketAddr::V6(_), IpAddr::V6(from)) => send(&[ControlMessage::Ipv6PacketInfo(&v6(from))]),
        (SocketAddr::V4(_), IpAddr::V6(_)) => return,
    };
    // What was asked by broadcast is answered from whichever address.
    if sent.is_err()
        && let Err(errno) = send(&[])
    {
        debug!("no answer to {to}: {errno}");
    }
}
