//! The models under test, their input and the comparison of their results.

use gateloop_transformer::config::LayerKind::{
    Attention, GateLoop, SimpleGateLoop, SlidingWindowAttention,
};
use gateloop_transformer::config::ModelConfig;
use gateloop_transformer::model::Model;
use tch::{Device, Kind, Tensor};

/// A small model of every kind that the configuration can describe.
pub(crate) fn small_models() -> Vec<ModelConfig> {
    let base = ModelConfig { num_tokens: 256, dim: 16, depth: 2, ..ModelConfig::default() };
    let attention = ModelConfig { dim_head: 4, heads: 2, ..base.clone() };
    vec![
        base.clone(),
        ModelConfig { gate_loop_heads: Some(2), ..base.clone() },
        ModelConfig { gate_loop_heads: Some(1), sub_ln: true, ..base.clone() },
        ModelConfig { post_ln_norm: true, ..base.clone() },
        ModelConfig { attn_add_swish_gating: false, ..base.clone() },
        ModelConfig { dim_gate_looped_attn: Some(24), gate_loop_heads: Some(6), ..base.clone() },
        ModelConfig { ablate_complex: true, ..base.clone() },
        ModelConfig { ablate_state_transition: true, ff_mult: 2, ..base.clone() },
        ModelConfig { layers: vec![SimpleGateLoop], ..base.clone() },
        ModelConfig { use_gate_looped_attn: false, ..attention.clone() },
        ModelConfig {
            layers: vec![SimpleGateLoop, Attention],
            rotary_emb: true,
            ..attention.clone()
        },
        ModelConfig {
            layers: vec![GateLoop, Attention],
            data_dependent_rel_pos: true,
            ..attention.clone()
        },
        ModelConfig {
            layers: vec![GateLoop, SlidingWindowAttention],
            attention_window: 6,
            rotary_emb: true,
            ..attention.clone()
        },
        ModelConfig {
            layers: vec![Attention, SlidingWindowAttention],
            attention_window: 40,
            simple_gate_loop_before_attention: true,
            ..attention.clone()
        },
        ModelConfig { direct_kv: true, ..base.clone() },
        ModelConfig { num_tokens: 256, dim: 16, depth: 2, ..ModelConfig::jax_reference() },
    ]
}

/// A model in f64, where rounding is out of the way, whose weights depend on nothing but its shape.
pub(crate) fn model_f64(config: &ModelConfig) -> Model {
    let mut model = Model::new(config, Device::Cpu).unwrap();
    model.set_kind(Kind::Double);
    tch::no_grad(|| {
        for (index, (_, parameter)) in model.parameters().into_iter().enumerate() {
            let len = parameter.numel();
            // Spread over the scale of the initial weights, without libtorch's global generator.
            let values: Vec<f64> = (0..len)
                .map(|i| ((i * 7919 + index * 104_729) % 2003) as f64 / 2003.0 - 0.5)
                .collect();
            let values = Tensor::from_slice(&values).view_as(&parameter);
            let offset = if parameter.dim() == 1 { 1.0 } else { 0.0 };
            parameter.shallow_clone().copy_(&(values * 0.5 + offset));
        }
    });
    model
}

/// Token ids, Int64 [batch, len].
pub(crate) fn ids(batch: i64, len: i64) -> Tensor {
    let values: Vec<i64> = (0..batch * len).map(|i| (i * i * 31 + i * 17 + 5) % 256).collect();
    Tensor::from_slice(&values).view([batch, len])
}
