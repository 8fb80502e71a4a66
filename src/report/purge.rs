//! What became of a purge.

use std::collections::BTreeMap;

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::host::NeighbourState;

use super::{Line, Report, list};
use crate::exit::Exit;
use crate::purge::{self, Kept, Purged};

/// How a purge ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PurgeResult {
    /// No entry is left but those with a reason to stay.
    Ok,
    /// This host holds a VIP itself.
    HeldHere,
}

/// What became of a purge.
#[derive(Debug, Serialize)]
pub struct PurgeReport {
    command: &'static str,
    version: &'static str,
    instance: Option<String>,
    result: PurgeResult,
    dry_run: bool,
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
    action: &'static str,
    reason: Option<&'static str>,
}

impl PurgeReport {
    /// Words what a purge did, for the instance or group of this name.
    #[must_use]
    pub fn new(name: Option<&str>, order: &purge::Request, purged: &Purged) -> Self {
        let dry_run = order.dry_run;
        let mut held: BTreeMap<&str, Vec<Vip>> = BTreeMap::new();
        for (vip, interface) in &purged.held_here {
            held.entry(interface).or_default().push(*vip);
        }
        let held = held.into_iter().map(|(interface, vips)| {
            let text = format!("{} held here, on {interface}: nothing purged", list(&vips));
            Line(Level::Warn, text)
        });
        let entries = purged.entries.iter().map(|entry| {
            let was = match entry.mac {
                Some(mac) => format!("{mac} {}", state_name(entry.state)),
                None => state_name(entry.state),
            };
            match entry.kept {
                None => Line(
                    Level::Info,
                    format!("{} purged on {}: was {was}", entry.vip, entry.interface),
                ),
                Some(why) => Line(if dry_run { Level::Info } else { Level::Warn }, {
                    let (vip, on, why) = (entry.vip, &entry.interface, why.reason());
                    format!("{vip} kept on {on} as {was}: {why}")
                }),
            }
        });
        let unknown: Vec<_> = order
            .vips
            .iter()
            .map(|placed| placed.vip)
            .filter(|vip| purged.entries.iter().all(|entry| entry.vip != *vip))
            .filter(|vip| purged.held_here.iter().all(|(held, _)| held != vip))
            .collect();
        let nothing = (!unknown.is_empty()).then(|| {
            let text = format!("{} purged: no entry was there", list(&unknown));
            Line(Level::Info, text)
        });
        Self {
            command: "purge",
            version: env!("CARGO_PKG_VERSION"),
            result: if purged.held_here.is_empty() {
                PurgeResult::Ok
            } else {
                PurgeResult::HeldHere
            },
            dry_run,
            instance: name.map(str::to_owned),
            lines: held
                .chain(entries)
                .chain(nothing)
                .map(|line| line.about(name))
                .collect(),
            entries: purged
                .entries
                .iter()
                .map(|entry| PurgedEntry {
                    address: entry.vip,
                    interface: entry.interface.clone(),
                    mac: entry.mac,
                    state: entry.state,
                    action: if entry.kept.is_some() {
                        "kept"
                    } else {
                        "deleted"
                    },
                    reason: entry.kept.map(Kept::reason),
                })
                .collect(),
        }
    }

    /// The exit status that tells the result.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.result {
            PurgeResult::Ok => Exit::Done,
            PurgeResult::HeldHere => Exit::Contradicted,
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
}
