//! The learning curve of one or several runs as an SVG file.

mod curve;
mod draw;

use std::path::Path;

use super::{MetricsError, Record};
use crate::atomic;
use curve::Curve;

/// The records of one run, under the name that the legend gives it.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The name in the legend; several runs need different ones, a single run may have none.
    pub name: &'a str,
    /// Its records, in the order of their steps.
    pub records: &'a [Record],
}

/// Draws training and validation loss in bits per character against the step.
///
/// The training loss (`train/loss`, nats) is a smoothed line over the faint raw one; validations
/// (`valid/bpc`) are points. The first few steps, where the loss falls from 8 bits, may leave the
/// picture at the top so that the rest can be read. Runs without a loss are left out; it is an
/// error if that leaves none.
pub fn loss_curve(
    runs: &[Run<'_>],
    title: &str,
    path: impl AsRef<Path>,
) -> Result<(), MetricsError> {
    let path = path.as_ref();
    let curves: Vec<Curve> = runs.iter().filter_map(Curve::of).collect();
    if curves.is_empty() {
        return Err(MetricsError::NothingToDraw { path: path.to_owned() });
    }
    let svg = draw::svg(&curves, title)
        .map_err(|message| MetricsError::Draw { path: path.to_owned(), message })?;
    atomic::write(path, svg.as_bytes()).map_err(|source| MetricsError::Io {
        action: "write the picture of",
        path: path.to_owned(),
        source,
    })
}
