//! Checkpoints: everything that a run needs to go on, in one safetensors file.
//!
//! The model's parameters stand under the PyTorch reference's names, so that the file is also a
//! plain weight file; the optimiser's moments under `optimizer.`, averaged weights under `ema.`;
//! configuration, step, data position and the program's revision in the header's metadata.

mod folder;

pub use folder::{CheckpointFolder, Opened};

use crate::config::{Config, ConfigError, DataConfig};
use crate::data::SamplerState;
use crate::model::{Model, ModelError};
use crate::vocabulary::{Vocabulary, VocabularyError};
use crate::weights::{self, Metadata, Tensors, WeightFile, WeightsError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use tch::Device;

/// Why a checkpoint cannot be found, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// No such file or folder, or not accessible.
    #[error("cannot open `{}`: {source}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A run folder without a usable checkpoint.
    #[error(
        "`{}` holds no whole checkpoint{}: name another folder or file, or train again \
         (`--overwrite` replaces a run)",
        folder.display(),
        if *damaged > 0 { format!(" ({damaged} damaged)") } else { String::new() }
    )]
    None {
        /// The folder searched.
        folder: PathBuf,
        /// Checkpoints there that are damaged.
        damaged: usize,
    },
    /// A weight file that this program did not write.
    #[error("`{}` has no `{key}` in its metadata, so it is a bare weight file, not a checkpoint: use `gateloop logits` with a configuration, or a file from a run's `checkpoints` folder", path.display())]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// The entry that is missing.
        key: &'static str,
    },
    /// A metadata entry that cannot be understood.
    #[error("`{}`: metadata `{key}` is damaged: {problem}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry.
        key: &'static str,
        /// What the parser met.
        problem: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(WeightsError),
    /// The tensors belong to another model.
    #[error("checkpoint `{}`: {source}", path.display())]
    Tensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: WeightsError,
    },
    /// Another tokenizer than the one that the weights were trained with.
    #[error(
        "{} not what `{}` was trained on: set `data.tokenizer` to the file of that run, or leave the key as it was",
        match tokenizer {
            Some(tokenizer) => format!("the tokens of `data.tokenizer` = \"{}\" are", tokenizer.display()),
            None => "bytes (no `data.tokenizer`) are".to_owned(),
        },
        path.display()
    )]
    ForeignTokenizer {
        /// The checkpoint.
        path: PathBuf,
        /// The tokenizer that was named.
        tokenizer: Option<PathBuf>,
    },
    /// The tokenizer in the checkpoint is not usable.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The configuration cannot be written.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model cannot be built from the checkpoint's configuration.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// How far a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunProgress {
    /// Optimiser steps done.
    pub step: u64,
    /// Seconds spent, over all parts of the run.
    pub time_s: f64,
    /// Where the training data goes on.
    pub sampler: SamplerState,
    /// The validation at this step, in bits per character, if there was one.
    #[serde(default)]
    pub valid_bpc: Option<f64>,
    /// The best of the checkpoints so far, this one included.
    #[serde(default)]
    pub best: Option<Best>,
    /// The data's [`fingerprint`](crate::data::Corpus::fingerprint).
    #[serde(default)]
    pub data: Option<String>,
    /// Groups of ranks that learned from other windows each; one, where it is not said.
    #[serde(default)]
    pub data_ranks: Option<usize>,
}

impl RunProgress {
    /// After `step` steps and `time_s` seconds, with nothing validated.
    pub fn new(step: u64, time_s: f64, sampler: SamplerState) -> Self {
        Self { step, time_s, sampler, valid_bpc: None, best: None, data: None, data_ranks: None }
    }
}

/// The checkpoint with the lowest validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Its step.
    pub step: u64,
    /// Its validation in bits per character.
    pub bpc: f64,
}

/// What training holds beside the weights.
#[derive(Debug, Default)]
pub struct TrainingState {
    /// The optimiser's moments by name.
    pub optimizer: Tensors,
    /// The averages of the weights by the names of these; none if there are none.
    pub averages: Tensors,
    /// The states that go on to the next windows by name; none if none do.
    pub carried: Tensors,
    /// What the token ids stand for.
    pub vocabulary: Vocabulary,
}

/// An opened checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    file: WeightFile,
    config: Config,
    progress: RunProgress,
}

const CONFIG_KEY: &str = "gateloop.config";
const PROGRESS_KEY: &str = "gateloop.progress";
const REVISION_KEY: &str = "gateloop.revision";
/// The content of a tokenizer.json; absent where tokens are bytes.
const TOKENIZER_KEY: &str = "gateloop.tokenizer";
/// Before the names of states that are carried from window to window.
pub(crate) const CARRIED_PREFIX: &str = "carried.";
/// Before the names of averaged weights.
pub(crate) const AVERAGE_PREFIX: &str = "ema.";
/// Before the names of the optimiser's tensors.
pub(crate) const OPTIMIZER_PREFIX: &str = "optimizer.";

