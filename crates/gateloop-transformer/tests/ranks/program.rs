//! The program `gateloop` on several ranks.

use crate::common::values;
use crate::small_run;
use gateloop_dist::local::{Ended, Ranks, free_port};
use gateloop_transformer::checkpoint::{self, CheckpointFolder};
use gateloop_transformer::metrics;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use tch::Device;

/// What a test of the program may take at most.
pub(crate) const LIMIT: Duration = Duration::from_mins(2);

/// Seconds that ranks wait for one another.
pub(crate) const TIMEOUT_S: u64 = 6;

/// Writes the configuration of a small run.
pub(crate) fn write_config(folder: &Path) {
    let config = format!("{}[dist]\ntimeout_s = {TIMEOUT_S}\n", small_run::CONFIG);
    fs::write(folder.join("config.toml"), config).unwrap();
}

/// `gateloop train` in a folder, for a run of that name.
pub(crate) fn train(folder: &Path, run: &str, more: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"));
    command.args(["train", "--out", run]).args(more).current_dir(folder);
    // Ranks on one machine share its cores.
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// Starts the same on so many ranks.
pub(crate) fn start(size: usize, folder: &Path, run: &str, more: &[&str]) -> Ranks {
    Ranks::start(size, free_port().unwrap(), |_| train(folder, run, more)).unwrap()
}

/// Runs it to its end, which must be a good one; gives what the first rank said.
pub(crate) fn succeed(size: usize, folder: &Path, run: &str, more: &[&str]) -> String {
    let ended = if size == 1 {
        let output = train(folder, run, more).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        vec![Ended { status: Some(output.status), stdout, stderr }]
    } else {
        start(size, folder, run, more).wait(LIMIT).unwrap()
    };
    for (rank, ended) in ended.iter().enumerate() {
        assert!(ended.is_success(), "rank {rank}: {ended:?}");
        // The others are silent.
        assert!(rank == 0 || ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:?}");
    }
    format!("{}{}", ended[0].stdout, ended[0].stderr)
}

/// Every number of the checkpoint of a step by name, moments and carried states included.
pub(crate) fn everything(run: &Path, step: u64) -> BTreeMap<String, Vec<f64>> {
    let file = CheckpointFolder::of_run(run).file(step);
    let checkpoint = checkpoint::open(&file).unwrap().checkpoint;
    let model = checkpoint.model(Device::Cpu).unwrap().parameters();
    let lists = [model, checkpoint.optimizer_tensors().unwrap(), checkpoint.carried().unwrap()];
    lists.iter().flatten().map(|(name, tensor)| (name.clone(), values(tensor))).collect()
}

/// Errs where two checkpoints have other names, or differ in a tensor by more than rounding.
pub(crate) fn assert_close(a: &BTreeMap<String, Vec<f64>>, b: &BTreeMap<String, Vec<f64>>) {
    assert!(a.keys().eq(b.keys()), "{:?} {:?}", a.keys(), b.keys());
    for (name, a) in a {
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let apart = norm(&mut a.iter().zip(&b[name]).map(|(a, b)| a - b));
        let size = norm(&mut a.iter().copied());
        // Second moments are squares of gradients.
        assert!(apart <= 1e-5 * size, "{name}: {apart:e} of {size:e}");
    }
}

/// Waits for one more checkpoint of a run, or for the end of a rank.
pub(crate) fn wait_for_a_step(run: &Path, ranks: &mut Ranks, size: usize) {
    let newest = || CheckpointFolder::of_run(run).newest().map(|o| o.checkpoint.progress().step);
    let before = newest().ok();
    while newest().ok() == before && (0..size).all(|rank| !ranks.has_ended(rank).unwrap()) {
        thread::sleep(Duration::from_millis(2));
    }
}

/// What was recorded under a key, by step.
pub(crate) fn recorded(run: &Path, key: &str) -> Vec<(u64, f64)> {
    let records = metrics::read(run.join("metrics.jsonl")).unwrap();
    records.iter().filter_map(|r| Some((r.step, *r.values.get(key)?))).collect()
}
