//! Products of weight matrices with a few vectors, bound by reading the weights once, or with a few dozen
//! ([`panel`]).
//!
//! libtorch's matrix products pack their operands, which pays for many rows and costs as much as the
//! product for one. Here every weight is read once, in the order of memory, by all threads.

// A kernel is compiled for the instruction set of the function that it is inlined into.
#![allow(clippy::inline_always)]

mod isa;
mod panel;
mod team;
mod tile;

use crate::pointwise::Before;
use crate::threads::TorchThreads;
use gateloop_scan::ParallelFor;
pub(crate) use isa::{Isa, Kernel, LANES, dispatch};
use panel::{ManyRows, Panels};
use tile::{Weight, dot_products};

/// A matrix [out, in], row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// As it was trained.
    F32(&'a [f32]),
    /// The upper halves of f32.
    Bf16(&'a [u16]),
    /// Whole numbers, and for each row what they are multiples of.
    Int8(&'a [i8], &'a [f32]),
}

impl Matrix<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::F32(weights) => size_of_val(*weights),
            Self::Bf16(weights) => size_of_val(*weights),
            Self::Int8(weights, _) => weights.len(),
        }
    }
}

/// One product to be computed: y[m, o] = sum_i x[m, i] w[o, i] + bias[o].
#[derive(Debug)]
pub(crate) struct Product<'a> {
    /// w, [out, in].
    pub(crate) matrix: Matrix<'a>,
    /// `[out]`
    pub(crate) bias: Option<&'a [f32]>,
    /// y, [M, out].
    pub(crate) y: &'a mut [f32],
}

/// Weights that one thread takes at a time: a few microseconds' work, so that a thread that is late
/// holds nobody up for long.
const PIECE_BYTES: usize = 64 << 10;

/// From so many rows of x on, arithmetic takes longer than reading the weights.
const MANY_ROWS: usize = 9;

/// Rows of weights that are multiplied together.
const BLOCK: usize = 4;

/// Computes all products with what `before` makes of the rows of one x, [rows, in].
///
/// # Panics
/// If a length does not fit: the caller has the shapes.
pub(crate) fn multiply(x: &[f32], rows: usize, before: Before<'_>, products: &mut [Product<'_>]) {
    let in_dim = x.len() / rows;
    assert!(rows > 0 && in_dim > 0 && x.len() == rows * in_dim, "x is not [rows, in]");
    let mut pieces = Vec::new();
    for product in products {
        cut(product, rows, in_dim, &mut pieces);
    }
    let panels = (rows >= MANY_ROWS).then(|| Panels::of(x, in_dim, before));
    let mut room = Vec::new();
    let x = if panels.is_some() { x } else { before.of(0, x, &mut room) };
    let threads = TorchThreads.threads();
    let work = |index: usize| {
        let Piece { matrix, bias, first, len, ref y } = pieces[index];
        let work = Work { x, in_dim, bias, first, len, y };
        // With threads that keep step, a thread's next piece.
        let how = panels.as_ref().map(|panels| (panels, pieces.get(index + threads)));
        match matrix {
            Matrix::F32(w) => run(Typed { work, w, scale: None }, how),
            Matrix::Bf16(w) => run(Typed { work, w, scale: None }, how),
            Matrix::Int8(w, scale) => run(Typed { work, w, scale: Some(scale) }, how),
        }
    };
    if panels.is_none() {
        team::for_each(pieces.len(), &work);
    } else {
        // What lies between two products then runs on libtorch's threads, which had better not wait for
        // others to leave their cores.
        TorchThreads.for_each(pieces.len(), &work);
    }
}

/// One piece, alone or with many rows of x; then another piece may come next.
fn run<W: Weight>(typed: Typed<'_, W>, many: Option<(&Panels, Option<&Piece<'_>>)>) {
    match many {
        None => dispatch(typed),
        Some((panels, then)) => {
            let then = then.and_then(Piece::weights).unwrap_or_default();
            dispatch(ManyRows { typed, panels, then });
        }
    }
}

/// The part of a product that one thread computes: rows `first..first + len` of the matrix.
struct Piece<'a> {
    matrix: Matrix<'a>,
    bias: Option<&'a [f32]>,
    first: usize,
    len: usize,
    y: Columns,
}

impl Piece<'_> {
    /// From its first weight on, if it is stored in this way.
    fn weights<W: Weight>(&self) -> Option<&[W]> {
        let weights = W::of(&self.matrix)?;
        weights.get(self.first * (weights.len() / self.y.out_dim)..)
    }
}

