//! The model: three ways to run it that agree, causality, gradients, names, bad input.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod close;
#[path = "../common/mod.rs"]
mod common;
mod decoding;
mod models;

use close::assert_close;
use common::{TestResult, values};
use gateloop_nn::{Autocast, Segments, WeightKind};
use gateloop_transformer::config::{FormVariant, LayerKind, ModelConfig};
use gateloop_transformer::generate::{Generator, Sampler};
use gateloop_transformer::model::{Ablation, LayerState, Model, ModelError};
use models::{ids, model_f64, small_models};
use std::collections::BTreeMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

const LEN: i64 = 70; // more than one chunk of the chunkwise form

#[test]
fn step_mode_equals_sequence_mode() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        let ids = ids(2, LEN);
        let expected = model.forward(&ids)?;
        let mut state = model.initial_state(2);
        let logits: Vec<Tensor> = (0..LEN)
            .map(|t| model.step(&ids.select(1, t), &mut state))
            .collect::<Result<_, _>>()?;
        assert_close(&Tensor::stack(&logits, 1), &expected, LEN);
    }
    Ok(())
}

#[test]
fn any_split_with_the_state_handed_over_equals_the_whole() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        let ids = ids(1, LEN);
        let expected = model.forward(&ids)?.select(1, -1);
        for first in [1, 2, 33, 63, 64, 65, LEN - 1] {
            let mut state = model.initial_state(1);
            let _ = model.prefill(&ids.narrow(1, 0, first), &mut state)?;
            let logits = model.prefill(&ids.narrow(1, first, LEN - first), &mut state)?;
            assert_close(&logits, &expected, LEN);
        }
    }
    Ok(())
}

#[test]
fn a_token_changes_nothing_before_it() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        let ids = ids(1, LEN);
        let before = model.forward(&ids)?;
        for t in [0, 1, 40, 64, LEN - 1] {
            let changed = ids.copy();
            let _ = changed.narrow(1, t, 1).fill_(255 - ids.int64_value(&[0, t]));
            let after = model.forward(&changed)?;
            let past = |logits: &Tensor| values(&logits.narrow(1, 0, t));
            assert_eq!(past(&before), past(&after), "bit for bit, {config:?}");
            assert_ne!(values(&before.select(1, t)), values(&after.select(1, t)));
        }
    }
    Ok(())
}

