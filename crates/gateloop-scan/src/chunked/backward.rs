//! The adjoint pass as [`drive`](super::drive) wants it: the reverse scan and both products in
//! one sweep.
//!
//! The state of this pass is `c[t] = conj(a[t]) g[t]`, what token `t` hands to the one before it.
//! That reads row `t` only, where `g[t] = dh[t] + conj(a[t+1]) g[t+1]` would read two rows of
//! decays, and leaves `dh0` as the state at the end.

use core::ops::Range;

use crate::adjoint::Upstream;
use crate::{Scan, ScanElement};

use super::columns::{self, ByColumns, Map, part, part_mut};
use super::dispatch::Isa;
use super::drive::{Pass, Walk};
use super::output::{Lines, Output, Staged};
use super::relay::Relayed;
use super::rows::{Adjoint, Later, add, adjoint_out, fold_backward, retreat};
use super::tile::Tile;

/// Writes `da`, `db` and, if asked for, `dh0`.
pub(super) struct Backward<'p, 'a, E> {
    pub(super) scan: &'p Scan<'a, E>,
    pub(super) upstream: Upstream<'p, E>,
    pub(super) da: Output<'p, E>,
    pub(super) db: Output<'p, E>,
    pub(super) dh0: Option<Output<'p, E>>,
}

impl<E: ScanElement> Backward<'_, '_, E> {
    /// The forward pass's position for this pass's.
    #[inline(always)]
    fn mirrored(&self, position: usize) -> usize {
        self.scan.shape().seqlen - 1 - position
    }

    /// Where the row of a tile at `position` begins.
    #[inline(always)]
    fn at(&self, tile: Tile, position: usize) -> usize {
        let t = self.scan.token(self.mirrored(position));
        self.scan.shape().row(tile.batch, t) + tile.first
    }

    #[inline(always)]
    fn is_cut(&self, batch: usize, position: usize) -> bool {
        self.scan.is_cut(batch, self.scan.token(self.mirrored(position)))
    }

    /// The states that the tokens at `position` multiplied, if any.
    #[inline(always)]
    fn before(&self, tile: Tile, position: usize) -> Option<&[E]> {
        let shape = self.scan.shape();
        if self.is_cut(tile.batch, position) {
            return None;
        }
        match self.mirrored(position) {
            0 => self.scan.h0().map(|h0| &h0[tile.in_state(shape.channels)]),
            forward => {
                let at = shape.row(tile.batch, self.scan.token(forward - 1)) + tile.first;
                Some(&self.upstream.h[at..at + tile.width])
            }
        }
    }

    #[inline(always)]
    fn goes_by_columns(&self, tile: Tile, walk: &Walk<'_, E>) -> bool {
        let in_caches = walk.staged.is_none() && !self.db.is_streaming();
        let suits = in_caches && columns::suit::<E>(tile.width);
        (suits || walk.only_moves()) && !self.scan.has_segments()
    }

    /// Advances `walk` by one row.
    ///
    /// # Safety
    /// As for [`Pass::walk`].
    #[inline(always)]
    unsafe fn walk_row<I: Isa>(&self, tile: Tile, position: usize, walk: &mut Walk<'_, E>) {
        let at = self.at(tile, position);
        let [a, dh, _] = self.operands(tile, position);
        let later = walk.later(position, self.scan.shape().seqlen);
        let later = later.map_or(Later::none(), |later| Later(self.operands(tile, later)));
        let out = walk.write.then(|| match &mut walk.staged {
            Some(staged) => staged.both_mut(position),
            // SAFETY: the rows belong to this tile and these positions, which the caller promises
            // to be this thread's if it writes.
            None => unsafe { [&self.da, &self.db].map(|out| out.row(at, tile.width)) },
        });
        let before = self.before(tile, position);
        match (out, before) {
            (Some(out), Some(before)) => {
                adjoint_out::<I, E>(
                    walk.state,
                    &Adjoint { a, dh, before },
                    out,
                    later,
                    self.goes_backwards(),
                );
            }
            (Some([mut da, mut db]), None) => {
                da.lanes(0..tile.width).fill(E::ZERO);
                add(db.lanes(0..tile.width), dh, walk.state);
                retreat(walk.state, a, dh);
            }
            (None, _) => retreat(walk.state, a, dh),
        }
        if let Some(fold) = &mut walk.fold {
            fold_backward(fold, a, dh);
        }
        if self.is_cut(tile.batch, position) {
            walk.state.fill(E::ZERO);
            if let Some(fold) = &mut walk.fold {
                fold.offset.fill(E::ZERO);
            }
        }
    }
}

