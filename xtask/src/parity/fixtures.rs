//! The small cases that `cargo test` runs without Python.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::programs::{scripts, write_cases};
use crate::child::Children;
use crate::environment::{Environment, Threads};
use crate::error::{Error, Result};
use crate::workspace::Workspace;

/// Where they are.
fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root().join("crates/gateloop-parity/fixtures")
}

/// Writes them anew; what the references no longer write goes.
pub(super) fn write(
    workspace: &Workspace,
    children: &Children,
    python: &Environment,
) -> Result<()> {
    let fresh = generate(workspace, children, python)?;
    let folder = folder(workspace);
    fs::create_dir_all(&folder).map_err(|e| Error::io("make", &folder, e))?;
    for name in list(&folder)?.keys() {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
    }
    let mut bytes = 0;
    for (name, from) in list(fresh.path())? {
        let to = folder.join(name);
        bytes += fs::copy(&from, &to).map_err(|e| Error::io("write", &to, e))?;
    }
    println!("{}: {}", folder.display(), crate::table::size(bytes));
    Ok(())
}

/// Says whether they are what the references give today; roundings of another processor do not count.
pub(super) fn check(
    workspace: &Workspace,
    children: &Children,
    python: &Environment,
) -> Result<()> {
    let fresh = generate(workspace, children, python)?;
    let mut command = python.command(Threads::One);
    command
        .arg(scripts(workspace).join("same.py"))
        .arg(folder(workspace))
        .arg(fresh.path())
        .stdin(Stdio::null());
    match children.run("same.py", &mut command) {
        Err(Error::Child { .. }) => Err(Error::StaleFixtures),
        done => done,
    }
}

fn generate(
    workspace: &Workspace,
    children: &Children,
    python: &Environment,
) -> Result<tempfile::TempDir> {
    let folder =
        tempfile::tempdir().map_err(|e| Error::io("make a folder in", &std::env::temp_dir(), e))?;
    write_cases(children, python, &scripts(workspace), folder.path(), &["--fixtures"])?;
    Ok(folder)
}

/// The cases of a folder by the names of their files.
fn list(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let cases = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    Ok(cases.filter_map(|path| Some((path.file_name()?.to_str()?.to_owned(), path))).collect())
}
