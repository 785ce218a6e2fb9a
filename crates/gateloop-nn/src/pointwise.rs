//! What lies between the products of a few rows on the CPU: norm, GELU and gate, in f32.
//!
//! A decoding step has some ten such operations a layer, on a few thousand numbers each. By libtorch each of them
//! takes longer to be called than to be computed, and the threads that multiply the weights wait for it.

// A kernel is compiled for the instruction set of the function that it is inlined into.
#![allow(clippy::inline_always)]

use crate::feed_forward::Gelu;
use crate::matvec::{Isa, Kernel, LANES, dispatch};
use crate::norm::{EPSILON, MIN_LENGTH, RmsNormKind};
use gateloop_scan::gate_loop::Real;
use std::f32::consts::PI;

/// What is made of a few rows before they are multiplied.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before<'a> {
    Nothing,
    Gelu(Gelu),
    /// The product with silu(g), element by element: g, as long as x.
    Swish(&'a [f32]),
    /// Rows divided by their lengths, times sqrt(D) gamma.
    RmsNorm {
        gamma: &'a [f32],
        kind: RmsNormKind,
    },
}

impl Before<'_> {
    /// Of some whole rows `x`, the first number of which is number `first` of all: written to `room`, unless
    /// there is nothing to do.
    pub(crate) fn of<'x>(self, first: usize, x: &'x [f32], room: &'x mut Vec<f32>) -> &'x [f32] {
        if matches!(self, Self::Nothing) {
            return x;
        }
        if room.len() < x.len() {
            room.resize(x.len(), 0.0);
        }
        let y = &mut room[..x.len()];
        match self {
            Self::Nothing => (),
            Self::Gelu(gelu) => dispatch(Activate { x, y, gelu }),
            Self::Swish(g) => dispatch(Swish { y: x, g: &g[first..][..x.len()], out: y }),
            Self::RmsNorm { gamma, kind } => {
                let rows = x.chunks_exact(gamma.len()).zip(y.chunks_exact_mut(gamma.len()));
                for (x, y) in rows {
                    dispatch(Norm { x, gamma, kind, y });
                }
            }
        }
        y
    }
}

/// A function of one number, in arithmetic that vectorises. `of` must be `#[inline(always)]`.
trait Pointwise {
    fn of(&self, x: f32) -> f32;
}

impl Gelu {
    /// Of all numbers, in place: for kernels, whose instructions it is compiled for.
    #[inline(always)]
    pub(crate) fn apply(self, numbers: &mut [f32]) {
        match self {
            Self::Erf => {
                for x in numbers {
                    *x = GeluErf.of(*x);
                }
            }
            Self::Tanh => {
                for x in numbers {
                    *x = GeluTanh.of(*x);
                }
            }
        }
    }
}

struct Activate<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    gelu: Gelu,
}

impl Kernel for Activate<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        self.y.copy_from_slice(self.x);
        self.gelu.apply(self.y);
    }
}

struct Swish<'a> {
    y: &'a [f32],
    g: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Swish<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        for ((out, &y), &g) in self.out.iter_mut().zip(self.y).zip(self.g) {
            *out = y * (g * sigmoid(g));
        }
    }
}

struct Norm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    kind: RmsNormKind,
    y: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) {
        let Self { x, gamma, kind, y } = self;
        // Sums that do not wait for each other, exact but for the last digits of f64.
        let mut sums = [0.0_f64; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for lanes in whole {
            for i in 0..LANES {
                sums[i] += f64::from(lanes[i]) * f64::from(lanes[i]);
            }
        }
        for (sum, &x) in sums.iter_mut().zip(rest) {
            *sum += f64::from(x) * f64::from(x);
        }
        let square: f64 = sums.iter().sum();
        let scale = (gamma.len() as f64).sqrt() as f32;
        match kind {
            RmsNormKind::Clamped => {
                let length = square.sqrt().max(MIN_LENGTH) as f32;
                // `max` drops a NaN.
                let length = if square.is_nan() { f32::NAN } else { length };
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                    *y = x / length * scale * gamma;
                }
            }
            RmsNormKind::Epsilon => {
                let inverse = (1.0 / (square + EPSILON).sqrt()) as f32;
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                    *y = x * inverse * gamma * scale;
                }
            }
        }
    }
}

/// x Phi(x), with Phi the normal distribution.
struct GeluErf;

/// Phi(-x) = e^(-x^2 / 2) t P(t) with t = 1 / (1 + 0.35 x) for x >= 0, a form of Hastings (Approximations for Digital
/// Computers, 1955). P, highest power first, is the Chebyshev interpolation over x from 0 to 14; it is off by 2e-8 of Phi.
const TAIL: [f32; 9] = [
    -0.029_679_522,
    0.146_545_83,
    -0.260_961_23,
    0.165_051,
    -0.027_046_608,
    0.107_114_59,
    0.119_444_92,
    0.139_912_3,
    0.139_618_71,
];

impl Pointwise for GeluErf {
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        let t = 1.0 / (1.0 + 0.35 * x.abs());
        let mut p = 0.0;
        for c in TAIL {
            p = p * t + c;
        }
        let tail = exp_of_negative(-0.5 * x * x) * (t * p);
        x * if x < 0.0 { tail } else { 1.0 - tail }
    }
}

/// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))), the approximation of Hendrycks and Gimpel (arXiv 1606.08415);
/// (1 + tanh u) / 2 is the logistic function of 2 u.
struct GeluTanh;

