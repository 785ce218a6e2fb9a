//! Reading `.gz` and `.zip` as a stream.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use zip::ZipArchive;

/// How a file is packed, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zip,
}

impl Packing {
    /// `None` for a file that is taken as it is.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(OsStr::to_str)?;
        match extension.to_ascii_lowercase().as_str() {
            "gz" => Some(Self::Gzip),
            "zip" => Some(Self::Zip),
            _ => None,
        }
    }

    /// Writes what the file holds to `out`.
    pub(super) fn copy(self, path: &Path, out: &mut impl Write) -> io::Result<u64> {
        let file = BufReader::new(File::open(path)?);
        match self {
            Self::Gzip => io::copy(&mut MultiGzDecoder::new(file), out),
            Self::Zip => copy_single(&mut ZipArchive::new(file)?, out),
        }
    }
}

fn copy_single<R: Read + io::Seek>(
    archive: &mut ZipArchive<R>,
    out: &mut impl Write,
) -> io::Result<u64> {
    let mut only = None;
    for index in 0..archive.len() {
        if archive.by_index(index)?.is_file() && only.replace(index).is_some() {
            return Err(io::Error::other("the archive holds more than one file"));
        }
    }
    let index = only.ok_or_else(|| io::Error::other("the archive holds no file"))?;
    io::copy(&mut archive.by_index(index)?, out)
}
