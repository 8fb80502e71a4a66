//! A receipt: the JSON report of a run, with the time when the run began.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::totals::Totals;
use crate::moment;
use crate::printable::one_line;

/// A longer receipt loses its peers, too: a history of 1 MiB shall hold more than one.
const LONGEST: usize = 256 * 1024;
/// VIPs, entries, orders and addresses that are left of a receipt that is too long.
const MOST_VIPS: usize = 500;
/// A longer time since the start of a run is none, in milliseconds.
const MOST_AFTER_MS: f64 = 1e9;
/// More peers than any run asks.
const MOST_FOLLOWERS: u64 = 100_000;

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
    /// Of an announcement. Of a version that told only of the whole run: none.
    pub(super) result: Option<String>,
    pub(super) verdict: Option<String>,
    pub(super) action: Option<String>,
    pub(super) reach: Option<Reach>,
    pub(super) conflicts: Vec<Owner>,
    pub(super) past_conflicts: Vec<Owner>,
    pub(super) peers: Vec<Peer>,
    /// What other peers did, which a long receipt does not list.
    #[serde(rename = "verdicts_not_kept")]
    pub(super) not_kept: BTreeMap<String, u64>,
    #[serde(rename = "peer_orders_not_kept")]
    pub(super) orders_not_kept: BTreeMap<String, u64>,
    after_ms_not_kept: Vec<f64>,
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

fn follows(verdict: &str) -> bool {
    matches!(verdict, "proven" | "acknowledged")
}

/// Whether such a peer could follow: a real server has the VIP itself, and some are not on the link.
fn counts(verdict: &str) -> bool {
    !matches!(verdict, "holder" | "offlink" | "unasked")
}

impl Peer {
    pub(super) fn follows(&self) -> bool {
        follows(&self.verdict)
    }

