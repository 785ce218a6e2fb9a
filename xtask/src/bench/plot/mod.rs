//! The pictures of the documents.

mod bars;
mod times;

pub(crate) use bars::{Scale, bars, shares, speedups};
pub(crate) use times::{channels, lengths, times};

use plotters::style::RGBColor;

const WIDTH: u32 = 900;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(228, 228, 228);

/// Okabe and Ito's colours, which stay apart for the colour-blind; the first is ours.
const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The SVG that a painter writes.
fn text_of(paint: impl FnOnce(&mut String) -> Drawn) -> Result<String, String> {
    let mut text = String::new();
    paint(&mut text).map_err(|error| error.to_string())?;
    Ok(text)
}
