//! The operator against loops over plain numbers, and its gradient against finite differences:
//! oracles that share nothing with the crate.

use crate::case::{Case, NAMES, Size, forms, loss, run};
use crate::common::{TestResult, assert_close, assert_gradient, tensor, values};
use gateloop_nn::gate_loop::Form;
use num_complex::Complex;
use std::error::Error;
use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// y[t] = q[t] Re(S[t]), S[t] = a[t] S[t-1] + k[t]^T v[t], number by number.
fn by_hand(case: &Case) -> (Vec<f64>, Vec<f64>) {
    let Size { batch, seqlen, heads, head_dim: d } = case.size;
    let [batch, seqlen, heads, d] = [batch, seqlen, heads, d].map(|n| n as usize);
    let [q, k, v, log_a, phase, state] = [0, 1, 2, 3, 4, 5].map(|i| values(&case.leaves[i]));
    let mut y = vec![0.0; batch * seqlen * heads * d];
    let mut last = Vec::new();
    for b in 0..batch {
        for h in 0..heads {
            let at = (b * heads + h) * d * d * 2;
            let mut s: Vec<Complex<f64>> = state[at..at + 2 * d * d]
                .chunks(2)
                .map(|parts| Complex::new(parts[0], parts[1]))
                .collect();
            for t in 0..seqlen {
                let gate = (b * seqlen + t) * heads + h;
                let a = Complex::from_polar(log_a[gate].exp(), phase[gate]);
                for i in 0..d {
                    for j in 0..d {
                        s[i * d + j] = a * s[i * d + j] + k[gate * d + i] * v[gate * d + j];
                        y[gate * d + j] += q[gate * d + i] * s[i * d + j].re;
                    }
                }
            }
            last.extend(s.iter().flat_map(|s| [s.re, s.im]));
        }
    }
    (y, last)
}

#[test]
fn every_form_equals_the_definition() -> TestResult {
    for head_dim in [1, 3] {
        let case = Case::new(Size { batch: 2, seqlen: 70, heads: 2, head_dim });
        let (y, last) = by_hand(&case);
        for form in forms(head_dim) {
            let (got_y, got_last) = case.run(form)?;
            let tolerance = case.tolerance(form);
            let want_y = Tensor::from_slice(&y).view_as(&got_y);
            assert_close(&format!("{form:?}: y"), &got_y, &want_y, tolerance);
            let got_last = got_last.view_as_real();
            let want_last = Tensor::from_slice(&last).view_as(&got_last);
            assert_close(&format!("{form:?}: last state"), &got_last, &want_last, tolerance);
        }
    }
    Ok(())
}

#[test]
fn gradients_equal_finite_differences() {
    for head_dim in [1, 2] {
        // One token more than a chunk would be slow; the chunkwise form cuts at 64 whatever the
        // width, so that the agreement of the forms covers what this small case cannot.
        let case = Case::new(Size { batch: 1, seqlen: 4, heads: 2, head_dim });
        let leaves: Vec<_> = NAMES.into_iter().zip(&case.leaves).collect();
        let terms = 8 * head_dim * (1 + head_dim);
        for form in forms(head_dim) {
            assert_gradient(&format!("{form:?}"), &leaves, terms as usize, || {
                loss(&run(&case.leaves, form).expect("the operator runs"))
            });
        }
    }
}

#[test]
fn a_long_biased_phase_is_not_lost() {
    // Two radians a token, for ever: the running sum reaches 8192, where f32 has steps of 1e-3.
    // |a| = 1 keeps every token of the past in the state.
    let size = Size { batch: 1, seqlen: 4096, heads: 1, head_dim: 2 };
    let (log_magnitude, phase) = (Tensor::from(0.0), Tensor::from(2.0));
    let case = Case::with_transition(size, &log_magnitude, &phase);
    let (want, _) = by_hand(&case);
    let single = case.to_kind(Kind::Float);
    let (y, _) = single.run(Form::Chunkwise).expect("the operator runs");
    let want = Tensor::from_slice(&want).view_as(&y);
    assert_close("y", &y, &want, single.tolerance(Form::Chunkwise));
}

#[test]
fn gradients_of_decays_are_as_precise_as_the_definitions() -> TestResult {
    // Each decay of one half stands between few pairs of tokens that matter; the pairs on one side of it,
    // which are many, have to cancel.
    let size = Size { batch: 2, seqlen: 256, heads: 4, head_dim: 8 };
    let phase = tensor(&[2, 256, 4], Kind::Double, 7) * PI;
    let case = Case::with_transition(size, &Tensor::from(0.5_f64.ln()), &phase);
    let single = case.to_kind(Kind::Float);
    // The same numbers: those that single precision has.
    let exact = single.to_kind(Kind::Double).gradients(Form::Recurrent)?;
    let error = |form, i: usize| -> Result<f64, Box<dyn Error>> {
        let difference = single.gradients(form)?[i].to_kind(Kind::Double) - &exact[i];
        Ok((difference.norm() / exact[i].norm()).double_value(&[]))
    };
    for i in [3, 4] {
        let (ours, reference) = (error(Form::Chunkwise, i)?, error(Form::Recurrent, i)?);
        assert!(ours <= 2.0 * reference, "gradient of {}: {ours:e}, {reference:e}", NAMES[i]);
    }
    Ok(())
}
