//! The share of peers that follow, over time, as SVG. The benchmark draws with this, too.

use std::fmt::Write;
use std::time::Duration;

/// A small chart.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// Until when nothing could get through.
    pub(crate) shaded_until: Option<Duration>,
    pub(crate) axis: Axis,
    pub(crate) lines: Vec<Line>,
}

/// The horizontal axis: its end in seconds, and the marks on it. The last one is at the end.
#[derive(Clone)]
pub(crate) struct Axis {
    pub(crate) seconds: f64,
    pub(crate) marks: Vec<(f64, String)>,
}

/// A curve, and what is said below the chart.
pub(crate) struct Line {
    pub(crate) style: Style,
    /// When each that follows began to.
    pub(crate) followed: Vec<Duration>,
    /// How many should.
    pub(crate) of: usize,
    pub(crate) captions: Vec<String>,
}

/// Its colour, and its dashes: lines on top of each other stay visible.
#[derive(Clone, Copy)]
pub(crate) struct Style {
    pub(crate) colour: &'static str,
    pub(crate) dashes: &'static str,
    pub(crate) thickness: f64,
}

/// The style of vipherald's own curve.
pub(crate) const OWN: Style = Style {
    colour: "#0969da",
    dashes: "none",
    thickness: 2.5,
};

// Lengths in pixels.
pub(crate) const WIDTH: f64 = 290.0;
pub(crate) const HEIGHT: f64 = 130.0;
/// A line below a chart.
pub(crate) const CAPTION: f64 = 15.0;

impl Panel {
    /// Draws it with its upper left corner there.
    pub(crate) fn draw(&self, svg: &mut String, x: f64, y: f64) {
        let (right, bottom) = (x + WIDTH, y + HEIGHT);
        text(svg, (x, y - 9.0), "font-weight=\"600\"", &self.title);
        if let Some(until) = self.shaded_until {
            let width = self.axis.across(until);
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
            line(svg, &format!("M{x} {at}H{right}"), GRID);
            let place = "text-anchor=\"end\" fill=\"#59636e\" font-size=\"11\"";
            text(svg, (x - 5.0, at + 4.0), place, &format!("{percent} %"));
        }
        for (seconds, mark) in &self.axis.marks {
            let at = x + self.axis.across(Duration::from_secs_f64(*seconds));
            line(svg, &format!("M{at} {bottom}v4"), GRID);
            let place = "text-anchor=\"middle\" fill=\"#59636e\" font-size=\"11\"";
            text(svg, (at, bottom + 16.0), place, mark);
        }
        let mut below = bottom + 36.0;
        for curve in &self.lines {
            line(svg, &curve.path(&self.axis, x, bottom), curve.style);
            for caption in &curve.captions {
                let fill = format!("fill=\"{}\"", curve.style.colour);
                text(svg, (x, below), &fill, caption);
                below += CAPTION;
            }
        }
    }
}

impl Axis {
    /// How far to the right a time is.
    fn across(&self, time: Duration) -> f64 {
        WIDTH * time.as_secs_f64().min(self.seconds) / self.seconds
    }
}

impl Line {
    /// A step up for each that follows.
    fn path(&self, axis: &Axis, x: f64, bottom: f64) -> String {
        let mut sorted = self.followed.clone();
        sorted.sort();
        let mut path = format!("M{x} {bottom}");
        for (count, at) in (1..).zip(sorted) {
            let height = HEIGHT * number(count) / number(self.of);
            // A String takes all.
            let _ = write!(path, "H{:.1}V{:.1}", x + axis.across(at), bottom - height);
        }
        let _ = write!(path, "H{}", x + WIDTH);
        path
    }
}

const GRID: Style = Style {
    colour: "#d1d9e0",
    dashes: "none",
    thickness: 1.0,
};

/// The beginning of a white page.
pub(crate) fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\" \
         fill=\"#1f2328\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

/// A path.
pub(crate) fn line(svg: &mut String, path: &str, style: Style) {
    let Style {
        colour,
        dashes,
        thickness,
    } = style;
    let _ = writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thickness}\" \
         stroke-dasharray=\"{dashes}\"/>"
    );
}

fn rect(svg: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    );
}

/// A text.
pub(crate) fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>");
}

/// A count as a length.
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
