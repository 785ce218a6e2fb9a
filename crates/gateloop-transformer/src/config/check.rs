//! Range checks that name the key, the value and what is allowed.

use std::fmt::Display;

use super::ConfigError;

/// Errs with the key, the value and the allowed range unless `holds`.
pub(super) fn check(
    holds: bool,
    key: &'static str,
    value: impl Display,
    allowed: &'static str,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { key, value: value.to_string(), allowed })
    }
}

/// A count of things of which there must be at least one.
pub(super) fn positive(key: &'static str, value: usize) -> Result<(), ConfigError> {
    // Sizes become libtorch's signed 64-bit ones; products of a few of them should still fit.
    check((1..=1 << 40).contains(&value), key, value, "1 or more (and less than 2^40)")
}

/// A fraction, both ends included.
pub(super) fn fraction(key: &'static str, value: f64) -> Result<(), ConfigError> {
    check((0.0..=1.0).contains(&value), key, value, "0 to 1")
}

/// A seed; TOML's integers are signed, so the upper half of `u64` could not be written back.
pub(super) fn seed(key: &'static str, value: u64) -> Result<(), ConfigError> {
    check(i64::try_from(value).is_ok(), key, value, "0 to 2^63 - 1")
}
