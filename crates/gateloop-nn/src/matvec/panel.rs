//! Products with a few dozen rows, bound by arithmetic: x lies transposed, so that a vector holds one column of many
//! rows, and every weight is multiplied with a whole vector.
//!
//! A matrix product that packs both operands, as libtorch's does, takes a good part of its time for packing the
//! weights where so few rows are multiplied with them. Here x alone is packed, once for all products with it; six
//! rows of weights at a time are read where they lie or, if they are kept in fewer bits, widened into the first-level cache.

use super::isa::{Isa, Kernel, LANES};
use super::tile::Weight;
use super::{Typed, Work};
use crate::threads::TorchThreads;
use gateloop_scan::ParallelFor;
use std::cell::Cell;
use std::sync::Mutex;

/// Rows of weights that are multiplied together.
pub(super) const ROWS: usize = 6;

/// Columns of weights that are multiplied before the next rows have their turn: 12 KB of f32, which leaves a
/// first-level cache room for the panels of x that pass by.
const DEPTH: usize = 512;

/// The bytes of a cache line.
const LINE: usize = 64;

/// x in panels of [`LANES`] rows, [panels, in, `LANES`]; rows that there are not are zeros.
pub(super) struct Panels {
    /// Longer than that if an earlier x was.
    packed: Vec<[f32; LANES]>,
    len: usize,
}

impl Drop for Panels {
    fn drop(&mut self) {
        PACKED.set(std::mem::take(&mut self.packed));
    }
}

impl Panels {
    /// Of x, [rows, in].
    pub(super) fn of(x: &[f32], in_dim: usize) -> Self {
        let panels = x.chunks(LANES * in_dim);
        let (mut packed, len) = (PACKED.take(), panels.len() * in_dim);
        if packed.len() < len {
            packed.resize(len, [0.0; LANES]);
        }
        let places = packed[..len].chunks_exact_mut(in_dim);
        let tasks: Vec<_> = panels.zip(places).map(Mutex::new).collect();
        TorchThreads.for_each(tasks.len(), &|i| {
            // Nobody else asks for this panel.
            if let Ok(mut task) = tasks[i].lock() {
                let (x, panel) = &mut *task;
                pack(x, in_dim, panel);
            }
        });
        drop(tasks);
        Self { packed, len }
    }

    /// One after the other, each [in, `LANES`].
    fn each(&self, in_dim: usize) -> std::slice::ChunksExact<'_, [f32; LANES]> {
        self.packed[..self.len].chunks_exact(in_dim)
    }
}

/// Transposes up to [`LANES`] rows of x, a square at a time: its lines are read and written as a whole.
fn pack(x: &[f32], in_dim: usize, panel: &mut [[f32; LANES]]) {
    for (block, columns) in panel.chunks_mut(LANES).enumerate() {
        let mut square = [[0.0; LANES]; LANES];
        for (line, row) in square.iter_mut().zip(x.chunks_exact(in_dim)) {
            line[..columns.len()].copy_from_slice(&row[block * LANES..][..columns.len()]);
        }
        for (i, column) in columns.iter_mut().enumerate() {
            for (to, line) in column.iter_mut().zip(&square) {
                *to = line[i];
            }
        }
    }
}

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    /// The weights at work, [`ROWS`, `DEPTH`], where they do not lie in f32 already.
    w: Vec<f32>,
    /// The sums so far, [panels, `ROWS`] of a number for each row of x.
    sums: Vec<[f32; LANES]>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
    /// The memory of [`Panels`].
    static PACKED: Cell<Vec<[f32; LANES]>> = Cell::default();
}

/// The product of many rows.
pub(super) struct ManyRows<'a, W> {
    pub(super) typed: Typed<'a, W>,
    pub(super) panels: &'a Panels,
}

impl<W: Weight> Kernel for ManyRows<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Work { in_dim, first, len, .. } = self.typed.work;
        let mut scratch = SCRATCH.take();
        scratch.w.resize(ROWS * DEPTH, 0.0);
        scratch.sums.resize(self.panels.each(in_dim).len() * ROWS, [0.0; LANES]);
        for o in (first..first + len).step_by(ROWS) {
            self.rows(isa, &mut scratch, o, ROWS.min(first + len - o));
        }
        SCRATCH.set(scratch);
    }
}

