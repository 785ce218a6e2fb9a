//! Layers on CUDA tensors. Without a driver every test says `skipped`; `src/cuda/stand_in.rs` runs those of `layers.rs` on what
//! stands in for one.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "../common/mod.rs"]
mod common;
mod gpu;
mod layers;

use gateloop_nn::scan;
use gpu::gpu;
use tch::{Device, Kind, Tensor};

#[test]
fn operands_on_different_devices_are_named() {
    let Some(gpu) = gpu() else { return };
    let a = Tensor::rand([1, 4, 8], (Kind::Float, gpu.device));
    let b = Tensor::rand([1, 4, 8], (Kind::Float, Device::Cpu));
    let refused = scan(&a, &b, None).unwrap_err().to_string();
    assert!(refused.contains("`b`"), "{refused}");
}
