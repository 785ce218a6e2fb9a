//! Custom gradients: what arrives where, and what happens when something fails.

mod common;

use common::{TestResult, assert_close, gradients, leaf, tensor, tolerance, values};
use gateloop_nn::autograd::{self, Function, Saved};
use gateloop_nn::{NnError, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use tch::{Kind, Tensor};

type Forward = dyn Fn(&[Tensor], &mut Saved) -> Result<Vec<Tensor>> + Send + Sync;
type Backward =
    dyn Fn(&[Tensor], &[Option<Tensor>], &[bool]) -> Result<Vec<Option<Tensor>>> + Send + Sync;

/// A function with N outputs that is written where it is tested.
struct Custom<const N: usize> {
    forward: Box<Forward>,
    backward: Box<Backward>,
    dropped: Arc<AtomicUsize>,
}

impl<const N: usize> Custom<N> {
    /// The product of its two inputs, with the right gradient.
    fn product() -> Self {
        Self {
            forward: Box::new(|inputs, saved| {
                saved.push(&inputs[0]);
                saved.push(&inputs[1]);
                Ok(vec![&inputs[0] * &inputs[1]])
            }),
            backward: Box::new(|saved, grads, _| {
                let Some(dy) = &grads[0] else { return Ok(vec![None, None]) };
                Ok(vec![Some(dy * &saved[1]), Some(dy * &saved[0])])
            }),
            dropped: Arc::default(),
        }
    }

    fn forward(
        mut self,
        forward: impl Fn(&[Tensor], &mut Saved) -> Result<Vec<Tensor>> + Send + Sync + 'static,
    ) -> Self {
        self.forward = Box::new(forward);
        self
    }

    fn backward(
        mut self,
        backward: impl Fn(&[Tensor], &[Option<Tensor>], &[bool]) -> Result<Vec<Option<Tensor>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.backward = Box::new(backward);
        self
    }
}

impl<const N: usize> Function for Custom<N> {
    const OUTPUTS: usize = N;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        (self.forward)(inputs, saved)
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        (self.backward)(saved, grad_outputs, needs_grad)
    }
}