impl<W: Weight> ManyRows<'_, W> {
    /// `n` rows of weights from `o` on, with all of x.
    #[inline(always)]
    fn rows<I: Isa>(&self, isa: I, scratch: &mut Scratch, o: usize, n: usize) {
        let Work { x, in_dim, first, len, .. } = self.typed.work;
        let rows = x.len() / in_dim;
        for k in (0..in_dim).step_by(DEPTH) {
            let depth = DEPTH.min(in_dim - k);
            let next = if k + depth == in_dim { (o + n, 0) } else { (o, k + depth) };
            let panels = self.panels.each(in_dim).map(|panel| &panel[k..k + depth]);
            let at_a_time = if I::HAS_ROOM_FOR_TWO { 2 } else { 1 };
            let passes = panels.len().div_ceil(at_a_time);
            let ahead = Ahead { w: self.typed.w, in_dim, next, end: first + len, passes };
            let w = match W::as_f32(self.typed.w) {
                Some(w) if n == ROWS => rows_of(&w[o * in_dim + k..], in_dim, depth),
                _ => {
                    self.widen(&mut scratch.w, o, n, k..k + depth);
                    rows_of(&scratch.w, DEPTH, depth)
                }
            };
            let begins = k == 0;
            let mut panels = panels.zip(scratch.sums.chunks_exact_mut(ROWS));
            for pass in 0..passes {
                let Some((x, sums)) = panels.next() else { break };
                let ahead = ahead.pass(pass);
                let second = if I::HAS_ROOM_FOR_TWO { panels.next() } else { None };
                match second {
                    Some((other, other_sums)) => {
                        add_products(isa, w, [x, other], [sums, other_sums], begins, &ahead);
                    }
                    None => add_products(isa, w, [x], [sums], begins, &ahead),
                }
            }
        }
        let (sums, _) = scratch.sums.as_chunks::<ROWS>();
        for (panel, sums) in sums.iter().enumerate() {
            let first = panel * LANES;
            self.store(sums, first..rows.min(first + LANES), o, n);
        }
    }

    /// Writes the results of some rows of x.
    #[inline(always)]
    fn store(&self, sums: &[[f32; LANES]; ROWS], of: std::ops::Range<usize>, o: usize, n: usize) {
        let Work { bias, y, .. } = self.typed.work;
        let mut results = *sums;
        for (r, results) in results.iter_mut().enumerate().take(n) {
            // What multiplies and adds nothing leaves the bits of a product as they are.
            let scale = self.typed.scale.map_or(1.0, |scale| scale[o + r]);
            let bias = bias.map_or(0.0, |bias| bias[o + r]);
            for result in results {
                *result = *result * scale + bias;
            }
        }
        for (lane, m) in of.enumerate() {
            if n == ROWS {
                y.set_all(m, o, [0, 1, 2, 3, 4, 5].map(|r: usize| results[r][lane]));
            } else {
                for (r, results) in results.iter().enumerate().take(n) {
                    y.set(m, o + r, results[lane]);
                }
            }
        }
    }

    /// Fills the rows at work; those beyond `n` keep what they had, and nobody looks at their products.
    #[inline(always)]
    fn widen(&self, w: &mut [f32], o: usize, n: usize, columns: std::ops::Range<usize>) {
        for (r, to) in w.chunks_exact_mut(DEPTH).take(n).enumerate() {
            for (to, &from) in to.iter_mut().zip(&self.typed.row(o + r)[columns.clone()]) {
                *to = from.to_f32();
            }
        }
    }
}

/// The first numbers of rows that begin `stride` apart.
#[inline(always)]
fn rows_of(w: &[f32], stride: usize, depth: usize) -> [&[f32]; ROWS] {
    [0, 1, 2, 3, 4, 5].map(|r| &w[r * stride..][..depth])
}

/// Adds the products of rows of weights with P panels, all of one depth, column after column, to `sums`, or to
/// zero if this `begins`. Meanwhile it asks for weights to come.
#[inline(always)]
fn add_products<I: Isa, W: Weight, const P: usize>(
    isa: I,
    w: [&[f32]; ROWS],
    x: [&[[f32; LANES]]; P],
    sums: [&mut [[f32; LANES]]; P],
    begins: bool,
    ahead: &Pass<'_, W>,
) {
    let mut tile = [[isa.zero(); P]; ROWS];
    if !begins {
        for r in 0..ROWS {
            for p in 0..P {
                tile[r][p] = isa.load_f32(&sums[p][r]);
            }
        }
    }
    // Equal lengths, said so that the loop checks no bounds.
    let depth = w[0].len();
    let (w, x) = (w.map(|w| &w[..depth]), x.map(|x| &x[..depth]));
    for begin in (0..depth).step_by(COLUMNS) {
        ahead.ask(isa, begin);
        for k in begin..depth.min(begin + COLUMNS) {
            let mut column = [isa.zero(); P];
            for p in 0..P {
                column[p] = isa.load_f32(&x[p][k]);
            }
            for r in 0..ROWS {
                let weight = isa.splat(w[r][k]);
                for p in 0..P {
                    tile[r][p] = isa.mul_add(weight, column[p], tile[r][p]);
                }
            }
        }
    }
    for (p, sums) in sums.into_iter().enumerate() {
        for r in 0..ROWS {
            isa.store(tile[r][p], &mut sums[r]);
        }
    }
}

/// Columns between two looks at what is to be asked for: a cache line of f32.
const COLUMNS: usize = LINE / size_of::<f32>();

/// The rows that have their turn after those at work, which pass over the panels of x several times.
struct Ahead<'a, W> {
    w: &'a [W],
    in_dim: usize,
    /// Where they begin: row and column.
    next: (usize, usize),
    /// Rows that this thread has to do.
    end: usize,
    passes: usize,
}

impl<'a, W> Ahead<'a, W> {
    /// What is asked for in one of the passes: some of the rows.
    #[inline(always)]
    fn pass(&self, pass: usize) -> Pass<'a, W> {
        let (row, column) = self.next;
        let edge = |pass: usize| (row + ROWS * pass / self.passes).min(self.end);
        Pass { w: self.w, in_dim: self.in_dim, rows: edge(pass)..edge(pass + 1), column }
    }
}

/// Rows of weights to be asked for, from a column on.
struct Pass<'a, W> {
    w: &'a [W],
    in_dim: usize,
    rows: std::ops::Range<usize>,
    column: usize,
}

impl<W> Pass<'_, W> {
    /// Asks for the line `k` columns further on, where one begins.
    #[inline(always)]
    fn ask<I: Isa>(&self, isa: I, k: usize) {
        if !k.is_multiple_of(LINE / size_of::<W>()) {
            return;
        }
        for row in self.rows.clone() {
            if let Some(weight) = self.w.get(row * self.in_dim + self.column + k) {
                isa.prefetch(weight);
            }
        }
    }
}
