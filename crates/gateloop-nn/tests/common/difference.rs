//! Finite differences, the gradient oracle that knows nothing of calculus.

use super::compare::{largest, values};
use super::gradients::gradients;
use gateloop_scan::Tolerance;
use tch::{Kind, Tensor};

/// A central difference with step h is off by h^2 |f'''| / 6 + eps |f| / h. The step eps^(1/3)
/// balances the two, at eps^(2/3): the spacing that a difference quotient has in f64.
fn step() -> f64 {
    f64::EPSILON.cbrt()
}

/// `steps` is the number of terms that the loss sums up: each brings its own f and f'''.
fn difference_tolerance(steps: usize) -> Tolerance {
    Tolerance::with_epsilon(step().powi(2), f64::MIN_POSITIVE, steps)
}

/// Compares the gradient of `loss` with difference quotients, element by element, for every leaf.
///
/// The leaves are Double or `ComplexDouble` tensors that require a gradient; they are changed and
/// restored, so `loss` must read them anew at every call.
#[track_caller]
pub(crate) fn assert_gradient(
    what: &str,
    leaves: &[(&str, &Tensor)],
    steps: usize,
    loss: impl Fn() -> Tensor,
) {
    let tensors: Vec<&Tensor> = leaves.iter().map(|(_, leaf)| *leaf).collect();
    let at_point = loss();
    let analytic = gradients(&at_point, &tensors);
    // A quotient rounds as the loss does, however small the derivative.
    let scale = analytic.iter().map(largest).fold(largest(&at_point), f64::max);
    for ((name, leaf), gradient) in leaves.iter().zip(&analytic) {
        let measured = quotients(leaf, &loss);
        let analytic = values(gradient);
        let scales = vec![scale; measured.len()];
        if let Err(mismatch) = difference_tolerance(steps).check(&analytic, &measured, &scales) {
            panic!("{what}: gradient of {name}: {mismatch}");
        }
    }
}

/// The difference quotient for every element, for both parts of a complex one.
fn quotients(leaf: &Tensor, loss: &impl Fn() -> Tensor) -> Vec<f64> {
    let _no_grad = tch::no_grad_guard();
    let view = if leaf.is_complex() { leaf.view_as_real() } else { leaf.shallow_clone() };
    let flat = view.detach().view(-1);
    let h = step();
    let at = |index: i64, x: f64| {
        let _ = flat.get(index).fill_(x);
        loss().to_kind(Kind::Double).double_value(&[])
    };
    (0..flat.size()[0])
        .map(|index| {
            let x = flat.double_value(&[index]);
            let quotient = (at(index, x + h) - at(index, x - h)) / (2.0 * h);
            let _ = flat.get(index).fill_(x);
            quotient
        })
        .collect()
}
