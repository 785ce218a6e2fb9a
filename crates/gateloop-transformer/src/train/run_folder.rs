//! The folder of a run: `config.toml`, `metrics.jsonl`, `checkpoints/`, `samples/`, pictures.

use super::TrainError;
use super::lock::{self, FolderLock};
use crate::atomic;
use crate::checkpoint::CheckpointFolder;
use crate::config::Config;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What to do about a folder that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExistingFolder {
    /// Refuse.
    #[default]
    Keep,
    /// Delete it first, if it is a run's.
    Replace,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The name of the file of records.
    pub const METRICS: &str = "metrics.jsonl";

    /// Makes a new folder with the resolved configuration in it. An empty folder may be there.
    pub fn create(
        path: &Path,
        config: &Config,
        existing: ExistingFolder,
    ) -> Result<Self, TrainError> {
        Ok(Self::create_locked(path, config, existing)?.0)
    }

    /// The same, for as long as nobody else is to train there.
    pub(super) fn create_locked(
        path: &Path,
        config: &Config,
        existing: ExistingFolder,
    ) -> Result<(Self, FolderLock), TrainError> {
        let folder = Self(path.to_owned());
        if !is_absent_or_empty(path).map_err(|e| io_error("read", path, e))? {
            if existing == ExistingFolder::Keep {
                return Err(TrainError::FolderExists { path: path.to_owned() });
            }
            if !holds_only(path, &CONTENTS).map_err(|e| io_error("read", path, e))? {
                return Err(TrainError::NotARun { path: path.to_owned() });
            }
            let _nobody_else = FolderLock::new(path)?;
            fs::remove_dir_all(path).map_err(|e| io_error("remove", path, e))?;
        }
        fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?;
        let lock = FolderLock::new(path)?;
        folder.write_config(config)?;
        folder.checkpoints().create()?;
        Ok((folder, lock))
    }

    /// A folder that another rank has made.
    pub(super) fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// A folder that holds a run already.
    pub fn existing(path: &Path) -> Result<Self, TrainError> {
        let folder = Self(path.to_owned());
        if folder.config().is_file() {
            Ok(folder)
        } else {
            Err(TrainError::NothingToResume { path: path.to_owned() })
        }
    }

    /// Deletes the halves of files that a killed run left behind.
    pub(super) fn sweep(&self) -> Result<(), TrainError> {
        for folder in [&self.0, &self.0.join("checkpoints")] {
            atomic::sweep(folder).map_err(|e| io_error("clean", folder, e))?;
        }
        Ok(())
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The resolved configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.toml")
    }

    /// The records, one JSON object a line.
    pub fn metrics(&self) -> PathBuf {
        self.0.join(Self::METRICS)
    }

    /// The loss curve; beside it is `loss.png`.
    pub fn plot(&self) -> PathBuf {
        self.0.join("loss.svg")
    }

    /// How long the gates remember; beside it is `gates.png`.
    pub fn gates_plot(&self) -> PathBuf {
        self.0.join("gates.svg")
    }

    /// The event files of TensorBoard.
    pub fn tensorboard(&self) -> PathBuf {
        self.0.join("tensorboard")
    }

    /// The checkpoints.
    pub fn checkpoints(&self) -> CheckpointFolder {
        CheckpointFolder::of_run(&self.0)
    }

    /// Writes the resolved configuration, replacing the file at once.
    pub fn write_config(&self, config: &Config) -> Result<(), TrainError> {
        let path = self.config();
        atomic::write(&path, config.to_toml()?.as_bytes()).map_err(|e| io_error("write", &path, e))
    }

    /// Keeps a text that the model wrote.
    pub fn write_sample(&self, step: u64, text: &str) -> Result<(), TrainError> {
        let folder = self.0.join("samples");
        fs::create_dir_all(&folder).map_err(|e| io_error("create", &folder, e))?;
        let path = folder.join(format!("step-{step:08}.txt"));
        fs::write(&path, text).map_err(|e| io_error("write", &path, e))
    }
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> TrainError {
    TrainError::Io { action, path: path.to_owned(), source }
}

/// What a run makes in its folder.
const CONTENTS: [&str; 10] = [
    "config.toml",
    "metrics.jsonl",
    "checkpoints",
    "samples",
    "loss.svg",
    "loss.png",
    "gates.svg",
    "gates.png",
    "tensorboard",
    lock::FILE,
];

/// A lock alone, and the half of a file, are what a run leaves that was killed before it had begun.
fn is_absent_or_empty(path: &Path) -> io::Result<bool> {
    match holds_only(path, &[lock::FILE]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        result => result,
    }
}

/// Whether nothing is in a folder but files of these names and temporary ones.
fn holds_only(path: &Path, names: &[&str]) -> io::Result<bool> {
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name();
        if !(names.iter().any(|known| name == *known) || atomic::is_temporary(&name)) {
            return Ok(false);
        }
    }
    Ok(true)
}
