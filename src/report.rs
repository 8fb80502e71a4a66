//! What happened, for people (log lines) and for programs (JSON).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use log::{Level, log};
use serde::Serialize;

use crate::address::{Mac, Vip};
use crate::announce::{Announcement, Claim, Standing};
use crate::exit::Exit;
use crate::kernel::NeighbourState;
use crate::purge::Purged;

/// VIPs that one line names; of more it gives the number.
const NAMED: usize = 4;

/// One line for people, with its weight.
#[derive(Debug, PartialEq, Eq)]
struct Line(Level, String);

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
    /// Every VIP was announced.
    Ok,
}

impl AnnounceResult {
    fn exit(self) -> Exit {
        match self {
            Self::Conflict => Exit::Conflict,
            Self::Failed => Exit::Failed,
            Self::NotHeld => Exit::Contradicted,
            Self::Ok => Exit::Done,
        }
    }
}

/// What became of an announcement.
#[derive(Debug, Serialize)]
pub struct AnnounceReport {
    command: &'static str,
    version: &'static str,
    instance: Option<String>,
    result: AnnounceResult,
    dry_run: bool,
    duration_ms: u64,
    frames_sent: u32,
    vips: Vec<AnnouncedVip>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct AnnouncedVip {
    address: Vip,
    interface: Option<String>,
    mac: Option<Mac>,
    held: bool,
    frames_sent: u32,
    conflicts: Vec<Conflict>,
}

#[derive(Debug, Serialize)]
struct Conflict {
    mac: Option<Mac>,
    host: Option<IpAddr>,
}

impl AnnounceReport {
    /// Reads the state of a run that ended after `lasted`.
    #[must_use]
    pub fn new(core: &Announcement, lasted: Duration) -> Self {
        Self::read(core, lasted, false)
    }

    fn read(core: &Announcement, lasted: Duration, dry_run: bool) -> Self {
        let mut results = vec![AnnounceResult::Ok];
        // One line for all VIPs that fared alike.
        let mut alike: BTreeMap<(AnnounceResult, String), (Vec<Vip>, u32)> = BTreeMap::new();
        for claim in core.claims() {
            let (result, fate) = fate_of(claim, dry_run);
            results.push(result);
            let (vips, frames) = alike.entry((result, fate)).or_default();
            vips.push(claim.vip);
            *frames += claim.frames_sent;
        }
        for vip in core.absent() {
            results.push(AnnounceResult::NotHeld);
            let fate = "not on this host: nothing announced".to_owned();
            let group = alike.entry((AnnounceResult::NotHeld, fate)).or_default();
            group.0.push(vip);
        }
        let lines = alike
            .into_iter()
            .map(|((result, fate), (vips, frames))| {
                let level = match result {
                    AnnounceResult::Ok => Level::Info,
                    AnnounceResult::NotHeld => Level::Warn,
                    AnnounceResult::Failed | AnnounceResult::Conflict => Level::Error,
                };
                let sent = match frames {
                    0 => String::new(),
                    _ => format!(": {} in {}", count(frames, "frame"), seconds(lasted)),
                };
                Line(level, format!("{} {fate}{sent}", list(&vips)))
            })
            .collect();
        Self {
            command: "announce",
            version: env!("CARGO_PKG_VERSION"),
            instance: None,
            result: results.into_iter().min().unwrap_or(AnnounceResult::Ok),
            dry_run,
            duration_ms: u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX),
            frames_sent: core.claims().iter().map(|claim| claim.frames_sent).sum(),
            vips: core
                .claims()
                .iter()
                .map(AnnouncedVip::from)
                .chain(core.absent().map(AnnouncedVip::absent))
                .collect(),
            lines,
        }
    }

    /// What a run would do that has looked at the host, and shall not send.
    #[must_use]
    pub fn planned(core: &Announcement) -> Self {
        let mut report = Self::read(core, Duration::ZERO, true);
        report.lines = core
            .claims()
            .iter()
            .map(|claim| (claim, fate_of(claim, true).1))
            .map(|(claim, fate)| match claim.standing() {
                Standing::Ready => {
                    let frames = claim.planned_frames();
                    let time = seconds(Claim::planned_time());
                    format!("{} would be {fate}: {frames} frames in {time}", claim.vip)
                }
                _ => format!("{} {fate}", claim.vip),
            })
            .chain(
                core.absent()
                    .map(|vip| format!("{vip} is not on this host")),
            )
            .map(|text| Line(Level::Info, text))
            .collect();
        report
    }

