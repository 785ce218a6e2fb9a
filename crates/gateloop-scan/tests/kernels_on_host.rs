//! The CUDA kernels on this CPU: `kernels/host` stands in for the GPU, a C++ compiler builds them.
//! Without a compiler every test says `skipped`.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "common/host_compiler.rs"]
mod host_compiler;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The exit status by which the bench says that something is wrong with the kernels.
const FAULT: i32 = 3;

fn build() -> Option<PathBuf> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    host_compiler::build(&kernels, folder, "suite.cpp", &[], "suite")
}

/// Runs the bench and prints what it prints; nothing where there is no compiler.
fn run(arguments: &[&str]) -> Option<(Output, String)> {
    static BENCH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let bench = BENCH.get_or_init(build).as_ref()?;
    let output = Command::new(bench).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    Some((output, text))
}

/// The library's launch plans count on the file (`cuda/geometry.rs`), which has to be what kernels ask for.
#[test]
fn every_kernel_agrees_with_a_plain_loop() {
    let Some((output, text)) = run(&["grid"]) else { return };
    assert!(output.status.success(), "{}\n{text}", output.status);
    let asked: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("needs ")).collect();
    let written = include_str!("../kernels/needs.txt");
    let written: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(asked == written, "kernels/needs.txt should be:\n{}", asked.join("\n"));
}

#[test]
fn the_look_back_holds_whatever_the_schedule() {
    if let Some((output, text)) = run(&["look_back"]) {
        assert!(output.status.success(), "{}\n{text}", output.status);
    }
}

/// A bench that sees nothing proves nothing: each promise of the machine, once broken, must show.
#[test]
fn a_broken_machine_is_noticed() {
    let mutants = [
        "torn_store",
        "torn_load",
        "no_ticket",
        "no_block_barrier",
        "no_staged_barrier",
        "no_mapped_barrier",
        "no_carried_barrier",
        "no_copy_wait",
        "same_epoch",
    ];
    for mutant in mutants {
        let Some((output, text)) = run(&["mutant", mutant]) else { return };
        assert_eq!(output.status.code(), Some(FAULT), "{mutant} goes unnoticed:\n{text}");
        let is_deadlock = text.contains("deadlock: all threads wait or look in vain");
        assert!(mutant != "no_ticket" || is_deadlock, "{mutant} must end in a deadlock:\n{text}");
    }
}
