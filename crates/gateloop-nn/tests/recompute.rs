//! Recomputation: the numbers do not change, what is kept does, and it works inside itself.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod common;

use common::{
    TestResult, assert_bits, assert_close, gradients, leaf, tensor, tolerance, weighted_sum,
};
use gateloop_nn::{NnError, Result, recompute, recompute_with, scan};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tch::{Kind, Tensor};

/// A scan between other operations: real and complex, two outputs.
fn work(inputs: &[Tensor]) -> Result<[Tensor; 2]> {
    let a = Tensor::f_polar(&inputs[0].f_sigmoid()?, &inputs[1])?;
    let b = Tensor::f_complex(&inputs[1], &inputs[0])?;
    let (h, last) = scan(&a, &b, None)?;
    Ok([h.f_real()?, last])
}

fn inputs() -> [Tensor; 2] {
    [1, 2].map(|seed| leaf(&tensor(&[2, 9, 3], Kind::Double, seed)))
}

fn loss(outputs: &[Tensor; 2]) -> Tensor {
    weighted_sum(&outputs[0], 3) + weighted_sum(&outputs[1].view_as_real(), 4)
}

#[test]
fn values_and_gradients_keep_every_bit() -> TestResult {
    let [x, y] = inputs();
    let plain = work(&[x.shallow_clone(), y.shallow_clone()])?;
    let again = recompute(work, &[&x, &y])?;
    for (a, b) in again.iter().zip(&plain) {
        assert_bits("output", a, b);
    }
    let expected = gradients(&loss(&plain), &[&x, &y]);
    for (grad, expected) in gradients(&loss(&again), &[&x, &y]).iter().zip(&expected) {
        assert_bits("gradient", grad, expected);
    }
    Ok(())
}

#[test]
fn the_work_is_done_again_for_the_gradient_and_only_then() -> TestResult {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = {
        let count = Arc::clone(&count);
        move |inputs: &[Tensor]| {
            count.fetch_add(1, Ordering::SeqCst);
            work(inputs)
        }
    };
    let [x, y] = inputs();
    let outputs = recompute(counted, &[&x, &y])?;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    loss(&outputs).backward();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    Ok(())
}

#[test]
fn an_output_that_nothing_uses_and_an_input_without_gradient_are_fine() -> TestResult {
    let [x, y] = inputs();
    let constant = y.detach();
    let [h, _] = recompute(work, &[&x, &constant])?;
    let [expected, _] = work(&[x.shallow_clone(), constant.shallow_clone()])?;
    let expected = gradients(&weighted_sum(&expected, 5), &[&x]);
    assert_bits("gradient", &gradients(&weighted_sum(&h, 5), &[&x])[0], &expected[0]);
    Ok(())
}

#[test]
fn it_nests() -> TestResult {
    let [x, y] = inputs();
    let nested = |inputs: &[Tensor]| {
        let [h, last] = recompute(work, &[&inputs[0], &inputs[1]])?;
        recompute(work, &[&h, &inputs[1]]).map(|[h, _]| [h, last])
    };
    let plain = |inputs: &[Tensor]| -> Result<[Tensor; 2]> {
        let [h, last] = work(inputs)?;
        let [h, _] = work(&[h, inputs[1].shallow_clone()])?;
        Ok([h, last])
    };
    let expected = plain(&[x.shallow_clone(), y.shallow_clone()])?;
    let expected = gradients(&loss(&expected), &[&x, &y]);
    let got = gradients(&loss(&recompute(nested, &[&x, &y])?), &[&x, &y]);
    for (grad, expected) in got.iter().zip(&expected) {
        // Used twice, y has a gradient of two parts, which are added in another order.
        assert_close("gradient", grad, expected, tolerance(Kind::Double, 9));
    }
    Ok(())
}

#[test]
fn a_failure_in_the_second_run_is_an_error_of_the_backward_pass() -> TestResult {
    let runs = AtomicUsize::new(0);
    let fails = move |inputs: &[Tensor]| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => work(inputs),
        _ => Err(NnError::Function { message: "out of luck".into() }),
    };
    let [x, y] = inputs();
    let outputs = recompute(fails, &[&x, &y])?;
    let error = loss(&outputs).f_backward().unwrap_err().to_string();
    assert!(error.contains("out of luck"), "{error}");
    Ok(())
}

#[test]
fn captured_parameters_learn_too() -> TestResult {
    let [x, y] = inputs();
    let weight = leaf(&tensor(&[3, 3], Kind::Double, 5));
    let mapped = |weight: &Tensor, inputs: &[Tensor]| -> Result<[Tensor; 2]> {
        work(&[inputs[0].f_matmul(weight)?, inputs[1].shallow_clone()])
    };
    let plain = mapped(&weight, &[x.shallow_clone(), y.shallow_clone()])?;
    let expected = gradients(&loss(&plain), &[&x, &y, &weight]);
    let captured = std::sync::Mutex::new(weight.shallow_clone());
    let run = move |inputs: &[Tensor]| mapped(&captured.lock().unwrap(), inputs);
    let again = recompute_with(run, &[&x, &y], &[&weight])?;
    for (grad, expected) in gradients(&loss(&again), &[&x, &y, &weight]).iter().zip(&expected) {
        assert_bits("gradient", grad, expected);
    }
    Ok(())
}
