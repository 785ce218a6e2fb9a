//! Dot products of a few rows of weights with a few rows of x, in registers.

use super::Matrix;
use super::isa::{Isa, LANES};

/// How a weight is stored; arithmetic is in f32 whatever it is.
pub(super) trait Weight: Copy + Default + Sync {
    /// All of a matrix of such weights.
    fn of<'a>(matrix: &Matrix<'a>) -> Option<&'a [Self]>;
    /// Widens [`LANES`] weights, exactly.
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector;
    /// Widens one, exactly.
    fn to_f32(self) -> f32;
    /// Weights that are wide already.
    fn as_f32(_weights: &[Self]) -> Option<&[f32]> {
        None
    }
}

impl Weight for f32 {
    fn of<'a>(matrix: &Matrix<'a>) -> Option<&'a [Self]> {
        match *matrix {
            Matrix::F32(weights) => Some(weights),
            _ => None,
        }
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.load_f32(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    fn as_f32(weights: &[Self]) -> Option<&[f32]> {
        Some(weights)
    }
}

/// The upper half of an f32.
impl Weight for u16 {
    fn of<'a>(matrix: &Matrix<'a>) -> Option<&'a [Self]> {
        match *matrix {
            Matrix::Bf16(weights) => Some(weights),
            _ => None,
        }
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.load_bf16(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self) << 16)
    }
}

impl Weight for i8 {
    fn of<'a>(matrix: &Matrix<'a>) -> Option<&'a [Self]> {
        match *matrix {
            Matrix::Int8(weights, _) => Some(weights),
            _ => None,
        }
    }

    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.load_i8(from)
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from(self)
    }
}

/// The R x M dot products of rows of `w` and of `x`, all of one length.
///
/// Each is added up in the same order whatever R and M are: a row of a batch gives the bits that it
/// gives alone. Loops rather than closures wherever vectors are: a closure is a function of its own,
/// which has not the instructions of the function around it.
#[inline(always)]
pub(super) fn dot_products<I: Isa, W: Weight, const R: usize, const M: usize>(
    isa: I,
    w: [&[W]; R],
    x: [&[f32]; M],
) -> [[f32; M]; R] {
    let mut sums = [[isa.zero(); M]; R];
    let (w, x) = (w.map(<[W]>::as_chunks::<LANES>), x.map(<[f32]>::as_chunks::<LANES>));
    let (w_whole, x_whole) = (w.map(|(whole, _)| whole), x.map(|(whole, _)| whole));
    // Equal lengths, said so that the loop checks no bounds.
    let whole = x_whole[0].len();
    let (w_whole, x_whole) = (w_whole.map(|w| &w[..whole]), x_whole.map(|x| &x[..whole]));
    for i in 0..whole {
        accumulate(isa, &mut sums, w_whole, x_whole, i);
    }
    if !x[0].1.is_empty() {
        // Zeros add nothing to what is left of the rows.
        let (w, x) = (w.map(|(_, rest)| [padded(rest)]), x.map(|(_, rest)| [padded(rest)]));
        accumulate(isa, &mut sums, w.each_ref().map(|w| &w[..]), x.each_ref().map(|x| &x[..]), 0);
    }
    let mut dots = [[0.0; M]; R];
    for r in 0..R {
        for m in 0..M {
            dots[r][m] = isa.sum(sums[r][m]);
        }
    }
    dots
}

/// Adds the products of the `i`-th [`LANES`] elements.
#[inline(always)]
fn accumulate<I: Isa, W: Weight, const R: usize, const M: usize>(
    isa: I,
    sums: &mut [[I::Vector; M]; R],
    w: [&[[W; LANES]]; R],
    x: [&[[f32; LANES]]; M],
    i: usize,
) {
    let mut x_wide = [isa.zero(); M];
    for m in 0..M {
        x_wide[m] = isa.load_f32(&x[m][i]);
    }
    for r in 0..R {
        let w_wide = W::widen(isa, &w[r][i]);
        for m in 0..M {
            sums[r][m] = isa.mul_add(w_wide, x_wide[m], sums[r][m]);
        }
    }
}

#[inline(always)]
fn padded<T: Copy + Default>(rest: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all[..rest.len()].copy_from_slice(rest);
    all
}
