//! Every parameter learns, and its gradient is the right one.

use crate::common::{
    TestResult, assert_bits, assert_close, assert_gradient, gradients, leaf, tensor, tolerance,
    values, weighted_sum,
};
use crate::variants::{Check, DIM, build, every_layer};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{GateLoop, GateLoopConfig, SequenceLayer, SimpleGateLoopConfig};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

/// What is trained, by name.
fn sorted(vs: &VarStore) -> Vec<(String, Tensor)> {
    let mut parameters: Vec<_> =
        vs.variables().into_iter().filter(|(_, parameter)| parameter.requires_grad()).collect();
    parameters.sort_by(|a, b| a.0.cmp(&b.0));
    parameters
}

/// The ablation takes no notice of z, so its projection learns nothing.
fn learns(what: &str, name: &str) -> bool {
    !(what.contains("transition: Identity") && name.starts_with("to_a"))
}

struct EveryParameterLearns;

impl Check for EveryParameterLearns {
    fn check<L: SequenceLayer>(&self, what: &str, vs: &VarStore, layer: &L) {
        let y = layer.forward(&tensor(&[2, 9, DIM], Kind::Double, 70)).expect("a right shape");
        weighted_sum(&y, 71).backward();
        for (name, parameter) in sorted(vs) {
            let gradient = parameter.grad();
            if !learns(what, &name) {
                assert!(!gradient.defined(), "{what}: {name} has a gradient");
                continue;
            }
            assert!(gradient.defined(), "{what}: {name} has no gradient");
            let gradient = values(&gradient);
            assert!(gradient.iter().all(|x| x.is_finite()), "{what}: {name} is not finite");
            if what.contains("AsReference") && name.starts_with("to_a") {
                // What the reference clamps does not learn; the rest does.
                assert!(gradient.iter().any(|&x| x != 0.0), "{what}: {name} learns nothing");
                continue;
            }
            let zeros = gradient.iter().filter(|&&x| x == 0.0).count();
            // The ablation to real decays ignores every second row of z.
            let allowed = if what.contains("transition: Real") && name.starts_with("to_a") {
                gradient.len() / 2
            } else {
                0
            };
            assert_eq!(zeros, allowed, "{what}: {name}: elements without gradient");
        }
    }
}

#[test]
fn every_parameter_gets_a_finite_gradient_that_is_not_zero() {
    every_layer(&EveryParameterLearns);
}

struct FiniteDifferences;

impl Check for FiniteDifferences {
    fn check<L: SequenceLayer>(&self, what: &str, vs: &VarStore, layer: &L) {
        // A gate loop passes on a fraction of a gradient, on purpose: see below.
        if !what.contains("frac_gradient_state_transition") {
            check_differences(what, vs, layer);
        }
    }
}

fn check_differences<L: SequenceLayer>(what: &str, vs: &VarStore, layer: &L) {
    let (batch, seqlen) = (1, 3);
    let x = leaf(&tensor(&[batch, seqlen, DIM], Kind::Double, 72));
    let parameters = sorted(vs);
    let mut leaves = vec![("x", &x)];
    leaves.extend(
        parameters.iter().filter(|(name, _)| learns(what, name)).map(|(n, p)| (n.as_str(), p)),
    );
    // The loss sums B T D outputs, each of them a sum over D features.
    let terms = batch * seqlen * DIM * DIM;
    assert_gradient(what, &leaves, terms as usize, || {
        weighted_sum(&layer.forward(&x).expect("a right shape"), 73)
    });
}

#[test]
fn gradients_equal_finite_differences() {
    every_layer(&FiniteDifferences);
    for config in crate::variants::gate_loops() {
        let config = GateLoopConfig { frac_gradient_state_transition: 1.0, ..config };
        let (vs, layer) = build(|path| config.init(path));
        check_differences(&format!("{config:?}"), &vs, &layer);
    }
    let config = SimpleGateLoopConfig { reverse: true, ..SimpleGateLoopConfig::new(DIM) };
    let (vs, layer) = build(|path| config.init(path));
    check_differences("reversed", &vs, &layer);
}

/// The output of a layer that passes on `fraction` of the gradient, and the gradient of to_a.
fn with_fraction(fraction: f64) -> (Tensor, Vec<Tensor>, Vec<Tensor>) {
    let config =
        GateLoopConfig { frac_gradient_state_transition: fraction, ..GateLoopConfig::new(DIM) };
    let (vs, layer): (VarStore, GateLoop) = build(|path| config.init(path));
    let y = layer.forward(&tensor(&[2, 5, DIM], Kind::Double, 74)).expect("a right shape");
    let (to_a, others): (Vec<_>, Vec<_>) =
        sorted(&vs).into_iter().partition(|(name, _)| name.starts_with("to_a"));
    let tensors = |named: Vec<(String, Tensor)>| named.into_iter().map(|(_, t)| t);
    let (to_a, others): (Vec<_>, Vec<_>) = (tensors(to_a).collect(), tensors(others).collect());
    let leaves: Vec<&Tensor> = to_a.iter().chain(&others).collect();
    let mut got = gradients(&weighted_sum(&y, 75), &leaves);
    let of_others = got.split_off(to_a.len());
    (y, got, of_others)
}

#[test]
fn the_fraction_scales_the_gradient_of_the_transition_and_nothing_else() {
    let (y, to_a, others) = with_fraction(1.0);
    for fraction in [0.0, 0.5, 0.9] {
        let (scaled_y, scaled_to_a, scaled_others) = with_fraction(fraction);
        // z f + z (1 - f) is z to within a rounding.
        let tolerance = tolerance(Kind::Double, 5 * DIM);
        assert_close("y", &scaled_y, &y, tolerance);
        for (scaled, full) in scaled_to_a.iter().zip(&to_a) {
            assert_close("to_a", scaled, &(full * fraction), tolerance);
        }
        for (scaled, full) in scaled_others.iter().zip(&others) {
            assert_close("the others", scaled, full, tolerance);
        }
    }
}

#[test]
fn a_half_keeps_the_value_bit_for_bit() {
    assert_bits("y", &with_fraction(0.5).0, &with_fraction(1.0).0);
}

#[test]
fn an_ablated_transition_ignores_its_projection() -> TestResult {
    let transition = TransitionMode::Identity;
    let (vs, layer) =
        build(|path| GateLoopConfig { transition, ..GateLoopConfig::new(DIM) }.init(path));
    let x = tensor(&[1, 4, DIM], Kind::Double, 76);
    let y = layer.forward(&x)?;
    for (name, parameter) in sorted(&vs).iter_mut().filter(|(name, _)| name.starts_with("to_a")) {
        let _ = tch::no_grad(|| parameter.fill_(0.5));
        assert_bits(name, &layer.forward(&x)?, &y);
    }
    Ok(())
}
