//! A receipt: the JSON report of a run, with the time when the run began.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::metrics::Totals;
use crate::moment;

/// A longer receipt loses its peers first, then VIPs: a history of 1 MiB shall hold more than one.
const LONGEST: usize = 128 * 1024;
/// The VIPs that are left of a receipt that is too long without peers.
const MOST_VIPS: usize = 100;

/// What a run did, as far as this program reads it. The file may have more fields, of other versions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Receipt {
    pub(super) time: String,
    pub(super) command: String,
    /// keepalived's state, if the run did what an event called for.
    pub(super) event: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) result: Option<String>,
    /// Of announcements and checks.
    pub(super) vips: Vec<AboutVip>,
    /// Of purges.
    pub(super) entries: Vec<Touched>,
    /// Of releases.
    pub(super) addresses: Vec<Touched>,
    /// Of orders, sent or obeyed.
    pub(super) orders: Vec<Ordered>,
    /// Datagrams that `listen` refused, by reason.
    pub(super) refused: BTreeMap<String, u64>,
    /// What the receipts before this one add up to; it stands for those that are deleted.
    pub(super) totals: Option<Totals>,
}

/// What became of a VIP.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AboutVip {
    pub(super) address: String,
    pub(super) interface: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) action: Option<String>,
    pub(super) reach: Option<Reach>,
    pub(super) conflicts: Vec<Owner>,
    pub(super) past_conflicts: Vec<Owner>,
    pub(super) peers: Vec<Peer>,
}

/// Whether anybody can be reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Reach {
    path: String,
    broadcasts: u64,
}

/// Another owner.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Owner {
    pub(super) mac: Option<String>,
    pub(super) host: Option<String>,
}

/// A peer that was asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Peer {
    pub(super) address: String,
    pub(super) mac: Option<String>,
    pub(super) required: bool,
    pub(super) verdict: String,
    pub(super) after_ms: Option<f64>,
    pub(super) proof: Option<String>,
    pub(super) order: Option<String>,
}

/// An entry or an address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Touched {
    pub(super) address: String,
    pub(super) interface: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) state: Option<String>,
    pub(super) action: String,
}

/// An order, and what became of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Ordered {
    pub(super) peer: String,
    pub(super) address: String,
    pub(super) interface: Option<String>,
    pub(super) order: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) was: Option<String>,
    pub(super) now: Option<String>,
}

impl Peer {
    pub(super) fn follows(&self) -> bool {
        matches!(self.verdict.as_str(), "proven" | "acknowledged")
    }

    /// Whether it could follow: a real server has the VIP itself, and some are not on the link.
    pub(super) fn counts(&self) -> bool {
        !matches!(self.verdict.as_str(), "holder" | "offlink" | "unasked")
    }

    /// Whether somebody should look after it. Neighbours come and go, so that one that is merely silent
    /// is no sign of anything.
    pub(super) fn needs_attention(&self) -> bool {
        self.counts() && !self.follows() && (self.required || self.verdict != "silent")
    }
}

impl AboutVip {
    /// Whether something on the way out dropped its frames.
    pub(super) fn is_blocked(&self) -> bool {
        self.verdict.as_deref() == Some("blocked")
    }

    /// Whether it was broadcast, and no frame of another host came in.
    pub(super) fn is_path_silent(&self) -> bool {
        let mut reach = self.reach.iter();
        reach.any(|reach| reach.path == "silent" && reach.broadcasts > 0)
    }

    /// When those peers that follow began to, in milliseconds, the first one first.
    pub(super) fn followed_after(&self) -> Vec<f64> {
        let follow = self.peers.iter().filter(|peer| peer.follows());
        let mut times: Vec<_> = follow.filter_map(|peer| peer.after_ms).collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

impl Receipt {
    pub(super) fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value).ok()
    }

    /// When the run began, since 1970.
    pub(super) fn began(&self) -> Option<Duration> {
        moment::read(&self.time)
    }

    /// Whether this host announced VIPs.
    pub(crate) fn is_takeover(&self) -> bool {
        self.command == "announce" && !self.vips.is_empty()
    }

