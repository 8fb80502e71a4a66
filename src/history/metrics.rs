//! What receipts add up to, for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::receipt::{AboutVip, Receipt};
use super::totals::{OfVip, Totals};

/// Of more VIPs than these, those are forgotten that nothing has happened to for the longest time.
const MOST_VIPS: usize = 500;

impl Totals {
    /// Adds a receipt.
    pub(super) fn add(&mut self, receipt: &Receipt) {
        if let Some(totals) = &receipt.totals {
            *self = totals.clone();
            return;
        }
        for (reason, count) in &receipt.refused {
            *self.refused.entry(reason.clone()).or_default() += count;
        }
        for vip in &receipt.vips {
            let of_vip = self.of(receipt, &vip.address, vip.interface.as_deref());
            match receipt.command.as_str() {
                "announce" => of_vip.add_takeover(receipt, vip),
                "check" if vip.action.as_deref() == Some("deleted") => of_vip.purged += 1,
                _ => {}
            }
        }
        for entry in &receipt.entries {
            if entry.action == "deleted" {
                self.of(receipt, &entry.address, entry.interface.as_deref())
                    .purged += 1;
            }
        }
        for address in &receipt.addresses {
            if address.action == "released" {
                let interface = address.interface.as_deref();
                self.of(receipt, &address.address, interface).released += 1;
            }
        }
        for order in &receipt.orders {
            let Some(outcome) = order.order.clone() else {
                continue;
            };
            let obeyed = receipt.command == "listen";
            let of_vip = self.of(receipt, &order.address, order.interface.as_deref());
            if obeyed && outcome == "purged" {
                of_vip.purged += 1;
            }
            let orders = if obeyed {
                &mut of_vip.orders_obeyed
            } else {
                &mut of_vip.orders_sent
            };
            *orders.entry(outcome).or_default() += 1;
        }
        if self.vips.len() > MOST_VIPS {
            self.vips.sort_by(|a, b| b.changed.total_cmp(&a.changed));
            self.vips.truncate(MOST_VIPS);
        }
    }

    fn of(&mut self, receipt: &Receipt, vip: &str, interface: Option<&str>) -> &mut OfVip {
        let instance = receipt.instance.as_deref().unwrap_or_default();
        let interface = interface.unwrap_or_default();
        let same =
            |one: &OfVip| one.vip == vip && one.instance == instance && one.interface == interface;
        let at = self.vips.iter().position(same).unwrap_or_else(|| {
            self.vips.push(OfVip {
                instance: instance.to_owned(),
                vip: vip.to_owned(),
                interface: interface.to_owned(),
                ..OfVip::default()
            });
            self.vips.len() - 1
        });
        let of_vip = &mut self.vips[at];
        of_vip.changed = receipt.began().unwrap_or_default().as_secs_f64();
        of_vip
    }

