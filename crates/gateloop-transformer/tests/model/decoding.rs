//! Rounded weights and several texts at once.

use crate::common::{TestResult, values};
use crate::models::{ids, small_models};
use gateloop_nn::WeightKind;
use gateloop_scan::Tolerance;
use gateloop_transformer::checkpoint::{self, CheckpointError, RunProgress, TrainingState};
use gateloop_transformer::config::{Config, ModelConfig};
use gateloop_transformer::data::{Corpus, Split, WindowSampler};
use gateloop_transformer::generate::{BatchGenerator, GenerateError, Generator, Sampler};
use gateloop_transformer::model::{Model, ModelError};
use gateloop_transformer::train::{TrainError, Trainer};
use tch::{Device, Kind, Tensor};

const ROUNDED: [WeightKind; 2] = [WeightKind::Bf16, WeightKind::Int8];

fn model(config: &ModelConfig) -> Model {
    Model::seeded(config, Device::Cpu, 3).unwrap()
}

fn rounded(config: &ModelConfig, kind: WeightKind) -> Model {
    let mut model = model(config);
    model.quantize(kind).unwrap();
    model
}

/// The matrix with every weight replaced by the nearest one that `kind` has.
fn nearest(weight: &Tensor, kind: WeightKind) -> Tensor {
    match kind {
        WeightKind::Bf16 => weight.to_kind(Kind::BFloat16).to_kind(Kind::Float),
        WeightKind::Int8 => {
            let scale = weight.abs().amax([1i64], true) / 127.0;
            (weight / &scale).round() * scale
        }
        _ => weight.shallow_clone(),
    }
}

