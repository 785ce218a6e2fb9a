//! Matrix products in bfloat16, on the CPU: near what they are in f32, and parameters learn in f32.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use gateloop_nn::{
    AttentionConfig, Autocast, FeedForwardConfig, GateLoopConfig, NormPlacement, Residual,
    SequenceLayer, SimpleGateLoopConfig,
};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

const DIM: i64 = 16;

fn check<L: SequenceLayer>(what: &str, init: impl FnOnce(&Path<'_>) -> gateloop_nn::Result<L>) {
    let vs = VarStore::new(Device::Cpu);
    let layer = Residual::new(&vs.root(), DIM, NormPlacement::default(), init).unwrap();
    let x = Tensor::randn([2, 70, DIM], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let gradients = |y: &Tensor| -> Vec<Tensor> {
        let sum = y.to_kind(Kind::Float).square().mean(Kind::Float);
        let parameters = vs.trainable_variables();
        let leaves: Vec<&Tensor> = [&x].into_iter().chain(&parameters).collect();
        Tensor::run_backward(&[sum], &leaves, false, false)
    };
    let plain = layer.forward(&x).unwrap();
    let low = {
        let _autocast = Autocast::bf16();
        layer.forward(&x).unwrap()
    };
    assert_eq!(low.kind(), Kind::Float, "{what}: the shortcut is in f32");
    let distance = |a: &Tensor, b: &Tensor| {
        let scale = b.norm().double_value(&[]);
        (a - b).norm().double_value(&[]) / scale
    };
    let apart = distance(&low, &plain);
    // Eight bits of a number, some of them lost in sums: not the same, but near.
    assert!((1e-5..3e-2).contains(&apart), "{what}: {apart:e}");
    for (low, plain) in gradients(&low).iter().zip(gradients(&plain)) {
        assert_eq!(low.kind(), Kind::Float, "{what}");
        let apart = distance(low, &plain);
        assert!(apart < 0.1, "{what}: gradient {:?} {apart:e}", low.size());
    }
}

#[test]
fn layers_are_near_what_they_are_in_full_precision() {
    tch::manual_seed(3);
    let gate_loop = GateLoopConfig::new(DIM);
    let heads = GateLoopConfig { heads: Some(2), ..gate_loop.clone() };
    let recomputed = GateLoopConfig { recompute: true, ..heads.clone() };
    for config in [gate_loop, heads, recomputed] {
        check(&format!("{config:?}"), |path| config.init(path));
    }
    let simple = SimpleGateLoopConfig { prenorm: false, ..SimpleGateLoopConfig::new(DIM) };
    check("simple", |path| simple.init(path));
    let attention = AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) };
    let window = AttentionConfig { window: Some(9), rotary_emb: true, ..attention.clone() };
    for config in [attention, window] {
        check(&format!("{config:?}"), |path| config.init(path));
    }
    check("feed-forward", |path| FeedForwardConfig::new(DIM).init(path));
}
