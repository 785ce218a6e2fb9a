//! From points to SVG.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::Axis;
use super::curve::{Curve, Frame};

pub(super) const SIZE: (u32, u32) = (900, 540);
pub(super) const FONT: &str = "sans-serif";
pub(super) const INK: RGBColor = RGBColor(60, 60, 60);
pub(super) const GRID: RGBColor = RGBColor(228, 228, 228);

/// Okabe and Ito's colours, which stay apart for the colour-blind.
pub(super) const PALETTE: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

pub(super) type Chart<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Area<'b> = DrawingArea<SVGBackend<'b>, Shift>;
pub(super) type Drawn = Result<(), Box<dyn std::error::Error>>;

/// The picture as text.
pub(super) fn svg(curves: &[Curve], axis: Axis, title: &str) -> Result<String, String> {
    let mut text = String::new();
    paint(&mut text, curves, axis, title).map_err(|error| error.to_string())?;
    Ok(text)
}

/// Title and margins of every picture.
pub(super) fn framed<'a, 'b>(
    root: &'a Area<'b>,
    title: &str,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(root);
    chart
        .caption(title, (FONT, 22).into_font().color(&INK))
        .margin(16)
        .margin_right(28)
        .x_label_area_size(52)
        .y_label_area_size(64);
    chart
}

fn paint(text: &mut String, curves: &[Curve], axis: Axis, title: &str) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let frame = Frame::around(curves);
    let mut chart = framed(&root, title)
        .build_cartesian_2d(frame.steps.0..frame.steps.1, frame.bpc.0..frame.bpc.1)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK.mix(0.6))
        .x_labels(8)
        .y_labels(8)
        .x_desc(axis.title())
        .y_desc("bits per character")
        .x_label_formatter(&|step| step_label(*step))
        .y_label_formatter(&|bpc| format!("{bpc:.1}"))
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .draw()?;
    let color = |index: usize| PALETTE[index % PALETTE.len()];
    for (index, curve) in curves.iter().enumerate() {
        training(&mut chart, &frame, curve, color(index))?;
    }
    // After all lines, so that no point of one run lies under the noise of another.
    for (index, curve) in curves.iter().enumerate() {
        // A single run has colours to spare; several need one each.
        let index = if curves.len() == 1 { 1 } else { index };
        validation(&mut chart, curve, color(index))?;
    }
    draw_legend(&mut chart, 14)?;
    root.present()?;
    Ok(())
}

/// The legend of every picture, `margin` away from the corner.
pub(super) fn draw_legend<'a, 'b: 'a>(chart: &mut Chart<'a, 'b>, margin: i32) -> Drawn {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(margin)
        .legend_area_size(34)
        .label_font((FONT, 15).into_font().color(&INK))
        .background_style(WHITE.mix(0.9))
        .draw()?;
    Ok(())
}

fn training(chart: &mut Chart<'_, '_>, frame: &Frame, curve: &Curve, color: RGBColor) -> Drawn {
    for line in frame.below_top(&curve.raw) {
        chart.draw_series(LineSeries::new(line, color.mix(0.25)))?;
    }
    for line in frame.below_top(&curve.smooth) {
        chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
    }
    if let Some(last) = curve.smooth.last() {
        chart
            .draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?
            .label(label(&curve.name, "training", last.1))
            .legend(move |(x, y)| {
                PathElement::new([(x + 2, y), (x + 28, y)], color.stroke_width(2))
            });
    }
    Ok(())
}

fn validation(chart: &mut Chart<'_, '_>, curve: &Curve, color: RGBColor) -> Drawn {
    let points = || curve.valid.iter().copied();
    chart.draw_series(LineSeries::new(points(), color.mix(0.5)))?;
    // A white rim keeps the points apart from the line that they lie on.
    chart.draw_series(points().map(|point| Circle::new(point, 5, WHITE.filled())))?;
    let dots = chart.draw_series(points().map(|point| Circle::new(point, 4, color.filled())))?;
    if let Some(last) = curve.valid.last() {
        dots.label(label(&curve.name, "validation", last.1))
            .legend(move |(x, y)| Circle::new((x + 15, y), 4, color.filled()));
    }
    Ok(())
}

fn label(name: &str, what: &str, last: f64) -> String {
    let space = if name.is_empty() { "" } else { " " };
    format!("{name}{space}{what}, last {last:.2}")
}

/// 20000 as `20k` and 3000000 as `3M`, so that labels do not run into one another.
fn step_label(step: f64) -> String {
    if step >= 1_000_000.0 {
        format!("{}M", step / 1e6)
    } else if step >= 10_000.0 {
        format!("{}k", step / 1e3)
    } else {
        format!("{step:.0}")
    }
}
