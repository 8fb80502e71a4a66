//! What became of orders to peers, and of VIPs that were to be let go of.

use std::net::IpAddr;

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::order::{Done, Fate, Outcome, Reason};

use super::{Line, Report};
use crate::exit::Exit;
use crate::order::send::Ordered;
use crate::release::{Doubt, Held};

/// What a peer did, in a sentence about `vip`: what a person should know of it, and how grave it
/// is.
pub(super) fn words(fate: &Fate, mac: Mac) -> (Level, String) {
    let Fate::Answered { done, skew } = fate else {
        let text = "did not answer the order; is its `vipherald listen` there, and does a filter \
                    drop the order's port?";
        return (Level::Warn, text.to_owned());
    };
    let Done {
        was,
        now,
        interface,
        ..
    } = done;
    let was = was.map_or("no MAC".to_owned(), |was| was.to_string());
    match done.outcome {
        Outcome::Purged => {
            let found = match now {
                Some(now) if *now == mac => "has the right one now".to_owned(),
                Some(now) => format!("has {now} now, which is wrong, too"),
                None => "has found no other yet".to_owned(),
            };
            let text = format!("purged {was} on {interface} when ordered to, and {found}");
            (Level::Info, text)
        }
        Outcome::Right => (Level::Info, format!("has the right MAC on {interface}")),
        Outcome::Absent => (Level::Info, "has no entry".to_owned()),
        Outcome::Kept(reason) => {
            let why = match reason {
                Reason::Permanent => {
                    "it is PERMANENT: set orders.permanent = true there, or purge it by hand"
                }
                _ => "it is NOARP, a proxy's, or externally learned",
            };
            (Level::Warn, format!("keeps {was} on {interface}: {why}"))
        }
        Outcome::Released => {
            let text = format!("let go of it on {interface}, where a dead keepalived had left it");
            (Level::Warn, text)
        }
        Outcome::Refused(reason) => (Level::Warn, refusal(reason, *skew)),
    }
}

fn refusal(reason: Reason, skew: Option<i64>) -> String {
    let why = match (reason, skew) {
        (Reason::Clock, Some(skew)) => {
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let seconds = skew.unsigned_abs() as f64 / 1000.0;
            let way = if skew < 0 { "behind" } else { "ahead of" };
            return format!(
                "refused the order: its clock is {seconds:.1} s {way} this host's, more than its \
                 orders.window; set the clocks, by NTP"
            );
        }
        (Reason::Clock, None) => "the clocks differ",
        (Reason::NotAllowed, _) => "neither its keepalived.conf nor its orders.allow has the VIP",
        (Reason::Gateway, _) => "the VIP is its gateway: name it in orders.allow there",
        (Reason::HeldThere, _) => "it holds the VIP itself",
        (Reason::MaybeAlive, _) => "it holds the VIP itself, and its keepalived may be alive",
        (Reason::Busy, _) => "it has too many orders",
        (Reason::Failed, _) => "its kernel did; its log says why",
        (Reason::Permanent | Reason::Foreign, _) => "the entry is not its to delete",
    };
    format!("refused the order: {why}")
}

/// What became of orders by hand.
#[derive(Debug, Serialize)]
pub struct OrderReport {
    command: &'static str,
    version: &'static str,
    instance: Option<String>,
    result: &'static str,
    dry_run: bool,
    orders: Vec<OrderedPeer>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct OrderedPeer {
    peer: IpAddr,
    address: Vip,
    mac: Mac,
    order: Option<&'static str>,
    reason: Option<Reason>,
    interface: Option<String>,
    was: Option<Mac>,
    now: Option<Mac>,
    skew_ms: Option<i64>,
}

impl OrderReport {
    /// Words what became of the orders about the VIPs of an instance, or of some.
    #[must_use]
    pub fn new(name: Option<&str>, ordered: &[Ordered], dry_run: bool) -> Self {
        let all_good = ordered.iter().all(|order| order.fate.is_settled());
        let line = |order: &Ordered| {
            let Ordered { peer, vip, mac, .. } = order;
            let line = if dry_run {
                let text = format!("{peer} would be ordered to purge {vip}, which is {mac}");
                Line(Level::Info, text)
            } else {
                let (level, text) = words(&order.fate, *mac);
                Line(level, format!("{vip}: {peer} {text}"))
            };
            line.about(name)
        };
        Self {
            command: "order",
            version: env!("CARGO_PKG_VERSION"),
            instance: name.map(str::to_owned),
            result: if dry_run || all_good {
                "ok"
            } else {
                "unproven"
            },
            dry_run,
            orders: ordered
                .iter()
                .map(|order| OrderedPeer::of(order, dry_run))
                .collect(),
            lines: ordered.iter().map(line).collect(),
        }
    }

