//! Decays at the ends of their range: nearly 1, exactly 1, nearly 0; phases at the ends of theirs.

use crate::case::{Case, Size, forms};
use crate::common::{leaf, tensor, values};
use std::f64::consts::{LN_2, PI};
use tch::{Kind, Tensor};

const SIZE: Size = Size { batch: 1, seqlen: 130, heads: 2, head_dim: 2 };

fn random() -> Tensor {
    tensor(&[1, SIZE.seqlen, SIZE.heads], Kind::Double, 20)
}

fn decays() -> Vec<(&'static str, Tensor)> {
    let nearly_one = random() * 1e-6 - 1e-6;
    // Forgetting now and then, in a sequence that remembers otherwise.
    let resets = random().gt(0.8).to_kind(Kind::Double) * -50.0;
    vec![
        ("|a| nearly 1", nearly_one),
        ("|a| = 1", Tensor::from(0.0)),
        // The product over the sequence is subnormal in f32.
        ("|a| = 0.5", Tensor::from(-LN_2)),
        ("|a| nearly 0", Tensor::from(-50.0)),
        ("|a| 1 or nearly 0", resets),
    ]
}

fn phases() -> Vec<(&'static str, Tensor)> {
    vec![
        ("phase 0", Tensor::from(0.0)),
        ("phase pi", Tensor::from(PI)),
        ("phase -pi", Tensor::from(-PI)),
        ("any phase", random() * PI),
    ]
}

#[test]
fn forms_agree_at_the_extremes() {
    for head_dim in [1, 2] {
        for (decay, log_magnitude) in decays() {
            for (angle, phase) in phases() {
                let size = Size { head_dim, ..SIZE };
                let case = Case::with_transition(size, &log_magnitude, &phase);
                for kind in [Kind::Double, Kind::Float] {
                    for form in forms(head_dim) {
                        let what = format!("{form:?}, {kind:?}, {head_dim}, {decay}, {angle}");
                        case.to_kind(kind).check(&what, form);
                    }
                }
            }
        }
    }
}

#[test]
fn zeros_are_no_special_case() {
    let mut case = Case::new(SIZE);
    for operand in 0..3 {
        case.leaves[operand] = leaf(&case.leaves[operand].zeros_like());
    }
    case.leaves[5] = leaf(&case.leaves[5].zeros_like());
    for form in forms(SIZE.head_dim) {
        let (y, state) = case.run(form).expect("the operator runs");
        assert!(values(&y).iter().chain(&values(&state)).all(|&x| x == 0.0), "{form:?}");
        for gradient in case.gradients(form).expect("the operator runs") {
            assert!(values(&gradient).iter().all(|x| x.is_finite()), "{form:?}");
        }
    }
}
