//! What the program says, and with what exit code it ends, when something is wrong.

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::data::DataError;
use crate::device::DeviceError;
use crate::exchange::ExchangeError;
use crate::generate::GenerateError;
use crate::metrics::MetricsError;
use crate::model::ModelError;
use crate::ranks::RanksError;
use crate::train::TrainError;
use crate::vocabulary::VocabularyError;
use crate::weights::WeightsError;
use std::io;
use std::path::PathBuf;

/// Every failure of the program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The arguments do not make sense.
    #[error("{0}")]
    Usage(String),
    /// A run was interrupted; everything is in its checkpoint.
    #[error("interrupted")]
    Interrupted,
    /// A file or stream cannot be read or written.
    #[error("cannot {action} {what}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or stream.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// There is nothing to list.
    #[error("there is no run in {}: name the folder that holds them", folders.join(", "))]
    NoRuns {
        /// The folders that were looked into.
        folders: Vec<String>,
    },
    /// Metrics cannot be read or drawn.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The file of ids is not as it should be.
    #[error("`{}` has no tensor `ids`: save the token ids, I64 [B, T], under that name", path.display())]
    NoIds {
        /// The file.
        path: PathBuf,
    },
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A checkpoint is not usable.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight file is not usable.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The data is not usable.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A tokenizer is not usable.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// Weights cannot be exchanged.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A device cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Generation failed.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
}

impl CliError {
    /// 2 for what the user must say otherwise, 130 for an interruption, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::Device(_)
            | Self::Exchange(
                ExchangeError::Ask { .. }
                | ExchangeError::Config(_)
                | ExchangeError::Extension { .. },
            )
            | Self::Generate(GenerateError::EmptyPrompt)
            | Self::Metrics(MetricsError::PictureFormat { .. })
            | Self::Train(
                TrainError::FolderExists { .. }
                | TrainError::NotARun { .. }
                | TrainError::NothingToResume { .. }
                | TrainError::Locked { .. }
                | TrainError::DataChanged { .. }
                | TrainError::Ranks(RanksError::Division { .. } | RanksError::Config(_))
                | TrainError::Config(_),
            ) => 2,
            Self::Interrupted => 130,
            _ => 1,
        }
    }
}
