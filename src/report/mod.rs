//! What happened, for people (log lines) and for programs (JSON).

mod announce;
mod check;
mod order;
mod purge;
mod show;

use std::time::Duration;

use log::{Level, log};
use serde::Serialize;

pub use announce::{AnnounceReport, AnnounceResult, Background, news_line};
pub use check::{CheckReport, Checked, plugin_line};
pub use order::{OrderReport, ReleaseReport};
pub use purge::{PurgeReport, PurgeResult};
pub use show::ShowReport;

use crate::printable::one_line;

/// Addresses that one line names; of more it gives the number.
const NAMED: usize = 4;

/// One line for people, with its weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line(Level, String);

impl Line {
    /// Writes it to the log.
    pub fn log(&self) {
        log!(self.0, "{}", self.1);
    }

    /// Names the instance or group that it is about.
    fn about(self, name: Option<&str>) -> Self {
        match name {
            Some(name) => Self(self.0, format!("{name}: {}", self.1)),
            None => self,
        }
    }
}

/// A report that can be given to people and programs.
pub trait Report: Serialize {
    /// What it says to people.
    fn lines(&self) -> Vec<Line>;

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
            .map(|Line(_, text)| one_line(&text).into_owned() + "\n")
            .collect()
    }
}

/// A command that could not be carried out.
#[derive(Debug, Serialize)]
pub struct FailureReport {
    command: &'static str,
    version: &'static str,
    result: &'static str,
    error: String,
}

impl FailureReport {
    /// Words the failure of a command.
    #[must_use]
    pub fn new(command: &'static str, error: &str) -> Self {
        Self {
            command,
            version: env!("CARGO_PKG_VERSION"),
            result: "failed",
            error: error.to_owned(),
        }
    }
}

impl Report for FailureReport {
    fn lines(&self) -> Vec<Line> {
        vec![Line(Level::Error, self.error.clone())]
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
    if duration < Duration::from_secs(1) {
        format!("{:.1} ms", duration.as_secs_f64() * 1e3)
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
