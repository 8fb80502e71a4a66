//! What the kernel says: addresses, links, neighbours and their changes, through rtnetlink.
//!
//! [`Kernel`] asks; [`Changes`] is told. The one who needs to know what holds *now* opens
//! [`Changes`] first and asks after, so that nothing slips in between.

mod addresses;
mod changes;
mod links;
mod neighbours;
mod routes;
mod snapshot;

use std::future::Future;
use std::io;
use std::time::Duration;

pub use changes::{Change, Changes, Drained};
pub use neighbours::Replace;

use crate::privileges::Capability;

/// No answer for this long means that something is badly wrong: an answer takes microseconds,
/// a dump of a large table milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why the kernel could not be asked, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The netlink socket could not be had.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {doing}: {source}{}", advice(.source))]
    Refused {
        /// What was asked, as a verb: "delete the neighbour entry …".
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The answer did not come, or could not be understood.
    #[error("the kernel gave no usable answer when asked to {doing}: {reason}")]
    NoAnswer {
        /// What was asked, as a verb.
        doing: String,
        /// What came instead.
        reason: String,
    },
}

fn advice(refusal: &io::Error) -> String {
    match refusal.kind() {
        io::ErrorKind::PermissionDenied => format!(": {}", Capability::NetAdmin.advice()),
        io::ErrorKind::Unsupported => ": vipherald needs Linux 5.0 or later".to_owned(),
        _ => String::new(),
    }
}

/// A connection that requests go through.
#[derive(Debug)]
pub struct Kernel {
    handle: rtnetlink::Handle,
}

impl Kernel {
    /// Connects to this network namespace's rtnetlink. Needs a running tokio runtime.
    ///
    /// The kernel checks requests strictly (`NETLINK_GET_STRICT_CHK`): only then does it filter
    /// dumps by interface.
    ///
    /// # Errors
    /// [`Error::Open`] if the process may open no more sockets.
    pub fn connect() -> Result<Self, Error> {
        let (connection, handle, _unsolicited) =
            rtnetlink::new_connection_with_strict_check().map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

/// Awaits one answer, for a bounded time, and words what went wrong.
async fn answered<T>(
    doing: impl Fn() -> String,
    answer: impl Future<Output = Result<T, rtnetlink::Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(rtnetlink::Error::NetlinkError(refusal))) => Err(Error::Refused {
            doing: doing(),
            source: refusal.to_io(),
        }),
        Ok(Err(other)) => Err(Error::NoAnswer {
            doing: doing(),
            reason: other.to_string(),
        }),
        Err(_) => Err(Error::NoAnswer {
            doing: doing(),
            reason: format!("nothing came in {} s", PATIENCE.as_secs()),
        }),
    }
}

impl Error {
    /// Whether the kernel's answer was that the thing asked for is not there.
    fn is_absent(&self) -> bool {
        match self {
            Self::Refused { source, .. } => matches!(
                source.raw_os_error(),
                Some(
                    nix::libc::ENOENT
                        | nix::libc::ENODEV
                        | nix::libc::ENXIO
                        | nix::libc::EADDRNOTAVAIL
                )
            ),
            _ => false,
        }
    }
}
