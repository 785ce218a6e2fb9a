//! A sequence at once, in pieces and token by token: one result.

use crate::common::{
    TestResult, assert_bits, assert_close, gradients, leaf, tensor, tolerance, weighted_sum,
};
use crate::variants::{Check, DIM, build, every_layer};
use gateloop_nn::{GateLoopConfig, GateLoopState, SequenceLayer};
use gateloop_scan::Tolerance;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

const SEQLEN: i64 = 70;

fn x() -> Tensor {
    tensor(&[2, SEQLEN, DIM], Kind::Double, 50)
}

/// A recurrence over T tokens between two maps over D features; the norms and gates around it
/// divide by and multiply with values that carry its error once more.
fn layer_tolerance() -> Tolerance {
    tolerance(Kind::Double, SEQLEN * DIM).times(4.0)
}

struct Ways;

impl Check for Ways {
    fn check<L: SequenceLayer>(&self, what: &str, _: &VarStore, layer: &L) {
        let run = || -> gateloop_nn::Result<()> {
            let x = x();
            let whole = layer.forward(&x)?;
            for pieces in [&[SEQLEN][..], &[1, 69], &[35, 35], &[3, 1, 64, 2], &[66, 4]] {
                let mut state = layer.initial_state(2);
                let mut start = 0;
                let mut outputs = Vec::new();
                for &len in pieces {
                    outputs.push(layer.prefill(&x.narrow(1, start, len), &mut state)?);
                    start += len;
                }
                let what = format!("{what}: pieces {pieces:?}");
                assert_close(&what, &Tensor::cat(&outputs, 1), &whole, layer_tolerance());
            }

            let mut state = layer.initial_state(2);
            let steps = (0..SEQLEN).map(|t| layer.step(&x.select(1, t), &mut state));
            let steps = steps.collect::<gateloop_nn::Result<Vec<_>>>()?;
            let what = format!("{what}: steps");
            assert_close(&what, &Tensor::stack(&steps, 1), &whole, layer_tolerance());

            // Prefilled, then decoded: what generation does.
            let mut state = layer.initial_state(2);
            let _ = layer.prefill(&x.narrow(1, 0, SEQLEN - 1), &mut state)?;
            let last = layer.step(&x.select(1, SEQLEN - 1), &mut state)?;
            assert_close(&what, &last, &whole.select(1, SEQLEN - 1), layer_tolerance());
            Ok(())
        };
        run().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

#[test]
fn pieces_and_steps_equal_the_whole() {
    every_layer(&Ways);
}

#[test]
fn a_state_can_be_stored_and_restored() -> TestResult {
    let config = GateLoopConfig { heads: Some(2), ..GateLoopConfig::new(DIM) };
    let (_vs, layer) = build(|path| config.init(path));
    let mut state = layer.initial_state(2);
    assert!(state.tensor().is_none(), "nothing is remembered before the first token");
    let _ = layer.prefill(&x(), &mut state)?;
    let stored = state.tensor().ok_or("a state after a token")?.detach().copy();
    assert_eq!(
        2 * stored.numel() as i64,
        2 * layer.state_len(),
        "two sequences of complex numbers"
    );

    let mut restored = GateLoopState::from_tensor(stored);
    let token = tensor(&[2, DIM], Kind::Double, 51);
    let y = layer.step(&token, &mut state)?;
    assert_bits("y", &layer.step(&token, &mut restored)?, &y);
    Ok(())
}

#[test]
fn the_gradient_flows_through_a_handed_over_state() -> TestResult {
    let (_vs, layer) = build(|path| GateLoopConfig::new(DIM).init(path));
    let x = leaf(&x());
    let whole = layer.forward(&x)?;
    let want = gradients(&weighted_sum(&whole, 1), &[&x]);
    let mut state = layer.initial_state(2);
    let first = layer.prefill(&x.narrow(1, 0, 30), &mut state)?;
    let second = layer.prefill(&x.narrow(1, 30, SEQLEN - 30), &mut state)?;
    let pieces = Tensor::cat(&[first, second], 1);
    let got = gradients(&weighted_sum(&pieces, 1), &[&x]);
    assert_close("gradient of x", &got[0], &want[0], layer_tolerance());
    Ok(())
}
