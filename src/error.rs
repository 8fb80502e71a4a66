//! Why a command could not do its work: what happened, where, and what to do next.

use std::io;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::{keepalived, kernel, port, settings};

/// A failure of a whole run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel could not be asked, or refused.
    #[error(transparent)]
    Kernel(#[from] kernel::Error),
    /// No packet socket.
    #[error(transparent)]
    Port(#[from] port::Error),
    /// The settings file is wrong.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// keepalived.conf does not tell what was asked for.
    #[error(transparent)]
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
    /// The runtime could not be had or broke.
    #[error("cannot wait for events: {0}")]
    Runtime(io::Error),
    /// The report could not be written.
    #[error("cannot write to stdout: {0}")]
    Stdout(io::Error),
}

impl Error {
    /// The exit status that tells it.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}
