//! Why a case cannot be run. A case that runs and differs is no error, but a report that says so.

use gateloop_nn::NnError;
use gateloop_transformer::exchange::ExchangeError;
use gateloop_transformer::generate::GenerateError;
use gateloop_transformer::model::ModelError;
use gateloop_transformer::train::TrainError;
use gateloop_transformer::weights::WeightsError;
use std::path::PathBuf;

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParityError {
    /// A file that is no case.
    #[error("`{}` is no case: {problem}; write the cases again with `cargo xtask parity`", path.display())]
    NotACase {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A folder or a file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The plot cannot be drawn.
    #[error("cannot draw: {0}")]
    Draw(String),
    /// A layer failed.
    #[error(transparent)]
    Layer(#[from] NnError),
    /// A model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A step of training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Generation failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Weights do not fit.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// Weights cannot be converted.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
