//! Times against a size, on logarithmic axes.

use plotters::prelude::*;

use super::{Drawn, FONT, GRID, INK, PALETTE, WIDTH, text_of};
use crate::bench::plan::scans::{CHANNELS, LENGTHS, by_channels, by_length};
use crate::bench::plan::{Role, Side};
use crate::bench::results::Results;

const HEIGHT: u32 = 540;
const LIMIT: RGBColor = RGBColor(150, 150, 150);

/// A line of a side.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    side: Side,
    points: Vec<(f64, f64)>,
}

/// Milliseconds of the scan against T, at 512 channels.
pub(crate) fn lengths(results: &Results) -> Vec<Series> {
    series(results, &LENGTHS, by_length)
}

/// The same against C, at 4,096 tokens.
pub(crate) fn channels(results: &Results) -> Vec<Series> {
    series(results, &CHANNELS, by_channels)
}

/// The sides in the order in which they first appear; ours is drawn like any other.
fn series(results: &Results, at: &[usize], name: impl Fn(usize) -> String) -> Vec<Series> {
    let mut all: Vec<Series> = Vec::new();
    for &x in at {
        let Some(measured) = results.work(&name(x)) else { continue };
        for figure in measured.figures.iter().filter(|f| f.side.role != Role::Base) {
            let Some(seconds) = figure.median() else { continue };
            let point = (x as f64, seconds * 1e3);
            match all.iter_mut().find(|series| series.side == figure.side) {
                Some(series) => series.points.push(point),
                None => all.push(Series { side: figure.side, points: vec![point] }),
            }
        }
    }
    all
}

/// Times against a size, both on logarithmic axes.
pub(crate) fn times(title: &str, x: &str, series: &[Series]) -> Result<String, String> {
    text_of(|text| paint(text, title, x, series))
}

fn paint(text: &mut String, title: &str, x: &str, series: &[Series]) -> Drawn {
    let root = SVGBackend::with_string(text, (WIDTH, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let points = || series.iter().flat_map(|series| series.points.iter().copied());
    let range = |values: &dyn Fn((f64, f64)) -> f64| {
        let (low, high) = points()
            .map(values)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(l, h), v| (l.min(v), h.max(v)));
        low.min(high) / 1.3..high * 1.3
    };
    // Room for the legend beside the lines.
    let mut chart = ChartBuilder::on(&root)
        .caption(title, (FONT, 22).into_font().color(&INK))
        .margin(16)
        .margin_right(300)
        .x_label_area_size(52)
        .y_label_area_size(78)
        .build_cartesian_2d(range(&|p| p.0).log_scale(), range(&|p| p.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK.mix(0.6))
        .x_desc(x)
        .y_desc("milliseconds")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| value.to_string())
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .draw()?;
    let mut peers = PALETTE.iter().skip(1).cycle();
    for (index, series) in series.iter().enumerate() {
        let (color, width) = match series.side.role {
            Role::Limit => (LIMIT, 1),
            Role::Ours => (PALETTE[0], 3),
            _ => (*peers.next().unwrap_or(&INK), 2),
        };
        chart.draw_series(LineSeries::new(
            series.points.iter().copied(),
            color.stroke_width(width),
        ))?;
        if series.side.role != Role::Limit {
            chart.draw_series(
                series.points.iter().map(|&point| Circle::new(point, 4, color.filled())),
            )?;
        }
        let y = 70 + 24 * index as i32;
        let x = WIDTH as i32 - 290;
        root.draw(&PathElement::new([(x, y), (x + 24, y)], color.stroke_width(width)))?;
        let label = (FONT, 14).into_font().color(&INK);
        root.draw(&Text::new(series.side.title, (x + 30, y - 8), label))?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::invented;

    #[test]
    fn every_side_of_a_sweep_has_a_line() {
        let results = invented(|_, side| if side == "ours" { 0.5 } else { 0.25 });
        let lines = lengths(&results);
        let ours = lines.iter().find(|series| series.side == Side::OURS).unwrap();
        assert_eq!(ours.points.len(), LENGTHS.len());
        assert_eq!(ours.points[0], (256.0, 500.0));
        let svg = times("title", "T", &lines).unwrap();
        for series in &lines {
            assert!(svg.contains(series.side.title), "{}", series.side.title);
        }
        assert_eq!(channels(&results)[0].points.len(), CHANNELS.len());
    }

    #[test]
    fn nothing_to_draw_is_no_failure() {
        assert!(times("title", "T", &[]).is_ok());
    }
}
