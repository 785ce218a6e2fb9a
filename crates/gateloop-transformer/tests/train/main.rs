//! Runs: learning, exact resumption, interruption, divergence, what is left in the folder.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod data;
#[path = "../common/small_run.rs"]
mod small_run;
#[path = "../common/stop_at.rs"]
mod stop_at;

use common::{TestResult, values};
use gateloop_transformer::checkpoint::{self, CheckpointFolder};
use gateloop_transformer::config::Config;
use gateloop_transformer::metrics;
use gateloop_transformer::model::Model;
use gateloop_transformer::train::{
    ChangedData, ExistingFolder, Interrupt, Outcome, Quiet, Run, Summary, TrainError,
};
use std::fs;
use std::path::Path;
use stop_at::StopAt;
use tch::Device;

fn small_run(overrides: &[&str]) -> Config {
    // Tests run beside each other; threads that spin for work would only get in the others' way.
    tch::set_num_threads(1);
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::from_toml_str(small_run::CONFIG, "small run", &overrides).unwrap()
}

fn train(path: &Path, config: &Config) -> Result<Summary, TrainError> {
    Run::start(path, config, ExistingFolder::Keep)?.train(&mut Quiet, &Interrupt::default())
}

/// Every parameter and moment of the checkpoint of a step, by name.
fn everything(run: &Path, step: u64) -> Vec<(String, Vec<f64>)> {
    let file = CheckpointFolder::of_run(run).file(step);
    let checkpoint = checkpoint::open(&file).unwrap().checkpoint;
    let model = checkpoint.model(Device::Cpu).unwrap().parameters();
    let moments = checkpoint.optimizer_tensors().unwrap();
    model.iter().chain(&moments).map(|(name, t)| (name.clone(), values(t))).collect()
}

fn losses(run: &Path) -> Vec<(u64, f64)> {
    let records = metrics::read(run.join("metrics.jsonl")).unwrap();
    records.iter().map(|record| (record.step, record.values["train/loss"])).collect()
}

#[test]
fn a_run_leaves_what_it_should() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    let config = small_run(&["train.sample_every=6", "generate.tokens=20"]);
    let summary = train(&run, &config)?;
    assert_eq!((summary.outcome, summary.step), (Outcome::Finished, 6));
    assert_eq!(Config::load(run.join("config.toml"), &[])?, config);
    let records = metrics::read(run.join("metrics.jsonl"))?;
    assert_eq!(records.iter().map(|r| r.step).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    for record in &records {
        for key in ["train/loss", "lr", "grad_norm", "tokens_per_s"] {
            assert!(record.values[key].is_finite(), "{key} at step {}", record.step);
        }
        assert_eq!(record.values.contains_key("valid/bpc"), record.step % 3 == 0);
    }
    assert_eq!(records[5].values["valid/bpc"], summary.valid_bpc.unwrap());
    for picture in ["loss.svg", "gates.svg"] {
        assert!(fs::read_to_string(run.join(picture))?.contains("<svg"));
        assert!(fs::read(run.join(picture).with_extension("png"))?.starts_with(b"\x89PNG"));
    }
    assert!(run.join("checkpoints/step-00000006.safetensors").is_file());
    let sample = fs::read_to_string(run.join("samples/step-00000006.txt"))?;
    assert_eq!(sample.chars().count(), 128 + 20, "{sample}");
    Ok(())
}

