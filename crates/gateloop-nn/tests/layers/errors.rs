//! Configurations and inputs that cannot work are errors that say what to change.

use crate::common::{assert_operand, tensor};
use crate::variants::{Check, DIM, build, every_layer};
use gateloop_nn::{
    AttentionConfig, AttentionState, FeedForwardConfig, GateLoopConfig, GateLoopState, LayerNorm,
    NnError, RelPos, Result, RmsNorm, SequenceLayer, SimpleGateLoopConfig, SimpleGateLoopState,
};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

#[track_caller]
fn assert_config<L: std::fmt::Debug>(init: impl FnOnce(&Path<'_>) -> Result<L>, expected: &str) {
    let vs = VarStore::new(Device::Cpu);
    match init(&vs.root()) {
        Err(NnError::Config { key, .. }) => assert_eq!(key, expected),
        other => panic!("`{expected}` should be refused, got {other:?}"),
    }
    assert!(vs.variables().is_empty(), "parameters of a layer that does not exist");
}

#[test]
fn a_wrong_configuration_names_the_key() {
    let plain = GateLoopConfig::new(DIM);
    for dim in [0, -1] {
        assert_config(|path| GateLoopConfig::new(dim).init(path), "dim");
        assert_config(|path| SimpleGateLoopConfig::new(dim).init(path), "dim");
        assert_config(|path| FeedForwardConfig::new(dim).init(path), "dim");
        assert_config(
            |path| FeedForwardConfig { mult: dim, ..FeedForwardConfig::new(DIM) }.init(path),
            "ff_mult",
        );
        let dim_inner = Some(dim);
        let config = GateLoopConfig { dim_inner, ..plain.clone() };
        assert_config(|path| config.init(path), "dim_gate_looped_attn");
        let config = GateLoopConfig { heads: Some(dim), ..plain.clone() };
        assert_config(|path| config.init(path), "gate_loop_heads");
    }
    for heads in [4, 5, 7, 12] {
        let config = GateLoopConfig { heads: Some(heads), ..plain.clone() };
        assert_config(|path| config.init(path), "gate_loop_heads");
    }
    let attention = AttentionConfig::new(DIM);
    for wrong in [0, -1] {
        let config = AttentionConfig { dim_head: wrong, ..attention.clone() };
        assert_config(|path| config.init(path), "dim_head");
        let config = AttentionConfig { heads: wrong, ..attention.clone() };
        assert_config(|path| config.init(path), "heads");
    }
    for (rotary_emb, rel_pos) in [(true, None), (false, Some(RelPos::AsReference))] {
        let config = AttentionConfig { dim_head: 5, rotary_emb, rel_pos, ..attention.clone() };
        assert_config(|path| config.init(path), "dim_head");
    }
    for fraction in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let config = GateLoopConfig { frac_gradient_state_transition: fraction, ..plain.clone() };
        assert_config(|path| config.init(path), "frac_gradient_state_transition");
        let config = AttentionConfig { frac_gradient_rel_pos: fraction, ..attention.clone() };
        assert_config(|path| config.init(path), "frac_gradient_data_dependent_rel_pos");
    }
}

struct WrongInputs;

impl Check for WrongInputs {
    fn check<L: SequenceLayer>(&self, what: &str, _: &VarStore, layer: &L) {
        let sequences: [&[i64]; 7] = [
            &[2, 0, DIM],
            &[0, 3, DIM],
            &[2, 3, DIM + 1],
            &[2, 3, 1],
            &[3, DIM],
            &[1, 2, 3, DIM],
            &[],
        ];
        for shape in sequences {
            let x = Tensor::zeros(shape, (Kind::Double, Device::Cpu));
            let mut state = layer.initial_state(2);
            for result in [layer.forward(&x), layer.prefill(&x, &mut state)] {
                refused(what, shape, result);
            }
        }
        for shape in [&[0, DIM][..], &[2, DIM + 1], &[2, 1, DIM], &[DIM], &[]] {
            let x = Tensor::zeros(shape, (Kind::Double, Device::Cpu));
            refused(what, shape, layer.step(&x, &mut layer.initial_state(2)));
        }
    }
}

