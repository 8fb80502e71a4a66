//! The benchmark's chart: rows of panels, a curve for each method.

use std::time::Duration;

use super::Method;
use super::svg::{self, Axis, HEIGHT, Line, OWN, Panel, Style, WIDTH, number};
use crate::stopwatch::time;

// Lengths in pixels.
const LEFT: f64 = 84.0;
const TOP: f64 = 104.0;
const COLUMN: f64 = WIDTH + 46.0;
const ROW: f64 = HEIGHT + 118.0;

fn style(method: Method) -> Style {
    match method {
        Method::Keepalived => Style {
            colour: "#6e7781",
            dashes: "none",
            thickness: 3.0,
        },
        Method::Arping => Style {
            colour: "#bc4c00",
            dashes: "5 4",
            thickness: 2.0,
        },
        Method::Vipherald | Method::Wired(_) => OWN,
    }
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Keepalived => "keepalived alone",
        Method::Arping => "arping -U -c 5",
        Method::Vipherald | Method::Wired(_) => "vipherald",
    }
}

/// Twelve seconds, with a mark every two.
pub(crate) fn axis() -> Axis {
    let marks = (0..=12_u32).step_by(2).map(|second| {
        let unit = if second == 12 { " s" } else { "" };
        (f64::from(second), format!("{second}{unit}"))
    });
    Axis {
        seconds: 12.0,
        marks: marks.collect(),
    }
}

/// The curve of a method: when each peer that follows began to, and how many should.
pub(crate) fn curve(method: Method, followed: Vec<Duration>, of: usize) -> Line {
    let name = name(method);
    let last = followed.iter().max().copied().unwrap_or_default();
    let percent = 100 * followed.len() / of.max(1);
    let caption = match followed.len() {
        0 => format!("{name}: nobody"),
        count if count == of => format!("{name}: all, the last after {}", time(last)),
        _ => format!("{name}: {percent} %, the others never"),
    };
    Line {
        style: style(method),
        followed,
        of,
        captions: vec![caption],
    }
}

/// Draws rows of panels; the first row is that of IPv4, the second that of IPv6.
pub(crate) fn draw(rows: &[Vec<Panel>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = (
        LEFT + COLUMN * number(columns),
        TOP + ROW * number(rows.len()) - 44.0,
    );
    let mut picture = svg::begin(width, height);
    let large = "font-size=\"17\" font-weight=\"600\"";
    let title = "A virtual IP has moved: which hosts follow it, and when?";
    svg::text(&mut picture, (LEFT, 28.0), large, title);
    let reading = "Share of 30 Linux hosts whose neighbour table holds the new owner's MAC, over the seconds since the announcement began";
    svg::text(&mut picture, (LEFT, 48.0), "fill=\"#59636e\"", reading);
    let mut x = LEFT;
    for method in [Method::Vipherald, Method::Keepalived, Method::Arping] {
        svg::line(&mut picture, &format!("M{x} 68h28"), style(method));
        svg::text(&mut picture, (x + 36.0, 72.0), "", name(method));
        x += 170.0;
    }
    for (row, panels) in rows.iter().enumerate() {
        let y = TOP + ROW * number(row);
        let family = if row == 0 { "IPv4" } else { "IPv6" };
        svg::text(
            &mut picture,
            (14.0, y + HEIGHT / 2.0 + 4.0),
            "font-weight=\"600\"",
            family,
        );
        for (column, panel) in panels.iter().enumerate() {
            panel.draw(&mut picture, LEFT + COLUMN * number(column), y);
        }
    }
    picture + "</svg>\n"
}