    /// Whether somebody should look after it. Neighbours come and go, so that one that is merely silent
    /// is no sign of anything.
    pub(super) fn needs_attention(&self) -> bool {
        counts(&self.verdict) && !self.follows() && (self.required || self.verdict != "silent")
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

    /// How many peers there were of each verdict.
    pub(super) fn verdicts(&self) -> BTreeMap<&str, u64> {
        let not_kept = self.not_kept.iter();
        let mut all: BTreeMap<_, _> = not_kept
            .map(|(verdict, count)| (verdict.as_str(), *count))
            .collect();
        for peer in &self.peers {
            let count: &mut u64 = all.entry(&peer.verdict).or_default();
            *count = count.saturating_add(1);
        }
        all
    }

    fn sum(&self, of: fn(&str) -> bool) -> u64 {
        let verdicts = self.verdicts().into_iter();
        let counts = verdicts.filter(|(verdict, _)| of(verdict));
        counts.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }

    /// How many peers follow.
    pub(super) fn following(&self) -> u64 {
        self.sum(follows)
    }

    /// How many could.
    pub(super) fn counting(&self) -> u64 {
        self.sum(counts)
    }

    /// When those peers that follow began to, in milliseconds, the first one first. A long receipt has
    /// quantiles of their times.
    pub(super) fn followed_after(&self) -> Vec<f64> {
        let follow = self.peers.iter().filter(|peer| peer.follows());
        let times = follow.filter_map(|peer| peer.after_ms);
        let mut times: Vec<_> = times
            .chain(self.after_ms_not_kept.iter().copied())
            .filter(|ms| (0.0..MOST_AFTER_MS).contains(ms))
            .collect();
        times.sort_by(f64::total_cmp);
        let following = self.following().min(MOST_FOLLOWERS);
        let following = usize::try_from(following).unwrap_or_default();
        if times.is_empty() || times.len() >= following {
            return times;
        }
        let quantile = |peer: usize| times[(peer * times.len()).div_ceil(following) - 1];
        (1..=following).map(quantile).collect()
    }
}

impl Receipt {
    pub(super) fn read(value: &Value) -> Option<Self> {
        match is_printable(value) {
            true => Self::deserialize(value).ok(),
            false => Self::deserialize(printable(value)).ok(),
        }
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

    /// Leaves what is about these VIPs.
    pub(super) fn keep(&mut self, vips: &[String]) {
        let is_one = |address: &String| vips.contains(address);
        self.vips.retain(|one| is_one(&one.address));
        self.entries.retain(|one| is_one(&one.address));
        self.addresses.retain(|one| is_one(&one.address));
        self.orders.retain(|one| is_one(&one.address));
        self.refused.clear();
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

/// Whether all texts can be shown as they are. They nearly always can, and a copy takes time.
fn is_printable(value: &Value) -> bool {
    let is_shown = |text: &str| matches!(one_line(text), Cow::Borrowed(_));
    match value {
        Value::String(text) => is_shown(text),
        Value::Array(all) => all.iter().all(is_printable),
        Value::Object(fields) => fields
            .iter()
            .all(|(name, value)| is_shown(name) && is_printable(value)),
        _ => true,
    }
}

/// The same with texts that can be shown as they are: names come from elsewhere.
fn printable(value: &Value) -> Value {
    match value {
        Value::String(text) => one_line(text).into(),
        Value::Array(all) => all.iter().map(printable).collect(),
        Value::Object(fields) => {
            let fields = fields.iter();
            fields
                .map(|(name, value)| (one_line(name).into_owned(), printable(value)))
                .collect()
        }
        other => other.clone(),
    }
}

fn shortened(text: &str) -> String {
    let mut receipt: Value = serde_json::from_str(text).unwrap_or_default();
    for name in ["vips", "entries", "orders", "addresses"] {
        // Indexing would add what is missing, as null, which is no list.
        if let Some(all) = receipt.get_mut(name).and_then(Value::as_array_mut)
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
    let vips = receipt.get_mut("vips").and_then(Value::as_array_mut);
    for vip in vips.into_iter().flatten() {
        let Ok(about) = AboutVip::deserialize(&*vip) else {
            continue;
        };
        vip["verdicts_not_kept"] = json!(about.verdicts());
        vip["peers_not_kept"] = json!(about.verdicts().into_values().sum::<u64>());
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
        assert_eq!(read["entries_not_kept"], 9_500);
    }

    #[test]
    fn peers_that_are_left_out_still_count() {
        let peer = |verdict| json!({"address": "10.0.0.1", "verdict": verdict, "after_ms": 1.5});
        let mut peers = vec![peer("stale"); 4_000];
        peers.extend(vec![peer("proven"); 2_000]);
        let vip =
            json!({"address": "10.0.0.100", "peers": peers, "verdicts_not_kept": {"proven": 1}});
        let line = line(json!({"command": "announce", "vips": [vip]}));
        assert!(line.len() < 300, "{}", line.len());
        let read: Value = serde_json::from_str(&line).unwrap();
        let vip = &Receipt::read(&read).unwrap().vips[0];
        assert_eq!((vip.following(), vip.counting()), (2_001, 6_001));
        assert_eq!(read["vips"][0]["peers_not_kept"], 6_001);
    }

    #[test]
    fn no_time_is_too_odd() {
        let peer = |ms| json!({"address": "10.0.0.1", "verdict": "proven", "after_ms": ms});
        let peers = [1e300, -5.0, 3.0].map(peer);
        let vip = json!({"vips": [{"peers": peers, "verdicts_not_kept": {"silent": u64::MAX}}]});
        let receipt = Receipt::read(&vip).unwrap();
        assert_eq!(receipt.vips[0].followed_after(), [3.0, 3.0, 3.0]);
        assert_eq!(receipt.vips[0].counting(), u64::MAX);
    }

    #[test]
    fn quantiles_stand_for_all_who_follow() {
        let vip = json!({"vips": [{"verdicts_not_kept": {"proven": 4, "acknowledged": 1, "stale": 9},
                                   "after_ms_not_kept": [1.0, 7.0]}]});
        let receipt = Receipt::read(&vip).unwrap();
        assert_eq!(receipt.vips[0].followed_after(), [1.0, 1.0, 7.0, 7.0, 7.0]);
    }

    #[test]
    fn names_can_be_shown_as_they_are() {
        let receipt = Receipt::read(&json!({"instance": "VI\n\u{1b}[2J"})).unwrap();
        assert_eq!(receipt.instance.as_deref(), Some("VI\\n\\u{1b}[2J"));
    }

    #[test]
    fn fields_of_other_versions_are_passed_over() {
        let receipt = Receipt::read(&json!({"command": "x", "new": 1, "instance": null})).unwrap();
        assert_eq!((receipt.command.as_str(), receipt.instance), ("x", None));
        assert!(Receipt::read(&json!({"vips": 1})).is_none() && Receipt::read(&json!(3)).is_none());
    }
}