    /// The exit status that tells the result.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.result {
            "ok" => Exit::Done,
            _ => Exit::Unproven,
        }
    }
}

impl OrderedPeer {
    fn of(order: &Ordered, dry_run: bool) -> Self {
        let (done, skew) = match &order.fate {
            Fate::Unanswered => (None, None),
            Fate::Answered { done, skew } => (Some(done), *skew),
        };
        Self {
            peer: order.peer,
            address: order.vip,
            mac: order.mac,
            order: (!dry_run).then(|| order.fate.word()),
            reason: done.and_then(|done| match done.outcome {
                Outcome::Kept(reason) | Outcome::Refused(reason) => Some(reason),
                _ => None,
            }),
            interface: done
                .map(|done| done.interface.clone())
                .filter(|name| !name.is_empty()),
            was: done.and_then(|done| done.was),
            now: done.and_then(|done| done.now),
            skew_ms: skew,
        }
    }
}

impl Report for OrderReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }
}

/// What became of VIPs that were to be let go of.
#[derive(Debug, Serialize)]
pub struct ReleaseReport {
    command: &'static str,
    version: &'static str,
    result: &'static str,
    dry_run: bool,
    addresses: Vec<ReleasedAddress>,
    #[serde(skip)]
    lines: Vec<Line>,
}

#[derive(Debug, Serialize)]
struct ReleasedAddress {
    address: Vip,
    interface: String,
    action: &'static str,
    reason: Option<String>,
}

impl ReleaseReport {
    /// Words what became of the VIPs that this host held.
    #[must_use]
    pub fn new(held: &[Held], dry_run: bool) -> Self {
        let planned = |held: &Held| held.kept == Some(Doubt::DryRun);
        let done = |held: &Held| held.kept.is_none() || planned(held);
        let line = |held: &Held| {
            let (vip, on) = (held.vip, &held.interface);
            match &held.kept {
                None => Line(Level::Warn, format!("{vip} released on {on}")),
                Some(Doubt::DryRun) => {
                    Line(Level::Info, format!("{vip} would be released on {on}"))
                }
                Some(doubt) => Line(Level::Warn, format!("{vip} kept on {on}: {doubt}")),
            }
        };
        let mut lines: Vec<_> = held.iter().map(line).collect();
        if held.is_empty() {
            let text =
                "none of the VIPs is on this host where keepalived puts it: nothing to release"
                    .to_owned();
            lines.push(Line(Level::Info, text));
        }
        Self {
            command: "release",
            version: env!("CARGO_PKG_VERSION"),
            result: if held.iter().all(done) { "ok" } else { "kept" },
            dry_run,
            addresses: held
                .iter()
                .map(|held| ReleasedAddress {
                    address: held.vip,
                    interface: held.interface.clone(),
                    action: if held.kept.is_none() {
                        "released"
                    } else {
                        "kept"
                    },
                    reason: held.kept.as_ref().map(Doubt::to_string),
                })
                .collect(),
            lines,
        }
    }

    /// The exit status that tells the result.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self.result {
            "ok" => Exit::Done,
            _ => Exit::Contradicted,
        }
    }
}

impl Report for ReleaseReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }
}
