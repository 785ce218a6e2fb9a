//! The first 100,000,000 bytes of a Wikipedia dump: found, unpacked or fetched.
//!
//! The text is Wikipedia's (GFDL, CC BY-SA). It is never shipped with this crate; it is kept in a
//! cache folder of the user.

mod download;
mod install;
mod places;

use std::path::PathBuf;

pub use places::{Found, Places};

use super::{DataError, Progress};
use install::Expected;

/// Length of enwik8 in bytes.
pub const LEN: u64 = 100_000_000;

/// SHA-256 of enwik8 in hexadecimal.
pub const SHA256: &str = "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8";

const ENWIK8: Expected<'static> = Expected { len: LEN, sha256: SHA256 };

/// Looks for enwik8 without fetching or unpacking anything; a raw file goes before a packed one.
pub fn locate(places: &Places) -> Option<Found> {
    places.find()
}

/// The path of the raw file: as found, unpacked from a packed file, or downloaded.
///
/// The length is checked on each use, the digest when a file is unpacked. Nothing half-written
/// stays behind.
pub fn fetch(places: &Places, progress: Progress) -> Result<PathBuf, DataError> {
    match locate(places) {
        Some(Found::Raw(path)) => {
            ENWIK8.check_len(&path)?;
            Ok(path)
        }
        Some(Found::Packed(path)) => install::from_packed(&path, places, &ENWIK8, progress),
        None => download::download("python3", places, &ENWIK8, progress),
    }
}

#[cfg(test)]
mod tests;
