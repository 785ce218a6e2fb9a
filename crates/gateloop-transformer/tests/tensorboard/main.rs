//! Event files are what TensorBoard's own package reads: every number of metrics.jsonl comes back.
//!
//! `GATELOOP_TENSORBOARD_PYTHON` names a Python that has the package; `cargo xtask tensorboard` installs one and sets it.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

#[path = "../common/small_run.rs"]
mod small_run;

use gateloop_transformer::config::Config;
use gateloop_transformer::metrics::memory::lower_edge;
use gateloop_transformer::metrics::{self, Record};
use gateloop_transformer::train::{ChangedData, ExistingFolder, Interrupt, Quiet, Run};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Kind, tag, step, wall time, value.
type Line = (String, String, u64, f64, Value);
/// Least and largest edge, number, right edges and counts of the bins.
type Histogram = (f64, f64, f64, Vec<f64>, Vec<f64>);

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
enum Value {
    /// `None` for one that is not finite.
    Scalar(Option<f64>),
    Histogram(Histogram),
}

impl Value {
    /// Event files hold scalars in single precision.
    fn single(self) -> Self {
        match self {
            Self::Scalar(value) => Self::Scalar(value.map(|value| f64::from(value as f32))),
            Self::Histogram(histogram) => Self::Histogram(histogram),
        }
    }
}

#[test]
fn tensorboard_reads_back_every_scalar_and_histogram() -> Result<(), Box<dyn std::error::Error>> {
    let Ok(python) = std::env::var("GATELOOP_TENSORBOARD_PYTHON") else {
        println!("skipped: no tensorboard package");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    trained_in_two_parts(&path)?;
    let records = metrics::read(path.join("metrics.jsonl"))?;
    let read = read(&python, &path.join("tensorboard"))?;

    let expected = expected(&records);
    assert_eq!(read.len(), expected.len());
    for (kind, tag, step, _, value) in &read {
        let key = (kind.clone(), tag.clone(), *step);
        assert_eq!(Some(&value.clone().single()), expected.get(&key), "{key:?}");
    }
    let count = |kind| read.iter().filter(|line| line.0 == kind).count();
    assert!(count("scalar") > 100 && count("histogram") == 2 * 3);

    // TensorBoard shows times of the clock: all of them are as far from the seconds of the run.
    let time = |step| records.iter().find(|record| record.step == step).unwrap().time_s;
    let began: Vec<f64> = read.iter().map(|line| line.3 - time(line.2)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    assert!(began.iter().all(|at| (at - began[0]).abs() < 1e-5 && *at < now), "{began:?}");
    println!("{} scalars, {} histograms read back", count("scalar"), count("histogram"));
    Ok(())
}

/// Six steps, and the last three again after a resumption, whose records replace the others.
fn trained_in_two_parts(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    tch::set_num_threads(1);
    let overrides = ["tensorboard=true", "norms_every=1", "gates_every=2"];
    let overrides = overrides.map(|part| format!("train.{part}"));
    let config = Config::from_toml_str(small_run::CONFIG, "small run", &overrides)?;
    let on = Interrupt::default();
    Run::start(path, &config, ExistingFolder::Keep)?.train(&mut Quiet, &on)?;
    std::fs::remove_file(path.join("checkpoints/step-00000006.safetensors"))?;
    Run::resume(path, &config, ChangedData::Refuse, &mut Quiet)?.train(&mut Quiet, &on)?;
    Ok(())
}

fn read(python: &str, events: &Path) -> Result<Vec<Line>, Box<dyn std::error::Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tensorboard/read.py");
    let output = Command::new(python).arg(script).arg(events).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn expected(records: &[Record]) -> BTreeMap<(String, String, u64), Value> {
    let mut all = BTreeMap::new();
    for record in records {
        for (tag, value) in &record.values {
            let value = Value::Scalar(Some(*value).filter(|value| value.is_finite()));
            all.insert(("scalar".to_owned(), tag.clone(), record.step), value.single());
        }
        for (tag, counts) in &record.counts {
            let value = Value::Histogram(histogram(counts));
            all.insert(("histogram".to_owned(), tag.clone(), record.step), value);
        }
    }
    all
}

/// The bins between the first and the last that is not empty.
fn histogram(counts: &[u64]) -> Histogram {
    let start = counts.iter().position(|&count| count > 0).unwrap();
    let end = counts.iter().rposition(|&count| count > 0).unwrap() + 1;
    let limits = (start..end).map(|bin| lower_edge(bin + 1)).collect();
    let counts: Vec<f64> = counts[start..end].iter().map(|&count| count as f64).collect();
    (lower_edge(start), lower_edge(end), counts.iter().sum(), limits, counts)
}
