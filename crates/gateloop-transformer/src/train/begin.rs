//! How a run begins: in a new folder, or from a checkpoint; on one process, or on several.

use super::lock::FolderLock;
use super::output::Output;
use super::prepared::Prepared;
use super::run::SinceRecord;
use super::{ChangedData, ExistingFolder, Observer, Run, RunFolder, TrainError};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::Config;
use crate::data::DataError;
use crate::ranks::Ranks;
use crate::vocabulary::Vocabulary;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

impl Run {
    /// Starts a run in a new folder.
    pub fn start(
        path: &Path,
        config: &Config,
        existing: ExistingFolder,
    ) -> Result<Self, TrainError> {
        Self::start_on(&Arc::new(Ranks::single()), path, config, existing)
    }

    /// The same for one of several ranks; the first one makes the folder and writes there. Whatever is an error on one
    /// rank ends the others, too.
    pub fn start_on(
        ranks: &Arc<Ranks>,
        path: &Path,
        config: &Config,
        existing: ExistingFolder,
    ) -> Result<Self, TrainError> {
        telling(ranks, || {
            ranks.agree_on(config, env!("GATELOOP_REVISION"))?;
            // Everything that can be refused is refused before the folder is touched.
            let prepared = Self::prepare(config, ranks)?;
            let output = ranks
                .is_first()
                .then(|| Output::create(RunFolder::create_locked(path, config, existing)?, config));
            let output = output.transpose()?;
            ranks.hear_first("run folder", "made")?;
            Ok(Self::new(RunFolder::at(path), output, config, prepared, Arc::clone(ranks)))
        })
    }

    fn prepare(config: &Config, ranks: &Arc<Ranks>) -> Result<Prepared, TrainError> {
        Prepared::new(config, Vocabulary::of(&config.data).map_err(DataError::from)?, ranks)
    }

    fn new(
        folder: RunFolder,
        output: Option<Output>,
        config: &Config,
        prepared: Prepared,
        ranks: Arc<Ranks>,
    ) -> Self {
        Self {
            folder,
            output,
            ranks,
            config: config.clone(),
            corpus: prepared.corpus,
            fingerprint: prepared.fingerprint,
            valid_windows: prepared.valid_windows,
            trainer: prepared.trainer,
            time_before: 0.0,
            started: Instant::now(),
            checkpointed: None,
            validated: None,
            best: None,
            since_record: SinceRecord::default(),
        }
    }

    /// Goes on with the run in a folder from its newest whole checkpoint, under `config`.
    ///
    /// Damaged checkpoints are passed over; the observer is told.
    pub fn resume(
        path: &Path,
        config: &Config,
        changed_data: ChangedData,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        Self::resume_on(&Arc::new(Ranks::single()), path, config, changed_data, observer)
    }

    /// The same for one of several ranks, which may be others than the run had before. All of them must be able to read
    /// the folder.
    pub fn resume_on(
        ranks: &Arc<Ranks>,
        path: &Path,
        config: &Config,
        changed_data: ChangedData,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        telling(ranks, || {
            ranks.agree_on(config, env!("GATELOOP_REVISION"))?;
            let folder = RunFolder::existing(path)?;
            let lock = ranks.is_first().then(|| FolderLock::new(path)).transpose()?;
            let Some(checkpoint) = Self::checkpoint(&folder, ranks, observer)? else {
                observer.note("no checkpoint had been written yet: the run begins anew");
                let prepared = Self::prepare(config, ranks)?;
                let output = lock.map(|lock| {
                    folder.write_config(config)?;
                    Output::create((folder.clone(), lock), config)
                });
                return Ok(Self::new(
                    folder,
                    output.transpose()?,
                    config,
                    prepared,
                    Arc::clone(ranks),
                ));
            };
            let progress = checkpoint.progress().clone();
            let vocabulary = checkpoint.vocabulary_for(&config.data)?;
            let mut prepared = Prepared::new(config, vocabulary, ranks)?;
            prepared.check_data(&checkpoint, config, changed_data, observer)?;
            prepared.restore(&checkpoint, config, observer)?;
            let output =
                lock.map(|lock| Output::append((folder.clone(), lock), config, progress.step));
            observer.note(&format!(
                "resumed at step {} from {}",
                progress.step,
                checkpoint.path().display()
            ));
            let mut run =
                Self::new(folder, output.transpose()?, config, prepared, Arc::clone(ranks));
            run.time_before = progress.time_s;
            run.validated = progress.valid_bpc.map(|bpc| (progress.step, bpc));
            run.best = progress.best;
            run.checkpointed = Some((progress.step, checkpoint.path().to_owned()));
            Ok(run)
        })
    }

    /// The checkpoint to go on from, which the first rank chooses; `None` if there is none yet.
    fn checkpoint(
        folder: &RunFolder,
        ranks: &Ranks,
        observer: &mut dyn Observer,
    ) -> Result<Option<Checkpoint>, TrainError> {
        if !ranks.is_first() {
            let name = ranks.hear_first("checkpoint", "")?;
            let path = folder.checkpoints().named(&name);
            return Ok(if name.is_empty() { None } else { Some(Checkpoint::open(&path)?) });
        }
        folder.checkpoints().create()?;
        folder.sweep()?;
        let opened = match folder.checkpoints().newest() {
            Err(CheckpointError::None { damaged: 0, .. }) => {
                ranks.hear_first("checkpoint", "")?;
                return Ok(None);
            }
            opened => opened?,
        };
        for error in &opened.passed_over {
            observer.note(&format!("passed over a damaged checkpoint: {error}"));
        }
        let name = opened.checkpoint.path().file_name().unwrap_or_default();
        ranks.hear_first("checkpoint", &name.to_string_lossy())?;
        Ok(Some(opened.checkpoint))
    }
}

/// Does something; if it fails, the other ranks are told why this one ends.
fn telling<T>(
    ranks: &Ranks,
    work: impl FnOnce() -> Result<T, TrainError>,
) -> Result<T, TrainError> {
    work().inspect_err(|error| ranks.fail(&error.to_string()))
}
