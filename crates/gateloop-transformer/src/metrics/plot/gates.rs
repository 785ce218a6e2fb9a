//! How long gates remember, a row a layer.

use super::draw::{Drawn, FONT, GRID, INK, PALETTE, draw_legend, framed};
use crate::metrics::Record;
use crate::metrics::memory::{BINS, HISTOGRAM, filled, layer_and_quantity, lower_edge};
use plotters::prelude::*;

const WIDTH: u32 = 900;
/// Around the rows: title, axis and legend.
const AROUND: u32 = 170;
const ROW: u32 = 60;
/// Room for the names of layers.
const NAMES: u32 = 124;
/// The share of a row that the highest bin takes; above it is the median.
const HIGHEST: f64 = 0.75;

/// What was measured, of every layer.
pub(super) struct Measurements {
    steps: (u64, u64),
    layers: Vec<Layer>,
}

struct Layer {
    name: String,
    /// Counts of the first measurement and of the newest.
    first: Vec<u64>,
    newest: Vec<u64>,
    /// In tokens.
    median: Option<f64>,
}

impl Measurements {
    /// `None` if there are none.
    pub(super) fn of(records: &[Record]) -> Option<Self> {
        let mut measured = records.iter().filter(|record| layers(record).next().is_some());
        let first = measured.next()?;
        let newest = measured.next_back().unwrap_or(first);
        let layer = |(name, counts): (&str, &Vec<u64>)| Layer {
            name: name.to_owned(),
            first: first.counts.get(&key(name)).cloned().unwrap_or_default(),
            newest: counts.clone(),
            median: newest.values.get(&format!("gates/{name}/p50")).copied(),
        };
        let mut layers: Vec<Layer> = layers(newest).map(layer).collect();
        // layers.10 comes after layers.9.
        layers.sort_by_key(|layer| {
            let number = layer.name.split('.').find_map(|part| part.parse::<u64>().ok());
            (number, layer.name.clone())
        });
        Some(Self { steps: (first.step, newest.step), layers })
    }

    /// The end of the axis: where the last gate is, and a little more.
    fn last_edge(&self) -> f64 {
        let counts = self.layers.iter().flat_map(|layer| [&layer.first, &layer.newest]);
        let last = counts.filter_map(|counts| filled(counts)).map(|(_, end)| end).max();
        lower_edge(last.unwrap_or(1).max(10)) + 0.5
    }
}

fn key(layer: &str) -> String {
    format!("gates/{layer}/{HISTOGRAM}")
}

/// The layers of a record with their histograms.
fn layers(record: &Record) -> impl Iterator<Item = (&str, &Vec<u64>)> {
    record.counts.iter().filter_map(|(key, counts)| {
        let (layer, quantity) = layer_and_quantity(key)?;
        (quantity == HISTOGRAM && counts.len() == BINS).then_some((layer, counts))
    })
}

/// The picture as text.
pub(super) fn svg(measured: &Measurements, title: &str) -> Result<String, String> {
    let mut text = String::new();
    paint(&mut text, measured, title).map_err(|error| error.to_string())?;
    Ok(text)
}

