//! The forward pass as [`drive`](super::drive) wants it.

use core::ops::Range;

use crate::{Scan, ScanElement};

use super::columns::{self, ByColumns, Map, part, part_mut};
use super::dispatch::Isa;
use super::drive::{Pass, Walk};
use super::output::{Lines, Output, OutputRow, Staged};
use super::relay::Relayed;
use super::rows::{Later, advance, advance_into, advance_out, fold_forward};
use super::tile::Tile;

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
            Some(out) => advance_out::<I, E>(walk.state, a, b, out, later, self.goes_backwards()),
            None => advance(walk.state, a, b),
        }
        if let Some(fold) = &mut walk.fold {
            fold_forward(fold, a, b);
        }
    }

    /// Walks through rows that all have something before, each of which is the state of the next.
    ///
    /// # Safety
    /// As for [`Pass::walk`] with `write`.
    #[inline(always)]
    unsafe fn walk_in_place(&self, tile: Tile, positions: Range<usize>, state: &mut [E]) {
        let step = columns::step(self.scan.shape().channels, self.goes_backwards());
        let mut before: Option<OutputRow<'_, E>> = None;
        let at = if positions.is_empty() { 0 } else { self.at(tile, positions.start) };
        for at in columns::rows(at, step, positions.len()) {
            let lanes = at..at + tile.width;
            let (a, b) = (&self.scan.a()[lanes.clone()], &self.scan.b()[lanes]);
            // SAFETY: the row belongs to this tile and these positions, which the caller promises to be this
            // thread's; no position comes twice.
            let mut now = unsafe { self.h.row(at, tile.width) };
            let before_row = before.as_mut().map_or(&*state, |row| row.lanes(0..tile.width));
            advance_into(before_row, a, b, now.lanes(0..tile.width));
            before = Some(now);
        }
        if let Some(mut last) = before {
            state.copy_from_slice(last.lanes(0..tile.width));
        }
    }
}

impl<E: ScanElement> Pass for Forward<'_, '_, E> {
    type Element = E;

    fn goes_backwards(&self) -> bool {
        self.scan.token(0) != 0
    }

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
        let in_caches = walk.staged.is_none() && !self.h.is_streaming();
        if (in_caches || walk.only_moves()) && !self.scan.has_segments() && !positions.is_empty() {
            if self.is_first(tile.batch, positions.start) {
                // SAFETY: the caller's promise.
                unsafe { self.walk_row::<I>(tile, positions.start, walk) };
                positions.start += 1;
            }
            if columns::suit::<E>(tile.width) || walk.only_moves() {
                // SAFETY: the caller's promise.
                return unsafe { columns::walk(self, tile, positions, walk) };
            }
            if walk.write && walk.fold.is_none() {
                // SAFETY: the caller's promise.
                return unsafe { self.walk_in_place(tile, positions, walk.state) };
            }
        }
        for position in positions {
            // SAFETY: the caller's promise.
            unsafe { self.walk_row::<I>(tile, position, walk) };
        }
    }

    unsafe fn finish(&self, _tile: Tile, _state: &[E]) {}
}

impl<E: ScanElement> ByColumns<E> for Forward<'_, '_, E> {
    #[inline(always)]
    unsafe fn column<const W: usize>(
        &self,
        tile: Tile,
        first: usize,
        positions: Range<usize>,
        walk: &mut Walk<'_, E>,
    ) {
        let step = columns::step(self.scan.shape().channels, self.goes_backwards());
        let rows = columns::rows(self.at(tile, positions.start) + first, step, positions.len());
        let mut h: [E; W] = *part(walk.state, first);
        let operands = |at| (part(self.scan.a(), at), part(self.scan.b(), at));
        let write = |at, h: &[E; W]| {
            // SAFETY: the lanes belong to this tile and these positions, which the caller promises to be
            // this thread's.
            unsafe { self.h.row(at, W) }.lanes(0..W).copy_from_slice(h);
        };
        match &mut walk.fold {
            Some(fold) => {
                let mut map = Map::load(fold, first);
                for at in rows {
                    let (a, b) = operands(at);
                    advance_column(&mut h, a, b);
                    map.forward(a, b);
                    if walk.write {
                        write(at, &h);
                    }
                }
                map.store(fold, first);
            }
            None if walk.write => {
                for at in rows {
                    let (a, b) = operands(at);
                    advance_column(&mut h, a, b);
                    write(at, &h);
                }
            }
            None => {
                for at in rows {
                    let (a, b) = operands(at);
                    advance_column(&mut h, a, b);
                }
            }
        }
        *part_mut(walk.state, first) = h;
    }
}

/// `h <- a h + b`
#[inline(always)]
fn advance_column<E: ScanElement, const W: usize>(h: &mut [E; W], a: &[E; W], b: &[E; W]) {
    for i in 0..W {
        h[i] = a[i] * h[i] + b[i];
    }
}

impl<E: ScanElement> Relayed<2, 1> for Forward<'_, '_, E> {
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
