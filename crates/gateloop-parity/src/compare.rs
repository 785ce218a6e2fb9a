//! The measure of a difference.

use crate::error::ParityError;
use tch::{Kind, Tensor};

/// What a difference that no number expresses counts as.
pub(crate) const BEYOND: f64 = 1e30;

/// rms(actual - expected) / rms(expected); [`BEYOND`] where the shapes differ, where something is not
/// finite, or where zero is expected and something else comes.
pub(crate) fn relative_rms(actual: &Tensor, expected: &Tensor) -> Result<f64, ParityError> {
    if actual.size() != expected.size() {
        return Ok(BEYOND);
    }
    let (actual, expected) = (actual.f_to_kind(Kind::Double)?, expected.f_to_kind(Kind::Double)?);
    let rms = |x: &Tensor| -> Result<f64, ParityError> {
        // Scaled by the largest, whose square need not be a number.
        let largest = x.f_abs()?.f_max()?.f_double_value(&[])?;
        if largest == 0.0 || !largest.is_finite() {
            return Ok(largest);
        }
        let squares = x.f_div_scalar(largest)?.f_square()?;
        Ok(largest * squares.f_mean(Kind::Double)?.f_double_value(&[])?.sqrt())
    };
    let difference = rms(&actual.f_sub(&expected)?)?;
    Ok(match rms(&expected)? {
        _ if difference == 0.0 => 0.0,
        0.0 => BEYOND,
        scale if (difference / scale).is_finite() => difference / scale,
        _ => BEYOND,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    fn error(actual: &[f64], expected: &[f64]) -> f64 {
        relative_rms(&Tensor::from_slice(actual), &Tensor::from_slice(expected)).unwrap()
    }

    #[test]
    fn it_is_the_rms_of_the_difference_in_units_of_what_was_expected() {
        assert_eq!(error(&[3.0, 4.0], &[3.0, 4.0]), 0.0);
        assert!((error(&[3.0, 4.5], &[3.0, 4.0]) - 0.1).abs() < 1e-15);
        assert!((error(&[3e200, 4.5e200], &[3e200, 4e200]) - 0.1).abs() < 1e-15);
    }

    #[test]
    fn what_no_number_expresses_is_beyond_every_tolerance() {
        assert_eq!(error(&[0.0, 1e-300], &[0.0, 0.0]), BEYOND);
        assert_eq!(error(&[f64::NAN, 4.0], &[3.0, 4.0]), BEYOND);
        assert_eq!(error(&[f64::INFINITY, 4.0], &[3.0, 4.0]), BEYOND);
        assert_eq!(error(&[1.0], &[1.0, 1.0]), BEYOND);
        assert_eq!(error(&[0.0, 0.0], &[0.0, 0.0]), 0.0);
    }
}
