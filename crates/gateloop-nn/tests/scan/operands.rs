//! Operands as they come: views of any layout, and gradients that only some of them want.

use crate::case::{Case, Through, looped, loss};
use crate::common::{
    TestResult, assert_close, gradients, leaf, tensor, tolerance, values, weighted_sum,
};
use gateloop_nn::{ScanOptions, scan};
use tch::{Kind, Tensor};

/// Runs scan and loop on views of the leaves and compares values and gradients of the leaves.
#[track_caller]
fn check_views(
    what: &str,
    leaves: &[&Tensor],
    views: impl Fn(&[&Tensor]) -> (Tensor, Tensor, Option<Tensor>),
) -> TestResult {
    let (a, b, h0) = views(leaves);
    let result = scan(&a, &b, h0.as_ref())?;
    // Views made anew: a backward pass frees the graph behind the first ones.
    let (a, b, h0) = views(leaves);
    let oracle = looped(&a, &b, h0.as_ref(), &ScanOptions::default());
    let tolerance = tolerance(a.kind(), a.size()[1]);
    assert_close(&format!("{what}: h"), &result.0, &oracle.0, tolerance);
    assert_close(&format!("{what}: h_last"), &result.1, &oracle.1, tolerance);
    let got = gradients(&loss(&result, Through::Both), leaves);
    let want = gradients(&loss(&oracle, Through::Both), leaves);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_close(&format!("{what}: gradient of leaf {i}"), got, want, tolerance);
    }
    Ok(())
}

#[test]
fn transposed_operands() -> TestResult {
    for kind in [Kind::Double, Kind::ComplexDouble] {
        let [a, b] = [1, 2].map(|seed| leaf(&(tensor(&[2, 3, 33], kind, seed) * 0.5)));
        let h0 = leaf(&tensor(&[3, 2], kind, 3));
        check_views(&format!("{kind:?}"), &[&a, &b, &h0], |leaves| {
            (leaves[0].transpose(1, 2), leaves[1].transpose(1, 2), Some(leaves[2].transpose(0, 1)))
        })?;
    }
    Ok(())
}

#[test]
fn pieces_of_one_projection() -> TestResult {
    let projected = leaf(&tensor(&[2, 33, 6], Kind::Double, 1));
    check_views("chunks", &[&projected], |leaves| {
        let parts = leaves[0].chunk(2, -1);
        (parts[0].sigmoid(), parts[1].shallow_clone(), None)
    })
}

#[test]
fn an_expanded_decay() -> TestResult {
    let a = leaf(&(tensor(&[2, 33, 1], Kind::ComplexDouble, 1) * 0.5));
    let b = leaf(&tensor(&[2, 33, 4], Kind::ComplexDouble, 2));
    check_views("expanded", &[&a, &b], |leaves| {
        (leaves[0].expand([2, 33, 4], false), leaves[1].shallow_clone(), None)
    })
}

#[test]
fn conjugated_operands() -> TestResult {
    let [a, b] = [1, 2].map(|seed| leaf(&(tensor(&[2, 9, 3], Kind::ComplexDouble, seed) * 0.5)));
    let h0 = leaf(&tensor(&[2, 3], Kind::ComplexDouble, 3));
    check_views("conjugated", &[&a, &b, &h0], |leaves| {
        (leaves[0].conj(), leaves[1].conj(), Some(leaves[2].conj()))
    })
}

#[test]
fn negated_views() -> TestResult {
    // The imaginary part of a conjugate is a view with a sign to be applied. With one element a row
    // it counts as contiguous, so that no copy applies the sign by the way.
    let [a, b] = [1, 2].map(|seed| leaf(&(tensor(&[1, 1, 1], Kind::ComplexDouble, seed) * 0.5)));
    let h0 = leaf(&tensor(&[1, 1], Kind::ComplexDouble, 3));
    check_views("negated", &[&a, &b, &h0], |leaves| {
        let part = |x: &Tensor| x.conj().imag();
        (part(leaves[0]), part(leaves[1]), Some(part(leaves[2])))
    })
}

#[test]
fn operands_are_left_alone() -> TestResult {
    let case = Case::new([2, 9, 3], Kind::Float, true);
    let before: Vec<Vec<f64>> = case.named().iter().map(|(_, x)| values(x)).collect();
    let result = case.run(&ScanOptions::default())?;
    loss(&result, Through::Both).backward();
    let after: Vec<Vec<f64>> = case.named().iter().map(|(_, x)| values(x)).collect();
    assert_eq!(before, after);
    Ok(())
}

#[test]
fn one_operand_alone_may_want_a_gradient() -> TestResult {
    let all = Case::new([2, 33, 3], Kind::ComplexDouble, true);
    let whole = loss(&all.run(&ScanOptions::default())?, Through::Both);
    let leaves: Vec<&Tensor> = all.named().into_iter().map(|(_, leaf)| leaf).collect();
    let want = gradients(&whole, &leaves);
    for (i, (name, _)) in all.named().iter().enumerate() {
        let operands: Vec<Tensor> = leaves
            .iter()
            .enumerate()
            .map(|(j, x)| if i == j { leaf(x) } else { x.detach() })
            .collect();
        let result = scan(&operands[0], &operands[1], Some(&operands[2]))?;
        let got = gradients(&loss(&result, Through::Both), &[&operands[i]]);
        assert_eq!(values(&got[0]), values(&want[i]), "gradient of {name}");
    }
    Ok(())
}

#[test]
fn without_a_state_the_first_decay_has_no_effect() -> TestResult {
    let case = Case::new([2, 5, 3], Kind::Double, false);
    let (h, _) = case.run(&ScanOptions::default())?;
    let da = gradients(&weighted_sum(&h, 4), &[&case.a]).remove(0);
    assert!(values(&da.select(1, 0)).iter().all(|&x| x == 0.0));
    assert!(values(&da.select(1, 1)).iter().all(|&x| x != 0.0));
    Ok(())
}
