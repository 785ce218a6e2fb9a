//! `gateloop import` and `gateloop export`: from a reference's weights to a run that goes on, and back.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use assert_cmd::Command;
use common::{TestResult, values};
use gateloop_transformer::checkpoint;
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::exchange::{self, Layout};
use gateloop_transformer::model::Model;
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use std::path::Path;
use tch::Device;

fn gateloop(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("gateloop"));
    command.args(args).current_dir(folder).env("OMP_NUM_THREADS", "1");
    command
}

/// Weights of a reference in `name`.
fn weights_in(folder: &Path, name: &str, config: &ModelConfig, layout: Layout) -> Model {
    let model = Model::seeded(config, Device::Cpu, 5).unwrap();
    exchange::write(&folder.join(name), &model.parameters(), layout).unwrap();
    model
}

fn small() -> ModelConfig {
    ModelConfig { dim: 16, depth: 2, ..ModelConfig::default() }
}

#[test]
fn imported_weights_generate_train_on_and_come_back() -> TestResult {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let jax = ModelConfig { dim: 16, depth: 2, ..ModelConfig::jax_reference() };
    let assumed = "model.ablate_complex = false";
    for (name, config, layout, words) in [
        ("torch.safetensors", small(), Layout::PyTorch, "PyTorch weights"),
        ("jax.npz", jax.clone(), Layout::Jax, "JAX weights"),
        ("jax.eqx", jax, Layout::Jax, "JAX weights"),
    ] {
        let run = format!("run-of-{name}");
        let model = weights_in(here, name, &config, layout);
        gateloop(here, &["import", name, "--out", &run])
            .assert()
            .success()
            .stdout(contains(words))
            // The JAX model has no ablations.
            .stdout(contains(assumed).count(usize::from(layout == Layout::PyTorch)));
        let opened = checkpoint::open(&here.join(&run))?.checkpoint;
        for (name, tensor) in opened.model(Device::Cpu)?.parameters() {
            assert_eq!(values(&tensor), values(&model.parameters()[&name]), "{name}");
        }
        gateloop(here, &["generate", "--checkpoint", &run, "--prompt", "a", "--tokens", "3"])
            .assert()
            .success();

        let back = format!("back-{name}");
        gateloop(here, &["export", "--checkpoint", &run, "--out", &back]).assert().success();
        let (tensors, layout_back) = exchange::read(&here.join(&back))?;
        assert_eq!(layout_back, layout);
        for (name, tensor) in model.parameters() {
            assert_eq!(values(&tensors[&name]), values(&tensor), "{name}");
        }

        let data = ["data.source=synthetic:text", "data.train_bytes=9000", "data.valid_bytes=2000"];
        let train = ["train.steps=2", "train.batch_size=1", "train.seq_len=16", "train.threads=1"];
        let mut resume = gateloop(here, &["train", "--resume", "--out", &run]);
        for set in data.iter().chain(&train) {
            resume.args(["--set", set]);
        }
        resume.assert().success().stderr(contains("resumed at step 0"));
    }
    Ok(())
}

#[test]
fn an_import_that_is_refused_leaves_nothing_behind() -> TestResult {
    let folder = tempfile::tempdir()?;
    let here = folder.path();
    let attention = ModelConfig { use_gate_looped_attn: false, heads: 2, dim_head: 4, ..small() };
    weights_in(here, "attention.safetensors", &attention, Layout::PyTorch);
    let import =
        |args: &[&str]| gateloop(here, &[&["import", "--out", "run"], args].concat()).assert();
    import(&["attention.safetensors"])
        .code(2)
        .stderr(contains("into heads").and(contains("--set model.heads=N")));
    // Heads that do not divide what the shapes say.
    import(&["attention.safetensors", "--set", "model.heads=3"])
        .code(1)
        .stderr(contains("`layers.0.0.fn.to_qkv.0.weight` is [24, 16] in the file"));
    import(&["absent.safetensors"]).code(1).stderr(contains("absent.safetensors"));
    assert!(!here.join("run").exists());

    import(&["attention.safetensors", "--set", "model.heads=2"]).success();
    import(&["attention.safetensors", "--set", "model.heads=2"]).code(2).stderr(contains("run"));
    import(&["attention.safetensors", "--set", "model.heads=2", "--overwrite"]).success();

    import(&["run/checkpoints/step-00000000.safetensors", "--overwrite"])
        .code(1)
        .stderr(contains("is a checkpoint of this program"));

    gateloop(here, &["export", "--checkpoint", "run", "--out", "weights.npz"])
        .assert()
        .code(1)
        .stderr(
            contains("the JAX model has no such parameters").and(contains("to_logits.1.weight")),
        );
    gateloop(here, &["export", "--checkpoint", "run", "--out", "weights.pt"])
        .assert()
        .code(2)
        .stderr(contains("does not say how to write"));
    assert!(!here.join("weights.npz").exists());
    Ok(())
}
