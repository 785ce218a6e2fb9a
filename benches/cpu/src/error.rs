//! Why a piece of work has no time.

use gateloop_nn::NnError;
use gateloop_scan::ScanError;
use gateloop_transformer::data::DataError;
use gateloop_transformer::model::ModelError;
use gateloop_transformer::train::TrainError;
use tch::TchError;

pub(crate) type Result<T> = std::result::Result<T, Problem>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The answer was wrong; it must not be timed.
    #[error("{0}")]
    Wrong(String),

    /// This machine or this program cannot do it.
    #[error("{0}")]
    Unavailable(String),

    #[error("no work is called `{key}`: see benches/cpu/src/key.rs")]
    Unknown { key: String },

    #[error(
        "`{request}` is no request: ask `prepare KEY`, `time KEY`, `memory KEY`, `release` or `versions`"
    )]
    Request { request: String },

    #[error("`{key}` is not prepared: ask `prepare {key}` first")]
    NotPrepared { key: String },

    #[error("{field} is not in /proc/self/status")]
    Status { field: &'static str },

    #[error(transparent)]
    Scan(#[from] ScanError),

    #[error(transparent)]
    Torch(#[from] TchError),

    #[error(transparent)]
    Nn(#[from] NnError),

    #[error(transparent)]
    Model(#[from] ModelError),

    #[error(transparent)]
    Data(#[from] DataError),

    #[error(transparent)]
    Train(#[from] TrainError),

    #[error("could not read the memory of this process: {0}")]
    Memory(#[from] std::io::Error),
}
