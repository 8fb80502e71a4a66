//! One failover as a picture: the share of peers that follow, over time, and who does not.

use std::fmt::Write;
use std::time::Duration;

use super::receipt::{AboutVip, Receipt};
use super::svg::{self, Axis, CAPTION, HEIGHT, Line, OWN, Panel, WIDTH};
use super::table::{after, laggards};

/// Characters of a whole bar.
const BAR: usize = 50;
const LEFT: f64 = 60.0;
const TOP: f64 = 70.0;
/// Room below a chart for its axis, and the gap to the next one.
const BELOW: f64 = 60.0;
/// Charts of one picture.
const MOST_PANELS: usize = 40;
/// Characters that fit on a line below a chart.
const LINE: usize = 62;

/// The announcement as bars of text, for a terminal.
pub(crate) fn bars(receipt: &Receipt) -> String {
    let mut text = String::new();
    for vip in &receipt.vips {
        let (followed, of) = (vip.followed_after(), counting(vip));
        // A String takes all.
        let _ = writeln!(
            text,
            "{}, {}: {}",
            title(vip),
            receipt.time,
            caption(&followed, of)
        );
        for until in steps(&followed) {
            let count = followed.iter().filter(|at| **at <= until).count();
            let bar = "#".repeat(BAR.saturating_mul(count) / of.max(1));
            let _ = writeln!(text, "{:>9}  {bar:BAR$}  {count}", after(until));
        }
        if let Some(laggards) = laggards(vip) {
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
    let mut panels: Vec<_> = panels.collect();
    let more = panels.len().saturating_sub(MOST_PANELS);
    panels.truncate(MOST_PANELS);
    let below = |panel: &Panel| {
        let lines = panel.lines.iter().map(|line| line.captions.len());
        HEIGHT + BELOW + CAPTION * svg::number(lines.sum())
    };
    let height = TOP + panels.iter().map(below).sum::<f64>();
    let mut picture = svg::begin(LEFT + WIDTH + 160.0, height);
    let heading = "Share of peers that follow, over the time since the announcement began";
    svg::text(&mut picture, (LEFT, 28.0), "fill=\"#59636e\"", heading);
    let mut y = TOP;
    for panel in &panels {
        panel.draw(&mut picture, LEFT, y);
        y += below(panel);
    }
    if more > 0 {
        let text = format!("{more} more charts are not drawn: name the VIPs that matter");
        svg::text(&mut picture, (LEFT, y - CAPTION), "fill=\"#59636e\"", &text);
    }
    picture + "</svg>\n"
}

fn panel(receipt: &Receipt, vip: &AboutVip) -> Panel {
    let (followed, of) = (vip.followed_after(), counting(vip));
    let end = steps(&followed).last().copied().unwrap_or(1.0);
    let mark = |part: f64| (end * part / 1e3, after(end * part));
    let mut captions = vec![receipt.time.clone(), caption(&followed, of)];
    captions.extend(laggards(vip).iter().flat_map(|laggards| wrapped(laggards)));
    let line = Line {
        style: OWN,
        of,
        captions,
        followed: followed
            .iter()
            .map(|ms| Duration::from_secs_f64(ms / 1e3))
            .collect(),
    };
    Panel {
        title: title(vip),
        shaded_until: None,
        axis: Axis {
            seconds: end / 1e3,
            marks: vec![mark(0.0), mark(0.5), mark(1.0)],
        },
        lines: vec![line],
    }
}

fn title(vip: &AboutVip) -> String {
    let on = vip.interface.as_ref().map(|on| format!(" on {on}"));
    vip.address.clone() + &on.unwrap_or_default()
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
    usize::try_from(vip.counting()).unwrap_or(usize::MAX)
}

/// The text in lines that end after a comma, where they would be too long.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split_inclusive(", ") {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.trim_end().chars().count() <= LINE => {
                *line += part;
            }
            _ => lines.push(part.to_owned()),
        }
    }
    lines
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
    fn long_names_stay_within_the_picture() {
        let peer = |number: u32| json!({"address": format!("2001:db8:1234:5678:9abc:def0:1234:{number:x}"), "verdict": "stale"});
        let vip = json!({"address": peer(0x1111)["address"], "interface": "bond0.1234",
                          "peers": (0x1000..0x1009).map(peer).collect::<Vec<_>>()});
        let receipt = Receipt::read(&json!({"command": "announce",
            "time": "2026-11-27T02:00:51.272Z", "vips": [vip]}))
        .unwrap();
        let picture = picture(&[receipt]);
        let texts = picture
            .lines()
            .filter_map(|line| line.strip_suffix("</text>"));
        let texts: Vec<_> = texts.filter_map(|line| line.rsplit('>').next()).collect();
        assert!(texts.iter().all(|text| text.len() < 75), "{texts:?}");
        assert_eq!(texts.last(), Some(&"5 more do not follow"), "{texts:?}");
    }

    #[test]
    fn of_many_vips_the_first_are_drawn() {
        let vip = |number| json!({"address": format!("10.0.0.{number}"), "peers": []});
        let vips: Vec<_> = (0..250).map(vip).collect();
        let receipt = Receipt::read(&json!({"command": "announce", "vips": vips})).unwrap();
        let picture = picture(&[receipt]);
        assert_eq!(picture.matches("0 of 0 follow").count(), MOST_PANELS);
        assert!(picture.contains("210 more charts are not drawn"));
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
