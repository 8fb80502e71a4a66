//! Results, exit statuses, and which result means which status.

use serde::Serialize;
use vipherald_core::ask::VipVerdict;

use crate::error::Error;

/// The statuses that scripts and monitors rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, and nothing contradicts it.
    Done = 0,
    /// No privilege, or an error of netlink or I/O; the message says what to do.
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
    /// Ended by SIGINT, as a shell has it (128 + 2).
    Interrupted = 130,
    /// Ended by SIGTERM (128 + 15).
    Terminated = 143,
}

/// The statuses of a monitoring plugin, as Nagios and its kin define them, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plugin {
    /// Nothing is wrong.
    Ok,
    /// Somebody should look at it.
    Warning,
    /// The check could not find out.
    Unknown,
    /// Somebody has to act.
    Critical,
}

/// How an announcement ended, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnounceResult {
    /// Another host claims a VIP.
    Conflict,
    /// Frames could not leave.
    Failed,
    /// A VIP was not here, or left.
    NotHeld,
    /// A peer follows a wrong MAC, or a required one is silent.
    Unproven,
    /// A newer run announces a VIP.
    Superseded,
    /// Every VIP was announced.
    Ok,
}

/// How `order` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum OrderResult {
    /// Every peer has no wrong entry left, or it is a dry run.
    Ok,
    /// A peer kept its entry, refused, or did not answer.
    Unproven,
}

/// How a purge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PurgeResult {
    /// No entry is left but those with a reason to stay.
    Ok,
    /// This host holds a VIP itself.
    HeldHere,
}

/// How `release` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseResult {
    /// None of the VIPs is left on this host, or, in a dry run, none would be.
    Ok,
    /// A VIP was kept.
    Kept,
}

impl AnnounceResult {
    /// As in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::NotHeld => "not-held",
            Self::Unproven => "unproven",
            Self::Superseded => "superseded",
            Self::Ok => "ok",
        }
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::Settings(_)
            | Error::Key(_)
            | Error::NoMac(_)
            | Error::NoPeer
            | Error::SubnetTooLarge { .. } => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl From<AnnounceResult> for Exit {
    fn from(result: AnnounceResult) -> Self {
        match result {
            AnnounceResult::Ok => Self::Done,
            AnnounceResult::Failed => Self::Failed,
            AnnounceResult::Unproven => Self::Unproven,
            AnnounceResult::Conflict => Self::Conflict,
            AnnounceResult::NotHeld => Self::Contradicted,
            AnnounceResult::Superseded => Self::Superseded,
        }
    }
}

impl From<OrderResult> for Exit {
    fn from(result: OrderResult) -> Self {
        match result {
            OrderResult::Ok => Self::Done,
            OrderResult::Unproven => Self::Unproven,
        }
    }
}

impl From<PurgeResult> for Exit {
    fn from(result: PurgeResult) -> Self {
        match result {
            PurgeResult::Ok => Self::Done,
            PurgeResult::HeldHere => Self::Contradicted,
        }
    }
}

impl From<ReleaseResult> for Exit {
    fn from(result: ReleaseResult) -> Self {
        match result {
            ReleaseResult::Ok => Self::Done,
            ReleaseResult::Kept => Self::Contradicted,
        }
    }
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

impl From<Plugin> for Exit {
    /// The exit status of the same number.
    fn from(plugin: Plugin) -> Self {
        match plugin {
            Plugin::Ok => Self::Done,
            Plugin::Warning => Self::Failed,
            Plugin::Critical => Self::Usage,
            Plugin::Unknown => Self::Unproven,
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
}