impl<const N: usize> Drop for Custom<N> {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

fn operands() -> (Tensor, Tensor) {
    let x = |seed| leaf(&tensor(&[3, 2], Kind::Double, seed));
    (x(1), x(2))
}

fn failure(message: &str) -> NnError {
    NnError::Function { message: message.into() }
}

/// The message of the error with which a backward pass through `y` ends.
fn backward_error(y: &Tensor) -> String {
    let result = y.sum(None::<Kind>).f_backward();
    result.expect_err("the backward pass should fail").to_string()
}

fn message_of<T>(result: Result<T>) -> String {
    result.err().expect("the call should fail").to_string()
}

#[test]
fn values_and_gradients_are_those_of_the_function() -> TestResult {
    let (x, w) = operands();
    let y = autograd::apply(Custom::<1>::product(), &[&x, &w])?.remove(0);
    let exact = tolerance(Kind::Double, 1);
    assert_close("y", &y, &(&x * &w), exact);

    let got = gradients(&y.square().sum(None::<Kind>), &[&x, &w]);
    let want = gradients(&(&x * &w).square().sum(None::<Kind>), &[&x, &w]);
    assert_close("dx", &got[0], &want[0], exact);
    assert_close("dw", &got[1], &want[1], exact);
    Ok(())
}

#[test]
fn a_function_knows_whether_a_backward_pass_may_follow() -> TestResult {
    let (x, w) = operands();
    let probe = || {
        Custom::<1>::product().forward(|inputs, saved| {
            let told = if saved.is_wanted() { 1.0 } else { 0.0 };
            saved.push(&inputs[0]);
            saved.push(&inputs[1]);
            Ok(vec![inputs[0].full_like(told)])
        })
    };
    let recorded = autograd::apply(probe(), &[&x, &w])?.remove(0);
    let alone = tch::no_grad(|| autograd::apply(probe(), &[&x, &w]))?.remove(0);
    assert_eq!([&recorded, &alone].map(|y| y.double_value(&[0, 0])), [1.0, 0.0]);
    Ok(())
}

#[test]
fn one_tensor_may_be_several_inputs() -> TestResult {
    let (x, _) = operands();
    let y = autograd::apply(Custom::<1>::product(), &[&x, &x])?.remove(0);
    let got = gradients(&y.sum(None::<Kind>), &[&x]);
    assert_close("dx", &got[0], &(&x * 2.0), tolerance(Kind::Double, 1));
    Ok(())
}

#[test]
fn an_input_may_be_returned_as_it_is() -> TestResult {
    let identity = Custom::<1>::product()
        .forward(|inputs, _| Ok(vec![inputs[0].shallow_clone()]))
        .backward(|_, grads, _| Ok(vec![grads[0].as_ref().map(|dy| dy * 3.0)]));
    let (x, _) = operands();
    let y = autograd::apply(identity, &[&x])?.remove(0);
    y.sum(None::<Kind>).backward();
    assert!(values(&x.grad()).iter().all(|&dx| dx == 3.0), "the custom gradient was not used");
    Ok(())
}

#[test]
fn an_input_without_gradient_gets_none() -> TestResult {
    let half = Custom::<1>::product()
        .backward(|saved, grads, _| Ok(vec![grads[0].as_ref().map(|dy| dy * &saved[1]), None]));
    let (x, w) = operands();
    autograd::apply(half, &[&x, &w])?[0].sum(None::<Kind>).backward();
    assert_eq!(values(&x.grad()), values(&w));
    assert!(!w.grad().defined(), "a gradient of None became a tensor");
    Ok(())
}

#[test]
fn an_output_that_nothing_depends_on_brings_no_gradient() -> TestResult {
    let twice = Custom::<2>::product()
        .forward(|inputs, _| Ok(vec![&inputs[0] + &inputs[1], &inputs[0] - &inputs[1]]))
        .backward(|_, grads, _| match grads {
            [None, Some(dy)] => Ok(vec![Some(dy.shallow_clone()), Some(-dy)]),
            _ => Err(failure("the wrong gradients arrived")),
        });
    let (x, w) = operands();
    let outputs = autograd::apply(twice, &[&x, &w])?;
    outputs[1].sum(None::<Kind>).backward();
    assert!(values(&w.grad()).iter().all(|&dw| dw == -1.0));
    Ok(())
}

#[test]
fn needs_grad_says_which_inputs_want_one() -> TestResult {
    for wanted in [[true, false], [false, true], [true, true]] {
        let probe = Custom::<1>::product().backward(move |saved, grads, needs_grad| {
            if needs_grad != wanted {
                return Err(failure(&format!("needs_grad is {needs_grad:?}, not {wanted:?}")));
            }
            Ok(vec![grads[0].as_ref().map(|dy| dy * &saved[1]), None])
        });
        let (x, w) = operands();
        let [x, w] = [(x, wanted[0]), (w, wanted[1])].map(|(t, r)| t.detach().set_requires_grad(r));
        let y = autograd::apply(probe, &[&x, &w])?.remove(0);
        y.sum(None::<Kind>).f_backward()?;
    }
    Ok(())
}

#[test]
fn without_recording_there_is_no_graph() -> TestResult {
    let (x, w) = operands();
    let function = Custom::<1>::product();
    let dropped = function.dropped.clone();
    let y = tch::no_grad(|| autograd::apply(function, &[&x, &w]))?.remove(0);
    assert!(!y.requires_grad());
    assert_eq!(dropped.load(Ordering::SeqCst), 1, "nothing can need the function any more");

    let (x, w) = (x.detach(), w.detach());
    let y = autograd::apply(Custom::<1>::product(), &[&x, &w])?.remove(0);
    assert!(!y.requires_grad(), "no input asked for a gradient");
    Ok(())
}

#[test]
fn backward_may_run_on_another_thread() -> TestResult {
    let (x, w) = operands();
    let y = autograd::apply(Custom::<1>::product(), &[&x, &w])?.remove(0);
    let loss = y.sum(None::<Kind>);
    thread::spawn(move || loss.f_backward()).join().expect("no panic")?;
    assert_eq!(values(&x.grad()), values(&w));
    Ok(())
}

#[test]
fn an_error_arrives_with_its_message() -> TestResult {
    let (x, w) = operands();
    let refuses = Custom::<1>::product().forward(|_, _| Err(failure("forward refused: 41")));
    let message = message_of(autograd::apply(refuses, &[&x, &w]));
    assert!(message.contains("forward refused: 41"), "{message}");

    let refuses = Custom::<1>::product().backward(|_, _, _| Err(failure("backward refused: 42")));
    let message = backward_error(&autograd::apply(refuses, &[&x, &w])?[0]);
    assert!(message.contains("backward refused: 42"), "{message}");
    Ok(())
}

#[test]
fn a_panic_arrives_as_an_error() -> TestResult {
    let (x, w) = operands();
    let panics = Custom::<1>::product().forward(|_, _| panic!("forward panicked: {}", 43));
    let message = message_of(autograd::apply(panics, &[&x, &w]));
    assert!(message.contains("panic: forward panicked: 43"), "{message}");
    let panics = Custom::<1>::product().forward(|_, _| panic!("unrecorded"));
    let message = message_of(tch::no_grad(|| autograd::apply(panics, &[&x, &w])));
    assert!(message.contains("panic: unrecorded"), "{message}");

    let panics = Custom::<1>::product().backward(|_, _, _| panic!("backward panicked"));
    let message = backward_error(&autograd::apply(panics, &[&x, &w])?[0]);
    assert!(message.contains("panic: backward panicked"), "{message}");
    Ok(())
}

#[test]
fn the_wrong_number_of_outputs_is_an_error() {
    let (x, w) = operands();
    for returned in [0_usize, 1, 3] {
        let function = || {
            Custom::<2>::product()
                .forward(move |inputs, _| Ok((0..returned).map(|_| &inputs[0] * 2.0).collect()))
        };
        let expected = format!("{returned} outputs were returned, 2 declared");
        for message in [
            message_of(autograd::apply(function(), &[&x, &w])),
            message_of(tch::no_grad(|| autograd::apply(function(), &[&x, &w]))),
        ] {
            assert!(message.contains(&expected), "{returned} outputs: {message}");
        }
    }
}

#[test]
fn the_wrong_number_of_gradients_is_an_error() -> TestResult {
    let (x, w) = operands();
    for returned in [0_usize, 1, 3] {
        let function = Custom::<1>::product().backward(move |_, grads, _| {
            Ok((0..returned).map(|_| grads[0].as_ref().map(Tensor::shallow_clone)).collect())
        });
        let message = backward_error(&autograd::apply(function, &[&x, &w])?[0]);
        let expected = format!("{returned} gradients were returned for 2 inputs");
        assert!(message.contains(&expected), "{message}");
    }
    Ok(())
}

#[test]
fn a_gradient_of_another_shape_is_an_error() -> TestResult {
    let (x, w) = operands();
    let function = Custom::<1>::product()
        .backward(|_, _, _| Ok(vec![Some(tensor(&[5], Kind::Double, 3)), None]));
    let message = backward_error(&autograd::apply(function, &[&x, &w])?[0]);
    assert!(message.contains("invalid gradient"), "{message}");
    Ok(())
}

#[test]
fn an_undefined_input_is_an_error() {
    let (x, _) = operands();
    let message = message_of(autograd::apply(Custom::<1>::product(), &[&x, &Tensor::new()]));
    assert!(message.contains("input 1"), "{message}");
}

#[test]
fn a_second_derivative_is_refused() -> TestResult {
    let (x, w) = operands();
    let y = autograd::apply(Custom::<1>::product(), &[&x, &w])?.remove(0);
    let result = Tensor::f_run_backward(&[y.sum(None::<Kind>)], &[&x], true, true);
    let message = result.expect_err("create_graph should be refused").to_string();
    assert!(message.contains("no second derivative"), "{message}");
    Ok(())
}

#[test]
fn a_saved_tensor_that_was_changed_is_an_error() -> TestResult {
    let (x, w) = operands();
    let y = autograd::apply(Custom::<1>::product(), &[&x, &w])?.remove(0);
    let _ = tch::no_grad(|| w.shallow_clone().fill_(0.0));
    let message = backward_error(&y);
    assert!(message.contains("modified by an inplace operation"), "{message}");
    Ok(())
}

#[test]
fn a_graph_can_be_walked_twice_if_it_is_kept_and_only_then() -> TestResult {
    let (x, w) = operands();
    let loss = autograd::apply(Custom::<1>::product(), &[&x, &w])?[0].sum(None::<Kind>);
    let first = Tensor::f_run_backward(&[&loss], &[&x], true, false)?;
    let second = Tensor::f_run_backward(&[&loss], &[&x], false, false)?;
    assert_eq!(values(&first[0]), values(&second[0]));
    let third = Tensor::f_run_backward(&[&loss], &[&x], false, false);
    assert!(third.is_err(), "the saved tensors are gone");
    Ok(())
}

#[test]
fn the_function_is_dropped_once_with_its_graph() -> TestResult {
    let (x, w) = operands();
    // It saves its own output too: the graph must not keep itself alive.
    let function = Custom::<1>::product()
        .forward(|inputs, saved| {
            let y = &inputs[0] * &inputs[1];
            saved.push(&y);
            Ok(vec![y])
        })
        .backward(|saved, _, _| Ok(vec![Some(saved[0].shallow_clone()), None]));
    let dropped = function.dropped.clone();
    let count = || dropped.load(Ordering::SeqCst);

    let y = autograd::apply(function, &[&x, &w])?.remove(0);
    let loss = y.sum(None::<Kind>);
    loss.backward();
    assert_eq!(count(), 0, "the graph is still reachable");
    drop(loss);
    assert_eq!(count(), 0, "y still holds the graph");
    drop(y);
    assert_eq!(count(), 1);
    drop((x, w));
    assert_eq!(count(), 1);
    Ok(())
}

#[test]
fn the_function_is_dropped_once_if_it_fails() -> TestResult {
    let (x, w) = operands();
    let fails = Custom::<1>::product().forward(|_, _| Err(failure("no")));
    let too_many = Custom::<1>::product().forward(|i, _| Ok(vec![i[0].copy(), i[1].copy()]));
    let panics = Custom::<1>::product().forward(|_, _| panic!("no"));
    for function in [fails, too_many, panics] {
        let dropped = function.dropped.clone();
        assert!(autograd::apply(function, &[&x, &w]).is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    }

    let fails = Custom::<1>::product().backward(|_, _, _| Err(failure("no")));
    let dropped = fails.dropped.clone();
    let y = autograd::apply(fails, &[&x, &w])?.remove(0);
    assert!(y.sum(None::<Kind>).f_backward().is_err());
    drop(y);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    Ok(())
}
