//! What the tests share: reproducible data, comparisons with derived tolerances, gradients.

// Every test file uses its own part.
#![allow(dead_code, unused_imports)]

mod compare;
mod data;
mod difference;
mod gradients;

pub(crate) use compare::{
    assert_bits, assert_close, assert_close_at_scale, assert_operand, largest, tolerance, values,
};
pub(crate) use data::{fill_parameters, leaf, tensor, uniform};
pub(crate) use difference::assert_gradient;
pub(crate) use gradients::{gradients, weighted_sum};

/// What a test returns, so that it can use `?`.
pub(crate) type TestResult = Result<(), Box<dyn std::error::Error>>;
