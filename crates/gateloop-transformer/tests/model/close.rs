//! How close two ways to run a model have to come.

use crate::common::values;
use gateloop_scan::Tolerance;
use tch::Tensor;

/// Compares two f64 results of a model over `steps` tokens.
///
/// A token passes four sums of about a hundred terms in each of a few layers, and the norms between
/// them divide by sums again: sixteen stages that round alike.
pub(crate) fn assert_close(actual: &Tensor, expected: &Tensor, steps: i64) {
    const STAGES: f64 = 16.0;
    assert_eq!(actual.size(), expected.size());
    let tolerance = Tolerance::of::<f64>(steps as usize * 128).times(STAGES);
    tolerance.check_uniform(&values(actual), &values(expected)).unwrap();
}