    /// In Prometheus' text format.
    pub(super) fn exposition(&self) -> String {
        let mut vips: Vec<_> = self.vips.iter().collect();
        vips.sort_by_key(|one| (&one.instance, &one.vip, &one.interface));
        let mut all = Families(String::new());
        let counts = |of: fn(&OfVip) -> &BTreeMap<String, u64>, label: &'static str| {
            let each = move |one: &&OfVip| {
                let labels = one.labels();
                let sample = move |(value, count): (&String, &u64)| {
                    (
                        format!("{labels},{}", pair(label, value)),
                        count.to_string(),
                    )
                };
                of(one).iter().map(sample).collect::<Vec<_>>()
            };
            vips.iter().flat_map(each).collect::<Vec<_>>()
        };
        let numbers = |of: fn(&OfVip) -> Option<f64>| {
            let sample = |one: &&OfVip| Some((one.labels(), of(one)?.to_string()));
            vips.iter().filter_map(sample).collect::<Vec<_>>()
        };
        all.add(
            "takeovers_total",
            "counter",
            "Announcements of the VIP by this host, by result.",
            &counts(|one| &one.takeovers, "result"),
        );
        all.add(
            "last_takeover_timestamp_seconds",
            "gauge",
            "When this host last announced the VIP.",
            &numbers(|one| one.last_takeover),
        );
        all.add(
            "last_takeover_followed_seconds",
            "gauge",
            "How long the last announcement took until the last of the peers followed that do.",
            &numbers(|one| one.followed_after),
        );
        all.add(
            "peers",
            "gauge",
            "Peers of the last announcement, by verdict.",
            &counts(|one| &one.peers, "verdict"),
        );
        all.add(
            "last_takeover_blocked",
            "gauge",
            "Whether something on the way out dropped the frames of the last announcement.",
            &numbers(|one| one.last_takeover.map(|_| f64::from(one.blocked))),
        );
        all.add(
            "last_takeover_path_silent",
            "gauge",
            "Whether no frame of another host came in during the last announcement.",
            &numbers(|one| one.last_takeover.map(|_| f64::from(one.path_silent))),
        );
        all.add(
            "conflicts_total",
            "counter",
            "Other owners that announcements met.",
            &numbers(|one| one.last_takeover.map(|_| exact(one.conflicts))),
        );
        all.add(
            "purged_entries_total",
            "counter",
            "Neighbour entries for the VIP that this host deleted.",
            &numbers(|one| Some(exact(one.purged)).filter(|count| *count > 0.0)),
        );
        all.add(
            "released_total",
            "counter",
            "Times that this host gave up the VIP, which a dead keepalived had left on it.",
            &numbers(|one| Some(exact(one.released)).filter(|count| *count > 0.0)),
        );
        all.add(
            "orders_sent_total",
            "counter",
            "Orders that this host sent, by what the peer did.",
            &counts(|one| &one.orders_sent, "outcome"),
        );
        all.add(
            "orders_obeyed_total",
            "counter",
            "Orders to this host that were not needless, by what it did.",
            &counts(|one| &one.orders_obeyed, "outcome"),
        );
        let refused = self.refused.iter();
        let refused = refused.map(|(why, count)| (pair("reason", why), count.to_string()));
        all.add(
            "refused_datagrams_total",
            "counter",
            "Datagrams that the listener for orders refused, by reason.",
            &refused.collect::<Vec<_>>(),
        );
        all.0
    }
}

impl OfVip {
    fn add_takeover(&mut self, receipt: &Receipt, vip: &AboutVip) {
        let result = vip.result.as_ref().or(receipt.result.as_ref());
        let result = result.cloned().unwrap_or_default();
        *self.takeovers.entry(result).or_default() += 1;
        self.last_takeover = Some(self.changed);
        self.followed_after = vip.followed_after().last().map(|after| after / 1e3);
        self.blocked = vip.is_blocked();
        self.path_silent = vip.is_path_silent();
        self.conflicts += (vip.conflicts.len() + vip.past_conflicts.len()) as u64;
        // With 0 for a verdict that no longer occurs, an alert about it ends.
        self.peers.values_mut().for_each(|count| *count = 0);
        for (verdict, count) in vip.verdicts() {
            self.peers.insert(verdict.to_owned(), count);
        }
        let kept = vip.peers.iter().filter_map(|peer| peer.order.as_ref());
        let orders = kept.map(|order| (order, 1));
        let not_kept = vip.orders_not_kept.iter();
        for (order, count) in orders.chain(not_kept.map(|(order, count)| (order, *count))) {
            *self.orders_sent.entry(order.clone()).or_default() += count;
        }
    }

    fn labels(&self) -> String {
        let Self {
            instance,
            vip,
            interface,
            ..
        } = self;
        [
            // Prometheus calls the scraped process `instance`.
            pair("vrrp_instance", instance),
            pair("vip", vip),
            pair("interface", interface),
        ]
        .join(",")
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, and nobody counts so far"
)]
fn exact(count: u64) -> f64 {
    count as f64
}

fn pair(label: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{label}=\"{}\"", value.replace('\n', "\\n"))
}

/// The metrics so far, as text.
struct Families(String);

