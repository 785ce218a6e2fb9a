//! What all tests share.

use tch::{Kind, Tensor};

pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;

/// The elements of a real tensor in f64.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}
