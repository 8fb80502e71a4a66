//! The sockets for orders and answers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::task::{Context, Poll};
use std::time::Instant;

use log::{debug, trace, warn};
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use vipherald_core::address::{InterfaceIndex, Mac, Vip};
use vipherald_core::order::Keys;
use vipherald_core::order::message::{ANSWER_LENGTH, Id};
use vipherald_core::order::outbox::{Datagram, Outbox, PeerAnswer, Retry, Route};

use super::wall_clock;
use crate::key_file;
use crate::privileges::advice_on_call;
use crate::readable::{self, Readable};
use crate::settings::Orders;

/// Datagrams to read from one socket before the run's other work goes on.
const AT_ONCE: usize = 64;

/// Unpredictable random bits.
pub(crate) fn random_id() -> io::Result<Id> {
    let mut id = Id::default();
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(id)
}

/// An outbox with a socket for each outgoing order, so that the kernel says which peer's port is
/// closed, and delivers only what comes from that peer.
#[derive(Debug)]
pub(crate) struct OrderSockets {
    outbox: Outbox,
    port: u16,
    sockets: HashMap<u64, Readable<UdpSocket>>,
    warnings: WarnOnce,
}

/// Warns once that this host can't send something.
#[derive(Debug, Default)]
pub(crate) struct WarnOnce(bool);

impl WarnOnce {
    pub(crate) fn warn(&mut self, text: &str) {
        if !std::mem::replace(&mut self.0, true) {
            warn!("{text}");
        }
    }
}

impl OrderSockets {
    /// Reads the keys. `None` without a key, or, with a warning, if a key can't be used.
    pub(crate) fn open(settings: &Orders, instance: &str) -> Option<Self> {
        match key_file::of(settings) {
            Ok(keys) => Some(Self::new(keys, settings.port.get(), instance)),
            Err(key_file::Error::Unset) => None,
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
            warnings: WarnOnce::default(),
        }
    }

    pub(crate) fn request(&mut self, now: Instant, route: Route, retry: Retry, vip: (Vip, Mac)) {
        self.outbox.request(now, route, retry, vip);
    }

    /// Drops orders that no longer hold, and closes unused sockets.
    pub(crate) fn retain(&mut self, holds: impl Fn(InterfaceIndex, Vip, Mac) -> bool) {
        self.outbox.retain(holds);
        let outbox = &self.outbox;
        self.sockets.retain(|outgoing, _| outbox.is_open(*outgoing));
    }

    /// Sends one datagram that is due, and returns whether there was one. It never sends from a VIP: a peer
    /// that follows a wrong MAC could not answer there, and it may leave.
    pub(crate) fn send_next(&mut self, now: Instant, is_vip: impl Fn(IpAddr) -> bool) -> bool {
        let id = match random_id() {
            Ok(id) => id,
            Err(error) => {
                self.warnings
                    .warn(&format!("no peer is ordered to purge: {error}"));
                return false;
            }
        };
        let Some(datagram) = self.outbox.poll(now, wall_clock(), || id) else {
            return false;
        };
        let to = datagram.route.to;
        match self.deliver(&datagram, is_vip) {
            Ok(()) => trace!("order to {to} sent"),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                self.outbox.refused(datagram.outgoing);
            }
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                debug!("no order to {to}: there is no own address to send it from");
                self.outbox.give_up(datagram.outgoing);
            }
            // No way to a peer is the network's fault, and passes.
            Err(error) => match advice_on_call(&error) {
                "" => debug!("order to {to}: {error}"),
                advice => self
                    .warnings
                    .warn(&format!("no order to {to}: {error}{advice}")),
            },
        }
        true
    }

    fn deliver(&mut self, datagram: &Datagram, is_vip: impl Fn(IpAddr) -> bool) -> io::Result<()> {
        let to = socket_address(datagram.route, self.port);
        let socket = match self.sockets.entry(datagram.outgoing) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(none) => none.insert(Readable::new(open(
                datagram.route,
                datagram.broadcast,
                to,
                is_vip,
            )?)?),
        };
        let socket = socket.get();
        let sent = match datagram.broadcast {
            true => socket.send_to(&datagram.datagram, to),
            false => socket.send(&datagram.datagram),
        };
        sent.map(drop)
    }

    /// Reads the answers that came in.
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
        let sockets = self.sockets.values();
        readable::any(sockets.map(|socket| socket.poll_readable(context)))
    }

    pub(crate) fn is_waiting(&self, now: Instant) -> bool {
        self.outbox.is_waiting(now)
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.outbox.next_due()
    }
}

