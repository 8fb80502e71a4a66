//! The history: a receipt of every run that announced, purged, ordered, released or repaired.
//!
//! [`store`] keeps receipts in a file, [`keeper`] writes them beside the work. The rest is pure:
//! [`receipt`] reads them, [`metrics`] adds them up to [`totals`], [`table`] and [`plot`] show them.

pub(crate) mod keeper;
mod metrics;
pub(crate) mod plot;
pub(crate) mod receipt;
pub(crate) mod store;
mod svg;
pub(crate) mod table;
mod totals;

use std::time::Duration;

use serde_json::Value;

use receipt::Receipt;

/// Which receipts to show.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// About one of these VIPs; of none: about any.
    pub(crate) vips: Vec<String>,
    /// Of this instance or group.
    pub(crate) instance: Option<String>,
    /// Not before this time since 1970.
    pub(crate) since: Option<Duration>,
    /// How many of these, the newest.
    pub(crate) last: Option<usize>,
}

impl Selection {
    /// Those receipts, as they are in the file and as this program reads them.
    pub(crate) fn of(&self, all: Vec<Value>) -> Vec<(Value, Receipt)> {
        let read = |value: Value| Receipt::read(&value).map(|receipt| (value, receipt));
        let mut chosen: Vec<_> = all.into_iter().filter_map(read).collect();
        chosen.retain(|(_, receipt)| self.has(receipt));
        if !self.vips.is_empty() {
            // A run may be about many other VIPs, too.
            let receipts = chosen.iter_mut().map(|(_, receipt)| receipt);
            receipts.for_each(|receipt| receipt.keep(&self.vips));
        }
        // Runs overlap: the file has them in the order in which they ended.
        chosen.sort_by(|(_, a), (_, b)| a.time.cmp(&b.time));
        let surplus = self
            .last
            .map_or(0, |last| chosen.len().saturating_sub(last));
        chosen.split_off(surplus)
    }

    fn has(&self, receipt: &Receipt) -> bool {
        receipt.totals.is_none()
            && (self.vips.is_empty() || self.vips.iter().any(|vip| receipt.is_about(vip)))
            && (self.instance.is_none() || receipt.instance == self.instance)
            && self
                .since
                .is_none_or(|since| receipt.began().is_some_and(|began| began >= since))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn receipts_are_chosen_by_vip_instance_time_and_number() {
        let receipt = |second, instance: &str, vip: &str| {
            json!({"command": "purge", "time": format!("2026-01-01T00:00:0{second}.000Z"),
                   "instance": instance, "entries": [{"address": vip}]})
        };
        let all = vec![
            receipt(3, "A", "10.0.0.1"),
            receipt(1, "A", "10.0.0.2"),
            receipt(2, "B", "10.0.0.1"),
            json!({"command": "totals", "totals": {}}),
            json!("no receipt"),
        ];
        let seconds = |selection: Selection| {
            let chosen = selection.of(all.clone());
            let second =
                |(value, _): &(Value, Receipt)| value["time"].as_str().unwrap()[18..19].to_owned();
            chosen.iter().map(second).collect::<String>()
        };
        let any = Selection::default;
        assert_eq!(seconds(any()), "123");
        let vips = vec!["10.0.0.1".to_owned()];
        assert_eq!(seconds(Selection { vips, ..any() }), "23");
        let instance = Some("A".to_owned());
        assert_eq!(seconds(Selection { instance, ..any() }), "13");
        let since = crate::moment::read("2026-01-01 00:00:02");
        assert_eq!(seconds(Selection { since, ..any() }), "23");
        assert_eq!(
            seconds(Selection {
                last: Some(2),
                ..any()
            }),
            "23"
        );
        assert_eq!(
            seconds(Selection {
                last: Some(9),
                ..any()
            }),
            "123"
        );
    }
}
