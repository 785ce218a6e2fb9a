//! What can be wrong with metrics.

use std::path::PathBuf;

/// Why metrics could not be written, read or drawn.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The file could not be opened, read or written.
    #[error("cannot {action} the metrics {}: {source}; check the path and the space on the disk", path.display())]
    Io {
        /// What was attempted: read, write and so on.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line in the middle of the file is not a record.
    #[error("{}:{line}: not a record of metrics: {message}; remove the line, or move the file away", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A curve was asked for of records that hold no loss.
    #[error("nothing to draw in {}: no record has `train/loss` or `valid/bpc`; train for at least train.log_every steps", path.display())]
    NothingToDraw {
        /// The picture that was asked for.
        path: PathBuf,
    },
    /// Gates were asked for of records that hold none.
    #[error("nothing to draw in {}: no record has a histogram of gates; train a model with gate loops, and train.gates_every and train.validate_every above 0", path.display())]
    NoGates {
        /// The picture that was asked for.
        path: PathBuf,
    },
    /// The extension of a picture's name says nothing that is known.
    #[error("cannot tell what picture `{}` is to be: let its name end in .svg or .png", path.display())]
    PictureFormat {
        /// The picture that was asked for.
        path: PathBuf,
    },
    /// The picture could not be drawn.
    #[error("cannot draw {}: {message}", path.display())]
    Draw {
        /// The picture.
        path: PathBuf,
        /// What the drawing library said.
        message: String,
    },
}
