//! Products with a few dozen rows, bound by arithmetic: every weight is multiplied with a whole vector of transposed x.
//!
//! A matrix product that packs both operands, as libtorch's does, takes a good part of its time for packing the
//! weights where so few rows are multiplied with them. Here x alone is packed, once for all products with it; six or
//! eight rows of weights at a time are read where they lie or, if they are kept in fewer bits, widened into the
//! first-level cache.

use super::Part;
use super::isa::{Isa, Kernel, LANES, TURNED, dispatch};
use super::panels::Panels;
use super::places::Place;
use super::tile::Weight;
use std::cell::Cell;

/// Rows of weights that are multiplied together with two panels of x, and with one.
const ROWS_OF_TWO: usize = 8;
const ROWS_OF_ONE: usize = 6;

/// Rows of weights that are multiplied together on this machine.
pub(super) fn rows_at_once() -> usize {
    struct Ask<'a>(&'a mut usize);
    impl Kernel for Ask<'_> {
        #[inline(always)]
        fn run<I: Isa>(self, _isa: I) {
            *self.0 = if I::HAS_ROOM_FOR_TWO { ROWS_OF_TWO } else { ROWS_OF_ONE };
        }
    }
    let mut rows = 0;
    dispatch(Ask(&mut rows));
    rows
}

/// Columns of weights that are multiplied before the next rows have their turn: at most 16 KB of f32, which leaves a
/// first-level cache room for the panels of x that pass by.
const DEPTH: usize = 512;

/// The bytes of a cache line.
const LINE: usize = 64;

/// What a thread works in.
#[derive(Default)]
struct Scratch {
    /// The weights at work, [R, `DEPTH`], where they do not lie in f32 already.
    w: Vec<f32>,
    /// The sums so far, [panels, R] of a number for each row of x.
    sums: Vec<[f32; LANES]>,
}

thread_local! {
    static SCRATCH: Cell<Scratch> = Cell::default();
}

/// The product of many rows.
pub(super) struct ManyRows<'a, W> {
    pub(super) part: Part<'a, W>,
    pub(super) panels: &'a Panels,
    /// Rows of weights that this thread will probably have to do next.
    pub(super) then: &'a [W],
    pub(super) place: &'a Place,
}

impl<W: Weight> Kernel for ManyRows<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if I::HAS_ROOM_FOR_TWO {
            self.tiles::<I, ROWS_OF_TWO, 2>(isa);
        } else {
            self.tiles::<I, ROWS_OF_ONE, 1>(isa);
        }
    }
}

impl<W: Weight> ManyRows<'_, W> {
    /// R rows of weights at a time, with P panels of x at a time: their sums fill the registers.
    #[inline(always)]
    fn tiles<I: Isa, const R: usize, const P: usize>(&self, isa: I) {
        let Part { first, len, .. } = self.part;
        let mut scratch = SCRATCH.take();
        scratch.w.resize(R * DEPTH, 0.0);
        scratch.sums.resize(self.panels.each().len() * R, [0.0; LANES]);
        for o in (first..first + len).step_by(R) {
            self.rows::<I, R, P>(isa, &mut scratch, o, R.min(first + len - o));
        }
        SCRATCH.set(scratch);
    }

    /// `n` rows of weights from `o` on, with all of x.
    #[inline(always)]
    fn rows<I: Isa, const R: usize, const P: usize>(
        &self,
        isa: I,
        scratch: &mut Scratch,
        o: usize,
        n: usize,
    ) {
        let Part { w: weights, in_dim, first, len, .. } = self.part;
        for k in (0..in_dim).step_by(DEPTH) {
            let depth = DEPTH.min(in_dim - k);
            let passes = self.panels.each().len().div_ceil(P);
            let next = if k + depth < in_dim {
                &weights[o * in_dim + k + depth..(o + n) * in_dim]
            } else if o + n < first + len {
                &weights[(o + n) * in_dim..(first + len) * in_dim]
            } else {
                self.then
            };
            let ahead = Ahead { next, in_dim, passes };
            let w: [&[f32]; R] = match W::as_f32(weights) {
                Some(w) if n == R => rows_of(&w[o * in_dim + k..], in_dim, depth),
                _ => {
                    self.widen(&mut scratch.w, o, n, k..k + depth);
                    rows_of(&scratch.w, DEPTH, depth)
                }
            };
            let panels = self.panels.each().map(|panel| &panel[k..k + depth]);
            let mut panels = panels.zip(scratch.sums.as_chunks_mut::<R>().0);
            for pass in 0..passes {
                let ahead = ahead.pass::<R>(pass);
                let Some(first) = panels.next() else { break };
                if P == 2
                    && let Some(second) = panels.next()
                {
                    add_products(isa, w, [first, second], k == 0, &ahead);
                } else {
                    add_products(isa, w, [first], k == 0, &ahead);
                }
            }
        }
        for (panel, sums) in scratch.sums.as_chunks::<R>().0.iter().enumerate() {
            self.store(isa, sums, panel, o, n);
        }
    }

    /// Writes the results of the rows of a panel.
    #[inline(always)]
    fn store<I: Isa, const R: usize>(
        &self,
        isa: I,
        sums: &[[f32; LANES]; R],
        panel: usize,
        o: usize,
        n: usize,
    ) {
        let mut results = [[0.0; LANES]; TURNED];
        for (r, (result, sums)) in results.iter_mut().zip(sums).enumerate().take(n) {
            let (scale, bias) = self.part.scale_and_bias(o + r);
            *result = sums.map(|sum| sum * scale + bias);
        }
        match self.place {
            Place::Panels(lines, gelu) => {
                gelu.apply(results[..n].as_flattened_mut());
                for (r, line) in results[..n].iter().enumerate() {
                    lines.set(panel, o + r, line);
                }
            }
            Place::Rows(y) => {
                let first = panel * LANES;
                let rows = first..self.panels.rows.min(first + LANES);
                for (m, results) in rows.zip(isa.turn(results.each_ref())) {
                    if n == R {
                        y.set_all::<R>(m, o, std::array::from_fn(|r| results[r]));
                    } else {
                        for (r, &result) in results.iter().enumerate().take(n) {
                            y.set(m, o + r, result);
                        }
                    }
                }
            }
        }
    }

    /// Fills the rows at work; those beyond `n` keep what they had, and nobody looks at their products.
    #[inline(always)]
    fn widen(&self, w: &mut [f32], o: usize, n: usize, columns: std::ops::Range<usize>) {
        for (r, to) in w.chunks_exact_mut(DEPTH).take(n).enumerate() {
            for (to, &from) in to.iter_mut().zip(&self.part.row(o + r)[columns.clone()]) {
                *to = from.to_f32();
            }
        }
    }
}

