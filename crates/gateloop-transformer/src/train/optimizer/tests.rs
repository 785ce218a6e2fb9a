//! Updates that the device decides about, against those that the host does. Without a GPU its tests say `skipped`.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use super::*;
use gateloop_nn::cuda::open;
use tch::{Cuda, Device};

/// One name and shape for each group of parameters, and one that never has a gradient.
const PARAMETERS: [(&str, &[i64]); 5] = [
    ("layers.0.to_a.bias", &[3]),
    ("layers.0.to_a.weight", &[3, 5]),
    ("layers.0.to_q.bias", &[7]),
    ("layers.0.to_q.weight", &[7, 5]),
    ("unused", &[2, 2]),
];

fn gpu() -> Option<Device> {
    if open().unwrap() && Cuda::is_available() {
        return Some(Device::Cuda(0));
    }
    println!("skipped: no CUDA driver, or a libtorch without CUDA");
    None
}

/// Numbers between -1 and 1.
fn numbers(shape: &[i64], seed: f64, device: Device) -> Tensor {
    let count = shape.iter().product::<i64>();
    ((Tensor::arange(count, (Kind::Float, device)) + seed) * 1.7).sin().reshape(shape)
}

struct Setup {
    parameters: BTreeMap<String, Tensor>,
    optimizer: Optimizer,
    device: Device,
}

impl Setup {
    fn new(clip_norm: f64, device: Device) -> Self {
        let parameters = PARAMETERS.iter().zip(0..).map(|((name, shape), seed)| {
            let param = numbers(shape, f64::from(seed), device);
            ((*name).to_owned(), param.set_requires_grad(true))
        });
        let parameters = parameters.collect();
        let config = TrainConfig {
            transition_lr_frac: 0.3,
            weight_decay: 0.1,
            clip_norm,
            ..TrainConfig::default()
        };
        let optimizer = Optimizer::new(&parameters, &config).unwrap();
        Self { parameters, optimizer, device }
    }

    fn set_grads(&self, seed: f64, factor: f64) {
        let held = self.parameters.iter().filter(|(name, _)| *name != "unused");
        let held: Vec<Tensor> = held.map(|(_, param)| param.shallow_clone()).collect();
        let grads: Vec<Tensor> =
            held.iter().map(|param| numbers(&param.size(), seed, self.device) * factor).collect();
        foreach::set_grads(&held, &grads).unwrap();
    }

    fn on_host(&mut self, loss: f64, lr: f64) -> Measured {
        let grad_norm = self.optimizer.clip_gradients().unwrap();
        self.optimizer.step(lr).unwrap();
        Measured { loss, grad_norm }
    }

    fn on_device(&mut self, loss: f32, lr: f64) -> Measured {
        let loss = Tensor::from(loss).to_device(self.device);
        self.optimizer.clip_and_step(&[loss], lr).unwrap()
    }

    /// Parameters, moments and counts.
    fn everything(&self) -> Vec<f32> {
        let state = self.optimizer.state().unwrap();
        let all = self.parameters.values().chain(state.values());
        all.flat_map(|t| {
            Vec::<f32>::try_from(t.detach().to_device(Device::Cpu).flatten(0, -1)).unwrap()
        })
        .collect()
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

fn it_makes_the_update_of_the_host(device: Device) {
    for (clip_norm, is_scaled) in [(0.0, false), (0.1, true), (2.0, true), (1e3, false)] {
        let [mut host, mut ahead] = [0, 1].map(|_| Setup::new(clip_norm, device));
        for step in 1..=4 {
            let seed = 10.0 * f64::from(step);
            host.set_grads(seed, 1.0);
            ahead.set_grads(seed, 1.0);
            let expected = host.on_host(2.5, 0.01);
            assert!((expected.grad_norm > clip_norm && clip_norm > 0.0) == is_scaled);
            assert_eq!(ahead.on_device(2.5, 0.01), expected);
        }
        let (host, ahead) = (host.everything(), ahead.everything());
        let off = host.iter().zip(&ahead).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-6, "{off:e} at {clip_norm}");
        // Divided by 1, if at all.
        assert!(is_scaled || bits(&host) == bits(&ahead), "{clip_norm}");
    }
}

fn it_updates_nothing_if_anything_is_not_finite(device: Device) {
    for clip_norm in [0.0, 0.1, 1e3] {
        for (loss, factor) in [
            (f32::NAN, 1.0),
            (f32::INFINITY, 1.0),
            (1.0, f64::NAN),
            (1.0, f64::INFINITY),
            // Finite gradients whose norm is not.
            (1.0, 1e30),
        ] {
            let [mut tried, mut never] = [0, 1].map(|_| Setup::new(clip_norm, device));
            for setup in [&mut tried, &mut never] {
                setup.set_grads(1.0, 1.0);
                assert!(setup.on_device(1.0, 0.01).is_finite());
            }
            let before = tried.everything();
            tried.set_grads(2.0, factor);
            assert!(!tried.on_device(loss, 0.01).is_finite());
            assert_eq!(bits(&tried.everything()), bits(&before), "{clip_norm} {loss} {factor}");
            for setup in [&mut tried, &mut never] {
                setup.set_grads(3.0, 1.0);
                assert!(setup.on_device(1.0, 0.01).is_finite());
            }
            assert_eq!(bits(&tried.everything()), bits(&never.everything()));
            assert_ne!(bits(&tried.everything()), bits(&before));
        }
    }
}

#[test]
fn a_cpu_makes_the_update_of_the_host() {
    it_makes_the_update_of_the_host(Device::Cpu);
}

#[test]
fn a_cpu_updates_nothing_if_anything_is_not_finite() {
    it_updates_nothing_if_anything_is_not_finite(Device::Cpu);
}

#[test]
fn a_gpu_makes_the_update_of_the_host() {
    let Some(gpu) = gpu() else { return };
    it_makes_the_update_of_the_host(gpu);
}

#[test]
fn a_gpu_updates_nothing_if_anything_is_not_finite() {
    let Some(gpu) = gpu() else { return };
    it_updates_nothing_if_anything_is_not_finite(gpu);
}
