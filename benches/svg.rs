//! What plots are drawn with. Lengths are pixels, colours those of SVG.

use std::fmt::Write;

/// A white page.
pub(crate) fn begin(width: f64, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\" font-size=\"12\" \
         fill=\"#1f2328\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    )
}

/// What a page shows, and how it is to be read.
pub(crate) fn head(svg: &mut String, x: f64, title: &str, reading: &str) {
    let large = "font-size=\"17\" font-weight=\"600\"";
    text(svg, (x, 28.0), large, title);
    text(svg, (x, 48.0), "fill=\"#59636e\"", reading);
}

pub(crate) fn line(svg: &mut String, path: &str, colour: &str, dashes: &str, thickness: f64) {
    writeln!(
        svg,
        "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{thickness}\" \
         stroke-dasharray=\"{dashes}\"/>"
    )
    .expect("a String takes all");
}

pub(crate) fn rect(
    svg: &mut String,
    (x, y): (f64, f64),
    (width, height): (f64, f64),
    colour: &str,
) {
    writeln!(
        svg,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
    )
    .expect("a String takes all");
}

/// Text without `<` or `&`.
pub(crate) fn text(svg: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    writeln!(svg, "<text x=\"{x}\" y=\"{y}\" {attributes}>{text}</text>")
        .expect("a String takes all");
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
pub(crate) fn number(count: usize) -> f64 {
    count as f64
}
