//! Comparisons. Every tolerance is `Tolerance::K` * eps * sqrt(steps), relative to the largest
//! expected value; a test says how many rounding errors a value gathers, never how far it may be.

use gateloop_nn::NnError;
use gateloop_scan::Tolerance;
use tch::{Kind, Tensor};

/// The tolerance for values of `kind` that each gather `steps` rounding errors.
pub(crate) fn tolerance(kind: Kind, steps: i64) -> Tolerance {
    match kind {
        Kind::Float | Kind::ComplexFloat => Tolerance::of::<f32>(steps as usize),
        Kind::Double | Kind::ComplexDouble => Tolerance::of::<f64>(steps as usize),
        other => panic!("no tolerance is defined for {other:?}"),
    }
}

/// The elements in row-major order; a complex one as its two parts.
pub(crate) fn values(tensor: &Tensor) -> Vec<f64> {
    let tensor = tensor.detach().resolve_conj();
    let real = if tensor.is_complex() { tensor.view_as_real() } else { tensor };
    Vec::try_from(real.to_kind(Kind::Double).contiguous().view(-1)).expect("a flat f64 tensor")
}

/// Panics, naming `what`, unless the shapes are equal and no element is off by more than allowed.
#[track_caller]
pub(crate) fn assert_close(what: &str, actual: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    assert_close_at_scale(what, actual, expected, largest(expected), tolerance);
}

/// [`assert_close`] for a value that is a difference of larger ones, of size `scale`.
#[track_caller]
pub(crate) fn assert_close_at_scale(
    what: &str,
    actual: &Tensor,
    expected: &Tensor,
    scale: f64,
    tolerance: Tolerance,
) {
    assert_eq!(actual.size(), expected.size(), "{what}: shape");
    let (actual, expected) = (values(actual), values(expected));
    assert!(expected.iter().all(|x| x.is_finite()), "{what}: the expected values are not finite");
    if let Err(mismatch) = tolerance.check(&actual, &expected, &vec![scale; expected.len()]) {
        panic!("{what}: {mismatch}");
    }
}

/// The largest modulus of a number, or of a part of a complex one.
pub(crate) fn largest(tensor: &Tensor) -> f64 {
    values(tensor).into_iter().fold(0.0, |largest, x| x.abs().max(largest))
}

/// Panics, naming `what`, unless the two hold the same bits.
#[track_caller]
pub(crate) fn assert_bits(what: &str, actual: &Tensor, expected: &Tensor) {
    assert_eq!(actual.size(), expected.size(), "{what}: shape");
    let bits = |t: &Tensor| values(t).into_iter().map(f64::to_bits).collect::<Vec<_>>();
    let (actual, expected) = (bits(actual), bits(expected));
    let differing = actual.iter().zip(&expected).filter(|(a, x)| a != x).count();
    assert_eq!(differing, 0, "{what}: {differing} of {} elements differ", actual.len());
}

/// Panics unless the result is an error that names this operand.
#[track_caller]
pub(crate) fn assert_operand<T>(result: Result<T, NnError>, name: &str) {
    match result {
        Ok(_) => panic!("`{name}` was taken, but should have been refused"),
        Err(
            NnError::Shape { operand, .. }
            | NnError::Kind { operand, .. }
            | NnError::Device { operand, .. },
        ) => assert_eq!(operand, name),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains(&format!("`{name}`")), "`{name}` is not named: {message}");
        }
    }
}
