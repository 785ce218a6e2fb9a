//! The forward pass as [`drive`](super::drive) wants it.

use core::ops::Range;

use crate::{Scan, ScanElement};

use super::dispatch::Isa;
use super::drive::{Pass, Walk};
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
    /// Whether the state at `position` is its input alone.
    #[inline(always)]
    fn is_first(&self, batch: usize, position: usize) -> bool {
        (position == 0 && self.scan.h0().is_none())
            || self.scan.is_cut(batch, self.scan.token(position))
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
        for position in positions {
            let at = self.scan.shape().row(tile.batch, self.scan.token(position)) + tile.first;
            let [a, b] = self.operands(tile, position);
            let later = walk.later(position, self.scan.shape().seqlen);
            let later = later.map_or(Later::none(), |later| Later(self.operands(tile, later)));
            let out = walk.write.then(|| match &mut walk.staged {
                Some(staged) => staged.row_mut(0, position),
                // SAFETY: the row belongs to this tile and these positions, which the caller promises
                // to be this thread's if it writes.
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
                continue;
            }
            match out {
                Some(out) => advance_out::<I, E>(walk.state, a, b, out, later),
                None => advance(walk.state, a, b),
            }
            if let Some(fold) = &mut walk.fold {
                fold_forward(fold, a, b);
            }
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
        let at = self.scan.shape().row(tile.batch, self.scan.token(position)) + tile.first;
        [self.scan.a(), self.scan.b()].map(|operand| &operand[at..at + tile.width])
    }

    #[inline(always)]
    unsafe fn begin<'s>(
        &'s self,
        tile: Tile,
        position: usize,
        staged: &'s Staged<E>,
    ) -> [Lines<'s, E>; 1] {
        let at = self.scan.shape().row(tile.batch, self.scan.token(position)) + tile.first;
        // SAFETY: the caller's promise.
        [unsafe { self.h.row(at, tile.width) }.begin(staged.row(0, position))]
    }
}
