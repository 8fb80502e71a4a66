//! The sockets that systemd passes (sd_listen_fds(3)).
#![allow(unsafe_code)]

use std::net::UdpSocket;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::{env, io, process};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;

/// The sockets for this process; none unless systemd passed some. Call it once.
pub(super) fn sockets() -> io::Result<Vec<UdpSocket>> {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u32>().ok())
    };
    if number("LISTEN_PID") != Some(process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    let count = RawFd::try_from(count).map_err(io::Error::other)?;
    (FIRST..FIRST.saturating_add(count)).map(take).collect()
}

fn take(descriptor: RawFd) -> io::Result<UdpSocket> {
    // SAFETY: by the protocol, the descriptors from 3 on are open, and this process's to use: it
    // is the one that `LISTEN_PID` names. Nothing else takes them, as this is called once.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    if getsockopt(&socket, sockopt::SockType)? != SockType::Datagram {
        return Err(io::Error::other(
            "the socket unit has to say ListenDatagram=, for UDP",
        ));
    }
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    let socket = UdpSocket::from(socket);
    // Fails unless it is an internet socket.
    socket.local_addr()?;
    Ok(socket)
}