    /// The exit status that tells the result.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.result.exit()
    }
}

/// How one claim ended, and the words for it, to follow the VIP.
fn fate_of(claim: &Claim, dry_run: bool) -> (AnnounceResult, String) {
    let name = &claim.link.name;
    match claim.standing() {
        Standing::Left => (AnnounceResult::NotHeld, format!("left {name}: stopped")),
        Standing::DadFailed => (
            AnnounceResult::Conflict,
            format!(
                "is not announced: duplicate address detection on {name} found another owner; \
                 find it with `ndisc6` or in the switch's tables, and take the address from it"
            ),
        ),
        Standing::Unfit(why) => (
            AnnounceResult::Failed,
            format!("cannot be announced on {name}: it {why}"),
        ),
        Standing::Waiting(why) => (
            AnnounceResult::Failed,
            format!("could not be announced on {name} to the end: {why}"),
        ),
        Standing::Ready => match (claim.mac(), claim.last_refusal) {
            (_, Some(errno)) if claim.frames_sent == 0 => (
                AnnounceResult::Failed,
                format!("could not be announced: {name} takes no frames ({errno})"),
            ),
            (Some(_), None) if claim.frames_sent == 0 && !dry_run => (
                AnnounceResult::Failed,
                format!(
                    "not announced on {name}: the run ended before its turn came; with so many \
                     VIPs, raise --rate or --timeout"
                ),
            ),
            (Some(mac), _) => (AnnounceResult::Ok, format!("announced on {name} as {mac}")),
            (None, _) => (AnnounceResult::Failed, format!("{name} has no MAC")),
        },
    }
}

impl From<&Claim> for AnnouncedVip {
    fn from(claim: &Claim) -> Self {
        let dad_failed = claim.standing() == Standing::DadFailed;
        Self {
            address: claim.vip,
            interface: Some(claim.link.name.clone()),
            mac: claim.mac(),
            held: claim.standing() != Standing::Left,
            frames_sent: claim.frames_sent,
            conflicts: dad_failed
                .then_some(Conflict {
                    mac: None,
                    host: None,
                })
                .into_iter()
                .collect(),
        }
    }
}

impl AnnouncedVip {
    fn absent(vip: Vip) -> Self {
        Self {
            address: vip,
            interface: None,
            mac: None,
            held: false,
            frames_sent: 0,
            conflicts: Vec::new(),
        }
    }
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

/// What became of a purge.
#[derive(Debug, Serialize)]
pub struct PurgeReport {
    command: &'static str,
    version: &'static str,
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
    /// Words what a purge of `vips` did.
    #[must_use]
    pub fn new(vips: &[Vip], purged: &Purged, dry_run: bool) -> Self {
        let held = purged.held_here.iter().map(|(vip, interface)| {
            let text = format!("{vip} is held here, on {interface}: nothing purged");
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
                Some(why) => Line(
                    if dry_run { Level::Info } else { Level::Warn },
                    format!("{} kept on {} as {was}: {why}", entry.vip, entry.interface),
                ),
            }
        });
        let unknown: Vec<_> = vips
            .iter()
            .filter(|vip| purged.entries.iter().all(|entry| entry.vip != **vip))
            .filter(|vip| purged.held_here.iter().all(|(held, _)| held != *vip))
            .copied()
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
            lines: held.chain(entries).chain(nothing).collect(),
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
                    reason: entry.kept,
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

/// A report that can be given to people and programs.
pub trait Report: Serialize {
    /// Writes the lines for people to the log.
    fn log(&self);

    /// The lines for people as one text.
    fn text(&self) -> String;
}

macro_rules! report_by_lines {
    ($report:ty) => {
        impl Report for $report {
            fn log(&self) {
                for Line(level, text) in &self.lines {
                    log!(*level, "{text}");
                }
            }

            fn text(&self) -> String {
                self.lines
                    .iter()
                    .map(|Line(_, text)| format!("{text}\n"))
                    .collect()
            }
        }
    };
}
report_by_lines!(AnnounceReport);
report_by_lines!(PurgeReport);

fn state_name(state: NeighbourState) -> String {
    format!("{state:?}").to_uppercase()
}

fn list(vips: &[Vip]) -> String {
    let named: Vec<_> = vips.iter().take(NAMED).map(Vip::to_string).collect();
    match vips.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn count(number: u32, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
