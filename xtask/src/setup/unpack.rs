//! Checking a wheel and taking the wanted files out of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::package::{Package, Wheel};
use super::progress::Progress;
use crate::error::{Error, Result};

const BUFFER: usize = 1 << 20;

/// Refuses a file that is not the pinned one.
pub(crate) fn verify(path: &Path, wheel: &Wheel) -> Result<()> {
    let found = sha256(path)?;
    if found == wheel.sha256 {
        return Ok(());
    }
    Err(Error::Checksum { wheel: name(path), found, expected: wheel.sha256 })
}

fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = file.read(&mut buffer).map_err(|e| Error::io("read", path, e))?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut hex = String::with_capacity(64);
    for byte in hash.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    Ok(hex)
}

/// Unpacks into `tree` what `package` wants of the wheel.
pub(crate) fn unpack(path: &Path, package: impl Package, tree: &Path) -> Result<()> {
    let broken = |source| Error::Unpack { wheel: name(path), source };
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(broken)?;

    let mut wanted = Vec::new();
    let mut total = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        if let Some(to) =
            package.destination(&name).filter(|to| !entry.is_dir() && stays_inside(to))
        {
            total += entry.size();
            wanted.push((index, to));
        }
    }

    let label = format!("unpacking {}", name(path).split('-').next().unwrap_or("wheel"));
    let mut progress = Progress::new(label, total);
    let mut done = 0;
    for (index, to) in wanted {
        let mut entry = archive.by_index(index).map_err(broken)?;
        let to = tree.join(to);
        let folder = to.parent().unwrap_or(tree);
        fs::create_dir_all(folder).map_err(|e| Error::io("create", folder, e))?;
        let mut out = File::create(&to).map_err(|e| Error::io("create", &to, e))?;
        done = copy(&mut entry, &mut out, done, &mut progress)
            .map_err(|e| Error::io("unpack", &to, e))?;
    }
    progress.finish();
    Ok(())
}

fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    mut done: u64,
    progress: &mut Progress,
) -> io::Result<u64> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok(done);
        }
        to.write_all(&buffer[..read])?;
        done += read as u64;
        progress.set(done);
    }
}

/// A name in an archive must not lead out of the folder it is unpacked into.
fn stays_inside(name: &str) -> bool {
    Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::super::build::Build;
    use super::*;

    #[test]
    fn the_checksum_decides() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.whl");
        fs::write(&path, "abc").unwrap();
        let mut wheel = Wheel {
            requirement: "a==1",
            platform: "any",
            bytes: 3,
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        };
        assert!(verify(&path, &wheel).is_ok());
        wheel.sha256 = "00";
        let message = verify(&path, &wheel).unwrap_err().to_string();
        assert!(message.contains("a.whl has the wrong checksum"), "{message}");
        assert!(message.contains("ba7816bf"), "{message}");
    }

    #[test]
    fn only_wanted_files_are_unpacked_and_none_outside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("torch-1.whl");
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        for name in ["torch/include/a.h", "torch/lib/libc10.so", "torch/include/../../../evil.h"] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(name.as_bytes()).unwrap();
        }
        zip.finish().unwrap();

        let tree = dir.path().join("tree");
        unpack(&path, Build::Cpu, &tree).unwrap();
        assert_eq!(fs::read_to_string(tree.join("include/a.h")).unwrap(), "torch/include/a.h");
        assert!(tree.join("lib/libc10.so").exists());
        assert!(!dir.path().join("evil.h").exists());
        assert!(!dir.path().parent().unwrap().join("evil.h").exists());
    }

    #[test]
    fn a_file_that_is_no_archive_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("torch-1.whl");
        fs::write(&path, "not a zip").unwrap();
        assert!(matches!(
            unpack(&path, Build::Cpu, dir.path()),
            Err(Error::Unpack { .. } | Error::Io { .. })
        ));
    }
}
