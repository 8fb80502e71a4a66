//! Exit statuses: what the caller of `vipherald` learns without reading a word.

use vipherald_core::ask::VipVerdict;

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
    /// VIP is here (`purge`); nobody has it (`check`); keepalived may be alive (`release`).
    Contradicted = 5,
    /// A newer run announces the same VIPs.
    Superseded = 6,
    /// Ended by SIGINT, told as a shell does (128 + 2).
    Interrupted = 130,
    /// Ended by SIGTERM (128 + 15).
    Terminated = 143,
}

/// The statuses of a monitoring plugin, as Nagios and its kin define them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// All is well.
    Ok,
    /// Somebody should look.
    Warning,
    /// Somebody has to act.
    Critical,
    /// It could not be found out.
    Unknown,
}

impl From<VipVerdict> for Exit {
    fn from(verdict: VipVerdict) -> Self {
        match verdict {
            VipVerdict::Ok => Self::Done,
            VipVerdict::Failed => Self::Failed,
            VipVerdict::Stale | VipVerdict::Unproven => Self::Unproven,
            VipVerdict::Conflict => Self::Conflict,
            VipVerdict::Unowned => Self::Contradicted,
        }
    }
}

impl From<VipVerdict> for Plugin {
    fn from(verdict: VipVerdict) -> Self {
        match verdict {
            VipVerdict::Ok => Self::Ok,
            VipVerdict::Unproven => Self::Warning,
            VipVerdict::Stale | VipVerdict::Conflict | VipVerdict::Unowned => Self::Critical,
            VipVerdict::Failed => Self::Unknown,
        }
    }
}

impl Plugin {
    /// As plugins print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Which of several a plugin tells: the one of most weight.
    #[must_use]
    pub fn weight(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Unknown => 2,
            Self::Critical => 3,
        }
    }

    /// The exit status of this number.
    #[must_use]
    pub fn exit(self) -> Exit {
        match self {
            Self::Ok => Exit::Done,
            Self::Warning => Exit::Failed,
            Self::Critical => Exit::Usage,
            Self::Unknown => Exit::Unproven,
        }
    }
}
