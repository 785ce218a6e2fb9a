//! Does context help? Loss against the place in the window.

use super::draw::{Drawn, FONT, GRID, INK, PALETTE, SIZE, framed};
use plotters::prelude::*;

/// Points to the doubling of the position; a point is the mean of those around it.
const PER_DOUBLING: f64 = 4.0;

/// The picture as text.
pub(super) fn svg(by_position: &[f64], unit: &str, title: &str) -> Result<String, String> {
    let mut text = String::new();
    paint(&mut text, &binned(by_position), unit, title).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Means over places that grow further apart: place from 1, bits per character.
fn binned(by_position: &[f64]) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    let mut start = 0;
    while start < by_position.len() {
        let next = ((start + 1) as f64 * 2_f64.powf(1.0 / PER_DOUBLING)).round() as usize;
        let bin = &by_position[start..next.max(start + 1).min(by_position.len())];
        let mean = bin.iter().sum::<f64>() / bin.len() as f64;
        let middle = (start + 1) as f64 + (bin.len() - 1) as f64 / 2.0;
        points.push((middle, mean));
        start += bin.len();
    }
    points.retain(|point| point.1.is_finite());
    points
}

fn paint(text: &mut String, points: &[(f64, f64)], unit: &str, title: &str) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let last = points.last().map_or(1.0, |point| point.0).max(2.0);
    let high = points.iter().map(|point| point.1).fold(0.0, f64::max);
    let low = points.iter().map(|point| point.1).fold(high, f64::min);
    let margin = ((high - low) * 0.08).max(0.05);
    let mut chart = framed(&root, title).build_cartesian_2d(
        (1.0..last * 1.05).log_scale().base(2.0),
        (low - margin).max(0.0)..high + margin,
    )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK.mix(0.6))
        .y_labels(8)
        .x_desc(format!("{unit} of context"))
        .y_desc("bits per character")
        .x_label_formatter(&|place| format!("{place:.0}"))
        .y_label_formatter(&|bpc| format!("{bpc:.1}"))
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .draw()?;
    let line = points.iter().copied();
    chart.draw_series(LineSeries::new(line.clone(), PALETTE[0].stroke_width(2)))?;
    chart.draw_series(line.map(|point| Circle::new(point, 3, PALETTE[0].filled())))?;
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::binned;

    #[test]
    fn bins_hold_every_place_once_and_grow() {
        let places: Vec<f64> = (1..=1000).map(f64::from).collect();
        let points = binned(&places);
        assert_eq!(points[0], (1.0, 1.0));
        assert!(points.len() < 60 && points.is_sorted_by(|a, b| a.0 < b.0));
        // The mean of a place is its middle, so no place is missing.
        assert!(points.iter().all(|(place, mean)| (place - mean).abs() < 1e-9));
        assert!(binned(&[]).is_empty());
    }
}
