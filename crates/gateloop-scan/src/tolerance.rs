//! How far a computed value may be from the exact one.

use core::fmt;

use num_complex::Complex;

use crate::ScanElement;

/// The one tolerance of the workspace: `k * eps * growth(T)`, relative to a scale.
///
/// `eps` is the spacing of the precision in which values are stored, and `growth(T) = sqrt(T)` the
/// size to which `T` independent rounding errors add up (Higham and Mary, "A new approach to
/// probabilistic rounding error analysis", 2019). The scale of a scan is its running magnitude
/// ([`Scan::magnitude`](crate::Scan::magnitude)), never the result itself: where terms cancel, no
/// algorithm keeps digits relative to what is left. `k` is [`Tolerance::K`]; docs/numerics.md
/// says how it was found.
///
/// An absolute allowance for underflow comes on top, of `T` times the smallest subnormal.
///
/// ```
/// use gateloop_scan::Tolerance;
///
/// let tolerance = Tolerance::of::<f32>(100);
/// assert!(tolerance.check(&[1.0_f32 + 1e-6], &[1.0_f64], &[1.0]).is_ok());
///
/// let mismatch = tolerance.check(&[1.0_f32, 1.1], &[1.0_f64, 1.0], &[1.0, 1.0]).unwrap_err();
/// assert_eq!(mismatch.index, 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    factor: f64,
    epsilon: f64,
    growth: f64,
    underflow: f64,
}

impl Tolerance {
    /// The constant `k`.
    pub const K: f64 = 4.0;

    /// For values of type `E` that each gather `steps` rounding errors: `T` for a scan, the inner
    /// dimension for a matrix product.
    pub fn of<E: ScanElement>(steps: usize) -> Self {
        Self::with_epsilon(E::EPSILON, E::MIN_POSITIVE, steps)
    }

    /// For a precision that is not an element of a scan, such as bfloat16 I/O: its spacing at 1
    /// and its smallest positive normal number.
    pub fn with_epsilon(epsilon: f64, min_positive: f64, steps: usize) -> Self {
        let steps = steps.max(1) as f64;
        Self {
            factor: Self::K,
            epsilon,
            growth: steps.sqrt(),
            underflow: steps * epsilon * min_positive,
        }
    }

    /// The same with `factor` times the allowance: for a value that passes through several stages
    /// which round alike. Say at the call which stages.
    pub fn times(self, factor: f64) -> Self {
        Self { factor: self.factor * factor, ..self }
    }

    /// The allowance relative to the scale.
    pub fn relative(&self) -> f64 {
        self.factor * self.epsilon * self.growth
    }

    /// The allowance for a value of the given scale.
    pub fn allowed(&self, scale: f64) -> f64 {
        self.relative() * scale + self.underflow
    }

    /// Compares `actual` with `expected`, element by element, each error against its own scale.
    ///
    /// The two may differ in precision: `expected` is best an `f64` oracle. A NaN matches a NaN
    /// only, an infinity only itself.
    ///
    /// # Errors
    /// The first [`Mismatch`]; one with index `usize::MAX` if the lengths differ.
    pub fn check<A: ScanElement, X: ScanElement>(
        &self,
        actual: &[A],
        expected: &[X],
        scale: &[f64],
    ) -> Result<(), Mismatch> {
        if actual.len() != expected.len() || actual.len() != scale.len() {
            return Err(Mismatch::of_lengths(actual.len(), expected.len(), scale.len()));
        }
        for (index, ((a, x), &scale)) in actual.iter().zip(expected).zip(scale).enumerate() {
            let (actual, expected) = (a.widen(), x.widen());
            let allowed = self.allowed(scale);
            let error = distance(actual, expected);
            // A NaN error or scale fails.
            if error > allowed || error.is_nan() || allowed.is_nan() {
                return Err(Mismatch { index, actual, expected, error, allowed });
            }
        }
        Ok(())
    }

    /// [`Tolerance::check`] with one scale for all: the largest modulus of `expected`. For values
    /// whose running magnitude is not at hand, such as the output of a whole layer.
    pub fn check_uniform<A: ScanElement, X: ScanElement>(
        &self,
        actual: &[A],
        expected: &[X],
    ) -> Result<(), Mismatch> {
        let largest = expected.iter().map(|x| x.modulus()).fold(0.0, f64::max);
        self.check(actual, expected, &vec![largest; expected.len()])
    }

