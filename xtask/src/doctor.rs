//! `cargo xtask doctor`: what this machine has of what the project needs.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compiler::Compiler;
use crate::driver;
use crate::error::{Error, Result};
use crate::python::Python;
use crate::setup::{Build, Package, libtorch};
use crate::table::{Row, Table, Verdict, size};
use crate::workspace::{Workspace, cache_dir};

/// The task: prints the table and fails when something needed is missing.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let libtorch = libtorch_row(workspace);
    let installed = libtorch.verdict == Verdict::Good;
    let cuda_libtorch = is_cuda_build(&libtorch_path(workspace));
    let table = Table(vec![
        rustc_row(workspace),
        row("C++ compiler", "C++17", Verdict::Missing, Compiler::find().map(|it| it.version)),
        // Once libtorch is there, nothing needs Python any more.
        python_row(if installed { Verdict::Optional } else { Verdict::Missing }),
        libtorch,
        gpu_row(cuda_libtorch),
        data_row(workspace),
        disk_row(installed),
        target_row(workspace),
    ]);
    print!("{table}");
    if table.0.iter().any(|row| row.verdict == Verdict::Missing) {
        return Err(Error::Doctor);
    }
    println!("all that is needed is here");
    Ok(())
}

fn row(name: &'static str, expected: &str, otherwise: Verdict, found: Result<String>) -> Row {
    let expected = expected.to_owned();
    match found {
        Ok(found) => Row { verdict: Verdict::Good, name, found, expected, remedy: None },
        Err(error) => Row {
            verdict: otherwise,
            name,
            found: error.to_string(),
            expected,
            remedy: error.remedy(),
        },
    }
}

fn rustc_row(workspace: &Workspace) -> Row {
    let needed = env!("CARGO_PKG_RUST_VERSION");
    // Run where the builds run: a toolchain file may choose another compiler elsewhere.
    let output = Command::new("rustc").arg("--version").current_dir(workspace.root()).output();
    let found = output.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let found = found.unwrap_or_else(|error| error.to_string());
    let new_enough = found.split(' ').nth(1).is_some_and(|version| at_least(version, needed));
    Row {
        verdict: if new_enough { Verdict::Good } else { Verdict::Missing },
        name: "rustc",
        found,
        expected: format!("{needed} or newer"),
        remedy: (!new_enough).then(|| "`rustup update stable`".to_owned()),
    }
}

/// Compares dotted versions number by number; a suffix as in `1.95.0-nightly` is passed over.
fn at_least(version: &str, needed: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let plain = text.split(['-', '+']).next().unwrap_or(text);
        plain.split('.').map_while(|part| part.parse().ok()).collect()
    };
    let version = numbers(version);
    !version.is_empty() && version >= numbers(needed)
}

fn python_row(otherwise: Verdict) -> Row {
    let found =
        Python::find().and_then(|python| Ok(format!("{python}, pip {}", python.pip_version()?)));
    row("Python", "3.8 or newer with pip", otherwise, found)
}

fn libtorch_path(workspace: &Workspace) -> PathBuf {
    workspace.exported_libtorch().unwrap_or_else(|| workspace.libtorch_link())
}

fn is_cuda_build(libtorch: &Path) -> bool {
    libtorch.join("lib/libtorch_cuda.so").exists()
}

fn libtorch_row(workspace: &Workspace) -> Row {
    let path = libtorch_path(workspace);
    let kind = if is_cuda_build(&path) { "CUDA" } else { "CPU" };
    let place = path.read_link().unwrap_or_else(|_| path.clone());
    let checked = libtorch::check(&path, false);
    Row {
        verdict: if checked.is_ok() { Verdict::Good } else { Verdict::Missing },
        name: "libtorch",
        expected: format!("{}, intact", libtorch::VERSION),
        remedy: checked.is_err().then(|| match workspace.exported_libtorch() {
            Some(_) => "unset LIBTORCH and run `cargo xtask setup`".to_owned(),
            None => "`cargo xtask setup`".to_owned(),
        }),
        found: match checked {
            Ok(()) => format!("{} {kind} in {}", libtorch::VERSION, place.display()),
            Err(damage) => format!("{}: {damage}", path.display()),
        },
    }
}

