//! One token at a time, for decoding.

use crate::error::check_len;
use crate::{ScanElement, ScanError};

/// One step of the recurrence, in place: `h <- a h + b`.
///
/// # Shapes
/// `a`, `b`, `h`: the same number of elements, `[B, C]` for a batch.
///
/// # Errors
/// [`ScanError::Length`] if the lengths differ; `h` is then untouched.
///
/// ```
/// let mut h = [1.0_f32, -1.0];
/// gateloop_scan::step(&[0.5, 0.5], &[1.0, 2.0], &mut h)?;
/// assert_eq!(h, [1.5, 1.5]);
/// # Ok::<(), gateloop_scan::ScanError>(())
/// ```
pub fn step<E: ScanElement>(a: &[E], b: &[E], h: &mut [E]) -> Result<(), ScanError> {
    check_len("a", "[B, C]", a.len(), h.len())?;
    check_len("b", "[B, C]", b.len(), h.len())?;
    for ((h, &a), &b) in h.iter_mut().zip(a).zip(b) {
        *h = a * *h + b;
    }
    Ok(())
}
