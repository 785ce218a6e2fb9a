//! The learning curve of one or several runs, and more, as SVG and PNG files.
//!
//! Every picture is drawn once, as SVG; where the file's name ends in `.png`, that is made into pixels.

mod curve;
mod draw;
mod format;
mod gates;
mod position;
mod raster;

use std::path::Path;

use super::{MetricsError, Record};
use crate::atomic;
use curve::Curve;
pub use format::Format;

/// The records of one run, under the name that the legend gives it.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The name in the legend; several runs need different ones, a single run may have none.
    pub name: &'a str,
    /// Its records, in the order of their steps.
    pub records: &'a [Record],
}

/// What a curve is drawn against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Axis {
    /// Optimiser steps.
    #[default]
    Step,
    /// Tokens learned from (`tokens`).
    Tokens,
    /// Seconds of training, over all parts of the run.
    Time,
}

impl Axis {
    /// Where a record stands; `None` for one from before its quantity was recorded.
    fn of(self, record: &Record) -> Option<f64> {
        match self {
            Self::Step => Some(record.step as f64),
            Self::Tokens => record.values.get("tokens").copied(),
            Self::Time => Some(record.time_s),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Tokens => "tokens",
            Self::Time => "seconds",
        }
    }
}

/// Draws training and validation loss in bits per character against the step, the tokens or the time.
///
/// The training loss (`train/loss`, nats) is a smoothed line over the faint raw one; validations
/// (`valid/bpc`) are points. The first few steps, where the loss falls from 8 bits, may leave the
/// picture at the top so that the rest can be read. Runs without a loss are left out; it is an
/// error if that leaves none.
pub fn loss_curve(
    runs: &[Run<'_>],
    axis: Axis,
    title: &str,
    path: impl AsRef<Path>,
) -> Result<(), MetricsError> {
    let path = path.as_ref();
    let curves: Vec<Curve> = runs.iter().filter_map(|run| Curve::of(run, axis)).collect();
    if curves.is_empty() {
        return Err(MetricsError::NothingToDraw { path: path.to_owned() });
    }
    write(path, draw::svg(&curves, axis, title))
}

/// Draws bits per character against the place in the window, on a logarithmic axis of `unit`: bytes, or tokens.
pub fn by_position(
    by_position: &[f64],
    unit: &str,
    title: &str,
    path: impl AsRef<Path>,
) -> Result<(), MetricsError> {
    write(path.as_ref(), position::svg(by_position, unit, title))
}

/// Draws how long the gates of every layer remember: the newest measurement in `records`, over an outline of the first.
///
/// A row is a layer, the horizontal axis the memory 1 / (1 - |a|) in tokens, the height the share of gates. It is an error
/// if there is no measurement.
pub fn gate_memory(
    records: &[Record],
    title: &str,
    path: impl AsRef<Path>,
) -> Result<(), MetricsError> {
    let path = path.as_ref();
    match gates::Measurements::of(records) {
        Some(measured) => write(path, gates::svg(&measured, title)),
        None => Err(MetricsError::NoGates { path: path.to_owned() }),
    }
}

fn write(path: &Path, svg: Result<String, String>) -> Result<(), MetricsError> {
    let format = Format::of(path)?;
    let bytes = svg.and_then(|svg| match format {
        Format::Svg => Ok(svg.into_bytes()),
        Format::Png => raster::png(&svg),
    });
    let bytes = bytes.map_err(|message| MetricsError::Draw { path: path.to_owned(), message })?;
    atomic::write(path, &bytes).map_err(|source| MetricsError::Io {
        action: "write the picture of",
        path: path.to_owned(),
        source,
    })
}