    /// The rule for low precision, where no constant is honest: `actual` may be at most twice as
    /// far from `oracle`, in its largest error, as `plain`, the same computation done plainly in
    /// the same precision. One rounding of the largest value is allowed besides.
    ///
    /// # Errors
    /// The [`Mismatch`] with the largest error.
    pub fn check_against_plain<A: ScanElement, P: ScanElement, X: ScanElement>(
        &self,
        actual: &[A],
        plain: &[P],
        oracle: &[X],
    ) -> Result<(), Mismatch> {
        if actual.len() != oracle.len() || plain.len() != oracle.len() {
            return Err(Mismatch::of_lengths(actual.len(), oracle.len(), plain.len()));
        }
        let largest = oracle.iter().map(|x| x.modulus()).fold(0.0, f64::max);
        let plain_error = worst(plain, oracle).1;
        let allowed = 2.0 * plain_error + self.epsilon * largest;
        let (index, error) = worst(actual, oracle);
        if error <= allowed {
            return Ok(());
        }
        let (actual, expected) = (actual[index].widen(), oracle[index].widen());
        Err(Mismatch { index, actual, expected, error, allowed })
    }

    /// The largest error in units of what is allowed: 1 is the limit, NaN if anything is NaN.
    ///
    /// Slices of different lengths are compared up to the shortest.
    pub fn worst_ratio<A: ScanElement, X: ScanElement>(
        &self,
        actual: &[A],
        expected: &[X],
        scale: &[f64],
    ) -> f64 {
        let ratios = actual.iter().zip(expected).zip(scale).map(|((a, x), &scale)| {
            let error = distance(a.widen(), x.widen());
            if error == 0.0 { 0.0 } else { error / self.allowed(scale) }
        });
        ratios.fold(0.0, |worst, ratio| if ratio > worst || ratio.is_nan() { ratio } else { worst })
    }
}

/// Zero for equal values, equal infinities and two NaNs; NaN if only one is NaN.
fn distance(actual: Complex<f64>, expected: Complex<f64>) -> f64 {
    fn part(actual: f64, expected: f64) -> f64 {
        if actual == expected || (actual.is_nan() && expected.is_nan()) {
            0.0
        } else {
            actual - expected
        }
    }
    part(actual.re, expected.re).hypot(part(actual.im, expected.im))
}

/// Index and size of the largest distance; a NaN counts as the largest.
fn worst<A: ScanElement, X: ScanElement>(actual: &[A], expected: &[X]) -> (usize, f64) {
    let errors = actual.iter().zip(expected).map(|(a, x)| distance(a.widen(), x.widen()));
    errors.enumerate().fold((0, 0.0), |worst, (index, error)| {
        if error > worst.1 || error.is_nan() { (index, error) } else { worst }
    })
}

/// Where two arrays differ by more than a [`Tolerance`] allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mismatch {
    /// Position in the arrays; `usize::MAX` if their lengths differ.
    pub index: usize,
    /// What was computed.
    pub actual: Complex<f64>,
    /// What was expected.
    pub expected: Complex<f64>,
    /// The distance between the two.
    pub error: f64,
    /// The distance that was allowed.
    pub allowed: f64,
}

impl Mismatch {
    /// Lengths stand in for values: there is nothing else to report.
    fn of_lengths(actual: usize, expected: usize, scale: usize) -> Self {
        Self {
            index: usize::MAX,
            actual: Complex::new(actual as f64, 0.0),
            expected: Complex::new(expected as f64, 0.0),
            error: actual.abs_diff(expected).max(actual.abs_diff(scale)) as f64,
            allowed: 0.0,
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, actual, expected, error, allowed } = self;
        if *index == usize::MAX {
            return write!(f, "{} elements, expected {}", actual.re, expected.re);
        }
        write!(
            f,
            "element {index}: {actual}, expected {expected}, error {error:e} > allowed {allowed:e}"
        )
    }
}

impl core::error::Error for Mismatch {}