fn paint(text: &mut String, measured: &Measurements, title: &str) -> Drawn {
    let rows = measured.layers.len();
    let height = AROUND + ROW * rows as u32;
    let root = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    root.fill(&WHITE)?;
    // Rows count downwards from 0; the space of one more holds the legend.
    let (right, top) = (measured.last_edge(), rows as f64 + 0.8);
    let mut chart =
        framed(&root, title).y_label_area_size(NAMES).build_cartesian_2d(0.0..right, 0.0..top)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK.mix(0.6))
        .disable_y_mesh()
        .y_labels(0)
        .x_labels(right as usize + 1)
        .x_desc("memory of a gate, 1 / (1 - |a|), in tokens")
        .x_label_formatter(&|log2| tokens(log2.exp2()))
        .label_style((FONT, 15).into_font().color(&INK))
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .draw()?;
    let (now, before, middle) = (PALETTE[0], INK.mix(0.55), PALETTE[1]);
    for (row, layer) in measured.layers.iter().enumerate() {
        let base = (rows - 1 - row) as f64;
        let shape = outline(&layer.newest, base);
        chart.draw_series([Polygon::new(shape.clone(), now.mix(0.3))])?;
        chart.draw_series([PathElement::new(shape, now.stroke_width(1))])?;
        if measured.steps.0 != measured.steps.1 {
            chart.draw_series([PathElement::new(outline(&layer.first, base), before)])?;
        }
        if let Some(median) = layer.median.filter(|median| median.is_finite()) {
            let at = median.log2().clamp(0.0, right);
            let tick = vec![(at, base), (at, base + HIGHEST)];
            chart.draw_series([PathElement::new(tick, middle.stroke_width(2))])?;
            let style = (FONT, 14).into_font().color(&middle);
            chart.draw_series([EmptyElement::at((at, base + HIGHEST))
                + Text::new(tokens(median), (-9, -15), style)])?;
        }
        let (_, y) = chart.backend_coord(&(0.0, base + 0.4));
        let style = (FONT, 15).into_font().color(&INK);
        root.draw(&Text::new(layer.name.clone(), (16, y - 7), style))?;
    }
    let mut legend = |label: String, color: RGBAColor, width: u32| -> Drawn {
        chart.draw_series(std::iter::empty::<Circle<(f64, f64), i32>>())?.label(label).legend(
            move |(x, y)| PathElement::new([(x + 2, y), (x + 28, y)], color.stroke_width(width)),
        );
        Ok(())
    };
    legend(format!("share of gates, step {}", measured.steps.1), now.mix(0.6), 6)?;
    if measured.steps.0 != measured.steps.1 {
        legend(format!("step {}", measured.steps.0), before, 1)?;
    }
    legend("median".to_owned(), middle.mix(1.0), 2)?;
    draw_legend(&mut chart, 8)?;
    root.present()?;
    Ok(())
}

/// Steps as high as the share of gates, the highest bin almost a row.
fn outline(counts: &[u64], base: f64) -> Vec<(f64, f64)> {
    let Some((start, end)) = filled(counts) else { return Vec::new() };
    let most = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let mut points = vec![(lower_edge(start), base)];
    for (bin, &count) in counts.iter().enumerate().take(end).skip(start) {
        let height = base + HIGHEST * count as f64 / most;
        points.extend([(lower_edge(bin), height), (lower_edge(bin + 1), height)]);
    }
    points.push((lower_edge(end), base));
    points
}

/// 2.5, 40, 2k, 1M.
fn tokens(count: f64) -> String {
    match count {
        count if count < 9.95 => format!("{count:.1}").trim_end_matches(".0").to_owned(),
        count if count < 1e3 => format!("{count:.0}"),
        count if count < 1e6 => format!("{:.0}k", count / 1e3),
        count => format!("{:.0}M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, layer: &str, bin: usize) -> Record {
        let mut counts = vec![0; BINS];
        counts[bin] = 10;
        Record::new(step, 0.0)
            .with_counts(key(layer), counts)
            .with(format!("gates/{layer}/p50"), lower_edge(bin).exp2())
    }

    #[test]
    fn the_first_and_the_newest_measurement_are_shown_in_the_order_of_layers() {
        let mut records = vec![Record::new(1, 0.0), record(2, "layers.9.mixer", 4)];
        let mut newest = record(6, "layers.10.mixer", 8);
        newest.counts.extend(record(6, "layers.9.mixer", 6).counts);
        records.extend([record(4, "layers.9.mixer", 5), newest, Record::new(7, 0.0)]);
        let measured = Measurements::of(&records).unwrap();
        assert_eq!(measured.steps, (2, 6));
        let names: Vec<_> = measured.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["layers.9.mixer", "layers.10.mixer"]);
        assert_eq!((measured.layers[0].first[4], measured.layers[0].newest[6]), (10, 10));
        assert_eq!(measured.layers[1].median, Some(16.0));
        let svg = svg(&measured, "title").unwrap();
        for part in ["layers.9.mixer", "in tokens", "step 2", "step 6", "median", "\n16\n"] {
            assert!(svg.contains(part), "no {part}");
        }
        assert!(Measurements::of(&records[..1]).is_none());
    }

    #[test]
    fn an_outline_stands_on_its_base_and_fills_its_row() {
        let mut counts = vec![0; BINS];
        (counts[2], counts[3]) = (5, 10);
        let expected =
            [(1.0, 3.0), (1.0, 3.375), (1.5, 3.375), (1.5, 3.75), (2.0, 3.75), (2.0, 3.0)];
        assert_eq!(outline(&counts, 3.0), expected);
        assert!(outline(&[0; BINS], 0.0).is_empty());
    }

    #[test]
    fn counts_of_tokens_are_short() {
        let shown = [1.0, 2.83, 64.2, 2048.0, 1_048_576.0].map(tokens);
        assert_eq!(shown, ["1", "2.8", "64", "2k", "1M"]);
    }
}
