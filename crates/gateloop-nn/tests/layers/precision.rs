//! Layers in bfloat16: the matrix products are in it, the recurrence and the decays are not.

use crate::common::values;
use crate::variants::{Check, DIM, every_layer};
use gateloop_nn::SequenceLayer;
use tch::nn::VarStore;
use tch::{Kind, Tensor};

const SEQLEN: i64 = 80;

/// Spacing of bfloat16 at 1.
const EPSILON: f64 = 1.0 / 128.0;

struct LowPrecision;

impl Check for LowPrecision {
    fn check<L: SequenceLayer>(&self, what: &str, vs: &VarStore, layer: &L) {
        let x = crate::common::tensor(&[2, SEQLEN, DIM], Kind::Double, 95);
        let run = |kind: Kind| -> gateloop_nn::Result<(Tensor, Tensor)> {
            tch::no_grad(|| {
                for (_, mut parameter) in vs.variables() {
                    parameter.set_data(&parameter.to_kind(kind));
                }
                let x = x.to_kind(kind);
                let mut state = layer.initial_state(2);
                let _ = layer.prefill(&x.narrow(1, 0, SEQLEN - 1), &mut state)?;
                Ok((layer.forward(&x)?, layer.step(&x.select(1, SEQLEN - 1), &mut state)?))
            })
        };
        let exact = run(Kind::Double).unwrap_or_else(|error| panic!("{what}: {error}"));
        let low = run(Kind::BFloat16).unwrap_or_else(|error| panic!("{what}: {error}"));
        for (low, exact) in [(low.0, exact.0), (low.1, exact.1)] {
            assert_eq!(low.kind(), Kind::BFloat16, "{what}");
            let (low, exact) = (values(&low), values(&exact));
            let squares = |xs: &mut dyn Iterator<Item = f64>| xs.map(|x| x * x).sum::<f64>().sqrt();
            let error = squares(&mut low.iter().zip(&exact).map(|(a, b)| a - b));
            let size = squares(&mut exact.iter().copied());
            // Half a dozen roundings in a row, of values that norms and gates stretch.
            assert!(error <= 12.0 * EPSILON * size, "{what}: {error} of {size}");
        }
    }
}

#[test]
fn every_layer_runs_in_bfloat16() {
    every_layer(&LowPrecision);
}
