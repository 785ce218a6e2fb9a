//! A folder of files as one text.

use super::DataError;
use super::corpus::open_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files of a folder and of those in it, one after the other in the order of their paths, each ended by a line
/// feed; and where each but the first begins. Packed ones are unpacked; hidden ones, whose names begin with a dot, are left
/// out.
pub(super) fn read(folder: &Path) -> Result<(Vec<u8>, Vec<usize>), DataError> {
    let mut paths = Vec::new();
    collect(folder, &mut paths)
        .map_err(|source| DataError::Open { path: folder.to_owned(), source })?;
    paths.sort_unstable();
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for path in &paths {
        starts.push(bytes.len());
        bytes.extend_from_slice(&open_file(path)?);
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
    }
    if bytes.is_empty() {
        return Err(DataError::EmptyFolder { path: folder.to_owned() });
    }
    // Empty files are no documents.
    starts.dedup();
    starts.retain(|start| (1..bytes.len()).contains(start));
    Ok((bytes, starts))
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
        if path.file_name().is_some_and(is_hidden) {
            continue;
        }
        if path.is_dir() {
            collect(&path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}
