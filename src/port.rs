//! An AF_PACKET port on one interface: frames out.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockType, SockaddrLike, bind, send, socket,
};
use nix::unistd::{Uid, User};

use crate::address::InterfaceIndex;
use crate::kernel::Link;

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The process lacks `CAP_NET_RAW`.
    #[error(
        "cannot open a packet socket on {interface}: no CAP_NET_RAW; run by user {user}? set `script_user root` in keepalived.conf"
    )]
    NotAllowed {
        /// The interface's name.
        interface: String,
        /// Who runs the process.
        user: String,
    },
    /// Anything else.
    #[error("cannot open a packet socket on {interface}: {source}")]
    Open {
        /// The interface's name.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A packet socket that is bound to one interface.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
}

impl Port {
    /// Opens a port that sends on `link`.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or when the interface is gone.
    pub fn open(link: &Link) -> Result<Self, Error> {
        Self::bound_to(link.index).map_err(|errno| match errno {
            Errno::EPERM | Errno::EACCES => Error::NotAllowed {
                interface: link.name.clone(),
                user: user_name(),
            },
            errno => Error::Open {
                interface: link.name.clone(),
                source: errno.into(),
            },
        })
    }

    fn bound_to(interface: InterfaceIndex) -> nix::Result<Self> {
        // Protocol 0: such a socket receives nothing, so that its bind does not have to wait
        // 8-16 ms for an RCU grace period.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        bind(socket.as_raw_fd(), &link_address(interface)?)?;
        Ok(Self { socket })
    }

    /// Hands one frame to the interface's queue. Never waits.
    ///
    /// # Errors
    /// `ENOBUFS` when the queue is full, `ENETDOWN` when the interface is down, `ENXIO` when it
    /// is gone.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).map(drop)
    }
}

fn link_address(interface: InterfaceIndex) -> nix::Result<LinkAddr> {
    let index = i32::try_from(interface.0).map_err(|_| Errno::ENODEV)?;
    // SAFETY: `sockaddr_ll` is plain data, for which all zeroes is a valid value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(|_| Errno::EAFNOSUPPORT)?;
    address.sll_ifindex = index;
    let length = libc::socklen_t::try_from(size_of_val(&address)).ok();
    // SAFETY: the pointer is to a whole, initialised `sockaddr_ll`, and `length` is its size.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), length) }.ok_or(Errno::EINVAL)
}

fn user_name() -> String {
    let uid = Uid::effective();
    User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}
