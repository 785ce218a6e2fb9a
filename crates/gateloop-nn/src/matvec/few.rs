//! Products with a few rows, bound by reading the weights once, in the order of memory.

use super::Part;
use super::isa::{Isa, Kernel};
use super::places::Columns;
use super::tile::{Weight, dot_products};

/// Rows of weights that are multiplied together.
pub(super) const BLOCK: usize = 4;

/// The product of a few rows.
pub(super) struct FewRows<'a, W> {
    pub(super) part: Part<'a, W>,
    /// [M, in]
    pub(super) x: &'a [f32],
    pub(super) y: &'a Columns,
}

impl<W: Weight> Kernel for FewRows<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Part { first, len, .. } = self.part;
        let blocks = len / BLOCK * BLOCK;
        for o in (first..first + blocks).step_by(BLOCK) {
            self.block(isa, o);
        }
        for o in first + blocks..first + len {
            for (m, x) in self.x.chunks_exact(self.part.in_dim).enumerate() {
                let [[dot]] = dot_products(isa, [self.part.row(o)], [x]);
                self.store(m, o, dot);
            }
        }
    }
}

impl<W: Weight> FewRows<'_, W> {
    /// Rows `o..o + BLOCK` of the matrix with all rows of x: by pairs, as many as registers hold. A single row
    /// of x takes one row of the matrix after the other, in the order of memory.
    #[inline(always)]
    fn block<I: Isa>(&self, isa: I, o: usize) {
        let in_dim = self.part.in_dim;
        let pairs = self.x.chunks_exact(2 * in_dim);
        let last = pairs.remainder();
        let mut m = 0;
        for pair in pairs {
            let (x_0, x_1) = pair.split_at(in_dim);
            for o in [o, o + 2] {
                let dots = dot_products(isa, [self.part.row(o), self.part.row(o + 1)], [x_0, x_1]);
                for (r, [dot_0, dot_1]) in dots.into_iter().enumerate() {
                    self.store(m, o + r, dot_0);
                    self.store(m + 1, o + r, dot_1);
                }
            }
            m += 2;
        }
        if !last.is_empty() {
            for o in o..o + BLOCK {
                let [[dot]] = dot_products(isa, [self.part.row(o)], [last]);
                self.store(m, o, dot);
            }
        }
    }

    #[inline(always)]
    fn store(&self, m: usize, o: usize, dot: f32) {
        let (scale, bias) = self.part.scale_and_bias(o);
        self.y.set(m, o, dot * scale + bias);
    }
}
