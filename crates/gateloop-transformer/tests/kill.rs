//! Killed at any moment, a run goes on as if nothing had been.

#![cfg(unix)]
// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/how_often.rs"]
mod how_often;
#[path = "common/small_run.rs"]
mod small_run;

use common::{TestResult, values};
use gateloop_transformer::checkpoint::{self, CheckpointFolder};
use gateloop_transformer::metrics;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;
use tch::Device;

/// Kills in all, over as many runs as it takes, unless more are asked for.
const KILLS: usize = 20;
const STEPS: u64 = 40;
/// Some processes are killed after less than this, whatever they are doing: most are loading their libraries.
const EARLY_MS: u64 = 300;
/// The others are killed less than this after a step of theirs: computing, recording, writing a checkpoint.
const LATE_MS: u64 = 60;

fn train(folder: &Path, run: &str, resume: bool) -> Child {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"));
    command.args(["train", "--out", run]);
    if resume {
        command.arg("--resume");
    } else {
        command.args(["--config", "config.toml"]);
    }
    // Tests run beside each other; threads that spin for work would only get in the others' way.
    command.current_dir(folder).env("OMP_NUM_THREADS", "1").stdout(Stdio::null());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until the process has written a checkpoint, or has ended.
fn wait_for_a_step(run: &Path, child: &mut Child) {
    let newest = || {
        let files = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        files
            .map(|file| file.file_name())
            .filter(|name| name.as_encoded_bytes().starts_with(b"step-"))
            .max()
    };
    let before = newest();
    while newest() == before && matches!(child.try_wait(), Ok(None)) {
        thread::sleep(Duration::from_millis(1));
    }
}

/// Every number of the last checkpoint by name, and every recorded loss by step.
type Everything = (Vec<(String, Vec<f64>)>, Vec<(u64, f64)>);

fn everything(run: &Path) -> Everything {
    let file = CheckpointFolder::of_run(run).file(STEPS);
    let checkpoint = checkpoint::open(&file).unwrap().checkpoint;
    let model = checkpoint.model(Device::Cpu).unwrap().parameters();
    let moments = checkpoint.optimizer_tensors().unwrap();
    let tensors = model.iter().chain(&moments).map(|(name, t)| (name.clone(), values(t)));
    let records = metrics::read(run.join("metrics.jsonl")).unwrap();
    let losses = records.iter().map(|record| (record.step, record.values["train/loss"]));
    (tensors.collect(), losses.collect())
}

#[test]
fn a_run_that_is_killed_again_and_again_is_the_one_that_was_left_alone() -> TestResult {
    let folder = tempfile::tempdir()?;
    let at = folder.path();
    let config = format!(
        "{}checkpoint_every = 1\n",
        small_run::CONFIG.replace("checkpoint_every = 3\n", "")
    )
    .replace("steps = 6", &format!("steps = {STEPS}"));
    fs::write(at.join("config.toml"), config)?;
    assert!(train(at, "alone", false).wait()?.success());
    let expected = everything(&at.join("alone"));

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let (all, mut kills, mut runs) = (how_often::kills(KILLS), 0, 0);
    while kills < all {
        runs += 1;
        let name = format!("run{runs}");
        let run = at.join(&name);
        loop {
            let mut child = train(at, &name, run.join("config.toml").is_file());
            if kills < all {
                if rng.random_bool(0.3) {
                    thread::sleep(Duration::from_millis(rng.random_range(0..EARLY_MS)));
                } else {
                    wait_for_a_step(&run, &mut child);
                    thread::sleep(Duration::from_millis(rng.random_range(0..LATE_MS)));
                }
                // It may have ended by itself.
                let _ = child.kill();
            }
            let output = child.wait_with_output()?;
            if output.status.success() {
                break;
            }
            // It was killed; it never fails by itself.
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), None, "after {kills} kills: {said}");
            kills += 1;
        }
        assert_eq!(everything(&run), expected, "{name}, after {kills} kills in all");
    }
    println!("{kills} kills, {runs} runs, all bit-equal");
    Ok(())
}