#[track_caller]
fn refused(what: &str, shape: &[i64], result: Result<Tensor>) {
    match result {
        Err(NnError::Shape { operand: "x", .. }) => {}
        other => panic!("{what}: x of shape {shape:?} gave {other:?}"),
    }
}

#[test]
fn an_input_of_a_wrong_shape_is_an_error() {
    every_layer(&WrongInputs);
}

struct WrongKind;

impl Check for WrongKind {
    fn check<L: SequenceLayer>(&self, what: &str, _: &VarStore, layer: &L) {
        for kind in [Kind::Int64, Kind::Bool, Kind::ComplexDouble] {
            let x = Tensor::zeros([1, 2, DIM], (kind, Device::Cpu));
            assert!(layer.forward(&x).is_err(), "{what}: {kind:?}");
        }
    }
}

#[test]
fn an_input_of_a_wrong_kind_is_an_error() {
    every_layer(&WrongKind);
}

#[test]
fn a_norm_refuses_other_features_and_kinds() {
    let x = tensor(&[2, DIM + 1], Kind::Double, 1);
    assert_operand(build(|path| RmsNorm::new(path, DIM)).1.forward(&x), "x");
    assert_operand(build(|path| LayerNorm::new(path, DIM)).1.forward(&x), "x");
    let x = Tensor::zeros([2, DIM], (Kind::Int64, Device::Cpu));
    assert_operand(build(|path| RmsNorm::new(path, DIM)).1.forward(&x), "x");
    assert_operand(build(|path| LayerNorm::new(path, DIM)).1.forward(&x), "x");
}

#[test]
fn a_state_of_another_batch_is_refused() {
    let x = tensor(&[2, 3, DIM], Kind::Double, 1);
    let (_vs, layer) = build(|path| GateLoopConfig::new(DIM).init(path));
    let mut state = GateLoopState::from_tensor(tensor(&[1, DIM, 1, 1], Kind::ComplexDouble, 2));
    assert_operand(layer.prefill(&x, &mut state), "state");
    let (_vs, layer) = build(|path| SimpleGateLoopConfig::new(DIM).init(path));
    let mut state = SimpleGateLoopState::from_tensor(tensor(&[1, DIM], Kind::Double, 2));
    assert_operand(layer.prefill(&x, &mut state), "state");
}

#[test]
fn a_reversed_layer_has_no_state_to_go_on_from() {
    let config = SimpleGateLoopConfig { reverse: true, ..SimpleGateLoopConfig::new(DIM) };
    let (_vs, layer) = build(|path| config.init(path));
    let mut state = layer.initial_state(2);
    let prefilled = layer.prefill(&tensor(&[2, 3, DIM], Kind::Double, 1), &mut state);
    let stepped = layer.step(&tensor(&[2, DIM], Kind::Double, 1), &mut state);
    for result in [prefilled, stepped] {
        assert!(matches!(result, Err(NnError::Config { key: "reverse", .. })), "{result:?}");
    }
    assert!(state.tensor().is_none());
}

#[test]
fn keys_and_values_that_do_not_fit_are_refused() {
    let config = AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) };
    let (_vs, layer) = build(|path| config.init(path));
    let cache = |batch, tokens, width| tensor(&[batch, 2, tokens, width], Kind::Double, 7);
    let x = tensor(&[1, 3, DIM], Kind::Double, 8);
    let run = |keys, values| layer.prefill(&x, &mut AttentionState::from_tensors(keys, values));
    assert!(run(cache(1, 5, 4), cache(1, 5, 4)).is_ok());
    for (keys, values, operand) in [
        (cache(2, 5, 4), cache(2, 5, 4), "state's keys"),
        (cache(1, 5, 3), cache(1, 5, 4), "state's keys"),
        (cache(1, 5, 4), cache(1, 6, 4), "state's values"),
    ] {
        assert_operand(run(keys, values), operand);
    }
}
