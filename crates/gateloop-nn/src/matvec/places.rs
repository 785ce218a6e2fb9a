//! Where results go. Pieces of one product, on several threads, write other places of the same memory.

use super::isa::LANES;
use crate::feed_forward::Gelu;

/// What becomes of the results of many rows.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// They are y.
    Rows(Columns),
    /// Activated, they are multiplied next.
    Panels(Lines, Gelu),
}

/// [M, out], of which every thread writes other columns.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    data: *mut f32,
    out_dim: usize,
    len: usize,
}

// SAFETY: pieces of one product have disjoint columns, so no two threads write one element, and
// the product borrows the memory until all are done.
unsafe impl Sync for Columns {}
// SAFETY: as above.
unsafe impl Send for Columns {}

impl Columns {
    pub(super) fn new(y: &mut [f32], out_dim: usize) -> Self {
        Self { data: y.as_mut_ptr(), out_dim, len: y.len() }
    }

    #[inline(always)]
    pub(super) fn set(&self, row: usize, column: usize, value: f32) {
        let index = row * self.out_dim + column;
        assert!(index < self.len);
        // SAFETY: within the borrowed memory, and this column belongs to the calling thread.
        unsafe { self.data.add(index).write(value) };
    }

    /// Numbers side by side in a row.
    #[inline(always)]
    pub(super) fn set_all<const N: usize>(&self, row: usize, column: usize, values: [f32; N]) {
        let index = row * self.out_dim + column;
        assert!(index + N <= self.len);
        // SAFETY: within the borrowed memory, and these columns belong to the calling thread.
        unsafe { self.data.add(index).cast::<[f32; N]>().write(values) };
    }
}

/// [panels, out, `LANES`], of which every thread writes other lines.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    data: *mut [f32; LANES],
    out_dim: usize,
    len: usize,
}

// SAFETY: as of `Columns`.
unsafe impl Sync for Lines {}
// SAFETY: as above.
unsafe impl Send for Lines {}

impl Lines {
    pub(super) fn new(lines: &mut [[f32; LANES]], out_dim: usize) -> Self {
        Self { data: lines.as_mut_ptr(), out_dim, len: lines.len() }
    }

    #[inline(always)]
    pub(super) fn set(&self, panel: usize, column: usize, line: &[f32; LANES]) {
        let index = panel * self.out_dim + column;
        assert!(index < self.len);
        // SAFETY: within the borrowed memory, and this line belongs to the calling thread.
        unsafe { self.data.add(index).write(*line) };
    }
}
