//! What `release` did.

use log::Level;
use serde::Serialize;
use vipherald_core::address::Vip;

use super::{Action, Header, Line, Report};
use crate::exit::{Exit, ReleaseResult};
use crate::journal::{Kind, Notice};
use crate::release::{Doubt, Held};

/// What `release` did.
#[derive(Debug, Serialize)]
pub struct ReleaseReport {
    #[serde(flatten)]
    header: Header<ReleaseResult>,
    addresses: Vec<ReleasedAddress>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct ReleasedAddress {
    address: Vip,
    interface: String,
    action: Action,
    reason: Option<String>,
}

impl ReleaseReport {
    /// Reports on the VIPs that this host held.
    #[must_use]
    pub fn new(held: &[Held], dry_run: bool) -> Self {
        let as_asked = |held: &Held| matches!(held.kept, None | Some(Doubt::DryRun));
        let result = if held.iter().all(as_asked) {
            ReleaseResult::Ok
        } else {
            ReleaseResult::Kept
        };
        let mut lines: Vec<_> = held.iter().map(line).collect();
        if held.is_empty() {
            let text =
                "none of the VIPs is on this host where keepalived puts it: nothing to release";
            lines.push(Line::new(Level::Info, text.to_owned()));
        }
        Self {
            header: Header::new("release", result).dry_run(dry_run),
            addresses: held.iter().map(ReleasedAddress::of).collect(),
            lines,
        }
    }
}

fn line(held: &Held) -> Line {
    let (vip, on) = (held.vip, &held.interface);
    match &held.kept {
        None => {
            let notice = Notice::new(Kind::Released)
                .with("VIP", &vip)
                .with("INTERFACE", on);
            Line::new(Level::Warn, format!("{vip} released on {on}")).of(notice)
        }
        Some(Doubt::DryRun) => Line::new(Level::Info, format!("{vip} would be released on {on}")),
        Some(doubt) => Line::new(Level::Warn, format!("{vip} kept on {on}: {doubt}")),
    }
}

impl ReleasedAddress {
    fn of(held: &Held) -> Self {
        Self {
            address: held.vip,
            interface: held.interface.clone(),
            action: if held.kept.is_none() {
                Action::Released
            } else {
                Action::Kept
            },
            reason: held.kept.as_ref().map(Doubt::to_string),
        }
    }
}

impl Report for ReleaseReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }

    fn exit(&self) -> Exit {
        self.header.result.into()
    }
}
