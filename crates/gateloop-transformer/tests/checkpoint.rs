//! Checkpoints and weight files: whole or not at all, and strict about what fits.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod common;

use common::{TestResult, values};
use gateloop_transformer::checkpoint::{
    self, CheckpointError, CheckpointFolder, RunProgress, TrainingState,
};
use gateloop_transformer::config::{Config, ModelConfig};
use gateloop_transformer::data::SamplerState;
use gateloop_transformer::model::Model;
use gateloop_transformer::weights::{self, Metadata, Tensors, WeightFile, WeightsError};
use std::fs;
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn config(dim: usize) -> Config {
    let model = ModelConfig { num_tokens: 12, dim, depth: 1, ..ModelConfig::default() };
    Config { model, ..Config::default() }
}

fn progress(step: u64) -> RunProgress {
    RunProgress::new(step, 1.5, SamplerState { seed: 3, drawn: 4 * step })
}

fn save(path: &Path, step: u64) -> Result<Model, CheckpointError> {
    let model = Model::new(&config(8).model, Device::Cpu)?;
    let optimizer = Tensors::from([("exp_avg.x".to_owned(), Tensor::from_slice(&[step as f64]))]);
    let state = TrainingState { optimizer, ..TrainingState::default() };
    checkpoint::save(path, &config(8), &progress(step), &model, &state)?;
    Ok(model)
}

#[test]
fn a_checkpoint_comes_back_bit_for_bit() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    let model = save(&path, 7)?;
    let opened = checkpoint::open(&path)?.checkpoint;
    assert_eq!(opened.config(), &config(8));
    assert_eq!(opened.progress(), &progress(7));
    let restored = opened.model(Device::Cpu)?.parameters();
    for (name, parameter) in model.parameters() {
        assert_eq!(values(&restored[&name]), values(&parameter), "{name}");
    }
    assert_eq!(values(&opened.optimizer_tensors()?["exp_avg.x"]), [7.0]);
    // Other people may read it, as they may any new file.
    fs::write(folder.path().join("plain"), b"")?;
    let permissions = |name: &str| fs::metadata(folder.path().join(name)).map(|m| m.permissions());
    assert_eq!(permissions("a.safetensors")?, permissions("plain")?);
    Ok(())
}

#[test]
fn the_newest_whole_one_is_found_and_damaged_ones_are_reported() -> TestResult {
    let run = tempfile::tempdir()?;
    let folder = CheckpointFolder::of_run(run.path());
    folder.create()?;
    for step in [1, 2, 3] {
        save(&folder.file(step), step)?;
    }
    let whole = fs::read(folder.file(3))?;
    // Cut at every kind of place: nothing left, in the length, in the header, in the tensors.
    for len in [0, 4, 40, whole.len() / 2, whole.len() - 1] {
        fs::write(folder.file(3), &whole[..len])?;
        let opened = folder.newest()?;
        assert_eq!(opened.checkpoint.progress().step, 2, "cut to {len} bytes");
        assert!(opened.passed_over[0].to_string().contains("step-00000003"));
    }
    for step in [1, 2] {
        fs::write(folder.file(step), b"")?;
    }
    let none = folder.newest().unwrap_err();
    assert!(matches!(none, CheckpointError::None { damaged: 3, .. }), "{none}");
    Ok(())
}

/// Any byte that is another one than was written is noticed, and where it is is said.
#[test]
fn damage_is_found_and_located() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    save(&path, 1)?;
    let whole = fs::read(&path)?;
    let header = 8 + u64::from_le_bytes(whole[..8].try_into()?) as usize;
    let offset_of = |bytes: &[u8]| -> Result<u64, Box<dyn std::error::Error>> {
        fs::write(&path, bytes)?;
        match checkpoint::open(&path).unwrap_err() {
            CheckpointError::File(error @ WeightsError::Damaged { offset, .. }) => {
                assert!(error.to_string().contains(&format!("byte {offset}")), "{error}");
                assert!(error.to_string().contains("a.safetensors"), "{error}");
                Ok(offset)
            }
            error => panic!("{error}"),
        }
    };
    for len in [0, 4, 40, header + 10, whole.len() - 1] {
        if len > 0 {
            assert_eq!(offset_of(&whole[..len])?, len as u64, "the file ends there");
        }
    }
    for place in (header..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x10;
        let offset = offset_of(&flipped)?;
        // The tensor of that byte: none is longer than the largest of this model.
        assert!((header as u64..=place as u64).contains(&offset), "{place}: {offset}");
        assert!(place as u64 - offset < 12 * 8 * 4 * 8, "{place}: {offset}");
    }
    // In the header something else may be noticed first, but nothing goes unnoticed; a file whose checksums are called
    // something else has none.
    let name = b"gateloop.crc32c";
    let called = whole.windows(name.len()).position(|text| text == name).unwrap();
    let called = called..called + name.len();
    for place in (0..header).step_by(7).filter(|place| !called.contains(place)) {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x01;
        fs::write(&path, &flipped)?;
        assert!(checkpoint::open(&path).is_err(), "byte {place}: {}", flipped[place]);
    }
    Ok(())
}