impl Checkpoint {
    /// Opens a file and reads its metadata; tensors are read when asked for.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let file = WeightFile::open(path).map_err(CheckpointError::File)?;
        let entry = |key| {
            let missing = CheckpointError::NotACheckpoint { path: path.to_owned(), key };
            file.metadata().get(key).ok_or(missing)
        };
        let damaged = |key, problem: String| CheckpointError::Metadata {
            path: path.to_owned(),
            key,
            problem,
        };
        let config = Config::from_toml_str(entry(CONFIG_KEY)?, &path.display().to_string(), &[])
            .map_err(|e| damaged(CONFIG_KEY, e.to_string()))?;
        let progress = serde_json::from_str(entry(PROGRESS_KEY)?)
            .map_err(|e| damaged(PROGRESS_KEY, e.to_string()))?;
        Ok(Self { file, config, progress })
    }

    /// The configuration of the run.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How far the run was.
    pub fn progress(&self) -> &RunProgress {
        &self.progress
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The revision of the program that wrote it, `unknown` if it was built outside a repository.
    pub fn revision(&self) -> Option<&str> {
        self.file.metadata().get(REVISION_KEY).map(String::as_str)
    }

    /// What the token ids stand for.
    pub fn vocabulary(&self) -> Result<Vocabulary, CheckpointError> {
        let Some(json) = self.file.metadata().get(TOKENIZER_KEY) else {
            return Ok(Vocabulary::bytes());
        };
        let origin = format!("the tokenizer in `{}`", self.path().display());
        let vocabulary = Vocabulary::from_json(json.clone(), &origin)?;
        vocabulary.check(self.config.model.num_tokens)?;
        Ok(vocabulary)
    }

    /// The same, for a configuration that may name a tokenizer: it must be this one. A file that is not there any more
    /// is none that differs.
    pub fn vocabulary_for(&self, config: &DataConfig) -> Result<Vocabulary, CheckpointError> {
        let own = self.vocabulary()?;
        let named = match Vocabulary::of(config) {
            Err(VocabularyError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound =>
            {
                return if own.is_bytes() { Err(self.foreign(config)) } else { Ok(own) };
            }
            named => named?,
        };
        if named.json() == own.json() { Ok(own) } else { Err(self.foreign(config)) }
    }

    fn foreign(&self, config: &DataConfig) -> CheckpointError {
        let path = self.path().to_owned();
        CheckpointError::ForeignTokenizer { path, tokenizer: config.tokenizer.clone() }
    }

    /// Builds the model with its trained weights; with their averages, where training made some.
    pub fn model(&self, device: Device) -> Result<Model, CheckpointError> {
        let model = Model::new(&self.config.model, device)?;
        let averages = self.averages()?;
        if averages.is_empty() {
            self.load_model(&model)?;
        } else {
            weights::load_strict(&model.parameters(), &averages)
                .map_err(|source| self.weights_error(source))?;
        }
        Ok(model)
    }

    /// The averages of the weights by the names of these; none if training made none.
    pub fn averages(&self) -> Result<Tensors, CheckpointError> {
        self.tensors_after(AVERAGE_PREFIX)
    }

    /// The states that go on to the next windows by name; none if none do.
    pub fn carried(&self) -> Result<Tensors, CheckpointError> {
        self.tensors_after(CARRIED_PREFIX)
    }

    /// The tensors whose names begin with a prefix, by what follows it.
    fn tensors_after(&self, prefix: &str) -> Result<Tensors, CheckpointError> {
        self.file
            .tensors(|name| name.strip_prefix(prefix).map(str::to_owned))
            .map_err(|source| self.weights_error(source))
    }

    /// Copies the weights that training goes on from into a model; they must agree in every name and
    /// shape.
    pub fn load_model(&self, model: &Model) -> Result<(), CheckpointError> {
        let others = [OPTIMIZER_PREFIX, AVERAGE_PREFIX, CARRIED_PREFIX];
        let is_weight = |name: &str| !others.iter().any(|prefix| name.starts_with(prefix));
        let wanted = |name: &str| is_weight(name).then(|| name.to_owned());
        self.file
            .tensors(wanted)
            .and_then(|tensors| weights::load_strict(&model.parameters(), &tensors))
            .map_err(|source| self.weights_error(source))
    }

    /// The optimiser's moments, by the names that the optimiser gave them.
    pub fn optimizer_tensors(&self) -> Result<Tensors, CheckpointError> {
        self.tensors_after(OPTIMIZER_PREFIX)
    }

    fn weights_error(&self, source: WeightsError) -> CheckpointError {
        match source {
            // These name the file themselves.
            WeightsError::Read { .. } | WeightsError::Damaged { .. } => {
                CheckpointError::File(source)
            }
            _ => CheckpointError::Tensors { path: self.path().to_owned(), source },
        }
    }
}

/// Opens a checkpoint file, or the newest whole checkpoint of a run folder.
pub fn open(run_or_file: &Path) -> Result<Opened, CheckpointError> {
    folder::open_run_or_file(run_or_file)
}

/// Writes a checkpoint; the file appears whole or not at all.
pub fn save(
    path: &Path,
    config: &Config,
    progress: &RunProgress,
    model: &Model,
    state: &TrainingState,
) -> Result<(), CheckpointError> {
    // Rounded weights never take the place of trained ones.
    model.check_trainable()?;
    let mut tensors = model.parameters();
    let lists = [
        (OPTIMIZER_PREFIX, &state.optimizer),
        (AVERAGE_PREFIX, &state.averages),
        (CARRIED_PREFIX, &state.carried),
    ];
    for (prefix, list) in lists {
        tensors.extend(list.iter().map(|(name, t)| (format!("{prefix}{name}"), t.shallow_clone())));
    }
    let progress = serde_json::to_string(progress).map_err(|e| CheckpointError::Metadata {
        path: path.to_owned(),
        key: PROGRESS_KEY,
        problem: e.to_string(),
    })?;
    let mut metadata = Metadata::from([
        // What the ecosystem's tools look for in a file of PyTorch parameters.
        ("format".to_owned(), "pt".to_owned()),
        (CONFIG_KEY.to_owned(), config.to_toml()?),
        (PROGRESS_KEY.to_owned(), progress),
        (REVISION_KEY.to_owned(), env!("GATELOOP_REVISION").to_owned()),
    ]);
    if let Some(json) = state.vocabulary.json() {
        metadata.insert(TOKENIZER_KEY.to_owned(), json.to_owned());
    }
    weights::write(path, &tensors, metadata).map_err(CheckpointError::File)
}
