//! Programs with what stands in for the CUDA driver in their library path.

use super::host_compiler::build;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the stand-in reads its settings from; see kernels/host/driver.cpp.
pub(crate) const SETTINGS: &str = "GATELOOP_STAND_IN";

/// Builds the stand-in; the folder that it lies in. Without a compiler `None`, after a word about it.
pub(crate) fn build_stand_in(kernels: &Path) -> Option<PathBuf> {
    // target/debug/deps/program, and target/tmp, as Cargo names it to some of its programs.
    let program = env::current_exe().unwrap();
    let target = program.ancestors().nth(3).unwrap();
    let library =
        build(kernels, &target.join("tmp"), "driver.cpp", &["-shared", "-fPIC"], "libcuda.so")?;
    library.parent().map(Path::to_owned)
}

/// A program with the stand-in in its library path.
pub(crate) fn with_stand_in(program: &Path, folder: &Path, settings: &str) -> Command {
    let mut program = Command::new(program);
    let others = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let all = [folder.to_owned()].into_iter().chain(env::split_paths(&others));
    program.env("LD_LIBRARY_PATH", env::join_paths(all).unwrap()).env(SETTINGS, settings);
    program
}

/// What it printed, further to the right, so that nobody counts its tests for those of this run.
pub(crate) fn show(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().flat_map(|line| ["    ", line, "\n"]).collect()
}
