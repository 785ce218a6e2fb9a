//! The numbers a scan runs over.

use core::fmt::Debug;
use core::ops::{Add, Mul, Neg, Sub};

use num_complex::Complex;

/// A number that can be scanned: `f32`, `f64`, `Complex<f32>` or `Complex<f64>`.
///
/// The trait is sealed. The algorithms rely on the arithmetic being plain IEEE (so that a result
/// does not depend on the instruction set) and on the values being plain data without padding.
pub trait ScanElement:
    Copy
    + Debug
    + Default
    + PartialEq
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Neg<Output = Self>
    + sealed::Polar
    + sealed::Chunked
    + sealed::InLines
{
    /// The type's name as in error messages and benchmark tables.
    const NAME: &'static str;
    /// The additive unit.
    const ZERO: Self;
    /// The multiplicative unit.
    const ONE: Self;
    /// Distance from 1 to the next real number of this precision.
    const EPSILON: f64;
    /// Smallest positive normal real number of this precision.
    const MIN_POSITIVE: f64;

    /// Complex conjugate; a real number itself.
    #[must_use]
    fn conj(self) -> Self;
    /// Absolute value, in double precision.
    fn modulus(self) -> f64;
    /// Whether no part is infinite or NaN.
    fn is_finite(self) -> bool;
    /// The same number as a double precision complex number.
    fn widen(self) -> Complex<f64>;
    /// The nearest element; a real element keeps the real part only.
    fn narrow(value: Complex<f64>) -> Self;
}

pub(crate) mod sealed {
    use super::ScanElement;
    use crate::adjoint::{ScanGrads, Upstream};
    pub(crate) use crate::chunked::line::InLines;
    use crate::problem::Scan;

    /// The fast path of a concrete element. It is compiled with this crate, once, and not again by every
    /// crate that scans.
    pub trait Chunked: Sized {
        /// Writes every state of `scan` to `h`.
        fn scan(scan: &Scan<'_, Self>, h: &mut [Self])
        where
            Self: ScanElement;
        /// Writes factors and offsets of the map from the state before each sequence to that after it.
        fn reduce(scan: &Scan<'_, Self>, maps: [&mut [Self]; 2])
        where
            Self: ScanElement;
        /// Writes those of the map from the gradient of the state after each sequence to that of the state before it.
        fn reduce_adjoint(scan: &Scan<'_, Self>, dh: &[Self], maps: [&mut [Self]; 2])
        where
            Self: ScanElement;
        /// Writes the gradients of `scan` to `grads`.
        fn adjoint(scan: &Scan<'_, Self>, upstream: Upstream<'_, Self>, grads: ScanGrads<'_, Self>)
        where
            Self: ScanElement;
    }

    /// A number as `exp(log) * direction`, in double precision whatever the element.
    pub trait Polar: Sized {
        /// Sign of a real number, unit phase of a complex one.
        type Direction: ScanElement;
        /// `(log|x|, x / |x|)`; zero is `(-inf, 0)`.
        fn to_polar(self) -> (f64, Self::Direction);
        /// `exp(log) * direction`.
        fn from_polar(log: f64, direction: Self::Direction) -> Self;
        /// Division by a real number.
        fn shrink(self, divisor: f64) -> Self;
        /// Multiplication with a real number.
        fn weigh(self, factor: f64) -> Self;
    }
}

macro_rules! real_element {
    ($real:ident, $complex_name:literal) => {
        impl ScanElement for $real {
            const NAME: &'static str = stringify!($real);
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const EPSILON: f64 = $real::EPSILON as f64;
            const MIN_POSITIVE: f64 = $real::MIN_POSITIVE as f64;

            #[inline]
            fn conj(self) -> Self {
                self
            }
            #[inline]
            fn modulus(self) -> f64 {
                f64::from(self.abs())
            }
            #[inline]
            fn is_finite(self) -> bool {
                $real::is_finite(self)
            }
            #[inline]
            fn widen(self) -> Complex<f64> {
                Complex::new(f64::from(self), 0.0)
            }
            #[inline]
            fn narrow(value: Complex<f64>) -> Self {
                value.re as $real
            }
        }

        impl sealed::Polar for $real {
            type Direction = f64;

            fn to_polar(self) -> (f64, f64) {
                let x = f64::from(self);
                let sign = if x == 0.0 { 0.0 } else { x.signum() };
                (x.abs().ln(), sign)
            }
            fn from_polar(log: f64, direction: f64) -> Self {
                (log.exp() * direction) as $real
            }
            fn shrink(self, divisor: f64) -> Self {
                (f64::from(self) / divisor) as $real
            }
            fn weigh(self, factor: f64) -> Self {
                (f64::from(self) * factor) as $real
            }
        }

        impl ScanElement for Complex<$real> {
            const NAME: &'static str = $complex_name;
            const ZERO: Self = Complex { re: 0.0, im: 0.0 };
            const ONE: Self = Complex { re: 1.0, im: 0.0 };
            const EPSILON: f64 = $real::EPSILON as f64;
            const MIN_POSITIVE: f64 = $real::MIN_POSITIVE as f64;

            #[inline]
            fn conj(self) -> Self {
                Complex { re: self.re, im: -self.im }
            }
            #[inline]
            fn modulus(self) -> f64 {
                f64::from(self.re).hypot(f64::from(self.im))
            }
            #[inline]
            fn is_finite(self) -> bool {
                self.re.is_finite() && self.im.is_finite()
            }
            #[inline]
            fn widen(self) -> Complex<f64> {
                Complex::new(f64::from(self.re), f64::from(self.im))
            }
            #[inline]
            fn narrow(value: Complex<f64>) -> Self {
                Complex::new(value.re as $real, value.im as $real)
            }
        }

        impl sealed::Polar for Complex<$real> {
            type Direction = Complex<f64>;

            fn to_polar(self) -> (f64, Complex<f64>) {
                let modulus = self.modulus();
                if modulus == 0.0 {
                    return (f64::NEG_INFINITY, ScanElement::ZERO);
                }
                (modulus.ln(), self.widen().unscale(modulus))
            }
            fn from_polar(log: f64, direction: Complex<f64>) -> Self {
                Self::narrow(direction.scale(log.exp()))
            }
            fn shrink(self, divisor: f64) -> Self {
                Self::narrow(self.widen().unscale(divisor))
            }
            fn weigh(self, factor: f64) -> Self {
                Self::narrow(self.widen().scale(factor))
            }
        }
    };
}

real_element!(f32, "complex64");
real_element!(f64, "complex128");
