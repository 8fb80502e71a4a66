//! What happened: log lines for people, JSON for programs.

mod announce;
mod asked_peer;
mod caps;
mod check;
mod findings;
mod judged;
mod news;
mod order;
mod purge;
mod release;
mod show;
mod wording;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use log::Level;
use serde::Serialize;
use vipherald_core::address::Vip;

pub use announce::AnnounceReport;
pub use check::{CheckReport, Checked, plugin_line};
pub use findings::Background;
pub use news::Told;
pub use order::{OrderReport, RefusedReport};
pub use purge::PurgeReport;
pub use release::ReleaseReport;
pub use show::ShowReport;

use crate::exit::Exit;
use crate::journal::Notice;
use crate::logging;
use crate::printable::one_line;

/// Addresses that one line names; of more it gives the number.
const NAMED: usize = 4;

/// What a report begins with in JSON.
#[derive(Debug, Serialize)]
struct Header<R> {
    command: &'static str,
    version: &'static str,
    #[serde(flatten)]
    subject: Option<Subject>,
    result: R,
    #[serde(skip_serializing_if = "Option::is_none")]
    dry_run: Option<bool>,
}

/// The instance or group that a command named; null if VIPs were named.
#[derive(Debug, Serialize)]
struct Subject {
    instance: Option<String>,
}

impl<R> Header<R> {
    fn new(command: &'static str, result: R) -> Self {
        Self {
            command,
            version: env!("CARGO_PKG_VERSION"),
            subject: None,
            result,
            dry_run: None,
        }
    }

    fn about(self, name: Option<&str>) -> Self {
        let instance = name.map(str::to_owned);
        Self {
            subject: Some(Subject { instance }),
            ..self
        }
    }

    fn dry_run(self, dry_run: bool) -> Self {
        Self {
            dry_run: Some(dry_run),
            ..self
        }
    }
}

/// What a command did to an entry or an address.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Announced,
    Deleted,
    Kept,
    Released,
}

/// A line for people, with its log level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    level: Level,
    text: String,
    notice: Option<Notice>,
}

impl Line {
    /// A line of this level.
    pub(crate) fn new(level: Level, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
            notice: None,
        }
    }

    /// The same with what the journal gets.
    pub(crate) fn of(self, notice: Notice) -> Self {
        Self {
            notice: Some(notice),
            ..self
        }
    }

    /// Writes it to the log.
    pub fn log(&self) {
        logging::say(self.level, &self.text, self.notice.as_ref());
    }

    /// Whether it tells of an error.
    pub(crate) fn is_error(&self) -> bool {
        self.level == Level::Error
    }

    /// The same for those who look closely, unless it tells of an error.
    pub(crate) fn quiet(self) -> Self {
        match self.level {
            Level::Error => self,
            level => Self {
                level: level.max(Level::Debug),
                ..self
            },
        }
    }

    /// Puts the name of the instance or group in front.
    pub(crate) fn about(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => Self {
                text: format!("{name}: {}", self.text),
                notice: self.notice.map(|notice| notice.with("INSTANCE", name)),
                ..self
            },
            None => self,
        }
    }
}

/// A report for people and programs.
pub trait Report: Serialize {
    /// What it says to people.
    fn lines(&self) -> Vec<Line>;

    /// The exit status that its result means.
    fn exit(&self) -> Exit;

    /// When the run began; `None` if it took no time worth mentioning.
    fn began(&self) -> Option<Instant> {
        None
    }

    /// Leaves out what no receipt keeps, so that to write a long one takes no time.
    fn shorten(&mut self) {}

    /// Whether the history keeps it.
    fn is_worth_a_receipt(&self) -> bool {
        true
    }

    /// Writes the lines to the log.
    fn log(&self) {
        for line in self.lines() {
            line.log();
        }
    }

    /// The lines as one text.
    fn text(&self) -> String {
        let lines = self.lines().into_iter();
        lines
            .map(|line| one_line(&line.text).into_owned() + "\n")
            .collect()
    }
}

/// A command that failed.
#[derive(Debug, Serialize)]
pub struct FailureReport {
    #[serde(flatten)]
    header: Header<Failed>,
    error: String,
    #[serde(skip)]
    exit: Exit,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Failed {
    Failed,
}

impl FailureReport {
    /// Says why a command failed.
    #[must_use]
    pub fn new(command: &'static str, error: &str, exit: Exit) -> Self {
        Self {
            header: Header::new(command, Failed::Failed),
            error: error.to_owned(),
            exit,
        }
    }
}

impl Report for FailureReport {
    fn lines(&self) -> Vec<Line> {
        vec![Line::new(Level::Error, self.error.clone())]
    }

    fn exit(&self) -> Exit {
        self.exit
    }
}

/// How a Linux host ceases to answer as a proxy for addresses such as this VIP.
fn proxy_off(vip: Vip) -> &'static str {
    match vip.ip() {
        IpAddr::V4(_) => "`sysctl -w net.ipv4.conf.IF.proxy_arp=0`",
        // The kernel's own proxy_ndp answers for single addresses only (`ip -6 neigh show proxy`).
        IpAddr::V6(_) => "stop what proxies there, such as ndppd",
    }
}

/// How a Linux host shows the single addresses, such as this VIP, for which it answers as a proxy.
fn show_proxies(vip: Vip) -> &'static str {
    match vip.ip() {
        IpAddr::V4(_) => "ip neigh show proxy",
        IpAddr::V6(_) => "ip -6 neigh show proxy",
    }
}

fn list(addresses: &[impl ToString]) -> String {
    let named = addresses.iter().take(NAMED);
    let named: Vec<_> = named.map(ToString::to_string).collect();
    match addresses.len().saturating_sub(NAMED) {
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
    let millis = duration.as_secs_f64() * 1e3;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else if millis < 1e3 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
