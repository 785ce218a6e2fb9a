//! A token changes no output before it, not by one bit, and does change those from it on.

use crate::case::{Case, NAMES, Size, forms, run};
use crate::common::{TestResult, assert_bits, values};
use gateloop_nn::gate_loop::Form;
use tch::{Kind, Tensor};

const SEQLEN: i64 = 130;

/// The operands with one token of one operand changed.
fn perturbed(case: &Case, operand: usize, t: i64) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = case.leaves.iter().map(|x| x.detach().copy()).collect();
    let mut token = leaves[operand].select(1, t);
    // Log magnitudes stay negative: they are at least ln(0.5) before.
    let _ = token.subtract_scalar_(0.5);
    leaves
}

fn check(case: &Case, form: Form) -> TestResult {
    let y = case.run(form)?.0;
    for t in [0, 1, 63, 64, 65, 127, SEQLEN - 1] {
        for (operand, name) in NAMES.iter().enumerate().take(5) {
            let what = format!("{form:?}, {:?}: {} of token {t}", case.kind(), name);
            let changed = run(&perturbed(case, operand, t), form)?.0;
            assert_bits(&what, &changed.narrow(1, 0, t), &y.narrow(1, 0, t));
            let (new, old) = (changed.select(1, t), y.select(1, t));
            assert_ne!(values(&new), values(&old), "{what} does not reach its own output");
        }
    }
    Ok(())
}

#[test]
fn no_token_changes_the_past() -> TestResult {
    for head_dim in [1, 2, 64] {
        let case = Case::new(Size { batch: 1, seqlen: SEQLEN, heads: 2, head_dim });
        for kind in [Kind::Double, Kind::Float] {
            for form in forms(head_dim) {
                check(&case.to_kind(kind), form)?;
            }
        }
    }
    Ok(())
}
