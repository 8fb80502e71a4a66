//! Exit statuses: what the caller of `vipherald` learns without reading a word.

use std::process::ExitCode;

/// The statuses that scripts and monitors rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and nothing contradicts it.
    Done = 0,
    /// No privilege, netlink or I/O trouble; the message says what to do.
    Failed = 1,
    /// The command line, the settings or the key are wrong.
    Usage = 2,
    /// A peer follows a wrong MAC, or a required one stays silent.
    Unproven = 3,
    /// Another host claims the VIP.
    Conflict = 4,
    /// The kernel contradicts the request: the VIP is not here, or it left (`announce`); the
    /// VIP is here (`purge`); keepalived may be alive (`release`).
    Contradicted = 5,
    /// A newer run announces the same VIPs.
    Superseded = 6,
    /// Ended by SIGINT, told as a shell does (128 + 2).
    Interrupted = 130,
    /// Ended by SIGTERM (128 + 15).
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