impl Families {
    fn add(&mut self, name: &str, kind: &str, help: &str, samples: &[(String, String)]) {
        if samples.is_empty() {
            return;
        }
        let mut text = format!("# HELP vipherald_{name} {help}\n# TYPE vipherald_{name} {kind}\n");
        for (labels, value) in samples {
            // A String takes all.
            let _ = writeln!(text, "vipherald_{name}{{{labels}}} {value}");
        }
        self.0 += &text;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn totals(receipts: &[serde_json::Value]) -> Totals {
        let mut totals = Totals::default();
        for receipt in receipts {
            totals.add(&Receipt::read(receipt).unwrap());
        }
        totals
    }

    fn announced(time: &str, result: &str, verdicts: &[&str]) -> serde_json::Value {
        let peers = verdicts.iter().zip(1_u32..).map(|(verdict, number)| {
            let follows = *verdict == "proven";
            json!({"address": format!("10.0.0.{number}"), "verdict": verdict,
                   "after_ms": follows.then_some(f64::from(number) * 1.5), "order": "right"})
        });
        json!({"command": "announce", "time": time, "instance": "VI_1", "result": result,
               "vips": [{"address": "10.0.0.100", "interface": "eth0", "verdict": "blocked",
                         "reach": {"path": "alive", "broadcasts": 9, "asked": 2},
                         "conflicts": [{"mac": "02:00:00:00:00:09", "host": null}],
                         "peers": peers.collect::<Vec<_>>()}]})
    }

    #[test]
    fn receipts_add_up() {
        let all = totals(&[
            announced("2026-01-01T00:00:00.000Z", "unproven", &["proven", "stale"]),
            announced("2026-01-01T00:00:10.500Z", "ok", &["proven", "proven"]),
            json!({"command": "purge", "time": "2026-01-01T00:01:00.000Z", "instance": "VI_1",
                   "entries": [{"address": "10.0.0.100", "interface": "eth0", "action": "deleted"},
                               {"address": "10.0.0.100", "interface": "eth0", "action": "kept"}]}),
            json!({"command": "listen", "time": "", "instance": "a\"b\\c",
                   "orders": [{"peer": "10.0.0.1", "address": "fd00::1", "interface": null,
                               "order": "purged"}]}),
            json!({"command": "listen", "refused": {"sent again": 3}}),
            json!({"command": "listen", "refused": {"sent again": 2}}),
        ]);
        let text = all.exposition();
        let labels = "vrrp_instance=\"VI_1\",vip=\"10.0.0.100\",interface=\"eth0\"";
        for line in [
            format!("takeovers_total{{{labels},result=\"ok\"}} 1"),
            format!("takeovers_total{{{labels},result=\"unproven\"}} 1"),
            format!("last_takeover_timestamp_seconds{{{labels}}} 1767225610.5"),
            format!("last_takeover_followed_seconds{{{labels}}} 0.003"),
            format!("last_takeover_blocked{{{labels}}} 1"),
            format!("last_takeover_path_silent{{{labels}}} 0"),
            format!("peers{{{labels},verdict=\"proven\"}} 2"),
            format!("peers{{{labels},verdict=\"stale\"}} 0"),
            format!("conflicts_total{{{labels}}} 2"),
            format!("purged_entries_total{{{labels}}} 1"),
            format!("orders_sent_total{{{labels},outcome=\"right\"}} 4"),
            "orders_obeyed_total{vrrp_instance=\"a\\\"b\\\\c\",vip=\"fd00::1\",interface=\"\",outcome=\"purged\"} 1"
                .to_owned(),
            "refused_datagrams_total{reason=\"sent again\"} 5".to_owned(),
        ] {
            assert!(text.contains(&format!("vipherald_{line}\n")), "{line}:\n{text}");
        }
        for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = family.split(' ').next().unwrap();
            assert_eq!(
                text.matches(&format!("# HELP {name} ")).count(),
                1,
                "{text}"
            );
        }
    }

    #[test]
    fn totals_stand_for_the_receipts_before_them() {
        let receipts = [
            announced("2026-01-01T00:00:00.000Z", "ok", &["proven"]),
            announced("2026-01-01T00:00:10.000Z", "ok", &["silent"]),
        ];
        let before = totals(&receipts[..1]);
        let checkpoint = json!({"command": "totals", "totals": before});
        assert_eq!(
            totals(&[checkpoint, receipts[1].clone()]),
            totals(&receipts)
        );
    }

    #[test]
    fn the_vips_that_were_quiet_for_longest_are_forgotten() {
        let mut all = Totals::default();
        for number in 0..2_000 {
            let time = format!("2026-01-01T00:{:02}:{:02}.000Z", number / 60, number % 60);
            let receipt = json!({"command": "purge", "time": time,
                                 "entries": [{"address": number.to_string(), "action": "deleted"}]});
            all.add(&Receipt::read(&receipt).unwrap());
        }
        assert_eq!(all.vips.len(), MOST_VIPS);
        assert!(all.vips.iter().any(|one| one.vip == "1999"));
        assert!(all.exposition().len() < 128 * 1024);
    }

    #[test]
    fn without_receipts_there_are_no_metrics() {
        assert_eq!(Totals::default().exposition(), "");
    }
}
