//! The bundle: test programs, the bench, `gateloop`, the peers' scripts and the script that runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifact::Artifact;
use crate::child::Children;
use crate::error::{Error, Result};
use crate::setup;
use crate::workspace::Workspace;

const SCRIPT: &str = include_str!("run.sh");

/// Builds everything and copies it into `folder`, which is made anew. Returns its size in bytes.
pub(super) fn build(workspace: &Workspace, children: &Children, folder: &Path) -> Result<u64> {
    let ready = setup::ensure(workspace, setup::Options::default())?;
    let io = |action, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::io(action, &path, source)
    };
    if folder.join("run.sh").is_file() {
        fs::remove_dir_all(folder).map_err(io("replace", folder))?;
    }
    fs::create_dir_all(folder.join("peers")).map_err(io("make", folder))?;

    let mut programs = Vec::new();
    for arguments in [
        &[
            "test",
            "--no-run",
            "-p",
            "gateloop-scan",
            "-p",
            "gateloop-nn",
            "--all-features",
            "--tests",
        ][..],
        &["build", "--release", "-p", "gateloop-transformer", "--bin", "gateloop"],
        &["build", "--release", "-p", "gateloop-benches", "--bin", "gpu"],
    ] {
        let mut cargo = workspace.cargo();
        cargo
            .args(arguments)
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit());
        ready.compiler.pass_to(&mut cargo);
        let what = format!("cargo {}", arguments.join(" "));
        children.run_lines(&what, &mut cargo, |line| {
            programs.extend(Artifact::from_line(line).map(bundled));
        })?;
    }
    for (name, program) in programs.iter().filter(|(name, _)| is_wanted(name)) {
        let to = folder.join(name);
        fs::copy(program, &to).map_err(io("copy", program))?;
        // Symbols are most of a test program; without `strip` the bundle is larger, not worse.
        let _ = Command::new("strip").arg(&to).stderr(Stdio::null()).status();
    }
    copy_scripts(&workspace.root().join("benches/peers"), &folder.join("peers"))?;
    let script = folder.join("run.sh");
    fs::write(&script, SCRIPT).map_err(io("write", &script))?;
    size_of(folder)
}

/// The name that a program has in the bundle, and where it is.
fn bundled(artifact: Artifact) -> (String, PathBuf) {
    // Both crates have a test called `cuda`.
    let is_nn = artifact.name == "cuda" && artifact.package.contains("gateloop-nn");
    (if is_nn { "nn_cuda".to_owned() } else { artifact.name }, artifact.path)
}

fn is_wanted(name: &str) -> bool {
    matches!(name, "cuda" | "nn_cuda" | "gateloop" | "gpu")
}

/// Copies a folder of Python files.
fn copy_scripts(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).map_err(|source| Error::io("make", to, source))?;
    for entry in fs::read_dir(from).map_err(|source| Error::io("read", from, source))? {
        let path = entry.map_err(|source| Error::io("read", from, source))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_scripts(&path, &target)?;
        } else if path.extension().is_some_and(|extension| extension == "py") {
            fs::copy(&path, &target).map_err(|source| Error::io("copy", &path, source))?;
        }
    }
    Ok(())
}

fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(|source| Error::io("read", folder, source))? {
        let path = entry.map_err(|source| Error::io("read", folder, source))?.path();
        bytes += if path.is_dir() {
            size_of(&path)?
        } else {
            fs::metadata(&path).map_err(|source| Error::io("read", &path, source))?.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn the_tests_of_two_crates_do_not_take_each_others_place() {
        let artifact = |package: &str| Artifact {
            package: format!("path+file:///x/{package}#0.1.0"),
            name: "cuda".into(),
            path: "/x/cuda-1".into(),
        };
        assert_eq!(bundled(artifact("gateloop-nn")), ("nn_cuda".into(), "/x/cuda-1".into()));
        assert_eq!(bundled(artifact("gateloop-scan")).0, "cuda");
    }

    #[test]
    fn only_what_a_gpu_is_for_is_taken() {
        for name in ["cuda", "nn_cuda", "gateloop", "gpu"] {
            assert!(is_wanted(name));
        }
        assert!(!is_wanted("properties"));
    }
}
