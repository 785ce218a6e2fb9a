//! The CUDA kernels on this CPU: `kernels/host` stands in for the GPU, a C++ compiler builds them.
//! Without a compiler every test says `skipped`.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::{env, fs, process};

/// The exit status by which the bench says that something is wrong with the kernels.
const FAULT: i32 = 3;
const FLAGS: [&str; 2] = ["-std=c++17", "-O1"];

fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels")
}

fn compiler() -> Option<String> {
    let works = |name: &String| {
        Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    if let Ok(name) = env::var("CXX") {
        assert!(works(&name), "CXX is {name}, which does not run");
        return Some(name);
    }
    ["c++", "g++"].map(str::to_owned).into_iter().find(works)
}

/// A hash of all that the bench is built from.
fn content_hash(compiler: &str) -> u64 {
    let mut files = BTreeMap::new();
    for folder in [kernels(), kernels().join("host")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    (compiler, FLAGS, files).hash(&mut hasher);
    hasher.finish()
}

fn build() -> Option<PathBuf> {
    let compiler = compiler()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let bench = folder.join(format!("kernels-on-host-{:016x}", content_hash(&compiler)));
    if bench.is_file() {
        return Some(bench);
    }
    // Another process may build the same: each has a file of its own until it is done.
    let unfinished = bench.with_extension(process::id().to_string());
    let host = kernels().join("host");
    let output = Command::new(&compiler)
        .args(FLAGS)
        .arg("-I")
        .arg(&host)
        .arg(host.join("suite.cpp"))
        .arg("-o")
        .arg(&unfinished)
        .output()
        .unwrap();
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, &bench).unwrap();
    Some(bench)
}

/// Runs the bench and prints what it prints; nothing where there is no compiler.
fn run(arguments: &[&str]) -> Option<(Output, String)> {
    static BENCH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let Some(bench) = BENCH.get_or_init(build) else {
        println!("skipped: no C++ compiler");
        return None;
    };
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
