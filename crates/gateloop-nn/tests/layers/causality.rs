//! A token changes no output before it, not by one bit; in a reversed layer, none after it.

use crate::common::{TestResult, assert_bits, tensor, values};
use crate::variants::{Check, DIM, build, every_layer};
use gateloop_nn::{Engine, Result, SequenceLayer, SimpleGateLoopConfig};
use gateloop_scan::Algorithm;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

const SEQLEN: i64 = 67;

/// The output of the layer for a sequence, and for the same with token `t` changed.
fn outputs<L: SequenceLayer>(layer: &L, t: i64) -> Result<(Tensor, Tensor)> {
    let x = tensor(&[1, SEQLEN, DIM], Kind::Double, 60);
    let before = layer.forward(&x)?;
    // Every feature by another number: a norm must not be able to take the change out again.
    let _ = x.select(1, t).g_add_(&tensor(&[1, DIM], Kind::Double, 61));
    Ok((before, layer.forward(&x)?))
}

struct Causality;

impl Check for Causality {
    fn check<L: SequenceLayer>(&self, what: &str, _: &VarStore, layer: &L) {
        for t in [0, 1, 33, 63, 64, SEQLEN - 1] {
            let (old, new) = outputs(layer, t).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_bits(&format!("{what}, token {t}"), &new.narrow(1, 0, t), &old.narrow(1, 0, t));
            assert_ne!(values(&new.select(1, t)), values(&old.select(1, t)), "{what}, token {t}");
        }
    }
}

#[test]
fn no_token_changes_the_past() {
    every_layer(&Causality);
}

#[test]
fn no_token_changes_the_future_of_a_reversed_layer() -> TestResult {
    for algorithm in Algorithm::CONCRETE {
        let reversed = SimpleGateLoopConfig::new(DIM);
        let config =
            SimpleGateLoopConfig { reverse: true, engine: Engine::Scan(algorithm), ..reversed };
        let (_vs, layer) = build(|path| config.init(path));
        for t in [0, 1, 33, SEQLEN - 1] {
            let (old, new) = outputs(&layer, t)?;
            let after = |y: &Tensor| y.narrow(1, t + 1, SEQLEN - t - 1);
            assert_bits(&format!("{algorithm}, token {t}"), &after(&new), &after(&old));
            assert_ne!(values(&new.select(1, t)), values(&old.select(1, t)), "{algorithm}: {t}");
        }
    }
    Ok(())
}

#[test]
fn a_reversed_layer_is_a_layer_over_the_reversed_sequence() -> TestResult {
    let forward = SimpleGateLoopConfig::new(DIM);
    let reverse = SimpleGateLoopConfig { reverse: true, ..forward.clone() };
    let (_vs, forward) = build(|path| forward.init(path));
    let (_vs, reverse) = build(|path| reverse.init(path));
    let x = tensor(&[2, SEQLEN, DIM], Kind::Double, 62);
    let flipped = forward.forward(&x.flip([1]))?.flip([1]);
    let tolerance = crate::common::tolerance(Kind::Double, SEQLEN * DIM);
    crate::common::assert_close("y", &reverse.forward(&x)?, &flipped, tolerance);
    Ok(())
}