impl<E: ScanElement> Pass for Backward<'_, '_, E> {
    type Element = E;

    fn goes_backwards(&self) -> bool {
        self.scan.token(0) == 0
    }

    fn start(&self, tile: Tile, state: &mut [E]) {
        match self.upstream.dh_last {
            Some(last) => state.copy_from_slice(&last[tile.in_state(self.scan.shape().channels)]),
            None => state.fill(E::ZERO),
        }
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        positions.any(|position| self.is_cut(batch, position))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(&self, tile: Tile, positions: Range<usize>, walk: &mut Walk<'_, E>) {
        let mut positions = positions;
        if self.goes_by_columns(tile, walk) {
            // What the first token multiplied is not a row of states.
            let end = positions.end.min(self.scan.shape().seqlen - 1).max(positions.start);
            // SAFETY: the caller's promise.
            unsafe { columns::walk(self, tile, positions.start..end, walk) };
            positions.start = end;
        }
        for position in positions {
            // SAFETY: the caller's promise.
            unsafe { self.walk_row::<I>(tile, position, walk) };
        }
    }

    unsafe fn finish(&self, tile: Tile, state: &[E]) {
        if let Some(dh0) = &self.dh0 {
            let at = tile.in_state(self.scan.shape().channels).start;
            // SAFETY: each tile is finished once, and its channels are its own.
            let mut row = unsafe { dh0.row(at, tile.width) };
            row.lanes(0..tile.width).copy_from_slice(state);
        }
    }
}

impl<E: ScanElement> ByColumns<E> for Backward<'_, '_, E> {
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
        let mut c: [E; W] = *part(walk.state, first);
        let operands = |at| (part(self.scan.a(), at), part(self.upstream.dh, at));
        let write = |at: usize, [da, g]: [&[E; W]; 2]| {
            // SAFETY: the lanes belong to this tile and these positions, which the caller promises to be
            // this thread's.
            let [mut da_out, mut g_out] = unsafe { [&self.da, &self.db].map(|out| out.row(at, W)) };
            da_out.lanes(0..W).copy_from_slice(da);
            g_out.lanes(0..W).copy_from_slice(g);
        };
        match &mut walk.fold {
            Some(fold) => {
                let mut map = Map::load(fold, first);
                for at in rows {
                    let (a, dh) = operands(at);
                    map.backward(a, dh);
                    let g = retreat_column(&mut c, a, dh);
                    if walk.write {
                        let before = part(self.upstream.h, at.wrapping_add_signed(step));
                        write(at, [&times_conj(&g, before), &g]);
                    }
                }
                map.store(fold, first);
            }
            None if walk.write => {
                for at in rows {
                    let (a, dh) = operands(at);
                    let g = retreat_column(&mut c, a, dh);
                    let before = part(self.upstream.h, at.wrapping_add_signed(step));
                    write(at, [&times_conj(&g, before), &g]);
                }
            }
            None => {
                for at in rows {
                    let (a, dh) = operands(at);
                    retreat_column(&mut c, a, dh);
                }
            }
        }
        *part_mut(walk.state, first) = c;
    }
}

/// `g = dh + c`, `c <- conj(a) g`.
#[inline(always)]
fn retreat_column<E: ScanElement, const W: usize>(
    c: &mut [E; W],
    a: &[E; W],
    dh: &[E; W],
) -> [E; W] {
    let mut g = [E::ZERO; W];
    for i in 0..W {
        g[i] = dh[i] + c[i];
        c[i] = g[i] * a[i].conj();
    }
    g
}

/// `g conj(h)`.
#[inline(always)]
fn times_conj<E: ScanElement, const W: usize>(g: &[E; W], h: &[E; W]) -> [E; W] {
    let mut product = [E::ZERO; W];
    for i in 0..W {
        product[i] = g[i] * h[i].conj();
    }
    product
}

impl<E: ScanElement> Relayed<3, 2> for Backward<'_, '_, E> {
    #[inline(always)]
    fn operands(&self, tile: Tile, position: usize) -> [&[E]; 3] {
        let at = self.at(tile, position);
        [self.scan.a(), self.upstream.dh, self.upstream.h]
            .map(|operand| &operand[at..at + tile.width])
    }

    #[inline(always)]
    unsafe fn begin<'s>(
        &'s self,
        tile: Tile,
        position: usize,
        staged: &'s Staged<E>,
    ) -> [Lines<'s, E>; 2] {
        let at = self.at(tile, position);
        // SAFETY: the caller's promise.
        let [da, db] = [&self.da, &self.db].map(|out| unsafe { out.row(at, tile.width) });
        [da.begin(staged.row(0, position)), db.begin(staged.row(1, position))]
    }
}
