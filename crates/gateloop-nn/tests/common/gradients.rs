//! Gradients by libtorch's backward pass.

use super::data::tensor;
use tch::{Kind, Tensor};

/// The derivatives of `loss` with respect to `leaves`, which it must all depend on.
pub(crate) fn gradients(loss: &Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
    Tensor::run_backward(&[loss], leaves, false, false)
}

/// A real number in which every element of `tensor` counts with another weight, of either sign.
pub(crate) fn weighted_sum(tensor: &Tensor, seed: u64) -> Tensor {
    let real = if tensor.is_complex() { tensor.view_as_real() } else { tensor.shallow_clone() };
    let weights = weights(&real.size(), real.kind(), seed);
    (real * weights).sum(None::<Kind>)
}

/// Weights of modulus 0.5 to 1.5: none so small that it hides an error.
fn weights(shape: &[i64], kind: Kind, seed: u64) -> Tensor {
    let x = tensor(shape, kind, seed);
    x.sign() * (x.abs() + 0.5)
}