#[test]
fn norms_and_gates_are_recorded_when_due_and_change_nothing() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (run, plain) = (folder.path().join("run"), folder.path().join("plain"));
    let layers = "model.layers=[\"gate_loop\", \"simple_gate_loop\", \"attention\"]";
    let model = [layers, "model.depth=3", "model.dim_head=8", "model.heads=2"];
    let with = |more: &[&str]| small_run(&[&model[..], more].concat());
    train(&run, &with(&["train.norms_every=2", "train.gates_every=4", "train.clip_norm=0"]))?;
    train(&plain, &with(&["train.norms_every=0", "train.gates_every=0", "train.clip_norm=0"]))?;
    assert_eq!(everything(&run, 6), everything(&plain, 6));
    assert_eq!(losses(&run), losses(&plain));

    let records = metrics::read(run.join("metrics.jsonl"))?;
    let due = |has: fn(&metrics::Record) -> bool| -> Vec<u64> {
        records.iter().filter(|record| has(record)).map(|record| record.step).collect()
    };
    assert_eq!(due(|r| r.values.keys().any(|key| key.starts_with("norm/"))), [2, 4, 6]);
    assert_eq!(due(|r| !r.counts.is_empty()), [4, 6]);
    let last = &records[5];
    let squares = |prefix: &str| -> f64 {
        let all = last.values.iter().filter(|(key, _)| key.starts_with(prefix));
        all.map(|(_, norm)| norm * norm).sum::<f64>().sqrt()
    };
    let close = |a: f64, b: f64| (a - b).abs() < 1e-5 * b;
    assert!(close(squares("norm/grad/"), last.values["grad_norm"]));
    // The parameters are those of the checkpoint of this step.
    let checkpoint = checkpoint::open(&CheckpointFolder::of_run(&run).file(6))?.checkpoint;
    let parameters = checkpoint.model(Device::Cpu)?.parameters();
    let embedding: f64 = values(&parameters["token_emb.weight"]).iter().map(|x| x * x).sum();
    assert!(close(last.values["norm/param/embedding"], embedding.sqrt()));
    let parts = ["embedding", "layers.0.mixer", "layers.2.feed_forward", "logits"];
    assert!(parts.iter().all(|part| last.values[&format!("norm/grad/{part}")] > 0.0));

    // 2 windows of 33 bytes, 16 gates a layer; attention has none.
    let gates: Vec<_> = last.counts.iter().map(|(key, n)| (key.as_str(), n.iter().sum())).collect();
    let expected = ["gates/layers.0.mixer/log2_memory", "gates/layers.1.mixer/log2_memory"];
    assert_eq!(gates, expected.map(|key| (key, 2 * 33 * 16_u64)));
    let quantile = |name: &str| last.values[&format!("gates/layers.0.mixer/{name}")];
    // |a| = sigmoid(|z|) is at least a half.
    assert!(quantile("p10") >= 2.0 && quantile("p10") <= quantile("p50"));
    assert!(quantile("p50") <= quantile("p90") && quantile("p90").is_finite());
    let plain = metrics::read(plain.join("metrics.jsonl"))?;
    let extra = |key: &String| key.starts_with("norm/") || key.starts_with("gates/");
    assert!(plain.iter().all(|r| r.counts.is_empty() && !r.values.keys().any(extra)));
    assert!(plain[0].values["memory_bytes"] > 1e7);
    Ok(())
}

#[test]
fn resuming_is_bit_for_bit_the_run_that_was_not_stopped() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(&whole, &small_run(&["train.weight_decay=0.1"]))?;
    train(&parts, &small_run(&["train.weight_decay=0.1", "train.steps=3"]))?;
    let config = small_run(&["train.weight_decay=0.1"]);
    let mut run = Run::resume(&parts, &config, ChangedData::Refuse, &mut Quiet)?;
    assert_eq!(run.steps_done(), 3);
    run.train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(losses(&whole), losses(&parts));
    assert_eq!(everything(&whole, 6), everything(&parts, 6));
    Ok(())
}

#[test]
fn records_after_the_checkpoint_are_made_again_not_twice() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    train(&run, &small_run(&[]))?;
    let expected = losses(&run);
    fs::remove_file(CheckpointFolder::of_run(&run).file(6))?;
    // What a kill in the middle of a write leaves.
    let half = run.join("checkpoints/.tmp1.partial");
    fs::write(&half, "half")?;
    Run::resume(&run, &small_run(&[]), ChangedData::Refuse, &mut Quiet)?
        .train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(losses(&run), expected);
    assert!(!half.exists());
    Ok(())
}

#[test]
fn an_interrupted_run_ends_after_its_step_with_a_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    let interrupt = Interrupt::default();
    let mut run = Run::start(&path, &small_run(&[]), ExistingFolder::Keep)?;
    let summary = run.train(&mut StopAt(2, interrupt.clone()), &interrupt)?;
    assert_eq!((summary.outcome, summary.step), (Outcome::Interrupted, 2));
    assert!(CheckpointFolder::of_run(&path).file(2).is_file());
    Ok(())
}