/// Checks a product and cuts it into pieces.
fn cut<'a>(product: &'a mut Product<'_>, rows: usize, in_dim: usize, pieces: &mut Vec<Piece<'a>>) {
    let out_dim = product.y.len() / rows;
    assert_eq!(product.y.len(), rows * out_dim, "y is not [rows, out]");
    let weights = match product.matrix {
        Matrix::F32(w) => w.len(),
        Matrix::Bf16(w) => w.len(),
        Matrix::Int8(w, scale) => {
            assert_eq!(scale.len(), out_dim, "scale is not [out]");
            w.len()
        }
    };
    assert_eq!(weights, out_dim * in_dim, "the matrix is not [out, in]");
    assert!(product.bias.is_none_or(|bias| bias.len() == out_dim), "the bias is not [out]");
    let row_bytes = product.matrix.bytes() / out_dim.max(1);
    let block = if rows < MANY_ROWS { BLOCK } else { panel::rows_at_once() };
    let step = (PIECE_BYTES / row_bytes.max(1)).next_multiple_of(block);
    let (matrix, bias) = (product.matrix, product.bias);
    let y = Columns::new(product.y, out_dim);
    for first in (0..out_dim).step_by(step) {
        pieces.push(Piece { matrix, bias, first, len: step.min(out_dim - first), y });
    }
}

/// Where results go: [M, out], of which every thread writes other columns.
#[derive(Clone, Copy)]
struct Columns {
    data: *mut f32,
    out_dim: usize,
    len: usize,
}

// SAFETY: pieces of one product have disjoint columns, so no two threads write one element, and
// `multiply` borrows the memory until all are done.
unsafe impl Sync for Columns {}
// SAFETY: as above.
unsafe impl Send for Columns {}

impl Columns {
    fn new(y: &mut [f32], out_dim: usize) -> Self {
        Self { data: y.as_mut_ptr(), out_dim, len: y.len() }
    }

    #[inline(always)]
    fn set(&self, row: usize, column: usize, value: f32) {
        let index = row * self.out_dim + column;
        assert!(index < self.len);
        // SAFETY: within the borrowed memory, and this column belongs to the calling thread.
        unsafe { self.data.add(index).write(value) };
    }

    /// Numbers side by side in a row.
    #[inline(always)]
    fn set_all<const N: usize>(&self, row: usize, column: usize, values: [f32; N]) {
        let index = row * self.out_dim + column;
        assert!(index + N <= self.len);
        // SAFETY: within the borrowed memory, and these columns belong to the calling thread.
        unsafe { self.data.add(index).cast::<[f32; N]>().write(values) };
    }
}

struct Work<'a> {
    /// Where there are panels, only its length matters.
    x: &'a [f32],
    in_dim: usize,
    bias: Option<&'a [f32]>,
    first: usize,
    len: usize,
    y: &'a Columns,
}

struct Typed<'a, W> {
    work: Work<'a>,
    w: &'a [W],
    scale: Option<&'a [f32]>,
}

impl<W: Weight> Kernel for Typed<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Work { first, len, .. } = self.work;
        let blocks = len / BLOCK * BLOCK;
        for o in (first..first + blocks).step_by(BLOCK) {
            self.block(isa, o);
        }
        for o in first + blocks..first + len {
            for (m, x) in self.work.x.chunks_exact(self.work.in_dim).enumerate() {
                let [[dot]] = dot_products(isa, [self.row(o)], [x]);
                self.store(m, o, dot);
            }
        }
    }
}

impl<W: Weight> Typed<'_, W> {
    /// Rows `o..o + BLOCK` of the matrix with all rows of x: by pairs, as many as registers hold. A single row
    /// of x takes one row of the matrix after the other, in the order of memory.
    #[inline(always)]
    fn block<I: Isa>(&self, isa: I, o: usize) {
        let in_dim = self.work.in_dim;
        let pairs = self.work.x.chunks_exact(2 * in_dim);
        let last = pairs.remainder();
        let mut m = 0;
        for pair in pairs {
            let (x_0, x_1) = pair.split_at(in_dim);
            for o in [o, o + 2] {
                let dots = dot_products(isa, [self.row(o), self.row(o + 1)], [x_0, x_1]);
                for (r, [dot_0, dot_1]) in dots.into_iter().enumerate() {
                    self.store(m, o + r, dot_0);
                    self.store(m + 1, o + r, dot_1);
                }
            }
            m += 2;
        }
        if !last.is_empty() {
            for o in o..o + BLOCK {
                let [[dot]] = dot_products(isa, [self.row(o)], [last]);
                self.store(m, o, dot);
            }
        }
    }

    #[inline(always)]
    fn row(&self, o: usize) -> &[W] {
        &self.w[o * self.work.in_dim..(o + 1) * self.work.in_dim]
    }

    #[inline(always)]
    fn store(&self, m: usize, o: usize, dot: f32) {
        let scaled = self.scale.map_or(dot, |scale| dot * scale[o]);
        let bias = self.work.bias.map_or(0.0, |bias| bias[o]);
        self.work.y.set(m, o, scaled + bias);
    }
}

#[cfg(test)]
mod tests;
