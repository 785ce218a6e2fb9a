//! From records to the points that are drawn.

use std::f64::consts::LN_2;

use super::{Axis, Run};
use crate::metrics::Record;

/// A place on the axis and a loss in bits per character.
pub(super) type Point = (f64, f64);

/// About one a pixel; more points only make the file large.
const BUCKETS: usize = 800;

/// What is drawn of one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Curve {
    pub(super) name: String,
    /// Training loss as recorded.
    pub(super) raw: Vec<Point>,
    /// Training loss, smoothed.
    pub(super) smooth: Vec<Point>,
    /// Validations.
    pub(super) valid: Vec<Point>,
}

/// The part of the plane that is shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Frame {
    pub(super) steps: (f64, f64),
    pub(super) bpc: (f64, f64),
}

impl Curve {
    /// `None` for a run that has no loss to show.
    pub(super) fn of(run: &Run<'_>, axis: Axis) -> Option<Self> {
        let raw = points(run.records, axis, train_bpc);
        let valid = points(run.records, axis, |record| record.values.get("valid/bpc").copied());
        if raw.is_empty() && valid.is_empty() {
            return None;
        }
        // A few neighbours even in a short run; less than what would hide a trend in a long one.
        let smooth = smoothed(&raw, (raw.len() / 20).clamp(1, 100));
        Some(Self {
            name: run.name.to_owned(),
            raw: thinned(raw, BUCKETS),
            smooth: thinned(smooth, BUCKETS),
            valid,
        })
    }
}

/// Records of older runs hold the loss in nats a byte alone.
fn train_bpc(record: &Record) -> Option<f64> {
    let value = |key: &str| record.values.get(key).copied();
    value("train/bpc").or_else(|| Some(value("train/loss")? / LN_2))
}

fn points(records: &[Record], axis: Axis, of: impl Fn(&Record) -> Option<f64>) -> Vec<Point> {
    let point = |record: &Record| Some((axis.of(record)?, of(record)?));
    let is_finite = |(at, value): &Point| at.is_finite() && value.is_finite();
    records.iter().filter_map(point).filter(is_finite).collect()
}

/// Mean over up to `reach` neighbours on each side. At the start it takes as many before as after,
/// so that the steep fall is not dragged along as a running average would.
fn smoothed(raw: &[Point], reach: usize) -> Vec<Point> {
    let mean = |index: usize| {
        let reach = reach.min(index);
        let near = &raw[index - reach..(index + reach + 1).min(raw.len())];
        near.iter().map(|point| point.1).sum::<f64>() / near.len() as f64
    };
    raw.iter().enumerate().map(|(index, point)| (point.0, mean(index))).collect()
}

/// At most about `2 * buckets` points that look the same: the lowest and highest of each bucket.
fn thinned(line: Vec<Point>, buckets: usize) -> Vec<Point> {
    if line.len() <= 2 * buckets {
        return line;
    }
    let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
    let extremes = |bucket: &[Point]| {
        let low = *bucket.iter().min_by(by_value)?;
        let high = *bucket.iter().max_by(by_value)?;
        Some(if low.0 <= high.0 { [low, high] } else { [high, low] })
    };
    line.chunks(line.len().div_ceil(buckets)).filter_map(extremes).flatten().collect()
}

impl Frame {
    /// Shows every validation, and the training loss but for its fall in the first steps.
    pub(super) fn around(curves: &[Curve]) -> Self {
        let each = || curves.iter().flat_map(|curve| curve.smooth.iter().chain(&curve.valid));
        let last = each().map(|point| point.0).fold(1.0, f64::max);
        let settled = |curve: &Curve| {
            let start = curve.smooth.len() / 25;
            curve.smooth[start..]
                .iter()
                .chain(&curve.valid)
                .map(|point| point.1)
                .fold(0.0, f64::max)
        };
        let high = curves.iter().map(settled).fold(0.0, f64::max);
        let low = each().map(|point| point.1).fold(high, f64::min);
        let margin = ((high - low) * 0.08).max(0.05);
        Self { steps: (0.0, last * 1.02), bpc: ((low - margin).max(0.0), high + margin) }
    }

    /// The stretches of a line that lie below the upper edge, cut exactly at it.
    pub(super) fn below_top(&self, line: &[Point]) -> Vec<Vec<Point>> {
        let top = self.bpc.1;
        let mut stretches = vec![Vec::new()];
        let mut previous: Option<Point> = None;
        for &point in line {
            if let Some(from) = previous.filter(|from| (from.1 > top) != (point.1 > top)) {
                let share = (top - from.1) / (point.1 - from.1);
                let crossing = (from.0 + share * (point.0 - from.0), top);
                push(&mut stretches, crossing);
            }
            if point.1 <= top {
                push(&mut stretches, point);
            } else {
                stretches.push(Vec::new());
            }
            previous = Some(point);
        }
        stretches.retain(|stretch| stretch.len() > 1);
        stretches
    }
}

fn push(stretches: &mut [Vec<Point>], point: Point) {
    if let Some(stretch) = stretches.last_mut() {
        stretch.push(point);
    }
}