#[test]
fn a_run_with_everything_on_is_bit_for_bit_the_one_that_was_interrupted() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let config = small_run(&[
        "train.schedule=cosine",
        "train.warmup_steps=2",
        "train.min_lr=1e-4",
        "train.transition_lr_frac=0.1",
        "train.weight_decay=0.1",
        "train.recompute=true",
        "train.ema_decay=0.9",
        "train.sample_every=1",
        "generate.tokens=3",
    ]);
    train(&whole, &config)?;
    let interrupt = Interrupt::default();
    Run::start(&parts, &config, ExistingFolder::Keep)?
        .train(&mut StopAt(4, interrupt.clone()), &interrupt)?;
    let mut run = Run::resume(&parts, &config, ChangedData::Refuse, &mut Quiet)?;
    run.train(&mut Quiet, &Interrupt::default())?;
    assert_eq!(everything(&whole, 6), everything(&parts, 6));
    let values = |path: &Path| {
        let mut records = metrics::read(path.join("metrics.jsonl")).unwrap();
        let timeless = |record: &mut metrics::Record| {
            record.time_s = 0.0;
            record.values.remove("tokens_per_s");
            let overhead = record.values.remove("overhead").unwrap();
            assert!((0.0..1.0).contains(&overhead), "{overhead}");
            record.values.remove("memory_bytes");
        };
        records.iter_mut().for_each(timeless);
        records
    };
    assert_eq!(values(&whole), values(&parts));
    let rates: Vec<f64> = values(&whole).iter().map(|record| record.values["lr"]).collect();
    assert_eq!(rates[..2], [0.5e-3, 1e-3]);
    assert!(rates[2..].is_sorted_by(|a, b| a >= b) && rates[5] < rates[3], "{rates:?}");
    Ok(())
}

#[test]
fn averages_are_validated_and_used_and_training_goes_on_from_the_weights() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (averaged, plain) = (folder.path().join("averaged"), folder.path().join("plain"));
    train(&averaged, &small_run(&["train.ema_decay=0.99"]))?;
    train(&plain, &small_run(&[]))?;
    assert_eq!(losses(&averaged), losses(&plain));
    let checkpoint =
        |run: &Path| checkpoint::open(&CheckpointFolder::of_run(run).file(6)).unwrap().checkpoint;
    let (with, without) = (checkpoint(&averaged), checkpoint(&plain));
    assert!(without.averages()?.is_empty());
    // The decay at step t is (1 + t) / (10 + t): by step 6 the first weights count for little.
    let name = "to_logits.1.weight";
    let average = with.model(Device::Cpu)?.parameters()[name].copy();
    assert_eq!(values(&average), values(&with.averages()?[name]));
    let model = Model::new(&with.config().model, Device::Cpu)?;
    with.load_model(&model)?;
    let weights = &model.parameters()[name];
    assert_eq!(values(weights), values(&without.model(Device::Cpu)?.parameters()[name]));
    assert_ne!(values(&average), values(weights));
    let bpc = |run: &Path| metrics::read(run.join("metrics.jsonl")).unwrap()[5].values["valid/bpc"];
    assert_ne!(bpc(&averaged), bpc(&plain));
    Ok(())
}

#[test]
fn the_best_checkpoint_is_kept_beside_the_newest() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    let config = small_run(&[
        "train.steps=12",
        "train.lr=0.3",
        "train.checkpoint_every=1",
        "train.validate_every=1",
        "train.keep_checkpoints=1",
    ]);
    train(&run, &config)?;
    let records = metrics::read(run.join("metrics.jsonl"))?;
    let lowest = |a: &(u64, f64), b: &(u64, f64)| a.1.total_cmp(&b.1);
    let bpcs = records.iter().map(|record| (record.step, record.values["valid/bpc"]));
    let (step, bpc) = bpcs.min_by(lowest).ok_or("no validation")?;
    let best = checkpoint::open(&run)?.checkpoint.progress().best.ok_or("no best")?;
    assert_eq!((best.step, best.bpc), (step, bpc));
    let files = CheckpointFolder::of_run(&run);
    let left: Vec<u64> = (1..=12).filter(|&step| files.file(step).exists()).collect();
    assert_eq!(left, if step == 12 { vec![12] } else { vec![step, 12] });
    Ok(())
}

