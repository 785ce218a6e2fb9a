//! Why training stops.

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::generate::GenerateError;
use crate::metrics::MetricsError;
use crate::model::ModelError;
use crate::ranks::RanksError;
use std::io;
use std::path::PathBuf;

/// Every way in which a run can fail. Whatever it is, the checkpoints written before stay intact.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss or the gradient is not a number any more.
    #[error(
        "step {step} diverged at learning rate {lr:e}: loss {loss}, gradient norm {grad_norm}. The \
         update was not made; lower `train.lr`, or set `train.clip_norm`, and go on from a \
         checkpoint"
    )]
    Diverged {
        /// The step that was being done.
        step: u64,
        /// Its learning rate.
        lr: f64,
        /// Its loss in nats.
        loss: f64,
        /// Its gradient's norm.
        grad_norm: f64,
    },
    /// The folder of the run is there already.
    #[error(
        "`{}` exists: choose another `--out`, go on with it by `--resume`, or replace it by \
         `--overwrite`",
        path.display()
    )]
    FolderExists {
        /// The folder.
        path: PathBuf,
    },
    /// The folder to be replaced is not one that a run made.
    #[error("`{}` is not a run folder (it holds other things), so it is not replaced: choose another `--out`", path.display())]
    NotARun {
        /// The folder.
        path: PathBuf,
    },
    /// Another process has the folder.
    #[error("another process is training in `{}`: wait until it has ended, or choose another `--out`", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The data is not what the run began with.
    #[error(
        "the data of `data.source` = \"{source_name}\" is not what this run was trained on (it was {was}, it is \
         {is}): restore it, or go on with what it is now by `--allow-changed-data`"
    )]
    DataChanged {
        /// The source.
        source_name: String,
        /// Length and hash at the checkpoint.
        was: String,
        /// Length and hash now.
        is: String,
    },
    /// There is no run to go on with.
    #[error("there is no run in `{}` to resume: leave out `--resume` to start one", path.display())]
    NothingToResume {
        /// The folder.
        path: PathBuf,
    },
    /// A file or folder of the run cannot be written or read.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The ranks that train together do not work together.
    #[error(transparent)]
    Ranks(#[from] RanksError),
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device is not to be had.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The data is not usable.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The metrics cannot be read or written.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// A sample could not be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}
