//! The forward pass as [`drive`](super::drive) wants it.

use core::ops::Range;

use crate::{Scan, ScanElement};

use super::dispatch::Isa;
use super::drive::{Pass, Walk};
use super::narrow::{self, NarrowWalk};
use super::output::{Lines, Output, Staged};
use super::plan::Tile;
use super::relay::Relayed;
use super::rows::{Later, advance, advance_out, fold_forward};

/// Writes `h`.
pub(super) struct Forward<'p, 'a, E> {
    pub(super) scan: &'p Scan<'a, E>,
    pub(super) h: Output<'p, E>,
}

impl<E: ScanElement> Forward<'_, '_, E> {
    /// Where the row of a tile at `position` begins.
    #[inline(always)]
    fn at(&self, tile: Tile, position: usize) -> usize {
        self.scan.shape().row(tile.batch, self.scan.token(position)) + tile.first
    }

    /// Whether the state at `position` is its input alone.
    #[inline(always)]
    fn is_first(&self, batch: usize, position: usize) -> bool {
        (position == 0 && self.scan.h0().is_none())
            || self.scan.is_cut(batch, self.scan.token(position))
    }

    /// Advances `walk` by one row.
    ///
    /// # Safety
    /// As for [`Pass::walk`].
    #[inline(always)]
    unsafe fn walk_row<I: Isa>(&self, tile: Tile, position: usize, walk: &mut Walk<'_, E>) {
        let at = self.at(tile, position);
        let [a, b] = self.operands(tile, position);
        let later = walk.later(position, self.scan.shape().seqlen);
        let later = later.map_or(Later::none(), |later| Later(self.operands(tile, later)));
        let out = walk.write.then(|| match &mut walk.staged {
            Some(staged) => staged.row_mut(0, position),
            // SAFETY: the row belongs to this tile and these positions, which the caller promises
            // to be this thread's.
            None => unsafe { self.h.row(at, tile.width) },
        });
        if self.is_first(tile.batch, position) {
            walk.state.copy_from_slice(b);
            if let Some(mut out) = out {
                out.lanes(0..tile.width).copy_from_slice(b);
            }
            if let Some(fold) = &mut walk.fold {
                fold.offset.copy_from_slice(b);
            }
            return;
        }
        match out {
            Some(out) => advance_out::<I, E>(walk.state, a, b, out, later),
            None => advance(walk.state, a, b),
        }
        if let Some(fold) = &mut walk.fold {
            fold_forward(fold, a, b);
        }
    }

    /// Whether rows are so narrow that there is a loop of their own for them.
    #[inline(always)]
    fn is_narrow(&self, tile: Tile, walk: &Walk<'_, E>) -> bool {
        tile.width == self.scan.shape().channels
            && narrow::WIDTHS.contains(&tile.width)
            && !self.scan.has_segments()
            && walk.staged.is_none()
    }

    /// Walks through rows that all have something before.
    ///
    /// # Safety
    /// As for [`Pass::walk`].
    #[inline(always)]
    unsafe fn walk_narrow(&self, tile: Tile, positions: Range<usize>, walk: &mut Walk<'_, E>) {
        let Some(last) = positions.len().checked_sub(1) else { return };
        let ends = [positions.start, positions.start + last].map(|at| self.scan.token(at));
        let at = self.scan.shape().row(tile.batch, ends[0].min(ends[1]));
        let len = positions.len() * tile.width;
        // SAFETY: the rows are those of these positions, which the caller promises to be this thread's.
        let mut out = walk.write.then(|| unsafe { self.h.row(at, len) });
        let out = out.as_mut().map(|out| out.lanes(0..len));
        let backwards = self.goes_backwards();
        NarrowWalk { state: walk.state, fold: walk.fold.as_mut(), backwards }.run(
            &self.scan.a()[at..at + len],
            &self.scan.b()[at..at + len],
            out,
        );
    }
}

impl<E: ScanElement> Pass for Forward<'_, '_, E> {
    type Element = E;

    fn start(&self, tile: Tile, state: &mut [E]) {
        match self.scan.h0() {
            Some(h0) => state.copy_from_slice(&h0[tile.in_state(self.scan.shape().channels)]),
            None => state.fill(E::ZERO),
        }
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        positions.any(|position| self.is_first(batch, position))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(&self, tile: Tile, positions: Range<usize>, walk: &mut Walk<'_, E>) {
        let mut positions = positions;
        if self.is_narrow(tile, walk) && !positions.is_empty() {
            if self.is_first(tile.batch, positions.start) {
                // SAFETY: the caller's promise.
                unsafe { self.walk_row::<I>(tile, positions.start, walk) };
                positions.start += 1;
            }
            // SAFETY: the caller's promise.
            unsafe { self.walk_narrow(tile, positions, walk) };
            return;
        }
        for position in positions {
            // SAFETY: the caller's promise.
            unsafe { self.walk_row::<I>(tile, position, walk) };
        }
    }

    unsafe fn finish(&self, _tile: Tile, _state: &[E]) {}
}

impl<E: ScanElement> Relayed<2, 1> for Forward<'_, '_, E> {
    fn goes_backwards(&self) -> bool {
        self.scan.token(0) != 0
    }

    #[inline(always)]
    fn operands(&self, tile: Tile, position: usize) -> [&[E]; 2] {
        let at = self.at(tile, position);
        [self.scan.a(), self.scan.b()].map(|operand| &operand[at..at + tile.width])
    }

    #[inline(always)]
    unsafe fn begin<'s>(
        &'s self,
        tile: Tile,
        position: usize,
        staged: &'s Staged<E>,
    ) -> [Lines<'s, E>; 1] {
        let at = self.at(tile, position);
        // SAFETY: the caller's promise.
        [unsafe { self.h.row(at, tile.width) }.begin(staged.row(0, position))]
    }
}