#[test]
fn old_checkpoints_are_pruned_and_zero_keeps_all() -> TestResult {
    let run = tempfile::tempdir()?;
    let folder = CheckpointFolder::of_run(run.path());
    folder.create()?;
    for step in [8, 9, 10, 11] {
        save(&folder.file(step), step)?;
    }
    let left = || [8, 9, 10, 11].map(|step| folder.file(step).exists());
    folder.prune(0, None)?;
    assert_eq!(left(), [true; 4]);
    folder.prune(2, Some(8))?;
    assert_eq!(left(), [true, false, true, true], "the highest steps and the best");
    folder.prune(2, None)?;
    assert_eq!(left(), [false, false, true, true], "the highest steps, not the latest names");
    Ok(())
}

#[test]
fn another_configuration_is_refused_with_the_first_parameter_and_both_shapes() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    save(&path, 1)?;
    let other = Model::new(&config(16).model, Device::Cpu)?;
    let before: Vec<f64> = other.parameters().values().flat_map(values).collect();
    let message = checkpoint::open(&path)?.checkpoint.load_model(&other).unwrap_err().to_string();
    let expected = "`layers.0.0.fn.to_a.0.bias` is [16] in the file and [32] in the model";
    assert!(message.contains(expected), "{message}");
    let after: Vec<f64> = other.parameters().values().flat_map(values).collect();
    assert_eq!(before, after, "nothing is loaded in part");
    Ok(())
}

#[test]
fn missing_and_unexpected_names_are_listed() {
    let tensor = || Tensor::zeros([2], (Kind::Float, Device::Cpu));
    let named = |names: &[&str]| -> Tensors {
        names.iter().map(|name| ((*name).to_owned(), tensor())).collect()
    };
    let error = weights::load_strict(&named(&["a", "b"]), &named(&["b", "c"])).unwrap_err();
    let WeightsError::Mismatch(mismatch) = error else { panic!("{error}") };
    assert_eq!(mismatch.to_string(), "missing: `a`; unexpected: `c`");
}

#[test]
fn a_bare_weight_file_is_no_checkpoint() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bare.safetensors");
    let model = Model::new(&config(8).model, Device::Cpu)?;
    weights::write(&path, &model.parameters(), Metadata::new())?;
    let error = checkpoint::open(&path).unwrap_err();
    assert!(matches!(error, CheckpointError::NotACheckpoint { .. }), "{error}");
    Ok(())
}

#[test]
fn what_is_not_there_is_said_with_its_path() {
    let message = checkpoint::open(Path::new("no/such.safetensors")).unwrap_err().to_string();
    assert!(message.contains("no/such.safetensors"), "{message}");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("a.safetensors");
    save(&path, 1)?;
    let before = fs::read(&path)?;
    // An element type that is not written makes the second save fail.
    let optimizer = Tensors::from([("flag".to_owned(), Tensor::from_slice(&[true]))]);
    let bad = TrainingState { optimizer, ..TrainingState::default() };
    let model = Model::new(&config(8).model, Device::Cpu)?;
    assert!(checkpoint::save(&path, &config(8), &progress(2), &model, &bad).is_err());
    // So does a folder where the file should go.
    let taken = folder.path().join("taken");
    fs::create_dir(&taken)?;
    assert!(weights::write(&taken, &model.parameters(), Metadata::new()).is_err());
    assert_eq!(fs::read(&path)?, before);
    assert_eq!(fs::read_dir(folder.path())?.count(), 2, "no temporary file is left");
    Ok(())
}

#[test]
fn every_element_type_survives() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("kinds.safetensors");
    let kinds = [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int64, Kind::Int];
    let tensors: Tensors = kinds
        .iter()
        .map(|&kind| (format!("{kind:?}"), Tensor::from_slice(&[1_i64, -2, 3]).to_kind(kind)))
        .collect();
    weights::write(&path, &tensors, Metadata::from([("k".to_owned(), "v".to_owned())]))?;
    let file = WeightFile::open(&path)?;
    assert_eq!(file.metadata()["k"], "v");
    let read = file.tensors(|name| Some(name.to_owned()))?;
    for (name, tensor) in &tensors {
        assert_eq!(read[name].kind(), tensor.kind());
        assert_eq!(values(&read[name]), values(tensor));
    }
    Ok(())
}