#[test]
fn a_rounded_model_is_the_model_with_its_weights_rounded() -> TestResult {
    for config in small_models() {
        for kind in ROUNDED {
            let plain = model(&config);
            tch::no_grad(|| {
                for (name, parameter) in plain.parameters() {
                    if parameter.dim() == 2 && name != "token_emb.weight" {
                        parameter.shallow_clone().copy_(&nearest(&parameter, kind));
                    }
                }
            });
            let rounded = rounded(&config, kind);
            let ids = ids(2, 12);
            let expected = tch::no_grad(|| plain.forward(&ids))?;
            // Sixteen stages that round alike, as everywhere in these tests.
            let tolerance = Tolerance::of::<f32>(12 * 128).times(16.0);
            let close = |actual: &Tensor, expected: &Tensor| {
                tolerance.check_uniform(&values(actual), &values(expected))
            };
            tch::no_grad(|| -> TestResult {
                close(&rounded.forward(&ids)?, &expected)?;
                let mut state = rounded.initial_state(2);
                for t in 0..12 {
                    let logits = rounded.step(&ids.select(1, t), &mut state)?;
                    close(&logits, &expected.select(1, t))?;
                }
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn rounding_forgets_the_trained_weights_and_reads_fewer_bytes() {
    let config = ModelConfig { dim: 64, depth: 2, ..ModelConfig::default() };
    let plain = model(&config);
    let bytes = plain.bytes_per_step();
    for (kind, share) in [(WeightKind::Bf16, 0.5), (WeightKind::Int8, 0.25)] {
        let rounded = rounded(&config, kind);
        assert_eq!(rounded.weight_kind(), kind);
        let actual = rounded.bytes_per_step() as f64 / bytes as f64;
        // Biases and scales are a few bytes in a hundred.
        assert!((share..share + 0.05).contains(&actual), "{kind}: {actual}");
        let left = rounded.parameters();
        assert!(left.contains_key("token_emb.weight") && left.contains_key("to_logits.0.gamma"));
        assert!(left.values().all(|p| !p.requires_grad()));
        assert!(!left.contains_key("to_logits.1.weight"), "{:?}", left.keys());
    }
}

#[test]
fn a_rounded_model_is_neither_trained_nor_saved_nor_rounded_again() -> TestResult {
    let config = Config::from_toml_str(
        "[model]\ndim = 8\ndepth = 1\n[data]\nsource = \"synthetic:text\"\ntrain_bytes = 2000\nvalid_bytes = 400",
        "test",
        &[],
    )?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.safetensors");
    let sampler = || -> Result<WindowSampler, Box<dyn std::error::Error>> {
        Ok(WindowSampler::new(&Corpus::open(&config.data)?, Split::Train, 16, 1)?)
    };
    let progress = RunProgress::new(1, 0.0, sampler()?.state());
    let mut model = rounded(&config.model, WeightKind::Int8);
    let saved = checkpoint::save(&path, &config, &progress, &model, &TrainingState::default());
    assert!(matches!(saved, Err(CheckpointError::Model(ModelError::Quantized { .. }))));
    assert!(!path.exists());
    let windows = ids(1, 9);
    let refused = model.loss(&windows).unwrap_err();
    assert!(refused.to_string().contains("int8"), "{refused}");
    assert!(tch::no_grad(|| model.loss(&windows))?.double_value(&[]).is_finite());
    assert!(matches!(model.quantize(WeightKind::Bf16), Err(ModelError::Quantized { .. })));
    model.quantize(WeightKind::Int8)?;
    let trainer = Trainer::new(model, sampler()?, &config.train);
    assert!(matches!(trainer, Err(TrainError::Model(ModelError::Quantized { .. }))));
    Ok(())
}

#[test]
fn a_model_that_cannot_be_rounded_stays_as_it_was() -> TestResult {
    let config = ModelConfig { dim: 8, depth: 2, ..ModelConfig::default() };
    let mut damaged = model(&config);
    let last = damaged.parameters()["to_logits.1.weight"].shallow_clone();
    let _ = tch::no_grad(|| last.get(0).fill_(f64::INFINITY));
    assert!(damaged.quantize(WeightKind::Int8).is_err());
    assert_eq!(damaged.weight_kind(), WeightKind::F32);
    assert_eq!(damaged.parameters().len(), model(&config).parameters().len());
    damaged.loss(&ids(1, 9))?.backward();
    Ok(())
}

#[test]
fn a_text_of_a_batch_is_the_text_written_alone() -> TestResult {
    let sampler = |stream| Sampler::new(1.0, 26, 11).with_stream(stream);
    let samplers = || (0..5).map(sampler).collect::<Vec<_>>();
    for config in small_models() {
        for kind in WeightKind::ALL {
            let model = rounded(&config, kind);
            let prompts: Vec<Vec<i64>> = (0..5).map(|n| vec![n * 7, 65, 66, 200 - n]).collect();
            let rows: Vec<&[i64]> = prompts.iter().map(Vec::as_slice).collect();
            let mut batch = BatchGenerator::new(&model, &rows, samplers())?;
            let mut from_one = BatchGenerator::from_one(&model, rows[2], samplers())?;
            let mut alone = Vec::new();
            for (n, prompt) in rows.iter().enumerate() {
                alone.push(Generator::new(&model, prompt, sampler(n as u64))?);
            }
            let mut third = Vec::new();
            for n in 0..5 {
                third.push(Generator::new(&model, rows[2], sampler(n))?);
            }
            for _ in 0..12 {
                let expected: Vec<i64> =
                    alone.iter_mut().map(Generator::next_token).collect::<Result<_, _>>()?;
                assert_eq!(batch.next_tokens()?, expected, "{kind}, {config:?}");
                let expected: Vec<i64> =
                    third.iter_mut().map(Generator::next_token).collect::<Result<_, _>>()?;
                assert_eq!(from_one.next_tokens()?, expected, "{kind}, {config:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let model = model(&ModelConfig { dim: 8, depth: 1, ..ModelConfig::default() });
    let new = |prompts: &[&[i64]], samplers: usize| {
        BatchGenerator::new(&model, prompts, vec![Sampler::greedy(); samplers]).unwrap_err()
    };
    assert!(matches!(new(&[], 0), GenerateError::EmptyPrompt));
    assert!(matches!(new(&[&[]], 1), GenerateError::EmptyPrompt));
    let unequal = new(&[&[1, 2], &[1]], 2);
    assert!(unequal.to_string().contains("prompt 1 has 1 tokens"), "{unequal}");
    assert!(matches!(new(&[&[1], &[2]], 1), GenerateError::Samplers { samplers: 1, texts: 2 }));
    assert!(BatchGenerator::from_one(&model, &[1], Vec::new()).is_err());
}
