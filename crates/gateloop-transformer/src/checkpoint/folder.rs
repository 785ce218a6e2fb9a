//! The checkpoints of a run, newest first.

use super::{Checkpoint, CheckpointError};
use std::fs;
use std::path::{Path, PathBuf};

/// The folder `checkpoints` of a run.
#[derive(Debug, Clone)]
pub struct CheckpointFolder(PathBuf);

/// A checkpoint, and the newer ones that had to be passed over to get to it.
#[derive(Debug)]
pub struct Opened {
    /// The checkpoint.
    pub checkpoint: Checkpoint,
    /// Newer ones that are damaged, and why.
    pub passed_over: Vec<CheckpointError>,
}

impl CheckpointFolder {
    /// The checkpoints of a run folder.
    pub fn of_run(run: &Path) -> Self {
        Self(run.join("checkpoints"))
    }

    /// The file of a step.
    pub fn file(&self, step: u64) -> PathBuf {
        self.0.join(format!("step-{step:08}.safetensors"))
    }

    /// The file of a name that another rank has told.
    pub(crate) fn named(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes the folder.
    pub fn create(&self) -> Result<(), CheckpointError> {
        fs::create_dir_all(&self.0).map_err(|source| self.error(source))
    }

    /// The newest whole checkpoint; damaged ones are passed over and reported.
    pub fn newest(&self) -> Result<Opened, CheckpointError> {
        let mut passed_over = Vec::new();
        for (_, path) in self.list()? {
            match Checkpoint::open(&path) {
                Ok(checkpoint) => return Ok(Opened { checkpoint, passed_over }),
                Err(error) => passed_over.push(error),
            }
        }
        Err(CheckpointError::None { folder: self.0.clone(), damaged: passed_over.len() })
    }

    /// Deletes all but the `keep` newest and the one of step `best`; a `keep` of 0 keeps all.
    pub fn prune(&self, keep: usize, best: Option<u64>) -> Result<(), CheckpointError> {
        if keep == 0 {
            return Ok(());
        }
        let old = self.list()?.into_iter().skip(keep);
        for (_, path) in old.filter(|(step, _)| Some(*step) != best) {
            fs::remove_file(&path).map_err(|source| CheckpointError::Open { path, source })?;
        }
        Ok(())
    }

    /// Steps and files, newest first.
    fn list(&self) -> Result<Vec<(u64, PathBuf)>, CheckpointError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(|source| self.error(source))? {
            let path = entry.map_err(|source| self.error(source))?.path();
            if let Some(step) = step_of(&path) {
                found.push((step, path));
            }
        }
        found.sort_unstable_by(|a, b| b.cmp(a));
        Ok(found)
    }

    fn error(&self, source: std::io::Error) -> CheckpointError {
        CheckpointError::Open { path: self.0.clone(), source }
    }
}

/// Opens a checkpoint file, or the newest whole checkpoint of a run folder.
pub(super) fn open_run_or_file(path: &Path) -> Result<Opened, CheckpointError> {
    if path.is_dir() {
        return CheckpointFolder::of_run(path).newest();
    }
    Ok(Opened { checkpoint: Checkpoint::open(path)?, passed_over: Vec::new() })
}

fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("step-")?.strip_suffix(".safetensors")?.parse().ok()
}
