//! The log-space scan of Heinsen, "Efficient Parallelization of a Ubiquitous Sequential
//! Computation", [arXiv 2311.06281](https://arxiv.org/abs/2311.06281).
//!
//! The paper writes `log h = A + logcumsumexp(log b - A)` with `A = cumsum(log a)`. Taken
//! literally that fails: one zero decay makes `A` minus infinity for ever and the difference NaN,
//! and the growth of `|A|` eats the digits of `log b - A` (over 4,096 tokens of f32, all but
//! four). Here the two sums are evaluated together, by Horner's rule:
//!
//! ```text
//! log h[t] = logaddexp( log a[t] + log h[t-1],  log b[t] )
//! ```
//!
//! so `A` is never formed, a zero decay is a term of weight zero, and nothing grows with T. Signs
//! (phases, for complex numbers) travel beside the logarithm as units; zero is `-inf` with
//! direction 0. Only differences to the larger of two logarithms, which are never positive, are
//! exponentiated on the way; the last `exp` turns `log h` into the output.
//!
//! An absolute error of a logarithm is a relative error of the number: rounding `log 1e-266 = -612`
//! to double precision loses 600 times what rounding the number does. So logarithms are kept in
//! double precision whatever the element, with what their rounding leaves beside them.

use crate::element::sealed::Polar;
use crate::run::for_each_run;
use crate::{Scan, ScanElement};

/// Writes every state of `scan` to `h`.
pub(crate) fn scan<E: ScanElement>(scan: &Scan<'_, E>, h: &mut [E]) {
    let mut state = vec![LogNumber::<E::Direction>::ZERO; scan.shape().channels];
    for_each_run(scan, h, |run, mut h| {
        for position in 0..run.a.len() {
            let (a, b) = (run.a.get(position), run.b.get(position));
            let before = if position == 0 { run.initial } else { None };
            let nothing_before = position == 0 && run.initial.is_none();
            for (c, out) in h.get_mut(position).iter_mut().enumerate() {
                if let Some(initial) = before {
                    state[c] = LogNumber::of(initial[c]);
                }
                let input = LogNumber::of(b[c]);
                state[c] = if nothing_before {
                    input
                } else {
                    LogNumber::of(a[c]).times(state[c]).plus(input)
                };
                *out = state[c].number();
            }
        }
    });
}

/// `exp(log + rest) * direction`, with `rest` below the spacing of `log`.
#[derive(Debug, Clone, Copy)]
struct LogNumber<D> {
    log: f64,
    rest: f64,
    direction: D,
}

impl<D: ScanElement> LogNumber<D> {
    const ZERO: Self = Self { log: f64::NEG_INFINITY, rest: 0.0, direction: D::ZERO };

    fn of<E: ScanElement<Direction = D>>(x: E) -> Self {
        let (log, direction) = x.to_polar();
        let rounded = log.exp();
        // How far the number is from what its rounded logarithm stands for.
        let rest = if rounded.is_normal() { x.modulus() / rounded - 1.0 } else { 0.0 };
        Self { log, rest, direction }
    }

    fn number<E: Polar<Direction = D>>(self) -> E {
        E::from_polar(self.log, self.direction.weigh(1.0 + self.rest))
    }

    fn times(self, other: Self) -> Self {
        let (log, lost) = two_sum(self.log, other.log);
        let rest = self.rest + other.rest + lost;
        Self { log, rest, direction: self.direction * other.direction }
    }

    /// The signed log-sum-exp of two terms.
    fn plus(self, other: Self) -> Self {
        let (large, small) = if self.log >= other.log { (self, other) } else { (other, self) };
        // Also keeps -inf - -inf out of the exponent when both terms are zero.
        if small.log == f64::NEG_INFINITY {
            return large;
        }
        let weight = ((small.log - large.log) + (small.rest - large.rest)).exp();
        let sum = large.direction + small.direction.weigh(weight);
        let modulus = sum.modulus();
        if modulus == 0.0 {
            return Self::ZERO;
        }
        let (log, lost) = two_sum(large.log, modulus.ln());
        Self { log, rest: large.rest + lost, direction: sum.shrink(modulus) }
    }
}

/// A sum, and exactly what its rounding lost (Knuth, The Art of Computer Programming, 4.2.2); 0 for
/// a sum that is not finite.
fn two_sum(x: f64, y: f64) -> (f64, f64) {
    let sum = x + y;
    let y_part = sum - x;
    let lost = (x - (sum - y_part)) + (y - y_part);
    (sum, if sum.is_finite() { lost } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::LogNumber;

    #[test]
    fn opposite_terms_cancel_to_an_exact_zero() {
        let sum = LogNumber::of(3.0_f64).plus(LogNumber::of(-3.0));
        assert_eq!((sum.log, sum.direction), (f64::NEG_INFINITY, 0.0));
    }

    #[test]
    fn zero_is_the_unit_of_addition_and_absorbs_products() {
        let zero = LogNumber::of(0.0_f32);
        let x = LogNumber::of(-0.7_f32);
        assert_eq!((zero.plus(x).log, zero.plus(x).direction), (x.log, x.direction));
        assert_eq!(zero.times(x).log, f64::NEG_INFINITY);
        assert_eq!(zero.plus(zero).log, f64::NEG_INFINITY);
    }

    #[test]
    fn a_product_of_many_decays_keeps_its_digits() {
        let decay = LogNumber::of(0.5_f64);
        let product = (0..1000).fold(LogNumber::of(1.0), |product, _| decay.times(product));
        let exact = 0.5_f64.powi(1000);
        let error = (product.number::<f64>() - exact).abs() / exact;
        // A thousand equal decays: each is known to one spacing, and the errors all point one way.
        assert!(error <= 1000.0 * f64::EPSILON, "{error}");
    }

    #[test]
    fn a_nan_is_not_lost() {
        let nan = LogNumber::of(f64::NAN);
        assert!(nan.plus(LogNumber::of(0.0)).log.is_nan() || nan.direction.is_nan());
        assert!(LogNumber::of(1.0).plus(nan).log.is_nan());
    }
}