#[test]
fn every_parameter_gets_a_finite_gradient_that_is_not_zero() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        model.loss(&ids(2, LEN))?.backward();
        for (name, parameter) in model.parameters() {
            let grad = parameter.grad();
            if !parameter.requires_grad() {
                assert!(name.ends_with("rotary_emb.freqs"), "{name} is not trained");
                continue;
            }
            if config.ablate_state_transition && name.contains("to_a") {
                assert!(!grad.defined(), "a constant transition does not depend on {name}");
                continue;
            }
            let norm = grad.norm().double_value(&[]);
            assert!(norm.is_finite() && norm > 0.0, "{name} has gradient {norm}, {config:?}");
        }
    }
    Ok(())
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() -> TestResult {
    // A central difference with this step errs by about its square times the third derivative,
    // which two norms and a gate make some thousand times the gradient.
    const THIRD_DERIVATIVE: f64 = 1e3;
    // The two losses are each rounded some times, and the difference is divided by the step.
    const ROUNDINGS: f64 = 8.0;
    let step = f64::EPSILON.cbrt();
    for config in small_models() {
        // The fraction makes the gradient differ from the slope on purpose.
        let config = ModelConfig { frac_gradient_state_transition: 1.0, ..config };
        let model = model_f64(&config);
        let ids = ids(1, 12);
        let loss = model.loss(&ids)?;
        loss.backward();
        let rounding = ROUNDINGS * f64::EPSILON * loss.double_value(&[]) / step;
        for (name, parameter) in model.parameters() {
            if !parameter.grad().defined() {
                continue;
            }
            let slope = tch::no_grad(|| -> Result<f64, ModelError> {
                let mut flat = parameter.view(-1).get(0);
                let at = |flat: &mut Tensor, delta: f64| {
                    let _ = flat.g_add_scalar_(delta);
                    model.loss(&ids).map(|loss| loss.double_value(&[]))
                };
                let above = at(&mut flat, step)?;
                let below = at(&mut flat, -2.0 * step)?;
                let _ = flat.g_add_scalar_(step);
                Ok((above - below) / (2.0 * step))
            })?;
            let grad = parameter.grad().view(-1).double_value(&[0]);
            let scale = parameter.grad().abs().max().double_value(&[]);
            assert!(
                (grad - slope).abs() <= THIRD_DERIVATIVE * step * step * scale + rounding,
                "{name}: gradient {grad}, slope {slope}, {config:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn greedy_decoding_with_a_state_equals_recomputing() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        let mut tokens: Vec<i64> = (0..5).map(|i| i * 50).collect();
        let mut generator = Generator::new(&model, &tokens, Sampler::greedy())?;
        for _ in 0..40 {
            let logits = model.forward(&Tensor::from_slice(&tokens).unsqueeze(0))?;
            let expected = logits.select(1, -1).argmax(-1, false).int64_value(&[0]);
            let token = generator.next_token()?;
            assert_eq!(token, expected, "after {} tokens, {config:?}", tokens.len());
            tokens.push(token);
        }
    }
    Ok(())
}

#[test]
fn the_state_has_the_size_that_is_told_and_grows_with_attention_only() -> TestResult {
    for config in small_models() {
        let model = model_f64(&config);
        let mut state = model.initial_state(1);
        let numbers = |tensor: &Tensor| {
            let parts = if tensor.is_complex() { 2 } else { 1 };
            parts * tensor.numel() as i64
        };
        let mut tokens = 0;
        for len in [1, 20, 50] {
            let _ = model.prefill(&ids(1, len), &mut state)?;
            tokens += len;
            let held = state.layers().iter().flat_map(LayerState::tensors).map(numbers);
            assert_eq!(held.sum::<i64>(), model.state_len(tokens), "{config:?}");
        }
        let grows = model.state_len(1001) > model.state_len(1000);
        assert_eq!(grows, config.has(LayerKind::Attention), "{config:?}");
    }
    Ok(())
}

#[test]
fn ablations_of_one_call_are_those_of_a_model() -> TestResult {
    for (ablate_complex, ablate_state_transition) in [(true, false), (false, true), (true, true)] {
        for config in small_models() {
            let ablated = ModelConfig { ablate_complex, ablate_state_transition, ..config.clone() };
            let expected = model_f64(&ablated).forward(&ids(1, LEN))?;
            let (complex, state_transition) = (Some(ablate_complex), Some(ablate_state_transition));
            let ablation = Ablation { complex, state_transition };
            let logits = model_f64(&config).forward_with(&ids(1, LEN), ablation)?;
            assert_eq!(values(&logits), values(&expected), "bit for bit, {config:?}");
            let loss = model_f64(&config).loss_with(&ids(1, LEN), ablation)?;
            let expected = model_f64(&ablated).loss(&ids(1, LEN))?;
            assert_eq!(values(&loss), values(&expected), "bit for bit, {config:?}");
        }
    }
    Ok(())
}

#[test]
fn recomputation_changes_no_bit() -> TestResult {
    for config in small_models() {
        let gradients = |checkpoint_gate_looped_attn| -> Result<Vec<Vec<f64>>, ModelError> {
            let config = ModelConfig { checkpoint_gate_looped_attn, ..config.clone() };
            let model = model_f64(&config);
            model.loss(&ids(2, LEN))?.backward();
            let grads = model.parameters().into_values().map(|parameter| parameter.grad());
            Ok(grads.filter(Tensor::defined).map(|grad| values(&grad)).collect())
        };
        assert_eq!(gradients(true)?, gradients(false)?, "{config:?}");
    }
    Ok(())
}

#[test]
fn layers_that_are_computed_again_learn_the_same() -> TestResult {
    for config in small_models() {
        let gradients = |recompute| -> Result<BTreeMap<String, Tensor>, ModelError> {
            let mut model = model_f64(&config);
            model.set_recompute(recompute);
            model.loss(&ids(2, LEN))?.backward();
            let grads = model.parameters().into_iter().map(|(name, p)| (name, p.grad()));
            Ok(grads.filter(|(_, grad)| grad.defined()).collect())
        };
        let (again, kept) = (gradients(true)?, gradients(false)?);
        assert!(again.keys().eq(kept.keys()), "{config:?}");
        // Where a shortcut joins, parts of a gradient are added in another order.
        for (name, grad) in &again {
            assert_close(grad, &kept[name], LEN);
        }
    }
    Ok(())
}

#[test]
fn a_loss_in_low_precision_is_near_that_in_full() -> TestResult {
    for config in small_models() {
        let mut model = Model::seeded(&config, Device::Cpu, 2)?;
        let plain = model.loss(&ids(2, LEN))?.double_value(&[]);
        for recompute in [false, true] {
            model.set_recompute(recompute);
            let low = {
                let _autocast = Autocast::bf16();
                model.loss(&ids(2, LEN))?
            };
            assert_eq!(low.kind(), Kind::Float, "{config:?}");
            low.backward();
            let low = low.double_value(&[]);
            assert!((low - plain).abs() < 0.02 * plain, "{low} {plain} {config:?}");
            for (name, parameter) in model.parameters() {
                let mut grad = parameter.grad();
                if grad.defined() {
                    assert_eq!(grad.kind(), Kind::Float, "{name}");
                    assert!(values(&grad).iter().all(|x| x.is_finite()), "{name}, {config:?}");
                    let _ = grad.zero_();
                }
            }
        }
    }
    Ok(())
}

#[test]
fn weights_are_not_replaced_under_a_backward_pass() -> TestResult {
    let config = ModelConfig { dim: 16, depth: 1, ..ModelConfig::default() };
    let mut model = Model::seeded(&config, Device::Cpu, 1)?;
    model.set_recompute(true);
    let loss = model.loss(&ids(1, 9))?;
    assert!(matches!(model.quantize(WeightKind::Int8), Err(ModelError::InUse)));
    loss.backward();
    drop(loss);
    model.quantize(WeightKind::Int8)?;
    Ok(())
}

#[test]
fn packed_texts_know_nothing_of_one_another() -> TestResult {
    let starts: [&[i64]; 2] = [&[0, 1, 20], &[33]];
    for config in small_models() {
        let mut model = model_f64(&config);
        let ids = ids(2, LEN);
        let flags: Vec<bool> =
            starts.iter().flat_map(|row| (0..LEN).map(|t| row.contains(&t))).collect();
        let segments = Arc::new(Segments::new(&flags, [2, LEN], Device::Cpu)?);
        let mut alone = Vec::new();
        for (row, starts) in (0..).zip(starts) {
            let mut edges: Vec<i64> = [0].iter().chain(starts).chain(&[LEN]).copied().collect();
            edges.dedup();
            for edge in edges.windows(2) {
                let text = ids.narrow(0, row, 1).narrow(1, edge[0], edge[1] - edge[0]);
                alone.push(model.forward(&text)?);
            }
        }
        let alone = Tensor::cat(&alone, 1).view([2, LEN, -1]);
        assert_close(&model.forward_packed(&ids, &segments)?, &alone, LEN);
        model.set_recompute(true);
        assert_close(&model.forward_packed(&ids, &segments)?, &alone, LEN);
    }
    Ok(())
}

#[test]
fn every_form_of_the_operator_makes_the_same_model() -> TestResult {
    use FormVariant::{Auto, Chunkwise, Quadratic, Recurrent, Scan};
    for heads in [None, Some(2)] {
        let with = |gate_loop_form| {
            let config = ModelConfig { dim: 16, depth: 2, ..ModelConfig::default() };
            model_f64(&ModelConfig { gate_loop_heads: heads, gate_loop_form, ..config })
        };
        let expected = with(Auto).forward(&ids(1, LEN))?;
        for form in [Recurrent, Chunkwise, Quadratic] {
            assert_close(&with(form).forward(&ids(1, LEN))?, &expected, LEN);
        }
        if heads.is_none() {
            assert_close(&with(Scan).forward(&ids(1, LEN))?, &expected, LEN);
        }
    }
    Ok(())
}

#[test]
fn parameters_have_the_names_and_shapes_of_the_reference() -> TestResult {
    let config = ModelConfig {
        num_tokens: 11,
        dim: 8,
        depth: 1,
        gate_loop_heads: Some(2),
        dim_gate_looped_attn: Some(6),
        sub_ln: true,
        ..ModelConfig::default()
    };
    let common = [
        ("token_emb.weight", vec![11, 8]),
        ("layers.0.0.fn.to_qkv.weight", vec![18, 8]),
        ("layers.0.0.fn.to_a.0.weight", vec![4, 8]),
        ("layers.0.0.fn.to_a.0.bias", vec![4]),
        ("layers.0.0.fn.to_gates.0.weight", vec![6, 8]),
        ("layers.0.0.fn.maybe_sub_ln.weight", vec![6]),
        ("layers.0.0.fn.maybe_sub_ln.bias", vec![6]),
        ("layers.0.0.fn.to_out.weight", vec![8, 6]),
        ("layers.0.1.fn.0.weight", vec![32, 8]),
        ("layers.0.1.fn.0.bias", vec![32]),
        ("layers.0.1.fn.2.weight", vec![8, 32]),
        ("layers.0.1.fn.2.bias", vec![8]),
    ];
    let pre = [
        ("layers.0.0.norm.gamma", vec![8]),
        ("layers.0.1.norm.gamma", vec![8]),
        ("to_logits.0.gamma", vec![8]),
        ("to_logits.1.weight", vec![11, 8]),
    ];
    let post = [
        ("layers.0.0.norm.weight", vec![8]),
        ("layers.0.0.norm.bias", vec![8]),
        ("layers.0.1.norm.weight", vec![8]),
        ("layers.0.1.norm.bias", vec![8]),
        ("to_logits.weight", vec![11, 8]),
    ];
    for (post_ln_norm, rest) in [(false, &pre[..]), (true, &post[..])] {
        let model = Model::new(&ModelConfig { post_ln_norm, ..config.clone() }, Device::Cpu)?;
        let actual: BTreeMap<String, Vec<i64>> =
            model.parameters().into_iter().map(|(name, p)| (name, p.size())).collect();
        let expected =
            common.iter().chain(rest).map(|(name, shape)| ((*name).into(), shape.clone()));
        assert_eq!(actual, expected.collect());
    }
    Ok(())
}

#[test]
fn ids_that_cannot_be_are_refused_and_named() {
    let config = ModelConfig { num_tokens: 10, dim: 8, depth: 1, ..ModelConfig::default() };
    let model = Model::new(&config, Device::Cpu).unwrap();
    let refused = |ids: &Tensor| model.forward(ids).unwrap_err().to_string();
    let message = refused(&Tensor::from_slice(&[1_i64, 10]).unsqueeze(0));
    assert!(message.contains("token id 10") && message.contains("0..10"), "{message}");
    let message = refused(&Tensor::from_slice(&[-1_i64]).unsqueeze(0));
    assert!(message.contains("token id -1"), "{message}");
    for ids in [
        Tensor::zeros([1, 0], (Kind::Int64, Device::Cpu)),
        Tensor::zeros([0, 3], (Kind::Int64, Device::Cpu)),
        Tensor::zeros([3], (Kind::Int64, Device::Cpu)),
        Tensor::zeros([1, 3], (Kind::Float, Device::Cpu)),
    ] {
        assert!(matches!(model.forward(&ids), Err(ModelError::Ids { .. })), "{ids:?}");
    }
    let one = Tensor::zeros([1, 1], (Kind::Int64, Device::Cpu));
    assert!(model.loss(&one).is_err(), "one token predicts nothing");
}

#[test]
fn a_tied_embedding_makes_the_logits_and_learns_from_both_ends() -> TestResult {
    let config = ModelConfig { dim: 8, depth: 1, ..ModelConfig::jax_reference() };
    let model = Model::new(&config, Device::Cpu)?;
    let names: Vec<String> = model.parameters().into_keys().collect();
    assert!(!names.iter().any(|name| name == "to_logits.1.weight"), "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("to_a.0.bias")), "{names:?}");
    assert!(names.iter().any(|name| name == "to_logits.0.gamma"), "{names:?}");
    model.loss(&Tensor::from_slice(&[1_i64, 2, 3]).unsqueeze(0))?.backward();
    let grad = model.parameters()["token_emb.weight"].grad();
    // The softmax reaches every row, not only those of the ids that were read.
    assert!(values(&grad.abs().sum_dim_intlist(1, false, None)).iter().all(|&row| row > 0.0));
    Ok(())
}

#[test]
fn a_state_of_another_model_is_refused() {
    let model = |config| Model::new(&config, Device::Cpu).unwrap();
    let base = ModelConfig { dim: 8, depth: 1, ..ModelConfig::default() };
    let shallow = model(base.clone());
    let deep = model(ModelConfig { depth: 2, ..base.clone() });
    let attention = model(ModelConfig { use_gate_looped_attn: false, ..base });
    let token = Tensor::from_slice(&[1_i64]);
    for (other, problem) in [(&deep, "1 layers, the model has 2"), (&attention, "other kinds")] {
        let refused = other.step(&token, &mut shallow.initial_state(1)).unwrap_err();
        assert!(matches!(refused, ModelError::State { .. }));
        assert!(refused.to_string().contains(problem), "{refused}");
    }
}