impl Pointwise for GeluTanh {
    #[inline(always)]
    fn of(&self, x: f32) -> f32 {
        let twice = 2.0 * (2.0 / PI).sqrt();
        x * sigmoid(twice * (x + 0.044_715 * x * x * x))
    }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    let e = exp_of_negative(-x.abs());
    let inverse = 1.0 / (1.0 + e);
    if x < 0.0 { e * inverse } else { inverse }
}

/// e^x for x <= 0; 0 where that is below the normal numbers.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// The gates' exponential, which never is 0.
    #[inline(always)]
    fn positive<R: Real>(x: R) -> R {
        x.exp_of_negative()
    }
    // ln of the smallest normal number.
    if x < -87.33 { 0.0 } else { positive(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Tensor};

    /// The rows of `x`, as a part of more.
    fn part(before: Before<'_>, x: &[f32]) -> Vec<f32> {
        before.of(3, x, &mut vec![f32::NAN; x.len() / 2]).to_vec()
    }

    fn gelu(x: &[f32], gelu: Gelu) -> Vec<f32> {
        part(Before::Gelu(gelu), x)
    }

    fn rms_norm(x: &[f32], gamma: &[f32], kind: RmsNormKind) -> Vec<f32> {
        part(Before::RmsNorm { gamma, kind }, x)
    }

    /// From -20 to 20, and what is not a number like others.
    fn numbers() -> Vec<f32> {
        let waves = (0..20_007).map(|i| 20.0 * (i as f32 * 0.37).sin());
        let special = [0.0, -0.0, 1e-30, -1e-30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e4];
        waves.chain(special).collect()
    }

    fn wide(x: &[f32]) -> Tensor {
        Tensor::from_slice(x).to_kind(Kind::Double)
    }

    fn values(x: &Tensor) -> Vec<f64> {
        x.view(-1).try_into().unwrap()
    }

    /// Within some ulps of the argument's size, as a difference of 1 and Phi is.
    fn assert_near(what: &str, actual: &[f32], expected: &Tensor, sizes: &[f32]) {
        let expected = values(expected);
        assert_eq!(actual.len(), expected.len());
        for ((&actual, &expected), &size) in actual.iter().zip(&expected).zip(sizes) {
            if expected.is_nan() || expected.is_infinite() {
                let same = actual.is_nan() && expected.is_nan() || f64::from(actual) == expected;
                assert!(same, "{what} of {size}: {actual} for {expected}");
                continue;
            }
            let allowed = 4.0 * f64::from(f32::EPSILON) * f64::from(size.abs());
            let off = (f64::from(actual) - expected).abs();
            assert!(off <= allowed, "{what} of {size}: {actual} for {expected}");
        }
    }

    #[test]
    fn activations_are_those_of_double_precision() {
        let x = numbers();
        assert_near("gelu", &gelu(&x, Gelu::Erf), &wide(&x).gelu("none"), &x);
        // Its argument is a sum of a cube, whose error grows with it where the function is still steep.
        assert_near("tanh", &gelu(&x, Gelu::Tanh), &wide(&x).gelu("tanh"), &x);
        let y = vec![1.5; x.len()];
        let gates = [&[f32::NAN; 3][..], &x, &[f32::NAN]].concat();
        let swish = part(Before::Swish(&gates), &y);
        assert_near("swish", &swish, &(wide(&x).silu() * 1.5), &x);
    }

    #[test]
    fn small_numbers_keep_their_digits() {
        let x: Vec<f32> = (1..40).flat_map(|i| [0.5_f32.powi(i), -(0.5_f32.powi(i))]).collect();
        let expected = values(&wide(&x).gelu("none"));
        for (actual, expected) in gelu(&x, Gelu::Erf).iter().zip(expected) {
            let off = (f64::from(*actual) - expected).abs();
            assert!(off <= 8.0 * f64::from(f32::EPSILON) * expected.abs(), "{actual} {expected}");
        }
    }

    #[test]
    fn rows_are_normed_as_in_double_precision() {
        for dim in [1, 15, 16, 33, 512] {
            let rows = 40;
            let sizes = [1.0, 0.0, 1e-20, 3e3];
            let x: Vec<f32> = (0..rows * dim)
                .map(|i| (i as f32 * 0.7).sin() * sizes[i / dim % sizes.len()])
                .collect();
            let gamma: Vec<f32> = (0..dim).map(|i| 1.0 + (i as f32).cos()).collect();
            let (wide_x, wide_gamma) = (wide(&x).view([-1, dim as i64]), wide(&gamma));
            let scale = (dim as f64).sqrt();
            for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
                let expected = match kind {
                    RmsNormKind::Clamped => {
                        let length = wide_x.norm_scalaropt_dim(2.0, [-1i64], true);
                        &wide_x / length.clamp_min(MIN_LENGTH) * scale * &wide_gamma
                    }
                    RmsNormKind::Epsilon => {
                        let square = wide_x.square().sum_dim_intlist(-1i64, true, None::<Kind>);
                        &wide_x * (square + EPSILON).rsqrt() * scale * &wide_gamma
                    }
                };
                let sizes: Vec<f32> = values(&expected).iter().map(|&y| y as f32).collect();
                assert_near("norm", &rms_norm(&x, &gamma, kind), &expected, &sizes);
            }
        }
    }

    #[test]
    fn a_row_with_a_nan_is_nan_and_no_other() {
        let mut x = vec![1.0; 48];
        x[17] = f32::NAN;
        for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
            let y = rms_norm(&x, &[1.0; 16], kind);
            for (row, y) in y.chunks(16).enumerate() {
                assert!(y.iter().all(|y| y.is_nan() == (row == 1)), "{kind:?} {row} {y:?}");
            }
        }
    }
}
