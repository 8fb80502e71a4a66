//! The share of peers that follow, over time, as SVG.

use std::fmt::Write;
use std::time::Duration;

use super::Method;
use crate::stopwatch::time;

/// A small chart.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Until when nothing could get through.
    pub(crate) shaded_until: Option<Duration>,
    pub(crate) lines: Vec<Line>,
}

/// One method in it.
pub(crate) struct Line {
    pub(crate) method: Method,
    /// When each that follows began to.
    pub(crate) followed: Vec<Duration>,
    /// How many should.
    pub(crate) of: usize,
}

// Lengths in pixels.
const WIDTH: f64 = 290.0;
const HEIGHT: f64 = 130.0;
const LEFT: f64 = 84.0;
const TOP: f64 = 104.0;
const COLUMN: f64 = WIDTH + 46.0;
const ROW: f64 = HEIGHT + 118.0;
/// Seconds on the horizontal axis.
const SECONDS: f64 = 12.0;

/// Its colour, and its dashes: lines on top of each other stay visible.
fn style(method: Method) -> (&'static str, &'static str, f64) {
    match method {
        Method::Keepalived => ("#6e7781", "none", 3.0),
        Method::Arping => ("#bc4c00", "5 4", 2.0),
        Method::Vipherald => ("#0969da", "none", 2.5),
    }
}

fn name(method: Method) -> &'static str {
    match method {
        Method::Keepalived => "keepalived alone",
        Method::Arping => "arping -U -c 5",
        Method::Vipherald => "vipherald",
    }
}

/// Draws rows of panels; the first row is that of IPv4, the second that of IPv6.
pub(crate) fn draw(rows: &[Vec<Panel>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let (width, height) = (
        LEFT + COLUMN * number(columns),
        TOP + ROW * number(rows.len()) - 44.0,
    );
    let mut svg = begin(width, height);
    let large = "font-size=\"17\" font-weight=\"600\"";
    let title = "A virtual IP has moved: which hosts follow it, and when?";
    text(&mut svg, (LEFT, 28.0), large, title);
    let reading = "Share of 30 Linux hosts whose neighbour table holds the new owner's MAC, over the seconds since the announcement began";
    text(&mut svg, (LEFT, 48.0), "fill=\"#59636e\"", reading);
    let mut x = LEFT;
    for method in [Method::Vipherald, Method::Keepalived, Method::Arping] {
        let (colour, dashes, thickness) = style(method);
        line(&mut svg, &format!("M{x} 68h28"), colour, dashes, thickness);
        text(&mut svg, (x + 36.0, 72.0), "", name(method));
        x += 170.0;
    }
    for (row, panels) in rows.iter().enumerate() {
        let y = TOP + ROW * number(row);
        let family = if row == 0 { "IPv4" } else { "IPv6" };
        text(
            &mut svg,
            (14.0, y + HEIGHT / 2.0 + 4.0),
            "font-weight=\"600\"",
            family,
        );
        for (column, panel) in panels.iter().enumerate() {
            panel.draw(&mut svg, LEFT + COLUMN * number(column), y);
        }
    }
    svg + "</svg>\n"
}

impl Panel {
    fn draw(&self, svg: &mut String, x: f64, y: f64) {
        let (right, bottom) = (x + WIDTH, y + HEIGHT);
        text(svg, (x, y - 9.0), "font-weight=\"600\"", &self.title);
        if let Some(until) = self.shaded_until {
            let width = across(until);
            rect(svg, (x, y), (width, HEIGHT), "#eaeef2");
            let middle = x + width / 2.0;
            text(
                svg,
                (middle, y + HEIGHT / 4.0 + 4.0),
                "text-anchor=\"middle\" fill=\"#59636e\"",
                "nothing gets through",
            );
        }
        for percent in [0.0, 50.0, 100.0] {
            let at = bottom - HEIGHT * percent / 100.0;
            line(svg, &format!("M{x} {at}H{right}"), "#d1d9e0", "none", 1.0);
            let place = "text-anchor=\"end\" fill=\"#59636e\" font-size=\"11\"";
            text(svg, (x - 5.0, at + 4.0), place, &format!("{percent} %"));
        }
        for second in [0_u32, 2, 4, 6, 8, 10, 12] {
            let at = x + across(Duration::from_secs(second.into()));
            line(svg, &format!("M{at} {bottom}v4"), "#d1d9e0", "none", 1.0);
            let unit = if second == 12 { " s" } else { "" };
            let place = "text-anchor=\"middle\" fill=\"#59636e\" font-size=\"11\"";
            text(svg, (at, bottom + 16.0), place, &format!("{second}{unit}"));
        }
        for (number_of, curve) in (0_u32..).zip(&self.lines) {
            let (colour, dashes, thickness) = style(curve.method);
            line(svg, &curve.path(x, bottom), colour, dashes, thickness);
            let at = bottom + 36.0 + 15.0 * f64::from(number_of);
            text(
                svg,
                (x, at),
                &format!("fill=\"{colour}\""),
                &curve.caption(),
            );
        }
    }
}

impl Line {
    /// A step up for each that follows.
    fn path(&self, x: f64, bottom: f64) -> String {
        let mut sorted = self.followed.clone();
        sorted.sort();
        let mut path = format!("M{x} {bottom}");
        for (count, at) in (1..).zip(sorted) {
            let height = HEIGHT * number(count) / number(self.of);
            write!(path, "H{:.1}V{:.1}", x + across(at), bottom - height)
                .expect("a String takes all");
        }
        write!(path, "H{}", x + WIDTH).expect("a String takes all");
        path
    }

    /// The same in words.
    fn caption(&self) -> String {
        let name = name(self.method);
        let last = self.followed.iter().max().copied().unwrap_or_default();
        let percent = 100 * self.followed.len() / self.of.max(1);
        match self.followed.len() {
            0 => format!("{name}: nobody"),
            count if count == self.of => format!("{name}: all, the last after {}", time(last)),
            _ => format!("{name}: {percent} %, the others never"),
        }
    }
}

/// How far to the right a time is.
fn across(time: Duration) -> f64 {
    WIDTH * time.as_secs_f64().min(SECONDS) / SECONDS
}

// Lengths are pixels, colours those of SVG.

/// A white page.
fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\" \
         fill=\"#1f2328\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

fn line(svg: &mut String, path: &str, colour: &str, dashes: &str, thickness: f64) {
    writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thickness}\" \
         stroke-dasharray=\"{dashes}\"/>"
    )
    .expect("a String takes all");
}

fn rect(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    )
    .expect("a String takes all");
}

/// Text without `<` or `&`.
fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>")
        .expect("a String takes all");
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn number(count: usize) -> f64 {
    count as f64
}
