//! Why a command failed: what happened, where, and what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use vipherald_core::address::{Prefix, Vip};
use vipherald_core::keepalived;

use crate::privileges::{advice_on_call, advice_on_file};
use crate::{kernel, key_file, packet_socket, settings};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the kernel failed.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// No packet socket.
    #[error(transparent)]
    PacketSocket(#[from] packet_socket::Error),
    /// The settings file is wrong.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// keepalived.conf does not say what the command needs.
    #[error("{}{}", .0, advice(.0))]
    Keepalived(#[from] keepalived::Error),
    /// The FIFO can't be read.
    #[error("cannot read the FIFO {}: {source}{}", path.display(), advice_on_file(.source))]
    Fifo {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No interface has this name.
    #[error("there is no interface {0}: see `ip link`")]
    NoSuchInterface(String),
    /// An interface without ARP and ND.
    #[error("cannot announce or check on {interface}: it {why}")]
    UnfitInterface {
        /// Its name.
        interface: String,
        /// What it is, or lacks.
        why: String,
    },
    /// A subnet is too large for `--confirm subnet`.
    #[error(
        "{vip} is in {subnet}: `--confirm subnet` asks every address of a subnet of at most {most}; use \
         `--confirm all`, and name other hosts by --peer",
        most = Prefix::MOST_SWEPT
    )]
    SubnetTooLarge {
        /// The VIP.
        vip: Vip,
        /// Its subnet.
        subnet: Prefix,
    },
    /// keepalived.conf has no VIP that the command could be about.
    #[error("there is nothing to do: {} has no virtual IP", .0.display())]
    NoVip(PathBuf),
    /// An instance has none.
    #[error("there is nothing to do: vrrp_instance {instance} in {} has no virtual IP", file.display())]
    InstanceWithoutVip {
        /// The instance.
        instance: String,
        /// keepalived.conf.
        file: PathBuf,
    },
    /// A key for orders can't be used, or written.
    #[error(transparent)]
    Key(#[from] key_file::Error),
    /// A VIP is elsewhere, so its MAC is not known.
    #[error("{0} is not on this host: name its MAC by --mac")]
    NoMac(Vip),
    /// No peer to order.
    #[error("there is no peer to order: name peers by --peer")]
    NoPeer,
    /// No socket to receive orders.
    #[error("there is no socket for orders: start this by systemd's socket unit, or use --bind")]
    NoSocket,
    /// The socket that systemd passed can't be used.
    #[error("cannot use the socket that systemd passed: {0}{advice}", advice = advice_on_call(.0))]
    Activation(io::Error),
    /// The address can't be bound.
    #[error("cannot listen at {address}: {source}{}", advice_on_call(.source))]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The program could not be copied.
    #[error("cannot write {}: {source}{}", path.display(), advice_on_file(.source))]
    Copy {
        /// Where to.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The runtime could not be started, or broke.
    #[error("cannot wait for events: {0}{advice}", advice = advice_on_call(.0))]
    Runtime(io::Error),
    /// The history can't be read.
    #[error("cannot read the history {}: {source}{}", path.display(), advice_on_file(.source))]
    History {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The history has no announcement to plot.
    #[error("there is nothing to plot: no receipt in {} is of such an announcement", .0.display())]
    NoFailover(PathBuf),
    /// The plot could not be written.
    #[error("cannot write {}: {source}{}", path.display(), advice_on_file(.source))]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The report could not be written.
    #[error("cannot write to stdout: {0}{advice}", advice = advice_on_call(.0))]
    Stdout(io::Error),
}

/// keepalived reads its file as root, but may run hooks as another user, who may not.
fn advice(error: &keepalived::Error) -> String {
    match error {
        keepalived::Error::Unreadable { source, .. } => advice_on_file(source),
        _ => String::new(),
    }
}
