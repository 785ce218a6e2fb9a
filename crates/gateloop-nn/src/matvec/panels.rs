//! Many rows of x, transposed, so that a vector holds one column of all of them.

use super::isa::{Isa, Kernel, LANES, TURNED, dispatch};
use crate::pointwise::Before;
use crate::threads::TorchThreads;
use gateloop_scan::ParallelFor;
use std::cell::Cell;
use std::sync::Mutex;

thread_local! {
    /// The memory of [`Panels`]: of one product, or of two where one writes what the other reads.
    static SPARE: Cell<Vec<Vec<[f32; LANES]>>> = Cell::default();
    /// Some rows of x, as they are to be multiplied.
    static ROOM: Cell<Vec<f32>> = Cell::default();
}

/// x in panels of [`LANES`] rows, [panels, in, `LANES`]; the numbers of rows that there are not have no meaning.
pub(super) struct Panels {
    /// Longer than needed if an earlier x was.
    packed: Vec<[f32; LANES]>,
    pub(super) rows: usize,
    in_dim: usize,
}

impl Drop for Panels {
    fn drop(&mut self) {
        let mut spare = SPARE.take();
        spare.push(std::mem::take(&mut self.packed));
        SPARE.set(spare);
    }
}

impl Panels {
    /// Room for x, [rows, in].
    pub(super) fn unwritten(rows: usize, in_dim: usize) -> Self {
        let mut spare = SPARE.take();
        let mut packed = spare.pop().unwrap_or_default();
        SPARE.set(spare);
        let len = rows.div_ceil(LANES) * in_dim;
        if packed.len() < len {
            packed.resize(len, [0.0; LANES]);
        }
        Self { packed, rows, in_dim }
    }

    /// Of what `before` makes of x, [rows, in].
    pub(super) fn of(x: &[f32], in_dim: usize, before: Before<'_>) -> Self {
        let mut panels = Self::unwritten(x.len() / in_dim, in_dim);
        let places = panels.lines_mut().chunks_exact_mut(in_dim);
        let tasks: Vec<_> = x.chunks(LANES * in_dim).zip(places).map(Mutex::new).collect();
        TorchThreads.for_each(tasks.len(), &|i| {
            // Nobody else asks for this panel.
            if let Ok(mut task) = tasks[i].lock() {
                let (x, panel) = &mut *task;
                let mut room = ROOM.take();
                let x = before.of(i * LANES * in_dim, x, &mut room);
                dispatch(Pack { x, in_dim, panel });
                ROOM.set(room);
            }
        });
        drop(tasks);
        panels
    }

    fn len(&self) -> usize {
        self.rows.div_ceil(LANES) * self.in_dim
    }

    /// [panels, in]
    pub(super) fn lines_mut(&mut self) -> &mut [[f32; LANES]] {
        let len = self.len();
        &mut self.packed[..len]
    }

    /// One after the other, each [in, `LANES`].
    pub(super) fn each(&self) -> std::slice::ChunksExact<'_, [f32; LANES]> {
        self.packed[..self.len()].chunks_exact(self.in_dim)
    }
}

/// Transposes up to [`LANES`] rows of x.
struct Pack<'a> {
    x: &'a [f32],
    in_dim: usize,
    /// [in, `LANES`]
    panel: &'a mut [[f32; LANES]],
}

impl Kernel for Pack<'_> {
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (block, columns) in self.panel.chunks_mut(LANES).enumerate() {
            for first in (0..LANES).step_by(TURNED) {
                let turned = match whole_square(self.x, self.in_dim, [first, block * LANES]) {
                    Some(square) => isa.turn(square),
                    None => {
                        isa.turn(padded(self.x, self.in_dim, [first, block * LANES]).each_ref())
                    }
                };
                for (column, turned) in columns.iter_mut().zip(&turned) {
                    column[first..first + TURNED].copy_from_slice(turned);
                }
            }
        }
    }
}

/// Rows and columns of x from a place on, where there are as many.
#[inline(always)]
fn whole_square(
    x: &[f32],
    in_dim: usize,
    [row, column]: [usize; 2],
) -> Option<[&[f32; LANES]; TURNED]> {
    let mut square = [&[0.0; LANES]; TURNED];
    if column + LANES > in_dim || x.len() < (row + TURNED) * in_dim {
        return None;
    }
    for (line, row) in square.iter_mut().zip(x[row * in_dim..].chunks_exact(in_dim)) {
        *line = row[column..].first_chunk()?;
    }
    Some(square)
}

/// The rows and columns that there are from a place on, and zeros.
fn padded(x: &[f32], in_dim: usize, [row, column]: [usize; 2]) -> [[f32; LANES]; TURNED] {
    let mut square = [[0.0; LANES]; TURNED];
    for (line, row) in square.iter_mut().zip(x.chunks_exact(in_dim).skip(row)) {
        let row = &row[column..];
        let n = row.len().min(LANES);
        line[..n].copy_from_slice(&row[..n]);
    }
    square
}
