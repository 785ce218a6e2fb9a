//! Real numbers with the functions that a gate needs, in plain arithmetic that vectorises.

use core::ops::{Div, Mul};

use crate::{Complex, ScanElement};

use super::heads::Heads;
use super::heads::vector::InVectors;

/// `f32` or `f64`: the numbers of the fused operators' operands.
///
/// The trait is sealed. Its functions use IEEE arithmetic without contraction, so that a result does
/// not depend on the instruction set.
pub trait Real:
    ScanElement + PartialOrd + Div<Output = Self> + Arithmetic + Mul<Output = Self> + InVectors + Heads
{
}

impl Real for f32 {}
impl Real for f64 {}

/// What generic code cannot say with operators.
pub trait Arithmetic: Sized {
    /// Below this modulus a complex number counts as zero: its direction has no digits left.
    const TINY: Self;
    /// Numbers beyond it are taken for it, so that an infinite number still has a direction, and a
    /// square does not overflow.
    const HUGE: Self;
    /// Below it a sum of squares may have lost digits.
    const SMALL_SQUARE: Self;
    /// The square of what is smaller than the root of that, times this, has not.
    const UP: Self;

    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Magnitude of `self`, sign of `sign`.
    fn copysign(self, sign: Self) -> Self;
    /// `e^x` for `x <= 0`, to about an ulp. What lies below the smallest normal number is that; NaN
    /// stays NaN.
    fn exp_of_negative(self) -> Self;
    /// A complex number of these parts.
    fn complex(re: Self, im: Self) -> Complex<Self>;
}

macro_rules! arithmetic {
    ($real:ident, $log2e:expr, [$ln2_high:expr, $ln2_low:expr], $coefficients:expr,
     $bounds:expr) => {
        impl Arithmetic for $real {
            const TINY: Self = $bounds[0];
            const SMALL_SQUARE: Self = $bounds[1];
            const HUGE: Self = $bounds[2];
            const UP: Self = $bounds[3];

            #[inline(always)]
            fn abs(self) -> Self {
                self.abs()
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn copysign(self, sign: Self) -> Self {
                self.copysign(sign)
            }

            #[inline(always)]
            fn exp_of_negative(self) -> Self {
                const MANTISSA: u32 = <$real>::MANTISSA_DIGITS - 1;
                // 1.5 x 2^MANTISSA: added, it leaves no bits behind the point, and the lowest bits
                // hold the integer.
                const ROUNDER: $real = 1.5 * (1_u64 << MANTISSA) as $real;
                const BIAS: u32 = <$real>::MAX_EXP as u32 - 1;
                // e^x = 2^n e^r with |r| <= ln 2 / 2. The bound keeps 2^n normal.
                const LOWEST: $real = (<$real>::MIN_EXP - 1) as $real / $log2e;
                let x = if self < LOWEST { LOWEST } else { self };
                let shifted = x * $log2e + ROUNDER;
                let n = shifted - ROUNDER;
                // ln 2 in two parts: the product with the first one is exact (Cody and Waite).
                let r = x - n * ($ln2_high) - n * ($ln2_low);
                // The Taylor series: on so short an interval its rest is below half an ulp.
                let mut p: $real = 0.0;
                for c in $coefficients {
                    p = p * r + c;
                }
                let scale =
                    <$real>::from_bits(shifted.to_bits().wrapping_add(BIAS.into()) << MANTISSA);
                p * scale
            }

            #[inline(always)]
            fn complex(re: Self, im: Self) -> Complex<Self> {
                Complex::new(re, im)
            }
        }
    };
}

/// `1/N!` down to `1/0!`.
const fn inverse_factorials<const LEN: usize>() -> [f64; LEN] {
    let mut values = [1.0; LEN];
    let mut factorial = 1.0;
    let mut n = 1;
    while n < LEN {
        factorial *= n as f64;
        values[LEN - 1 - n] = 1.0 / factorial;
        n += 1;
    }
    values
}

const fn narrowed<const LEN: usize>(values: [f64; LEN]) -> [f32; LEN] {
    let mut narrow = [0.0; LEN];
    let mut i = 0;
    while i < LEN {
        narrow[i] = values[i] as f32;
        i += 1;
    }
    narrow
}

const SERIES_F32: [f32; 8] = narrowed(inverse_factorials::<8>());
const SERIES_F64: [f64; 14] = inverse_factorials::<14>();

// The parts of ln 2 are those of Cephes (f32) and fdlibm (f64). UP is 2^70, and 2^510.
arithmetic!(
    f32,
    core::f32::consts::LOG2_E,
    [355.0 / 512.0, -2.121_944_4e-4],
    SERIES_F32,
    [1e-37, 1e-28, 1e18, 1_180_591_620_717_411_303_424.0]
);
arithmetic!(
    f64,
    core::f64::consts::LOG2_E,
    [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10],
    SERIES_F64,
    [1e-307, 1e-290, 1e150, f64::from_bits((1023 + 510) << 52)]
);

#[cfg(test)]
mod tests {
    use super::Arithmetic;

    #[test]
    fn exp_is_right_to_an_ulp_or_two() {
        let (mut worst_f32, mut worst_f64) = (0.0_f64, 0.0_f64);
        for i in 0..200_000 {
            let x = -87.3 * f64::from(i) / 200_000.0;
            let exact = f64::from(x as f32).exp();
            let error = (f64::from((x as f32).exp_of_negative()) - exact) / exact;
            worst_f32 = worst_f32.max(error.abs() / f64::from(f32::EPSILON));
            let x = x * 8.0;
            let error = (x.exp_of_negative() - x.exp()) / x.exp();
            worst_f64 = worst_f64.max(error.abs() / f64::EPSILON);
        }
        assert!(worst_f32 < 1.0 && worst_f64 < 2.0, "{worst_f32} {worst_f64}");
    }

    #[test]
    fn exp_keeps_its_edges() {
        assert_eq!(0.0_f32.exp_of_negative(), 1.0);
        assert_eq!((-0.0_f64).exp_of_negative(), 1.0);
        assert!(f32::NAN.exp_of_negative().is_nan() && f64::NAN.exp_of_negative().is_nan());
        for x in [-100.0, -1e30, f32::NEG_INFINITY] {
            let y = x.exp_of_negative();
            assert!((0.0..=2.0 * f32::MIN_POSITIVE).contains(&y), "{x} {y}");
        }
        assert!(f64::NEG_INFINITY.exp_of_negative() <= 2.0 * f64::MIN_POSITIVE);
    }
}
