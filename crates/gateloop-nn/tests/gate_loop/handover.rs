//! A sequence in pieces, with the state handed over, equals the whole.

use crate::case::{Case, Size, forms, run};
use crate::common::{TestResult, assert_close};
use tch::Tensor;

/// The operands of some of the tokens, with a state.
fn piece(case: &Case, start: i64, len: i64, state: &Tensor) -> Vec<Tensor> {
    let tokens = case.leaves.iter().take(5).map(|x| x.narrow(1, start, len));
    tokens.chain([state.shallow_clone()]).collect()
}

#[test]
fn every_split_equals_the_whole() -> TestResult {
    for head_dim in [1, 2] {
        let seqlen = 70;
        let case = Case::new(Size { batch: 2, seqlen, heads: 2, head_dim });
        for form in forms(head_dim) {
            let (whole, last) = case.run(form)?;
            for split in 1..seqlen {
                let (first, state) = run(&piece(&case, 0, split, &case.leaves[5]), form)?;
                let (second, end) = run(&piece(&case, split, seqlen - split, &state), form)?;
                let what = format!("{form:?}, head_dim {head_dim}, split at {split}");
                let tolerance = case.tolerance(form);
                assert_close(&what, &Tensor::cat(&[first, second], 1), &whole, tolerance);
                assert_close(&what, &end, &last, tolerance);
            }
        }
    }
    Ok(())
}

#[test]
fn the_state_of_one_form_is_that_of_another() -> TestResult {
    for head_dim in [1, 4] {
        let case = Case::new(Size { batch: 1, seqlen: 130, heads: 2, head_dim });
        for one in forms(head_dim) {
            for other in forms(head_dim) {
                let (_, state) = run(&piece(&case, 0, 65, &case.leaves[5]), one)?;
                let (_, end) = run(&piece(&case, 65, 65, &state), other)?;
                let (_, whole) = case.run(other)?;
                let tolerance = case.tolerance(one);
                let other_tolerance = case.tolerance(other);
                let looser = if tolerance.relative() > other_tolerance.relative() {
                    tolerance
                } else {
                    other_tolerance
                };
                assert_close(&format!("{one:?}, then {other:?}"), &end, &whole, looser);
            }
        }
    }
    Ok(())
}
