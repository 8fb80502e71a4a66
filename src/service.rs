//! What a service tells systemd (sd_notify(3)).

use std::env;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::debug;

/// systemd, if it started this process and wants to hear of it.
#[derive(Debug)]
pub(crate) struct Service {
    manager: Option<(UnixDatagram, SocketAddr)>,
    /// How often to say that this process lives.
    watchdog: Option<Duration>,
}

impl Service {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let address = env::var_os("NOTIFY_SOCKET").and_then(|name| {
            let address = match name.as_bytes().strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&name),
            };
            address.ok()
        });
        let socket = || {
            let socket = UnixDatagram::unbound()?;
            // A manager that does not read must not stop this process.
            socket.set_nonblocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let manager = address.and_then(|address| Some((socket().ok()?, address)));
        let number = |name| env::var(name).ok()?.parse::<u64>().ok();
        let own = u64::from(std::process::id());
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == own);
        let limit = number("WATCHDOG_USEC").filter(|limit| is_ours && *limit > 0);
        Self {
            watchdog: limit
                .filter(|_| manager.is_some())
                .map(|limit| Duration::from_micros(limit / 2)),
            manager,
        }
    }

    /// How often to call [`Service::lives`].
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// It does what it is for; `status` says in a line what that is.
    pub(crate) fn is_ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// It lives.
    pub(crate) fn lives(&self) {
        self.tell("WATCHDOG=1");
    }

    /// It ends.
    pub(crate) fn stops(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.manager
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            debug!("systemd does not hear of this service: {error}");
        }
    }
}
