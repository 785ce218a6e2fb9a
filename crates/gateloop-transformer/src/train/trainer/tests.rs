//! Steps of a trainer that runs ahead of its device, against those of one that waits.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use super::*;
use crate::config::{DataConfig, ModelConfig, Source, Synthetic};
use crate::data::{Corpus, Split, WindowSampler};

fn trainer(clip_norm: f64, runs_ahead: bool) -> Trainer {
    let data = DataConfig {
        source: Source::Synthetic(Synthetic::Text),
        train_bytes: Some(3000),
        valid_bytes: Some(100),
        ..DataConfig::default()
    };
    let windows = WindowSampler::new(&Corpus::open(&data).unwrap(), Split::Train, 16, 7).unwrap();
    let model = ModelConfig { dim: 16, depth: 1, ..ModelConfig::default() };
    let model = Model::seeded(&model, Device::Cpu, 3).unwrap();
    let config = TrainConfig {
        batch_size: 2,
        seq_len: 16,
        grad_accum: 2,
        lr: 1e-2,
        weight_decay: 0.1,
        ema_decay: 0.9,
        clip_norm,
        ..TrainConfig::default()
    };
    let mut trainer = Trainer::new(model, windows, &config).unwrap();
    trainer.runs_ahead = runs_ahead;
    trainer
}

/// Parameters, averages, moments and counts.
fn everything(trainer: &Trainer) -> Vec<f32> {
    let (parameters, moments) = (trainer.model.parameters(), trainer.optimizer.state().unwrap());
    let averages = trainer.ema.as_ref().unwrap().state();
    let all = [parameters, averages, moments];
    let numbers = all.iter().flat_map(|tensors| tensors.values());
    numbers.flat_map(|t| Vec::<f32>::try_from(t.detach().flatten(0, -1)).unwrap()).collect()
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn it_makes_the_steps_of_one_that_waits() {
    // Neither scales a gradient, so that there is nothing to be rounded in another place.
    for clip_norm in [0.0, 1e3] {
        let (mut ahead, mut waits) = (trainer(clip_norm, true), trainer(clip_norm, false));
        for step in 0..4 {
            let (a, b) = if step == 2 {
                let (a, norms) = ahead.train_step_with_norms().unwrap();
                let (b, expected) = waits.train_step_with_norms().unwrap();
                assert_eq!(norms, expected);
                (a, b)
            } else {
                (ahead.train_step().unwrap(), waits.train_step().unwrap())
            };
            assert_eq!((a.loss, a.grad_norm), (b.loss, b.grad_norm));
        }
        assert_eq!(bits(&everything(&ahead)), bits(&everything(&waits)), "{clip_norm}");
    }
}

#[test]
fn it_clips_like_one_that_waits() {
    let (mut ahead, mut waits) = (trainer(0.01, true), trainer(0.01, false));
    let (a, b) = (ahead.train_step().unwrap(), waits.train_step().unwrap());
    assert!(a.grad_norm > 0.01);
    assert_eq!((a.loss, a.grad_norm), (b.loss, b.grad_norm));
    let (ahead, waits) = (everything(&ahead), everything(&waits));
    let off = ahead.iter().zip(&waits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(off < 1e-6, "{off:e}");
}

#[test]
fn a_step_that_diverges_leaves_everything_as_it_was() {
    for clip_norm in [0.0, 0.01] {
        let mut trainer = trainer(clip_norm, true);
        trainer.train_step().unwrap();
        // The logits overflow.
        let mut logits = trainer.model.parameters()["to_logits.1.weight"].detach();
        let _ = logits.fill_(1e38);
        let before = everything(&trainer);
        let error = trainer.train_step().unwrap_err();
        assert!(matches!(error, TrainError::Diverged { step: 2, .. }), "{error}");
        assert_eq!(trainer.steps_done(), 1);
        assert_eq!(bits(&everything(&trainer)), bits(&before));
    }
}

#[test]
fn only_a_gpu_that_asks_nobody_runs_ahead() {
    assert!(is_plain_cuda(Device::Cuda(0), 1));
    assert!(!is_plain_cuda(Device::Cuda(0), 2));
    assert!(!is_plain_cuda(Device::Cpu, 1));
}