/// The first numbers of rows that begin `stride` apart.
#[inline(always)]
fn rows_of<const R: usize>(w: &[f32], stride: usize, depth: usize) -> [&[f32]; R] {
    let mut rows: [&[f32]; R] = [&[]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &w[r * stride..][..depth];
    }
    rows
}

/// A panel of x to some depth, and its sums with R rows of weights.
type PanelSums<'t, const R: usize> = (&'t [[f32; LANES]], &'t mut [[f32; LANES]; R]);

/// Adds the products of rows of weights with P panels, all of one depth, column after column, to their sums, or to
/// zero if this `begins`. Meanwhile it asks for weights to come.
#[inline(always)]
fn add_products<I: Isa, W: Weight, const R: usize, const P: usize>(
    isa: I,
    w: [&[f32]; R],
    mut panels: [PanelSums<'_, R>; P],
    begins: bool,
    ahead: &Pass<'_, W>,
) {
    let mut tile = [[isa.zero(); P]; R];
    if !begins {
        for (p, (_, sums)) in panels.iter().enumerate() {
            for r in 0..R {
                tile[r][p] = isa.load_f32(&sums[r]);
            }
        }
    }
    // Equal lengths, said so that the loop checks no bounds.
    let depth = w[0].len();
    let mut rows = w;
    for row in &mut rows {
        *row = &row[..depth];
    }
    for (x, _) in &mut panels {
        *x = &x[..depth];
    }
    for begin in (0..depth).step_by(COLUMNS) {
        ahead.ask(isa, begin);
        let line = begin..depth.min(begin + COLUMNS);
        for k in line {
            let mut column = [isa.zero(); P];
            for p in 0..P {
                column[p] = isa.load_f32(&panels[p].0[k]);
            }
            for r in 0..R {
                let weight = isa.splat(rows[r][k]);
                for p in 0..P {
                    tile[r][p] = isa.mul_add(weight, column[p], tile[r][p]);
                }
            }
        }
    }
    for (p, (_, sums)) in panels.into_iter().enumerate() {
        for r in 0..R {
            isa.store(tile[r][p], &mut sums[r]);
        }
    }
}

/// Columns between two looks at what is to be asked for: a cache line of f32.
const COLUMNS: usize = LINE / size_of::<f32>();

/// The rows that have their turn after those at work, which pass over the panels of x several times.
struct Ahead<'a, W> {
    /// From the first weight that will be needed on.
    next: &'a [W],
    in_dim: usize,
    passes: usize,
}

impl<'a, W> Ahead<'a, W> {
    /// What is asked for in one of the passes: some of R rows.
    #[inline(always)]
    fn pass<const R: usize>(&self, pass: usize) -> Pass<'a, W> {
        let edge = |pass: usize| R * pass / self.passes;
        Pass { next: self.next, in_dim: self.in_dim, rows: edge(pass)..edge(pass + 1) }
    }
}

/// Rows of weights to be asked for, in one pass.
struct Pass<'a, W> {
    next: &'a [W],
    in_dim: usize,
    rows: std::ops::Range<usize>,
}

impl<W> Pass<'_, W> {
    /// Asks for the line `k` columns further on, where one begins.
    #[inline(always)]
    fn ask<I: Isa>(&self, isa: I, k: usize) {
        if !k.is_multiple_of(LINE / size_of::<W>()) {
            return;
        }
        for row in self.rows.clone() {
            if let Some(weight) = self.next.get(row * self.in_dim + k) {
                isa.prefetch(weight);
            }
        }
    }
}
