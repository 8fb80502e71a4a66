//! What a purge did.

use std::collections::BTreeMap;

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::host::NeighbourState;

use super::{Action, Header, Line, Report, list};
use crate::exit::{Exit, PurgeResult};
use crate::journal::{Kind, Notice};
use crate::purge::{self, Entry, Kept, Purged};

/// What a purge did.
#[derive(Debug, Serialize)]
pub struct PurgeReport {
    #[serde(flatten)]
    header: Header<PurgeResult>,
    entries: Vec<PurgedEntry>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct PurgedEntry {
    address: Vip,
    interface: String,
    mac: Option<Mac>,
    state: NeighbourState,
    action: Action,
    reason: Option<&'static str>,
}

impl PurgeReport {
    /// Reports on a purge, for the instance or group of this name, or for none.
    #[must_use]
    pub fn new(name: Option<&str>, request: &purge::Request, purged: &Purged) -> Self {
        let dry_run = request.dry_run;
        let result = if purged.held_here.is_empty() {
            PurgeResult::Ok
        } else {
            PurgeResult::HeldHere
        };
        let mut held: BTreeMap<&str, Vec<Vip>> = BTreeMap::new();
        for (vip, interface) in &purged.held_here {
            held.entry(interface).or_default().push(*vip);
        }
        let held = held.into_iter().map(|(interface, vips)| {
            let text = format!("{} held here, on {interface}: nothing purged", list(&vips));
            Line::new(Level::Warn, text)
        });
        let entries = purged
            .entries
            .iter()
            .map(|entry| entry_line(entry, dry_run));
        let is_known = |vip: &Vip| {
            let mut held = purged.held_here.iter().map(|(vip, _)| vip);
            purged.entries.iter().any(|entry| entry.vip == *vip) || held.any(|held| held == vip)
        };
        let vips = request.vips.iter().map(|placed| placed.vip);
        let unknown: Vec<_> = vips.filter(|vip| !is_known(vip)).collect();
        let nothing = (!unknown.is_empty()).then(|| {
            let text = format!("{} purged: no entry was there", list(&unknown));
            Line::new(Level::Info, text)
        });
        let lines = held.chain(entries).chain(nothing);
        Self {
            header: Header::new("purge", result).about(name).dry_run(dry_run),
            lines: lines.map(|line| line.about(name)).collect(),
            entries: purged.entries.iter().map(PurgedEntry::of).collect(),
        }
    }
}

fn entry_line(entry: &Entry, dry_run: bool) -> Line {
    let (vip, on, state) = (entry.vip, &entry.interface, state_name(entry.state));
    let was = entry
        .mac
        .map_or(state.clone(), |mac| format!("{mac} {state}"));
    match entry.kept {
        None => {
            let notice = Notice::new(Kind::Purged)
                .with("VIP", &vip)
                .with("INTERFACE", on)
                .with_each("MAC", entry.mac);
            Line::new(Level::Info, format!("{vip} purged on {on}: was {was}")).of(notice)
        }
        Some(why) => {
            let level = if dry_run { Level::Info } else { Level::Warn };
            let text = format!("{vip} kept on {on} as {was}: {}", why.reason());
            Line::new(level, text)
        }
    }
}

impl PurgedEntry {
    fn of(entry: &Entry) -> Self {
        Self {
            address: entry.vip,
            interface: entry.interface.clone(),
            mac: entry.mac,
            state: entry.state,
            action: if entry.kept.is_some() {
                Action::Kept
            } else {
                Action::Deleted
            },
            reason: entry.kept.map(Kept::reason),
        }
    }
}

pub(super) fn state_name(state: NeighbourState) -> String {
    format!("{state:?}").to_uppercase()
}

impl Report for PurgeReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }

    fn exit(&self) -> Exit {
        self.header.result.into()
    }

    /// Most purges find nothing.
    fn is_worth_a_receipt(&self) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| matches!(entry.action, Action::Deleted))
    }
}
