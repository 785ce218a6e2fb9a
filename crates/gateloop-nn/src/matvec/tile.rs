//! Dot products of a few rows of weights with a few rows of x, in registers.

use super::isa::{Isa, LANES};

/// How a weight is stored; arithmetic is in f32 whatever it is.
pub(super) trait Weight: Copy + Default + Sync {
    /// Widens [`LANES`] weights, exactly.
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector;
}

impl Weight for f32 {
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.from_f32(from)
    }
}

/// The upper half of an f32.
impl Weight for u16 {
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.from_bf16(from)
    }
}

impl Weight for i8 {
    #[inline(always)]
    fn widen<I: Isa>(isa: I, from: &[Self; LANES]) -> I::Vector {
        isa.from_i8(from)
    }
}

/// The R x M dot products of rows of `w` and of `x`, all of one length.
///
/// Each is added up in the same order whatever R and M are: a row of a batch gives the bits that it
/// gives alone.
#[inline(always)]
pub(super) fn dot_products<I: Isa, W: Weight, const R: usize, const M: usize>(
    isa: I,
    w: [&[W]; R],
    x: [&[f32]; M],
) -> [[f32; M]; R] {
    let mut sums = [[isa.zero(); M]; R];
    let w = w.map(<[W]>::as_chunks::<LANES>);
    let x = x.map(<[f32]>::as_chunks::<LANES>);
    let whole = x[0].0.len();
    let (w_whole, x_whole) = (w.map(|(whole, _)| whole), x.map(|(whole, _)| whole));
    // Equal lengths, said so that the loop checks no bounds.
    let (w_whole, x_whole) = (w_whole.map(|w| &w[..whole]), x_whole.map(|x| &x[..whole]));
    for i in 0..whole {
        let x: [I::Vector; M] = std::array::from_fn(|m| isa.from_f32(&x_whole[m][i]));
        accumulate(isa, &mut sums, std::array::from_fn(|r| &w_whole[r][i]), x);
    }
    if !x[0].1.is_empty() {
        // Zeros add nothing to what is left of the rows.
        let x = x.map(|(_, rest)| isa.from_f32(&padded(rest)));
        let w = w.map(|(_, rest)| padded(rest));
        accumulate(isa, &mut sums, std::array::from_fn(|r| &w[r]), x);
    }
    sums.map(|row| row.map(|sum| isa.sum(sum)))
}

#[inline(always)]
fn accumulate<I: Isa, W: Weight, const R: usize, const M: usize>(
    isa: I,
    sums: &mut [[I::Vector; M]; R],
    w: [&[W; LANES]; R],
    x: [I::Vector; M],
) {
    for r in 0..R {
        let w = W::widen(isa, w[r]);
        for m in 0..M {
            sums[r][m] = isa.mul_add(w, x[m], sums[r][m]);
        }
    }
}

#[inline(always)]
fn padded<T: Copy + Default>(rest: &[T]) -> [T; LANES] {
    let mut all = [T::default(); LANES];
    all[..rest.len()].copy_from_slice(rest);
    all
}
