//! Every configuration of every layer, for checks that hold for all of them.

use crate::common::fill_parameters;
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    AttentionConfig, Engine, FeedForwardConfig, GateLoopConfig, NormPlacement, RelPos, Residual,
    Result, SequenceLayer, SimpleGateLoopConfig,
};
use gateloop_scan::Algorithm;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind};

pub(crate) const DIM: i64 = 6;

/// A property of a layer.
pub(crate) trait Check {
    fn check<L: SequenceLayer>(&self, what: &str, vs: &VarStore, layer: &L);
}

/// A layer in double precision whose parameters are reproducible and nowhere neutral.
pub(crate) fn build<L>(init: impl FnOnce(&Path<'_>) -> Result<L>) -> (VarStore, L) {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = init(&vs.root()).expect("the configuration is right");
    vs.set_kind(Kind::Double);
    fill_parameters(&vs);
    (vs, layer)
}

/// Runs the check on every causal layer.
pub(crate) fn every_layer(check: &impl Check) {
    for config in gate_loops() {
        let (vs, layer) = build(|path| config.init(path));
        check.check(&format!("{config:?}"), &vs, &layer);
    }
    for config in simple_gate_loops() {
        let (vs, layer) = build(|path| config.init(path));
        check.check(&format!("{config:?}"), &vs, &layer);
    }
    for config in attentions() {
        let (vs, layer) = build(|path| config.init(path));
        check.check(&format!("{config:?}"), &vs, &layer);
    }
    let feed_forward = FeedForwardConfig { mult: 3, ..FeedForwardConfig::new(DIM) };
    let (vs, layer) = build(|path| feed_forward.init(path));
    check.check(&format!("{feed_forward:?}"), &vs, &layer);
    for placement in [NormPlacement::default(), NormPlacement::Post] {
        let (heads, frac_gradient_state_transition) = (Some(2), 1.0);
        let plain = GateLoopConfig::new(DIM);
        let config = GateLoopConfig { heads, frac_gradient_state_transition, ..plain };
        let (vs, layer) =
            build(|path| Residual::new(path, DIM, placement, |path| config.init(path)));
        check.check(&format!("{placement:?} around a gate loop"), &vs, &layer);
        let (vs, layer) =
            build(|path| Residual::new(path, DIM, placement, |path| feed_forward.init(path)));
        check.check(&format!("{placement:?} around a feed-forward"), &vs, &layer);
    }
}

/// One, some and max heads; gated or not; with and without LayerNorm; narrower and wider inside.
pub(crate) fn gate_loops() -> Vec<GateLoopConfig> {
    let plain = GateLoopConfig::new(DIM);
    let mut configs = vec![
        plain.clone(),
        GateLoopConfig { heads: Some(1), ..plain.clone() },
        GateLoopConfig { heads: Some(2), ..plain.clone() },
        GateLoopConfig { swish_gating: false, ..plain.clone() },
        GateLoopConfig { swish_gating: false, heads: Some(2), sub_ln: true, ..plain.clone() },
        GateLoopConfig { dim_inner: Some(8), heads: Some(4), ..plain.clone() },
        GateLoopConfig { dim_inner: Some(4), swish_gating: false, sub_ln: true, ..plain.clone() },
        GateLoopConfig { transition_bias: false, recompute: true, ..plain.clone() },
        GateLoopConfig { heads: Some(2), recompute: true, ..plain.clone() },
        GateLoopConfig { direct_kv: true, ..plain.clone() },
    ];
    for transition in [TransitionMode::Real, TransitionMode::Identity] {
        for heads in [None, Some(2)] {
            configs.push(GateLoopConfig { transition, heads, sub_ln: true, ..plain.clone() });
        }
    }
    configs
}

pub(crate) fn simple_gate_loops() -> Vec<SimpleGateLoopConfig> {
    let plain = SimpleGateLoopConfig::new(DIM);
    let mut configs = vec![
        SimpleGateLoopConfig { prenorm: false, ..plain.clone() },
        SimpleGateLoopConfig { post_ln: true, ..plain.clone() },
        SimpleGateLoopConfig { prenorm: false, post_ln: true, ..plain.clone() },
    ];
    for algorithm in [Algorithm::Auto].into_iter().chain(Algorithm::CONCRETE) {
        configs.push(SimpleGateLoopConfig { engine: Engine::Scan(algorithm), ..plain.clone() });
    }
    configs
}

/// With and without rotary positions, decays of either kind, softmax and gates; to everything, and to windows that are
/// shorter and longer than the sequences of the tests.
pub(crate) fn attentions() -> Vec<AttentionConfig> {
    let plain = AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) };
    let mut configs = vec![
        plain.clone(),
        AttentionConfig { rotary_emb: true, ..plain.clone() },
        AttentionConfig { dim_head: 3, swish_gating: true, ..plain.clone() },
        AttentionConfig { softmax_normalize: Some(false), ..plain.clone() },
    ];
    for rel_pos in [Some(RelPos::Corrected), Some(RelPos::AsReference)] {
        let fading = AttentionConfig { rel_pos, frac_gradient_rel_pos: 1.0, ..plain.clone() };
        let (softmax_normalize, rotary_emb) = (Some(true), true);
        configs.push(AttentionConfig { softmax_normalize, rotary_emb, ..fading.clone() });
        for transition in [TransitionMode::Real, TransitionMode::Identity] {
            configs.push(AttentionConfig { transition, swish_gating: true, ..fading.clone() });
        }
        configs.push(fading);
    }
    for (window, rotary_emb, softmax_normalize) in [
        (1, false, Some(false)),
        (5, true, None),
        (16, false, Some(false)),
        (35, true, None),
        (100, true, None),
    ] {
        let window = Some(window);
        configs.push(AttentionConfig { window, rotary_emb, softmax_normalize, ..plain.clone() });
    }
    configs
}