fn gpu_row(cuda_libtorch: bool) -> Row {
    let row = |verdict, found, remedy: Option<&str>| Row {
        verdict,
        name: "GPU",
        found,
        expected: "optional; CUDA 13.0 or newer".to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let without = Some("fine without: everything runs on the CPU");
    let gpus = match driver::find() {
        Ok(Some(gpus)) => gpus,
        Ok(None) => return row(Verdict::Optional, "no CUDA driver".to_owned(), without),
        Err(reason) => {
            return row(Verdict::Optional, format!("a CUDA driver, but {reason}"), without);
        }
    };
    let (major, minor) = gpus.cuda;
    let found = format!("{}; driver for CUDA {major}.{minor}", gpus.names.join(", "));
    if gpus.cuda < (13, 0) {
        return row(Verdict::Optional, found, Some("a newer driver, to train on the GPU"));
    }
    let remedy = (!cuda_libtorch).then_some("to train on it: `cargo xtask setup --cuda`");
    row(Verdict::Good, found, remedy)
}

fn data_row(workspace: &Workspace) -> Row {
    let found = find_data(workspace.data_dirs().iter().map(AsRef::as_ref));
    Row {
        verdict: if found.is_some() { Verdict::Good } else { Verdict::Optional },
        name: "enwik8",
        remedy: found
            .is_none()
            .then(|| "`cargo xtask train` fetches it, or trains on synthetic text".to_owned()),
        found: found.unwrap_or_else(|| "not found".to_owned()),
        expected: "optional".to_owned(),
    }
}

fn find_data<'a>(dirs: impl Iterator<Item = &'a Path>) -> Option<String> {
    let names = ["enwik8", "enwik8.gz", "enwik8.zip"];
    let mut files = dirs.flat_map(|dir| names.map(|name| dir.join(name)));
    files.find_map(|path| {
        let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(format!("{} ({})", path.display(), size(metadata.len())))
    })
}

fn disk_row(installed: bool) -> Row {
    let needed = if installed { 0 } else { Build::Cpu.disk_space() };
    match cache_dir() {
        Ok(cache) => {
            let larger = "set GATELOOP_CACHE to a larger disk";
            room_row("cache", &cache, needed, Verdict::Missing, larger)
        }
        Err(error) => row("cache", &room(needed), Verdict::Missing, Err(error)),
    }
}

/// What a first build and its tests take; measured: 3.5 GB, and 1.6 for what speeds up the next build.
const BUILD_SPACE: u64 = 5_100_000_000;

fn target_row(workspace: &Workspace) -> Row {
    let target = workspace.target_dir();
    // What was built before is not built again, and takes no more room.
    let needed = if has_been_built(&target) { 0 } else { BUILD_SPACE };
    // A part of the project takes less.
    let otherwise = Verdict::Optional;
    room_row("target", &target, needed, otherwise, "set CARGO_TARGET_DIR to a larger disk")
}

/// Whether more than these chores was built here: what links libtorch.
fn has_been_built(target: &Path) -> bool {
    std::fs::read_dir(target.join("debug/build")).is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("torch-sys-"))
    })
}

/// What to say before everything is built where there may be too little room: linkers that run out of it end with a bus
/// error.
pub(crate) fn warning_of_room(workspace: &Workspace) -> Option<String> {
    let Row { remedy, found, expected, .. } = target_row(workspace);
    remedy.map(|remedy| format!("warning: {found}, {expected} may be needed: {remedy}"))
}

fn room(needed: u64) -> String {
    format!("{} free", size(needed))
}

/// Whether there is room below a folder, which need not exist yet.
fn room_row(
    name: &'static str,
    folder: &Path,
    needed: u64,
    otherwise: Verdict,
    larger: &str,
) -> Row {
    let mut missing = false;
    // Its disk is that of the nearest folder that exists.
    let existing = folder.ancestors().find(|dir| dir.exists()).unwrap_or(folder);
    let found = fs4::available_space(existing).map_err(|e| Error::io("measure", existing, e));
    let found = found.map(|free| {
        missing = free < needed;
        format!("{} free below {}", size(free), folder.display())
    });
    let mut row = row(name, &room(needed), otherwise, found);
    if missing {
        row.verdict = otherwise;
        row.remedy = Some(format!("free some space, or {larger}"));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(at_least("1.95.0", "1.95"));
        assert!(at_least("1.100.0", "1.95"));
        assert!(at_least("2.0", "1.95.1"));
        assert!(at_least("1.96.0-nightly", "1.95"));
        assert!(!at_least("1.94.9", "1.95"));
        assert!(!at_least("unknown", "1.95"));
    }

    #[test]
    fn too_little_room_is_told_with_a_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/there/yet");
        let enough = room_row("target", &folder, 1, Verdict::Missing, "go elsewhere");
        assert!(enough.verdict == Verdict::Good && enough.remedy.is_none());
        let row = room_row("target", &folder, u64::MAX, Verdict::Missing, "go elsewhere");
        assert!(row.verdict == Verdict::Missing && row.found.contains("not/there/yet"));
        assert!(row.remedy.unwrap().ends_with("or go elsewhere"));
    }

    #[test]
    fn chores_alone_are_no_build() {
        let target = tempfile::tempdir().unwrap();
        assert!(!has_been_built(target.path()));
        std::fs::create_dir_all(target.path().join("debug/build/xtask-1")).unwrap();
        assert!(!has_been_built(target.path()));
        std::fs::create_dir_all(target.path().join("debug/build/torch-sys-1")).unwrap();
        assert!(has_been_built(target.path()));
    }

    #[test]
    fn data_is_found_in_the_order_of_the_folders() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let find = || find_data([a.path(), b.path()].into_iter());
        assert_eq!(find(), None);
        std::fs::write(b.path().join("enwik8.gz"), "gz").unwrap();
        assert!(find().unwrap().ends_with("enwik8.gz (0.0 kB)"));
        std::fs::write(a.path().join("enwik8.zip"), "zip").unwrap();
        assert!(find().unwrap().contains("enwik8.zip"));
    }
}
