//! Downloading one pinned wheel through the user's own pip, with its proxies and mirrors.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::package::Wheel;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::python::Python;

/// Lines of pip's own words that an error repeats.
const LAST_WORDS: usize = 6;

/// Downloads `wheel` into a folder below `staging` and returns the file.
pub(crate) fn download(python: &Python, wheel: &Wheel, staging: &Path) -> Result<PathBuf> {
    let (downloads, temporary) = (staging.join("wheels"), staging.join("pip"));
    for dir in [&downloads, &temporary] {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    }
    let mut child = command(python, wheel, &downloads)
        // Below our own folder, so that it is on the disk we checked and we see it grow.
        .env("TMPDIR", &temporary)
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::Spawn { program: python.program.clone(), source })?;
    let mut stderr = child.stderr.take();
    let words = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still the best account there is.
        let _ = stderr.as_mut().map(|stderr| stderr.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    });

    let mut progress = Progress::new(format!("downloading {}", wheel.requirement), wheel.bytes);
    let status = loop {
        let status = child
            .try_wait()
            .map_err(|source| Error::Spawn { program: python.program.clone(), source })?;
        if let Some(status) = status {
            break status;
        }
        progress.set(bytes_below(&temporary).max(bytes_below(&downloads)));
        thread::sleep(Duration::from_millis(200));
    };
    let words = words.join().unwrap_or_default();
    match fs::read_dir(&downloads).ok().and_then(|mut files| files.next()?.ok()) {
        Some(file) if status.success() => {
            progress.finish();
            Ok(file.path())
        }
        _ => Err(failure(wheel, staging, &words)),
    }
}

fn command(python: &Python, wheel: &Wheel, downloads: &Path) -> Command {
    let mut pip = Command::new(&python.program);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"])
        // Our cache is the one to keep; pip's would double half a gigabyte.
        .args(["--no-cache-dir", "--no-deps", "--only-binary", ":all:"])
        // Named in full, so that every Python and every pip choose the same file.
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"])
        .args(["--platform", wheel.platform, wheel.requirement, "--dest"])
        .arg(downloads);
    pip
}

fn failure(wheel: &Wheel, staging: &Path, words: &str) -> Error {
    let full = ["No space left on device", "[Errno 28]", "Disk quota exceeded", "[Errno 122]"];
    if full.iter().any(|sign| words.contains(sign)) {
        return Error::DiskFull { path: staging.to_path_buf() };
    }
    // Every attempt repeats the same long line; the last one tells as much as all of them.
    let is_retry = |line: &&str| line.contains("Retrying (");
    let last_retry = words.lines().rev().find(is_retry);
    let lines: Vec<&str> = words
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| !is_retry(line) || last_retry.is_some_and(|last| std::ptr::eq(last, *line)))
        .collect();
    let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    let words = last.iter().map(|line| format!("  | {line}")).collect::<Vec<_>>().join("\n");
    Error::Download { requirement: wheel.requirement, words }
}

/// Bytes of all files below a folder. Files come and go while pip works, so what cannot be read
/// counts as nothing.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let bytes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::{Build, Package};

    #[test]
    fn pips_last_words_are_repeated_and_a_full_disk_is_recognised() {
        let wheel = &Build::Cpu.wheels()[0];
        let dir = Path::new("/cache/staging");
        let words = "line 0\n\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\n\nline 8\n";
        let message = failure(wheel, dir, words).to_string();
        assert!(message.ends_with("  | line 7\n  | line 8"), "{message}");
        assert!(!message.contains("line 2"), "{message}");
        let words = "WARNING: Retrying (1): refused\nWARNING: Retrying (0): refused\nERROR: none\n";
        let message = failure(wheel, dir, words).to_string();
        assert!(message.ends_with("\n  | WARNING: Retrying (0): refused\n  | ERROR: none"));
        assert!(!message.contains("(1)"), "{message}");
        let full = failure(wheel, dir, "ERROR: [Errno 28] No space left on device\n");
        assert_eq!(full.to_string(), "the disk is full: no space left below /cache/staging");
    }

    #[test]
    fn bytes_are_counted_through_folders() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/b"), "four").unwrap();
        fs::write(dir.path().join("c"), "sixsix").unwrap();
        assert_eq!(bytes_below(dir.path()), 10);
        assert_eq!(bytes_below(&dir.path().join("none")), 0);
    }
}
