//! Reading `.gz`, `.xz`, `.zst` and `.zip` as a stream.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use zip::ZipArchive;

/// How a file is packed, told by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Xz,
    Zstd,
    Zip,
}

impl Packing {
    /// `None` for a file that is taken as it is.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(OsStr::to_str)?;
        match extension.to_ascii_lowercase().as_str() {
            "gz" => Some(Self::Gzip),
            "xz" => Some(Self::Xz),
            "zst" => Some(Self::Zstd),
            "zip" => Some(Self::Zip),
            _ => None,
        }
    }

    /// Writes what the file holds to `out`.
    pub(super) fn copy(self, path: &Path, out: &mut impl Write) -> io::Result<u64> {
        let file = BufReader::new(File::open(path)?);
        match self {
            Self::Gzip => io::copy(&mut MultiGzDecoder::new(file), out),
            // As the tools do, of several streams one after the other.
            Self::Xz => io::copy(&mut XzReader::new(file, true), out),
            Self::Zstd => copy_frames(file, out),
            Self::Zip => copy_single(&mut ZipArchive::new(file)?, out),
        }
    }
}

/// A file of zstd is one frame or several.
fn copy_frames(mut file: impl BufRead, out: &mut impl Write) -> io::Result<u64> {
    let mut written = 0;
    while !file.fill_buf()?.is_empty() {
        let mut frame = StreamingDecoder::new(&mut file).map_err(io::Error::other)?;
        written += io::copy(&mut frame, out)?;
    }
    Ok(written)
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
