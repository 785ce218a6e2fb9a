//! From packed bytes to a verified file in the cache.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::{GzDecoder, MultiGzDecoder};
use sha2::{Digest, Sha256};

use super::Places;
use crate::data::progress::Meter;
use crate::data::unpack::Packing;
use crate::data::{DataError, Progress};
use crate::hex::hex;

/// What the unpacked bytes must be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'a> {
    pub(super) len: u64,
    pub(super) sha256: &'a str,
}

impl Expected<'_> {
    /// Errs unless the file is as long as it should be.
    pub(super) fn check_len(&self, path: &Path) -> Result<(), DataError> {
        let found = fs::metadata(path)
            .map_err(|source| DataError::Open { path: path.to_owned(), source })?
            .len();
        if found == self.len {
            Ok(())
        } else {
            Err(DataError::WrongSize { path: path.to_owned(), found, expected: self.len })
        }
    }
}

/// Unpacks a `.gz` or `.zip`.
pub(super) fn from_packed(
    path: &Path,
    places: &Places,
    expected: &Expected<'_>,
    progress: Progress,
) -> Result<PathBuf, DataError> {
    let packing = Packing::of(path).unwrap_or(Packing::Gzip);
    install(path, places, expected, progress, |out| packing.copy(path, out).map(drop))
}

/// Unpacks `data/enwik8.gz` out of a `.tar.gz`.
pub(super) fn from_tarball(
    path: &Path,
    places: &Places,
    expected: &Expected<'_>,
    progress: Progress,
) -> Result<PathBuf, DataError> {
    install(path, places, expected, progress, |out| {
        let mut archive = tar::Archive::new(GzDecoder::new(BufReader::new(File::open(path)?)));
        for entry in archive.entries()? {
            let entry = entry?;
            if entry.path()?.ends_with("data/enwik8.gz") {
                return io::copy(&mut MultiGzDecoder::new(entry), out).map(drop);
            }
        }
        Err(io::Error::other("the archive holds no data/enwik8.gz"))
    })
}

/// Writes under a temporary name, verifies, syncs, and only then gives the file its name.
fn install(
    origin: &Path,
    places: &Places,
    expected: &Expected<'_>,
    progress: Progress,
    unpack: impl FnOnce(&mut Checked<'_>) -> io::Result<()>,
) -> Result<PathBuf, DataError> {
    let folder = &places.cache;
    let target = folder.join("enwik8");
    let cannot_write = |source| DataError::Cache { path: folder.clone(), source };
    fs::create_dir_all(folder).map_err(cannot_write)?;
    sweep(folder);
    let partial = temporary_in(folder).map_err(cannot_write)?;

    let label = format!("unpacking {}", origin.display());
    let mut meter = Meter::start(progress, label, Some(expected.len));
    let mut out = Checked::new(partial.as_file(), expected.len, &mut meter);
    unpack(&mut out)
        .and_then(|()| out.flush())
        .map_err(|source| DataError::Unpack { path: origin.to_owned(), source })?;
    let found = out.digest();
    drop(meter);
    if found != expected.sha256 {
        let expected = expected.sha256.to_owned();
        return Err(DataError::Checksum { path: origin.to_owned(), found, expected });
    }
    partial.as_file().sync_all().map_err(cannot_write)?;
    partial.persist(&target).map_err(|error| cannot_write(error.error))?;
    Ok(target)
}

/// What the names of unfinished things in the cache begin with.
pub(super) const UNFINISHED: &str = ".enwik8-";

/// Removes what a killed process left in the cache: unfinished things that are a day old.
///
/// Younger ones may belong to a process at work, and a failure to tidy up is no reason to stop.
pub(super) fn sweep(folder: &Path) {
    let is_old = |entry: &fs::DirEntry| {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        modified.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > DAY))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) && is_old(&entry) {
            let path = entry.path();
            let removed =
                if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            if let Err(error) = removed {
                tracing::debug!(path = %path.display(), %error, "cannot remove what an earlier fetch left");
            }
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

/// A file that goes away unless it is kept; readable by others, as a shared cache needs.
fn temporary_in(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED).suffix(".partial");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    builder.tempfile_in(folder)
}

/// A writer that counts and digests what passes, and stops at a length.
struct Checked<'a> {
    out: BufWriter<&'a File>,
    digest: Sha256,
    written: u64,
    limit: u64,
    meter: &'a mut Meter,
}

impl<'a> Checked<'a> {
    fn new(file: &'a File, limit: u64, meter: &'a mut Meter) -> Self {
        let out = BufWriter::with_capacity(1 << 20, file);
        Self { out, digest: Sha256::new(), written: 0, limit, meter }
    }

    fn digest(self) -> String {
        hex(&self.digest.finalize())
    }
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A small packed file can hold a huge one; the disk should not have to find out.
        if self.written + bytes.len() as u64 > self.limit {
            return Err(io::Error::other(format!("it holds more than {} bytes", self.limit)));
        }
        let count = self.out.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.written += count as u64;
        self.meter.at(self.written);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
