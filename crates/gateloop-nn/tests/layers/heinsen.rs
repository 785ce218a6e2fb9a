//! The log-space scan with the reference's faults: right where the reference is, wrong where it is
//! wrong; and the engine of the same name that is right everywhere.

use crate::common::{
    TestResult, assert_close, gradients, leaf, tensor, tolerance, values, weighted_sum,
};
use crate::variants::{DIM, build};
use gateloop_nn::{Engine, SequenceLayer, SimpleGateLoop, SimpleGateLoopConfig};
use gateloop_scan::Algorithm;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

fn layer(engine: Engine, reverse: bool) -> (VarStore, SimpleGateLoop) {
    let config =
        SimpleGateLoopConfig { prenorm: false, engine, reverse, ..SimpleGateLoopConfig::new(DIM) };
    build(|path| config.init(path))
}

fn x() -> Tensor {
    tensor(&[2, 20, DIM], Kind::Double, 85)
}

#[test]
fn it_is_the_same_layer_in_single_precision() -> TestResult {
    for reverse in [false, true] {
        let (_vs, exact) = layer(Engine::default(), reverse);
        let (_vs, faulty) = layer(Engine::HeinsenAsReference, reverse);
        let y = faulty.forward(&x())?;
        assert_close("y", &y, &exact.forward(&x())?, tolerance(Kind::Float, 20 * DIM));
    }
    Ok(())
}

#[test]
fn its_state_can_be_handed_over() -> TestResult {
    let (_vs, faulty) = layer(Engine::HeinsenAsReference, false);
    let whole = faulty.forward(&x())?;
    let mut state = faulty.initial_state(2);
    let first = faulty.prefill(&x().narrow(1, 0, 7), &mut state)?;
    let rest = faulty.prefill(&x().narrow(1, 7, 13), &mut state)?;
    let pieces = Tensor::cat(&[first, rest], 1);
    assert_close("y", &pieces, &whole, tolerance(Kind::Float, 20 * DIM));
    Ok(())
}

/// An input of zeros at one token makes kv exactly zero there.
#[test]
fn an_input_of_exactly_zero_has_a_wrong_gradient_in_the_reference_only() -> TestResult {
    let zeroed = x();
    let _ = zeroed.select(1, 4).zero_();
    let gradient = |engine| -> Result<Tensor, gateloop_nn::NnError> {
        let (_vs, layer) = layer(engine, false);
        let x = leaf(&zeroed);
        let y = layer.forward(&x)?;
        Ok(gradients(&weighted_sum(&y, 86), &[&x]).remove(0))
    };
    let exact = gradient(Engine::Scan(Algorithm::Naive))?;
    let right = gradient(Engine::Scan(Algorithm::Heinsen))?;
    assert_close("gradient", &right, &exact, tolerance(Kind::Double, 20 * DIM));
    let faulty = values(&gradient(Engine::HeinsenAsReference)?.select(1, 4));
    let exact = values(&exact.select(1, 4));
    let off = faulty.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(off > 0.1, "the fault is gone: {off}");
    Ok(())
}
