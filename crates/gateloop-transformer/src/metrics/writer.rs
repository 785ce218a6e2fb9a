//! Appending records, and cutting them back when a run goes on from an earlier step.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::record::parse;
use super::{MetricsError, Record};
use crate::atomic;

/// Writes records to `metrics.jsonl`, each at once: a crash costs the record being written at most.
#[derive(Debug)]
pub struct MetricsWriter {
    file: File,
    path: PathBuf,
}

impl MetricsWriter {
    /// Starts an empty file, in place of one that is there.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, MetricsError> {
        let path = path.into();
        match File::create(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(MetricsError::Io { action: "create", path, source }),
        }
    }

    /// Goes on with a file, or starts it; a last line that a crash cut short is removed.
    pub fn append(path: impl Into<PathBuf>) -> Result<Self, MetricsError> {
        let path = path.into();
        if path.exists() {
            rewrite(&path, |_| true)?;
        }
        match OpenOptions::new().create(true).append(true).open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(MetricsError::Io { action: "open", path, source }),
        }
    }

    /// Writes one record.
    pub fn write(&mut self, record: &Record) -> Result<(), MetricsError> {
        // One write for the whole line, so that a reader never sees half of one for long.
        serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                self.file.write_all(&line)
            })
            .map_err(|source| MetricsError::Io { action: "write", path: self.path.clone(), source })
    }

    /// The file written to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Drops the records after `step`, for a run that goes on from a checkpoint of that step.
///
/// The file is replaced as a whole: after a crash it is either the old one or the new one. A file
/// that does not exist has nothing to drop.
pub fn truncate_after(path: impl AsRef<Path>, step: u64) -> Result<(), MetricsError> {
    let path = path.as_ref();
    if path.exists() { rewrite(path, |record| record.step <= step) } else { Ok(()) }
}

/// Keeps the records that `keep` likes, byte for byte; touches nothing if that changes nothing.
fn rewrite(path: &Path, keep: impl Fn(&Record) -> bool) -> Result<(), MetricsError> {
    let failed = |action| move |source| MetricsError::Io { action, path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed("read"))?;
    let mut kept = Vec::with_capacity(bytes.len());
    for (line, record) in parse(&bytes, path)? {
        if keep(&record) {
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
    }
    if kept == bytes { Ok(()) } else { atomic::write(path, &kept).map_err(failed("rewrite")) }
}
