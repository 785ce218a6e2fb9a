//! One process a run folder.

use super::TrainError;
use super::run_folder::io_error;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

/// The name of the file that is locked.
pub(super) const FILE: &str = "lock";

/// Keeps other processes from training in a folder, as long as it lives. The lock is the system's on an open
/// file, so it ends with its process, however that ends; the file itself means nothing.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks a folder that is there.
    pub(super) fn new(folder: &Path) -> Result<Self, TrainError> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| io_error("create", &path, source))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(TrainError::Locked { path: folder.to_owned() });
            }
            // Some network file systems have no locks; there it is as it was without them.
            Err(TryLockError::Error(error)) => {
                tracing::warn!("`{}` cannot be locked: {error}", path.display());
            }
        }
        Ok(Self { _file: file })
    }
}
