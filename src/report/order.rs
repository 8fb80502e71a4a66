//! What peers did on orders to purge.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use log::Level;
use serde::Serialize;
use vipherald_core::address::{Mac, Vip};
use vipherald_core::order::message::Order;
use vipherald_core::order::{Done, Fate, Outcome, Reason};

use super::{Header, Line, Report};
use crate::exit::{Exit, OrderResult};
use crate::order::send::Ordered;
use crate::order::{clock_difference, explain};

/// What a peer did, as the end of a sentence that begins with the peer, and its log level.
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
            let text = format!("keeps {was} on {interface}: {}", explain(reason));
            (Level::Warn, text)
        }
        Outcome::Released => {
            let text = format!("let go of it on {interface}, where a dead keepalived had left it");
            (Level::Warn, text)
        }
        Outcome::Refused(reason) => (Level::Warn, refusal(reason, *skew)),
    }
}

fn refusal(reason: Reason, skew: Option<i64>) -> String {
    match (reason, skew) {
        (Reason::Clock, Some(skew)) => format!(
            "refused the order: its clock is {} this host's, more than its orders.window; \
             synchronise the clocks (NTP)",
            clock_difference(skew)
        ),
        _ => format!("refused the order: {}", explain(reason)),
    }
}

/// What the peers did on the orders of `order`.
#[derive(Debug, Serialize)]
pub struct OrderReport {
    #[serde(flatten)]
    header: Header<OrderResult>,
    orders: Vec<OrderedPeer>,
    #[serde(skip)]
    began: Option<Instant>,
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
    /// Reports on orders about the VIPs of the instance of this name, or of none, that a run sent which
    /// began then.
    #[must_use]
    pub fn new(name: Option<&str>, ordered: &[Ordered], began: Instant, dry_run: bool) -> Self {
        let result = if dry_run || ordered.iter().all(|order| order.fate.is_settled()) {
            OrderResult::Ok
        } else {
            OrderResult::Unproven
        };
        let line = |order: &Ordered| {
            let Ordered { peer, vip, mac, .. } = order;
            let line = if dry_run {
                let text = format!("{peer} would be ordered to purge {vip}, which is at {mac}");
                Line::new(Level::Info, text)
            } else {
                let (level, text) = words(&order.fate, *mac);
                Line::new(level, format!("{vip}: {peer} {text}"))
            };
            line.about(name)
        };
        let of = |order| OrderedPeer::of(order, dry_run);
        Self {
            header: Header::new("order", result).about(name).dry_run(dry_run),
            orders: ordered.iter().map(of).collect(),
            began: Some(began),
            lines: ordered.iter().map(line).collect(),
        }
    }
}

impl OrderReport {
    /// Reports on an order that this host got from `sender`.
    #[must_use]
    pub fn obeyed(order: &Order, done: &[Done], sender: IpAddr) -> Self {
        let settled = |one: &Done| !matches!(one.outcome, Outcome::Kept(_) | Outcome::Refused(_));
        let result = match done.iter().all(settled) {
            true => OrderResult::Ok,
            false => OrderResult::Unproven,
        };
        let name = Some(order.instance.as_str()).filter(|name| !name.is_empty());
        let answered = |one: &Done| {
            let mut wanted = order.vips.iter();
            let (_, mac) = wanted.find(|(vip, _)| *vip == one.vip)?;
            let fate = Fate::Answered {
                done: one.clone(),
                skew: None,
            };
            Some(OrderedPeer::new(
                sender.to_canonical(),
                one.vip,
                *mac,
                &fate,
                false,
            ))
        };
        Self {
            header: Header::new("listen", result).about(name),
            orders: done.iter().filter_map(answered).collect(),
            began: None,
            lines: Vec::new(),
        }
    }
}

/// Datagrams that `listen` refused.
#[derive(Debug, Serialize)]
pub struct RefusedReport {
    command: &'static str,
    version: &'static str,
    refused: BTreeMap<&'static str, u64>,
}

impl RefusedReport {
    /// By reason.
    #[must_use]
    pub fn new(refused: BTreeMap<&'static str, u64>) -> Self {
        Self {
            command: "listen",
            version: env!("CARGO_PKG_VERSION"),
            refused,
        }
    }
}

impl OrderedPeer {
    fn of(order: &Ordered, dry_run: bool) -> Self {
        Self::new(order.peer, order.vip, order.mac, &order.fate, dry_run)
    }

    fn new(peer: IpAddr, address: Vip, mac: Mac, fate: &Fate, dry_run: bool) -> Self {
        let (done, skew_ms) = match fate {
            Fate::Unanswered => (None, None),
            Fate::Answered { done, skew } => (Some(done), *skew),
        };
        let reason = done.and_then(|done| match done.outcome {
            Outcome::Kept(reason) | Outcome::Refused(reason) => Some(reason),
            _ => None,
        });
        let interface = done.map(|done| done.interface.clone());
        Self {
            peer,
            address,
            mac,
            order: (!dry_run).then(|| fate.word()),
            reason,
            interface: interface.filter(|name| !name.is_empty()),
            was: done.and_then(|done| done.was),
            now: done.and_then(|done| done.now),
            skew_ms,
        }
    }
}

impl Report for OrderReport {
    fn lines(&self) -> Vec<Line> {
        self.lines.clone()
    }

    fn exit(&self) -> Exit {
        self.header.result.into()
    }

    fn began(&self) -> Option<Instant> {
        self.began
    }

    /// Most orders that come in are needless: whoever announces sends them to all peers.
    fn is_worth_a_receipt(&self) -> bool {
        let needless = |one: &OrderedPeer| matches!(one.order, Some("right" | "absent"));
        self.header.command == "order" || !self.orders.iter().all(needless)
    }
}
