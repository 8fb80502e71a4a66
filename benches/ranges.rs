//! Times of several programs side by side, as SVG: from the first to the ninth tenth, on a
//! logarithmic axis.

use std::time::Duration;

use crate::stopwatch::{quantile, time};
use crate::svg::{self, line, number, rect, text};

// Lengths in pixels.
const WIDTH: f64 = 520.0;
const LEFT: f64 = 240.0;
const TOP: f64 = 72.0;
const ROW: f64 = 26.0;
const OURS: &str = "#0969da";
const OTHERS: &str = "#6e7781";

/// Draws programs and what each took, in as many turns as it ran; the first ones are `ours`.
pub(crate) fn draw(title: &str, ours: usize, programs: &[(String, Vec<Duration>)]) -> String {
    let at = |values: &[Duration], share| quantile(values, share).expect("there was a turn");
    let tenths = programs.iter().map(|(_, all)| (at(all, 0.1), at(all, 0.9)));
    let least = tenths.clone().map(|(first, _)| first).min();
    let most = tenths.map(|(_, ninth)| ninth).max();
    let (Some(least), Some(most)) = (least, most) else {
        return String::new();
    };
    // Whole powers of ten, in seconds.
    let from = least.as_secs_f64().log10().floor();
    let decades = most.as_secs_f64().log10().ceil() - from;
    let across = |time: Duration| LEFT + WIDTH * (time.as_secs_f64().log10() - from) / decades;
    let bottom = TOP + ROW * number(programs.len());
    let mut svg = svg::begin(LEFT + WIDTH + 110.0, bottom + 36.0);
    let reading = "From the first to the ninth tenth, and the median; the axis is logarithmic";
    svg::head(&mut svg, 14.0, title, reading);
    let mut decade = 0.0;
    while decade <= decades {
        let tick = Duration::from_secs_f64(10_f64.powf(from + decade));
        let x = across(tick);
        line(
            &mut svg,
            &format!("M{x:.1} {TOP}V{bottom}"),
            "#d1d9e0",
            "none",
            1.0,
        );
        let place = "text-anchor=\"middle\" fill=\"#59636e\" font-size=\"11\"";
        text(&mut svg, (x, bottom + 18.0), place, &time(tick));
        decade += 1.0;
    }
    for (row, (name, values)) in programs.iter().enumerate() {
        let colour = if row < ours { OURS } else { OTHERS };
        let (first, median, ninth) = (at(values, 0.1), at(values, 0.5), at(values, 0.9));
        let y = TOP + ROW * number(row) + 5.0;
        let (left, right) = (across(first), across(ninth));
        rect(&mut svg, (left, y), ((right - left).max(2.0), 14.0), colour);
        let middle = across(median);
        line(
            &mut svg,
            &format!("M{middle:.1} {y}v14"),
            "#fff",
            "none",
            2.0,
        );
        let end = "text-anchor=\"end\"";
        text(&mut svg, (LEFT - 10.0, y + 11.0), end, name);
        text(&mut svg, (right + 8.0, y + 11.0), "", &time(median));
    }
    svg + "</svg>\n"
}
