//! A disk that is full, by way of a limit on the size of files: the run ends with the reason, and goes on afterwards.

#![cfg(unix)]
// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/small_run.rs"]
mod small_run;

use common::{TestResult, values};
use gateloop_transformer::checkpoint::{self, CheckpointFolder};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tch::Device;

/// Kilobytes: configuration and metrics fit, a checkpoint does not.
const LIMIT_KB: usize = 40;

fn train(folder: &Path, limited: bool, arguments: &[&str]) -> Output {
    // A shell sets the limit; without the trap, the signal that comes with it would kill the process.
    let limit = if limited {
        format!("trap '' XFSZ; ulimit -f {} || exit 99; ", 2 * LIMIT_KB)
    } else {
        String::new()
    };
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limit}exec \"$@\""), "sh"]);
    command.arg(assert_cmd::cargo::cargo_bin!("gateloop")).arg("train").args(arguments);
    command.current_dir(folder).env("OMP_NUM_THREADS", "1").output().unwrap()
}

fn parameters(run: &Path, step: u64) -> Vec<(String, Vec<f64>)> {
    let file = CheckpointFolder::of_run(run).file(step);
    let model = checkpoint::open(&file).unwrap().checkpoint.model(Device::Cpu).unwrap();
    model.parameters().into_iter().map(|(name, tensor)| (name, values(&tensor))).collect()
}

#[test]
fn nothing_is_lost_when_a_checkpoint_cannot_be_written() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    fs::write(at.join("config.toml"), small_run::CONFIG)?;
    let alone = train(at, false, &["--config", "config.toml", "--out", "alone"]);
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    let run = at.join("run");
    let fails = |arguments: &[&str]| {
        let output = train(at, true, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("cannot write") && said.contains("checkpoints"), "{said}");
        assert!(!said.contains("panic"), "{said}");
        let left = fs::read_dir(run.join("checkpoints")).unwrap().flatten();
        assert!(
            left.map(|file| file.path()).all(|path| path.extension().unwrap() == "safetensors")
        );
    };
    // The first checkpoint of all.
    fails(&["--config", "config.toml", "--out", "run"]);
    let again = train(at, false, &["--out", "run", "--resume", "--set", "train.steps=3"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    // One of a run that has some: the last stays whole.
    let before = parameters(&run, 3);
    fails(&["--out", "run", "--resume", "--set", "train.steps=6"]);
    assert_eq!(parameters(&run, 3), before);
    let again = train(at, false, &["--out", "run", "--resume", "--set", "train.steps=6"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(parameters(&run, 6), parameters(&at.join("alone"), 6));
    Ok(())
}
