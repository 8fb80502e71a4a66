//! Addresses, links, neighbours, routes and their changes, through rtnetlink.
//!
//! [`Kernel`] sends requests; [`Changes`] receives notifications. To know what holds *now*, open
//! [`Changes`] first and ask afterwards, so that nothing slips in between.

mod addresses;
mod changes;
mod giving_way;
mod links;
mod neighbours;
mod routes;
mod snapshot;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{TryStream, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::sys::AsyncSocket;

pub use changes::{Change, Changes, Drained};
pub use neighbours::Replace;

use crate::privileges::{Capability, advice_on_call};
use giving_way::GivingWay;

/// An answer takes microseconds, a dump of a large table milliseconds: after this time, something is
/// badly wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}{advice}", advice = advice_on_call(.0))]
    Open(io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to {doing}: {source}{}", advice(.source))]
    Refused {
        /// The request, as a verb: "delete the neighbour entry …".
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No answer came, or one that makes no sense.
    #[error("the kernel gave no usable answer when asked to {doing}: {reason}")]
    NoAnswer {
        /// The request, as a verb.
        doing: String,
        /// What came instead.
        reason: String,
    },
}

fn advice(refusal: &io::Error) -> String {
    match refusal.kind() {
        io::ErrorKind::PermissionDenied => format!(": {}", Capability::NetAdmin.advice()),
        io::ErrorKind::Unsupported => ": vipherald needs Linux 5.0 or later".to_owned(),
        _ => advice_on_call(refusal).to_owned(),
    }
}

/// A connection for requests.
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
        let (mut connection, handle, _unsolicited) =
            rtnetlink::new_connection_with_socket::<GivingWay>().map_err(Error::Open)?;
        let socket = connection.socket_mut().socket_mut();
        socket
            .set_netlink_get_strict_chk(true)
            .map_err(Error::Open)?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }
}

fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

/// Waits for one answer, for a bounded time.
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

/// Takes each entry of a dump as it comes: a large table takes long.
async fn each<T>(
    doing: &str,
    mut dump: impl TryStream<Ok = T, Error = rtnetlink::Error> + Unpin,
    mut take: impl FnMut(T),
) -> Result<(), Error> {
    let all = async {
        while let Some(entry) = dump.try_next().await? {
            take(entry);
        }
        Ok(())
    };
    answered(|| doing.to_owned(), all).await
}

impl Error {
    /// Whether the kernel answered that there is no such thing.
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
