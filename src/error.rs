//! Why a command could not do its work: what happened, where, and what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use vipherald_core::address::Vip;
use vipherald_core::keepalived;

use crate::exit::Exit;
use crate::{kernel, key_file, packet_socket, privileges, settings};

/// A failure of a whole run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel could not be asked, or refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// No packet socket.
    #[error(transparent)]
    PacketSocket(#[from] packet_socket::Error),
    /// The settings file is wrong.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// keepalived.conf does not tell what was asked for.
    #[error("{}{}", .0, advice(.0))]
    Keepalived(#[from] keepalived::Error),
    /// The FIFO can't be followed.
    #[error("cannot follow the FIFO {}: {source}", path.display())]
    Fifo {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No interface has the name given.
    #[error("there is no interface {0}: see `ip link`")]
    NoSuchInterface(String),
    /// An interface on which nobody asks for addresses by ARP or ND.
    #[error("cannot announce or check on {interface}: it {why}")]
    UnfitInterface {
        /// Its name.
        interface: String,
        /// What it is instead.
        why: &'static str,
    },
    /// An interface that is set down.
    #[error("cannot announce or check on {0}: the interface is down; `ip link set {0} up`")]
    InterfaceDown(String),
    /// An instance, or all, without a VIP that could be checked.
    #[error("there is nothing to check: {} names no virtual IP", .0.display())]
    NothingToCheck(PathBuf),
    /// A key for orders can't be used, or written.
    #[error(transparent)]
    Key(#[from] key_file::Error),
    /// Orders need a key.
    #[error("there is no key for orders: set orders.key_file; `vipherald keygen` writes one")]
    NoKey,
    /// It is not known which MAC a VIP has.
    #[error("{0} is not on this host: give the MAC that it has, by --mac")]
    NoMac(Vip),
    /// Nobody is to be ordered.
    #[error("nobody is to be ordered: name peers by --peer")]
    NoPeer,
    /// There is no socket to hear orders on.
    #[error(
        "there is no socket to hear orders on: start it by systemd's socket unit, or with --bind"
    )]
    NoSocket,
    /// The socket that systemd handed over can't be used.
    #[error("cannot use the socket that systemd handed over: {0}")]
    Activation(io::Error),
    /// The socket could not be had.
    #[error("cannot listen at {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The runtime could not be had or broke.
    #[error("cannot wait for events: {0}")]
    Runtime(io::Error),
    /// The report could not be written.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
}

/// What to do where keepalived.conf may not be read: keepalived reads it as root, and runs hooks as
/// another user if there is one.
fn advice(unread: &keepalived::Error) -> String {
    match unread {
        keepalived::Error::Unreadable { source, .. }
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            format!("; {}", privileges::advice_on_reading())
        }
        _ => String::new(),
    }
}

impl Error {
    /// The exit status that tells it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) | Self::Key(_) | Self::NoKey | Self::NoMac(_) | Self::NoPeer => {
                Exit::Usage
            }
            _ => Exit::Failed,
        }
    }
}