    /// Whether it is about this VIP.
    pub(super) fn is_about(&self, vip: &str) -> bool {
        let vips = self.vips.iter().map(|one| &one.address);
        let entries = self.entries.iter().map(|one| &one.address);
        let addresses = self.addresses.iter().map(|one| &one.address);
        let orders = self.orders.iter().map(|one| &one.address);
        let mut all = vips.chain(entries).chain(addresses).chain(orders);
        all.any(|address| address == vip)
    }
}

/// A receipt that is yet to be kept. It becomes JSON when it is written, which no frame waits for.
pub(crate) struct Fresh {
    report: Box<dyn FnOnce() -> serde_json::Result<String> + Send>,
    began: Duration,
    event: Option<String>,
}

impl fmt::Debug for Fresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fresh").finish_non_exhaustive()
    }
}

impl Fresh {
    /// Of a run that `began` at this time since 1970, whose report this is.
    pub(crate) fn of(report: impl Serialize + Send + 'static, began: Duration) -> Self {
        Self {
            report: Box::new(move || serde_json::to_string(&report)),
            began,
            event: None,
        }
    }

    /// The run did what this event called for.
    pub(crate) fn by_event(self, state: &str) -> Self {
        let event = Some(state.to_owned());
        Self { event, ..self }
    }

    /// As a line of the history: JSON.
    pub(super) fn line(self) -> Option<String> {
        let report = (self.report)().ok()?;
        let others = report.strip_prefix('{')?;
        let mut line = format!("{{\"time\":\"{}\",", moment::text(self.began));
        if let Some(event) = self.event {
            line += &format!("\"event\":{},", serde_json::to_string(&event).ok()?);
        }
        line += others;
        if line.len() > LONGEST {
            line = shortened(&line);
        }
        Some(line + "\n")
    }
}

fn shortened(text: &str) -> String {
    let mut receipt: Value = serde_json::from_str(text).unwrap_or_default();
    for name in ["vips", "entries", "orders", "addresses"] {
        if let Some(all) = receipt[name].as_array_mut()
            && all.len() > MOST_VIPS
        {
            let left_out = all.len() - MOST_VIPS;
            all.truncate(MOST_VIPS);
            receipt[format!("{name}_not_kept")] = json!(left_out);
        }
    }
    let text = receipt.to_string();
    if text.len() <= LONGEST {
        return text;
    }
    for vip in receipt["vips"].as_array_mut().into_iter().flatten() {
        vip["peers"] = json!([]);
    }
    receipt.to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn line(receipt: Value) -> String {
        Fresh::of(receipt, Duration::ZERO).line().unwrap()
    }

    #[test]
    fn a_receipt_has_the_time_when_the_run_began() {
        let report = json!({"command": "announce", "duration_ms": 60_250});
        let receipt = Fresh::of(report, Duration::from_millis(750));
        let line = receipt.by_event("a \"b\"").line().unwrap();
        let (read, end) = line.split_at(line.len() - 1);
        let read: Value = serde_json::from_str(read).unwrap();
        assert_eq!(end, "\n");
        assert_eq!(
            read,
            json!({"command": "announce", "duration_ms": 60_250, "event": "a \"b\"",
                   "time": "1970-01-01T00:00:00.750Z"})
        );
        assert!(Fresh::of(3, Duration::ZERO).line().is_none());
    }

    #[test]
    fn a_receipt_that_is_too_long_says_how_much_is_left_out() {
        let entry = |number| json!({"address": format!("{number}"), "action": "deleted"});
        let many: Vec<_> = (0..10_000).map(entry).collect();
        let short = line(json!({"entries": many}));
        assert!(short.len() < LONGEST);
        let read: Value = serde_json::from_str(&short).unwrap();
        assert_eq!(read["entries_not_kept"], 9_900);
    }

    #[test]
    fn fields_of_other_versions_are_passed_over() {
        let receipt = Receipt::read(&json!({"command": "x", "new": 1, "instance": null})).unwrap();
        assert_eq!((receipt.command.as_str(), receipt.instance), ("x", None));
        assert!(Receipt::read(&json!({"vips": 1})).is_none() && Receipt::read(&json!(3)).is_none());
    }
}
