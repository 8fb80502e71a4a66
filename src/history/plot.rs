//! One failover as a picture: the share of peers that follow, over time, and who does not.

use std::fmt::Write;
use std::time::Duration;

use super::receipt::{AboutVip, Receipt};
use super::svg::{self, Axis, HEIGHT, Line, OWN, Panel, WIDTH};
use super::table::{after, laggards};

/// Characters of a whole bar.
const BAR: usize = 50;
const LEFT: f64 = 60.0;
const TOP: f64 = 70.0;
/// Room below a chart for its axis and captions.
const BELOW: f64 = 90.0;

/// The announcement as bars of text, for a terminal.
pub(crate) fn bars(receipt: &Receipt) -> String {
    let mut text = String::new();
    for vip in &receipt.vips {
        let (followed, of) = (vip.followed_after(), counting(vip));
        // A String takes all.
        let _ = writeln!(text, "{}: {}", title(receipt, vip), caption(&followed, of));
        for until in steps(&followed) {
            let count = followed.iter().filter(|at| **at <= until).count();
            let bar = "#".repeat(BAR * count / of.max(1));
            let _ = writeln!(text, "{:>9}  {bar:BAR$}  {count}", after(until));
        }
        if let Some(laggards) = laggards(&vip.peers) {
            let _ = writeln!(text, "{:>9}  {laggards}", "never");
        }
    }
    text
}

/// The announcements as SVG, with a chart for each VIP of each.
pub(crate) fn picture(receipts: &[Receipt]) -> String {
    let panels = receipts.iter().flat_map(|receipt| {
        let vips = receipt.vips.iter();
        vips.map(move |vip| panel(receipt, vip))
    });
    let panels: Vec<_> = panels.collect();
    let height = TOP + (HEIGHT + BELOW) * svg::number(panels.len());
    let mut picture = svg::begin(LEFT + WIDTH + 160.0, height);
    let heading = "Share of peers that follow, over the time since the announcement began";
    svg::text(&mut picture, (LEFT, 28.0), "fill=\"#59636e\"", heading);
    for (row, panel) in panels.iter().enumerate() {
        let y = TOP + (HEIGHT + BELOW) * svg::number(row);
        panel.draw(&mut picture, LEFT, y);
    }
    picture + "</svg>\n"
}

fn panel(receipt: &Receipt, vip: &AboutVip) -> Panel {
    let (followed, of) = (vip.followed_after(), counting(vip));
    let end = steps(&followed).last().copied().unwrap_or(1.0);
    let mark = |part: f64| (end * part / 1e3, after(end * part));
    let captions = std::iter::once(caption(&followed, of)).chain(laggards(&vip.peers));
    let line = Line {
        style: OWN,
        of,
        captions: captions.collect(),
        followed: followed
            .iter()
            .map(|ms| Duration::from_secs_f64(ms / 1e3))
            .collect(),
    };
    Panel {
        title: title(receipt, vip),
        shaded_until: None,
        axis: Axis {
            seconds: end / 1e3,
            marks: vec![mark(0.0), mark(0.5), mark(1.0)],
        },
        lines: vec![line],
    }
}

fn title(receipt: &Receipt, vip: &AboutVip) -> String {
    let on = vip.interface.as_ref().map(|on| format!(" on {on}"));
    format!(
        "{}{}, {}",
        vip.address,
        on.unwrap_or_default(),
        receipt.time
    )
}

fn caption(followed: &[f64], of: usize) -> String {
    match followed.last() {
        None => format!("0 of {of} follow"),
        Some(last) => {
            format!(
                "{} of {of} follow, the last after {}",
                followed.len(),
                after(*last)
            )
        }
    }
}

fn counting(vip: &AboutVip) -> usize {
    vip.peers.iter().filter(|peer| peer.counts()).count()
}

/// Times in milliseconds, 1, 2, 5, 10 and so on, from the first one at which somebody follows to the one
/// at which everybody does who ever will.
fn steps(followed: &[f64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (followed.first(), followed.last()) else {
        return Vec::new();
    };
    let all = (-1..6).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
    let mut before = 0.0;
    all.filter(|until| {
        let is_needed = before < *last && until >= first;
        before = *until;
        is_needed
    })
    .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    fn receipt() -> Receipt {
        let proven = |number: u32, ms: f64| json!({"address": format!("10.0.0.{number}"), "verdict": "proven", "after_ms": ms});
        let peers = [
            proven(1, 0.7),
            proven(2, 1.2),
            proven(3, 14.0),
            json!({"address": "10.0.0.4", "verdict": "stale"}),
        ];
        let vip = json!({"address": "10.0.0.100", "interface": "e<1", "peers": peers});
        Receipt::read(&json!({"command": "announce", "time": "T", "vips": [vip]})).unwrap()
    }

    #[test]
    fn bars_show_the_share_over_time_and_name_the_laggards() {
        let bar = |length| format!("{:50}", "#".repeat(length));
        let expected = format!(
            "10.0.0.100 on e<1, T: 3 of 4 follow, the last after 14.0 ms\n   \
             1.0 ms  {}  1\n   2.0 ms  {}  2\n   5.0 ms  {1}  2\n  10.0 ms  {1}  2\n  \
             20.0 ms  {}  3\n    never  10.0.0.4 stale\n",
            bar(12),
            bar(25),
            bar(37)
        );
        assert_eq!(bars(&receipt()), expected);
    }

    #[test]
    fn the_picture_has_a_step_for_each_that_follows() {
        let picture = picture(&[receipt()]);
        let curve = picture
            .lines()
            .find(|line| line.contains(OWN.colour))
            .unwrap();
        assert_eq!(curve.matches('V').count(), 3, "{picture}");
        for part in ["10.0.0.4 stale", "on e&lt;1", "20.0 ms", "</svg>"] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
    }

    #[test]
    fn nobody_who_follows_is_no_reason_to_fail() {
        let vips = json!([{"address": "10.0.0.100", "peers": []},
                          {"address": "10.0.0.101", "peers": [{"address": "x", "verdict": "silent"}]}]);
        let receipt = Receipt::read(&json!({"command": "announce", "vips": vips})).unwrap();
        assert!(
            bars(&receipt).contains("10.0.0.101, : 0 of 1 follow\n    never  1 neighbour silent")
        );
        assert!(picture(&[receipt]).ends_with("</svg>\n"));
    }
}