#[test]
fn data_that_has_changed_is_refused_unless_allowed() -> TestResult {
    let folder = tempfile::tempdir()?;
    let (run, data) = (folder.path().join("run"), folder.path().join("data.txt"));
    fs::write(&data, "the quick brown fox ".repeat(500))?;
    let source = format!("data.source={}", data.display());
    let config = |steps: &str| {
        small_run(&[&source, "data.train_bytes=8000", "data.valid_bytes=1000", steps])
    };
    train(&run, &config("train.steps=3"))?;
    let resume = |changed| Run::resume(&run, &config("train.steps=4"), changed, &mut Quiet);
    drop(resume(ChangedData::Refuse)?);
    fs::write(&data, "the quick brown cat ".repeat(500))?;
    let error = resume(ChangedData::Refuse).unwrap_err();
    assert!(matches!(error, TrainError::DataChanged { .. }), "{error}");
    assert!(error.to_string().contains("--allow-changed-data"), "{error}");
    let mut run = resume(ChangedData::Allow)?;
    assert_eq!(run.train(&mut Quiet, &Interrupt::default())?.step, 4);
    Ok(())
}

#[test]
fn a_folder_has_one_process_at_a_time() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    let config = small_run(&["train.steps=3"]);
    let first = Run::start(&run, &config, ExistingFolder::Keep)?;
    let resume = || Run::resume(&run, &config, ChangedData::Refuse, &mut Quiet);
    let replace = || Run::start(&run, &config, ExistingFolder::Replace);
    for second in [resume(), replace()] {
        let error = second.unwrap_err();
        assert!(matches!(error, TrainError::Locked { .. }), "{error}");
    }
    drop(first);
    // No checkpoint had been written: the run begins anew.
    assert_eq!(resume()?.train(&mut Quiet, &Interrupt::default())?.step, 3);
    Ok(())
}

#[test]
fn divergence_stops_the_run_and_keeps_the_last_good_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("run");
    // A rate at which f32 overflows after a few steps.
    let config = small_run(&["train.lr=1e30", "train.checkpoint_every=1", "train.clip_norm=0"]);
    let error = train(&path, &config).unwrap_err();
    let TrainError::Diverged { step, lr, .. } = error else { panic!("{error}") };
    assert_eq!(lr, 1e30);
    assert!(error.to_string().contains(&format!("step {step} ")), "{error}");
    let newest = CheckpointFolder::of_run(&path).newest()?;
    assert_eq!(newest.checkpoint.progress().step, step - 1);
    assert!(newest.passed_over.is_empty());
    Ok(())
}

#[test]
fn a_folder_is_never_overwritten_unasked() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    let config = small_run(&["train.steps=1"]);
    train(&run, &config)?;
    let error = train(&run, &config).unwrap_err();
    assert!(matches!(error, TrainError::FolderExists { .. }), "{error}");
    drop(Run::start(&run, &config, ExistingFolder::Replace)?);

    let other = folder.path().join("other");
    fs::create_dir(&other)?;
    fs::write(other.join("thesis.tex"), "years of work")?;
    for existing in [ExistingFolder::Keep, ExistingFolder::Replace] {
        assert!(Run::start(&other, &config, existing).is_err());
        assert!(other.join("thesis.tex").is_file());
    }
    Ok(())
}

#[test]
fn accumulation_gives_the_gradient_of_the_large_batch() -> TestResult {
    let folder = tempfile::tempdir()?;
    let runs = ["train.batch_size=4|train.grad_accum=1", "train.batch_size=1|train.grad_accum=4"];
    let first_losses: Vec<f64> = runs
        .iter()
        .enumerate()
        .map(|(index, overrides)| {
            let overrides: Vec<&str> = overrides.split('|').collect();
            let run = folder.path().join(index.to_string());
            train(&run, &small_run(&overrides))?;
            // By the last step every update so far has had its say.
            Ok(losses(&run).last().unwrap().1)
        })
        .collect::<Result<_, TrainError>>()?;
    let tolerance = gateloop_scan::Tolerance::of::<f32>(6 * 32);
    // Adam divides by the root of a moment that is rounding noise where a gradient is near zero.
    tolerance.times(64.0).check_uniform(&first_losses[..1], &first_losses[1..]).unwrap();
    Ok(())
}

#[test]
fn the_model_learns() -> TestResult {
    let folder = tempfile::tempdir()?;
    let run = folder.path().join("run");
    let config = small_run(&["train.steps=150", "train.lr=1e-2", "train.validate_every=0"]);
    train(&run, &config)?;
    let losses = losses(&run);
    let mean = |part: &[(u64, f64)]| part.iter().map(|(_, l)| l).sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[145..]));
    // Text over some thirty letters: a uniform guess costs ln 30 = 3.4 nats, the letters' own
    // frequencies about 2.9; only the context brings it lower.
    assert!(first > 3.4 && last < 2.6, "from {first} to {last} nats");
    Ok(())
}
