//! How far training runs drift apart, step by step.

use crate::error::ParityError;
use crate::trajectory::Trajectory;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (1000, 760);
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(60, 60, 60);
const GRID: RGBColor = RGBColor(228, 228, 228);
/// Okabe and Ito's blue, vermilion and green.
const COLORS: [RGBColor; 3] = [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115)];
/// Differences from here up are shown; equal losses lie on the floor.
const FLOOR: f64 = 1e-17;
/// With room for the legend above the largest.
const TOP: f64 = 1e4;

/// One panel a trajectory: the relative difference of the losses, on a logarithmic axis.
pub fn write(trajectories: &[Trajectory], path: &Path) -> Result<(), ParityError> {
    let mut text = String::new();
    paint(&mut text, trajectories).map_err(|error| ParityError::Draw(error.to_string()))?;
    std::fs::write(path, text).map_err(|source| ParityError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

fn paint(text: &mut String, trajectories: &[Trajectory]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let title = "Relative difference of the loss over training steps on enwik8";
    let root = root.titled(title, (FONT, 22).into_font().color(&INK))?;
    let rows = trajectories.len().div_ceil(2).max(1);
    for (panel, trajectory) in root.split_evenly((rows, 2)).iter().zip(trajectories) {
        draw_panel(panel, trajectory)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    panel: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    trajectory: &Trajectory,
) -> Result<(), Box<dyn std::error::Error>> {
    let losses = &trajectory.losses;
    let name = trajectory.case.trim_start_matches("trajectory-");
    let mut chart = ChartBuilder::on(panel)
        .caption(name, (FONT, 18).into_font().color(&INK))
        .margin(12)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(1.0..losses.ours.len().max(2) as f64, (FLOOR..TOP).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK.mix(0.6))
        .x_desc("step")
        .x_label_formatter(&|step| format!("{step:.0}"))
        .y_label_formatter(&|y| format!("{y:.0e}"))
        .label_style((FONT, 13).into_font().color(&INK))
        .draw()?;
    let lines = [
        ("ours to the reference, f32", &losses.ours, &losses.reference),
        ("the reference's f32 to its f64", &losses.reference, &losses.reference_f64),
        ("ours to the reference, f64", &losses.ours_f64, &losses.reference_f64),
    ];
    for ((label, ours, theirs), color) in lines.into_iter().zip(COLORS) {
        let point = |(step, (a, b)): (usize, (&f64, &f64))| {
            ((step + 1) as f64, ((a - b) / b).abs().clamp(FLOOR, TOP))
        };
        let points = ours.iter().zip(theirs).enumerate().map(point);
        // Dots, for losses that are equal to the last bit would make a line fall to the floor.
        let dots = points.map(|point| Circle::new(point, 2, color.filled()));
        chart
            .draw_series(dots)?
            .label(label)
            .legend(move |(x, y)| Circle::new((x + 13, y), 4, color.filled()));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .margin(8)
        .legend_area_size(28)
        .label_font((FONT, 13).into_font().color(&INK))
        .background_style(WHITE.mix(0.9))
        .draw()?;
    Ok(())
}