/// A socket that sends to a peer and receives from it alone. It is bound to no VIP.
pub(crate) fn connected(
    route: Route,
    port: u16,
    is_vip: impl Fn(IpAddr) -> bool,
) -> io::Result<Readable<UdpSocket>> {
    Readable::new(open(route, false, socket_address(route, port), is_vip)?)
}

fn open(
    route: Route,
    broadcast: bool,
    to: SocketAddr,
    is_vip: impl Fn(IpAddr) -> bool,
) -> io::Result<UdpSocket> {
    let any = if to.is_ipv4() {
        IpAddr::from([0, 0, 0, 0])
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let from = SocketAddr::new(route.from.unwrap_or(any), 0);
    let socket = UdpSocket::bind(from)?;
    socket.set_nonblocking(true)?;
    if broadcast {
        // The answers come from everywhere.
        socket.set_broadcast(true)?;
    } else {
        socket.connect(to)?;
    }
    if is_vip(socket.local_addr()?.ip()) {
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

/// Makes the kernel say by which interface each datagram came in, for [`receive`].
pub(crate) fn tell_interfaces(socket: &UdpSocket) -> io::Result<()> {
    if socket.local_addr()?.is_ipv4() {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    } else {
        // This is about IPv4 datagrams, too, on a socket for both families.
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    }
    Ok(())
}

/// Receives a datagram: its length, its sender, and the interface by which it came in. `None` if that
/// was before [`tell_interfaces`]: the kernel then notes no interface for IPv4.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<InterfaceIndex>)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo);
    let mut octets = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut octets, Some(&mut control), flags)?;
    let interface = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::Ipv4PacketInfo(info) => u32::try_from(info.ipi_ifindex).ok(),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(info.ipi6_ifindex),
        _ => None,
    });
    let interface = interface.filter(|index| *index != 0).map(InterfaceIndex);
    let from = received.address.as_ref().and_then(|from| {
        let v4 = from.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
        v4.or_else(|| {
            from.as_sockaddr_in6()
                .map(|v6| SocketAddr::V6((*v6).into()))
        })
    });
    let from = from.ok_or_else(|| io::Error::other("the kernel does not say who sent it"))?;
    Ok((received.bytes, from, interface))
}

/// Sends an answer from the address that the order was sent to, because the sender accepts no other. If
/// that fails, the answer is lost: the order comes again.
pub(crate) fn send_from(socket: BorrowedFd<'_>, to: SocketAddr, from: IpAddr, datagram: &[u8]) {
    let octets = [IoSlice::new(datagram)];
    let storage = SockaddrStorage::from(to);
    let send = |control: &[ControlMessage<'_>]| {
        let flags = MsgFlags::MSG_DONTWAIT;
        sendmsg(socket.as_raw_fd(), &octets, control, flags, Some(&storage))
    };
    let sent = match (to, from) {
        (SocketAddr::V4(_), IpAddr::V4(from)) => {
            send(&[ControlMessage::Ipv4PacketInfo(&libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(from.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            })])
        }
        (SocketAddr::V6(_), from) => {
            // On a socket for both families, IPv4 addresses are mapped.
            let from = match from {
                IpAddr::V4(from) => from.to_ipv6_mapped(),
                IpAddr::V6(from) => from,
            };
            send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: from.octets(),
                },
                ipi6_ifindex: 0,
            })])
        }
        (SocketAddr::V4(_), IpAddr::V6(_)) => return,
    };
    // A broadcast is answered from any address.
    if sent.is_err()
        && let Err(errno) = send(&[])
    {
        debug!("no answer to {to}: {errno}");
    }
}
