//! What the receipts add up to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What all receipts add up to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct Totals {
    pub(super) vips: Vec<OfVip>,
    pub(super) refused: BTreeMap<String, u64>,
}

/// What those about one VIP add up to.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(super) struct OfVip {
    pub(super) instance: String,
    pub(super) vip: String,
    pub(super) interface: String,
    /// When something happened to it last.
    pub(super) changed: f64,
    pub(super) takeovers: BTreeMap<String, u64>,
    pub(super) last_takeover: Option<f64>,
    pub(super) followed_after: Option<f64>,
    pub(super) blocked: bool,
    pub(super) path_silent: bool,
    pub(super) peers: BTreeMap<String, u64>,
    pub(super) conflicts: u64,
    pub(super) purged: u64,
    pub(super) released: u64,
    pub(super) orders_sent: BTreeMap<String, u64>,
    pub(super) orders_obeyed: BTreeMap<String, u64>,
}
