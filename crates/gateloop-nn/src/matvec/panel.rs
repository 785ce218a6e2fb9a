//! Products with a few dozen rows, bound by arithmetic: a panel of weights stays in the first-level cache
//! while all rows of x pass by it.
//!
//! A matrix product that packs both operands, as libtorch's does, takes a good part of its time for packing the
//! weights where so few rows are multiplied with them. Here x is read where it lies, and a panel of weights is widened
//! once for all rows.

use super::isa::{Isa, Kernel, LANES};
use super::tile::{Weight, padded};
use super::{Typed, Work};
use std::cell::Cell;

/// Rows of weights in a panel.
pub(super) const ROWS: usize = 6;

/// Its columns: 12 KB of f32, which leaves a first-level cache room for the rows of x that pass by.
const DEPTH: usize = 512;

/// Rows of weights and of x whose dot products are in registers together.
const TILE: [usize; 2] = [3, 2];

/// The bytes of a cache line.
const LINE: usize = 64;

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    /// The panel, [ROWS, DEPTH].
    w: Vec<f32>,
    /// The dot products so far, [M, ROWS] of vectors.
    sums: Vec<[f32; LANES]>,
    /// The dot products, [M, ROWS].
    y: Vec<f32>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// The product of many rows.
pub(super) struct ManyRows<'a, W>(pub(super) Typed<'a, W>);

impl<W: Weight> Kernel for ManyRows<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Work { x, in_dim, first, len, .. } = self.0.work;
        let rows = x.len() / in_dim;
        let mut scratch = SCRATCH.take();
        scratch.w.resize(ROWS * DEPTH, 0.0);
        scratch.y.resize(rows * ROWS, 0.0);
        if in_dim > DEPTH {
            scratch.sums.resize(rows * ROWS, [0.0; LANES]);
        }
        for o in (first..first + len).step_by(ROWS) {
            self.panel(isa, &mut scratch, o, ROWS.min(first + len - o));
        }
        SCRATCH.set(scratch);
    }
}

impl<W: Weight> ManyRows<'_, W> {
    /// `n` rows of weights from `o` on, with all rows of x.
    #[inline(always)]
    fn panel<I: Isa>(&self, isa: I, scratch: &mut Scratch, o: usize, n: usize) {
        let Work { x, in_dim, first, len, .. } = self.0.work;
        let rows = x.len() / in_dim;
        for k in (0..in_dim).step_by(DEPTH) {
            let depth = DEPTH.min(in_dim - k);
            let ends = k + depth == in_dim;
            self.widen(&mut scratch.w, o, n, k..k + depth);
            let next = if ends { (o + n, 0) } else { (o, k + depth) };
            let steps = rows.div_ceil(TILE[1]) * n.div_ceil(TILE[0]);
            let mut ahead = Ahead::new(self.0.w, in_dim, next, first + len, steps);
            for m in (0..rows).step_by(TILE[1]) {
                // The last of an odd number of rows is its own neighbour.
                let pair = [m, (m + 1).min(rows - 1)];
                let x = pair.map(|m| &x[m * in_dim + k..][..depth]);
                for r in (0..n).step_by(TILE[0]) {
                    ahead.step(isa);
                    let w = [r, r + 1, r + 2].map(|r| &scratch.w[r * DEPTH..][..depth]);
                    let mut sums = [[isa.zero(); TILE[1]]; TILE[0]];
                    if k > 0 {
                        for (j, sums) in sums.iter_mut().enumerate() {
                            for (sum, &m) in sums.iter_mut().zip(&pair) {
                                *sum = isa.load_f32(&scratch.sums[m * ROWS + r + j]);
                            }
                        }
                    }
                    add_products(isa, w, x, &mut sums);
                    for (j, sums) in sums.into_iter().enumerate() {
                        for (sum, &m) in sums.into_iter().zip(&pair) {
                            let at = m * ROWS + r + j;
                            if ends {
                                scratch.y[at] = isa.sum(sum);
                            } else {
                                isa.store(sum, &mut scratch.sums[at]);
                            }
                        }
                    }
                }
            }
        }
        for (m, dots) in scratch.y.chunks_exact(ROWS).take(rows).enumerate() {
            for (r, &dot) in dots[..n].iter().enumerate() {
                self.0.store(m, o + r, dot);
            }
        }
    }

    /// Fills the panel; rows that it has beyond `n` keep what they had, and nobody looks at them.
    #[inline(always)]
    fn widen(&self, panel: &mut [f32], o: usize, n: usize, columns: std::ops::Range<usize>) {
        for (r, to) in panel.chunks_exact_mut(DEPTH).take(n).enumerate() {
            for (to, &from) in to.iter_mut().zip(&self.0.row(o + r)[columns.clone()]) {
                *to = from.to_f32();
            }
        }
    }
}

/// Adds the products of rows of one length, in the order in which a single row's are added.
#[inline(always)]
fn add_products<I: Isa>(
    isa: I,
    w: [&[f32]; TILE[0]],
    x: [&[f32]; TILE[1]],
    sums: &mut [[I::Vector; TILE[1]]; TILE[0]],
) {
    let (w, x) = (w.map(<[f32]>::as_chunks::<LANES>), x.map(<[f32]>::as_chunks::<LANES>));
    let whole = x[0].0.len();
    let (w_whole, x_whole) = (w.map(|(w, _)| &w[..whole]), x.map(|(x, _)| &x[..whole]));
    for i in 0..whole {
        isa.outer(
            [&w_whole[0][i], &w_whole[1][i], &w_whole[2][i]],
            [&x_whole[0][i], &x_whole[1][i]],
            sums,
        );
    }
    if !x[0].1.is_empty() {
        let (w, x) = (w.map(|(_, rest)| padded(rest)), x.map(|(_, rest)| padded(rest)));
        isa.outer(w.each_ref(), x.each_ref(), sums);
    }
}

/// Asks for the panel to come while this one is worked on, a few lines at a time.
struct Ahead<'a, W> {
    w: &'a [W],
    in_dim: usize,
    /// Where the next line is: row and column.
    at: (usize, usize),
    columns: std::ops::Range<usize>,
    end: usize,
    lines: usize,
}

impl<'a, W> Ahead<'a, W> {
    /// From (row, column) `next` on, within `steps` steps.
    fn new(w: &'a [W], in_dim: usize, next: (usize, usize), end: usize, steps: usize) -> Self {
        let columns = next.1..(next.1 + DEPTH).min(in_dim);
        let end = end.min(next.0 + ROWS);
        let per_row = (columns.len() * size_of::<W>()).div_ceil(LINE);
        let lines = (end.saturating_sub(next.0) * per_row).div_ceil(steps);
        Self { w, in_dim, at: next, columns, end, lines }
    }

    #[inline(always)]
    fn step<I: Isa>(&mut self, isa: I) {
        for _ in 0..self.lines {
            let (row, column) = self.at;
            if row >= self.end {
                return;
            }
            isa.prefetch(&self.w[row * self.in_dim + column]);
            let column = column + LINE / size_of::<W>();
            self.at = if column < self.columns.end {
                (row, column)
            } else {
                (row + 1, self.columns.start)
            };
        }
    }
}
