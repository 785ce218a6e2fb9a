//! The adjoint of the fused operators: all gradients in one sweep from the last token to the first.
//!
//! States are not kept by the forward pass, but for one in [`CHECKPOINT_LEN`] tokens. A block of as
//! many tokens computes its states again, with the same arithmetic, into the cache, and is then walked
//! through backwards. As in the adjoint of the scan, what is carried is `c[t] = conj(a[t]) g[t]`.

use core::ops::Range;

use crate::ScanElement;
use crate::chunked::dispatch::Isa;
use crate::chunked::drive::{Pass, Walk};
use crate::chunked::output::Output;
use crate::chunked::tile::Tile;

use super::CHECKPOINT_LEN;
use super::kind::{Grads, Kind, Row};
use super::operator::Operator;
use super::planes::{Block, MAX_WIDTH, Planes, Scratch};
use super::rows::{Rows, SharedRows};
use super::summary::Back;

/// Writes the gradients.
pub(super) struct Backward<'p, 'a, K: Kind> {
    pub(super) operator: &'p Operator<'a, K>,
    pub(super) dy: Rows<'p, K::Real>,
    pub(super) dh_last: Option<&'p [K::State]>,
    pub(super) checkpoints: &'p [K::State],
    pub(super) dq: SharedRows<'p, K::Real>,
    pub(super) dk: SharedRows<'p, K::Real>,
    pub(super) dv: Option<SharedRows<'p, K::Real>>,
    pub(super) dz: SharedRows<'p, K::Real>,
    pub(super) dh0: Option<Output<'p, K::State>>,
}

impl<K: Kind> Backward<'_, '_, K> {
    /// The forward pass's position for this pass's.
    #[inline(always)]
    fn mirrored(&self, position: usize) -> usize {
        self.operator.shape.seqlen - 1 - position
    }

    /// Whether nothing of what follows in this pass is handed what `position` of it says.
    #[inline(always)]
    fn is_cut(&self, batch: usize, position: usize) -> bool {
        self.operator.is_cut(batch, self.operator.token(self.mirrored(position)))
    }

    #[inline(always)]
    fn upstream(&self, tile: Tile, t: usize) -> &[K::Real] {
        self.dy.row(tile.batch, t, tile.first..tile.first + tile.width)
    }

    /// Computes decays and states of forward positions `rows` again.
    #[inline(always)]
    fn replay(&self, tile: Tile, rows: Range<usize>, block: &mut Block<K::Real, CHECKPOINT_LEN>) {
        let operator = self.operator;
        let at = operator.checkpoint_at(tile, rows.start);
        K::load(&self.checkpoints[at..at + tile.width], block.entry());
        for (i, position) in rows.enumerate() {
            let row = operator.operands(tile, operator.token(position));
            let (mut decays, before, after) = block.next(i);
            K::decays(operator.mode, row.z, &mut decays);
            if operator.is_first(tile.batch, position) {
                row.input.begin(after);
            } else {
                K::advance(&decays, row.input, before, after);
            }
        }
    }

    /// Walks backwards through forward positions `rows`, of which `block` knows the states;
    /// `first` is the position of its first one.
    ///
    /// # Safety
    /// As for [`Pass::walk`] of a walk that writes.
    #[inline(always)]
    unsafe fn sweep<I: Isa>(
        &self,
        tile: Tile,
        (first, rows): (usize, Range<usize>),
        block: &mut Block<K::Real, CHECKPOINT_LEN>,
        c: &mut Planes<K::Real>,
    ) {
        let operator = self.operator;
        let (width, batch) = (tile.width, tile.batch);
        let columns = tile.first..tile.first + width;
        let gates = K::GATE_PARTS * columns.start..K::GATE_PARTS * columns.end;
        let mut out = RowGrads::<K::Real>::zero();
        for position in rows.rev() {
            let t = operator.token(position);
            let operands = operator.operands(tile, t);
            let is_first = operator.is_first(batch, position);
            let (decays, before, after) = block.row(position - first);
            let row = Row {
                q: operands.q,
                input: operands.input,
                dy: self.upstream(tile, t),
                decays,
                before: (!is_first).then(|| (before.re(), before.im())),
                after,
                fraction: operator.fraction,
            };
            let mut grads = out.grads(c, width, K::GATE_PARTS);
            K::retreat(&row, &mut grads);
            // SAFETY: the rows belong to this tile and these positions, which the caller promises to
            // be this thread's.
            unsafe {
                self.dq.row(batch, t, columns.clone()).write::<I>(grads.dq);
                self.dk.row(batch, t, columns.clone()).write::<I>(grads.dk);
                if let Some(dv) = &self.dv {
                    dv.row(batch, t, columns.clone()).write::<I>(grads.dv);
                }
                self.dz.row(batch, t, gates.clone()).write::<I>(grads.dz);
            }
            if operator.is_cut(batch, t) {
                c.clear();
            }
        }
    }
}

impl<K: Kind> Pass for Backward<'_, '_, K> {
    type Element = K::State;

    fn goes_backwards(&self) -> bool {
        !self.operator.reversed
    }

    fn start(&self, tile: Tile, state: &mut [K::State]) {
        match self.dh_last {
            Some(last) => state.copy_from_slice(&last[tile.in_state(self.operator.shape.channels)]),
            None => state.fill(K::State::ZERO),
        }
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        positions.any(|position| self.is_cut(batch, position))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, K::State>,
    ) {
        if walk.fold.is_some() || !walk.write {
            Back { operator: self.operator, dy: self.dy }.reduce(tile, positions.clone(), walk);
        }
        if !walk.write {
            return;
        }
        let mut c = Planes::zero(tile.width);
        K::load(walk.state, &mut c);
        let mut block = Block::zero(tile.width);
        // The same rows as the forward pass counts them, last block first.
        let seqlen = self.operator.shape.seqlen;
        let (begin, mut end) = (seqlen - positions.end, seqlen - positions.start);
        while begin < end {
            let first = (end - 1) / CHECKPOINT_LEN * CHECKPOINT_LEN;
            self.replay(tile, first..end, &mut block);
            // SAFETY: the caller's promise.
            unsafe { self.sweep::<I>(tile, (first, begin.max(first)..end), &mut block, &mut c) };
            end = begin.max(first);
        }
        K::store(&c, walk.state);
    }

    unsafe fn finish(&self, tile: Tile, state: &[K::State]) {
        if let Some(dh0) = &self.dh0 {
            let at = tile.in_state(self.operator.shape.channels).start;
            // SAFETY: each tile is finished once, and its channels are its own.
            let mut row = unsafe { dh0.row(at, tile.width) };
            row.lanes(0..tile.width).copy_from_slice(state);
        }
    }
}

/// The gradients of a row before they are written.
#[repr(align(64))]
struct RowGrads<R> {
    dq: [R; MAX_WIDTH],
    dk: [R; MAX_WIDTH],
    dv: [R; MAX_WIDTH],
    dz: [R; 2 * MAX_WIDTH],
    scratch: Scratch<R>,
}

impl<R: super::Real> RowGrads<R> {
    #[inline(always)]
    fn zero() -> Self {
        Self {
            dq: [R::ZERO; MAX_WIDTH],
            dk: [R::ZERO; MAX_WIDTH],
            dv: [R::ZERO; MAX_WIDTH],
            dz: [R::ZERO; 2 * MAX_WIDTH],
            scratch: Scratch::zero(),
        }
    }

    #[inline(always)]
    fn grads<'r>(&'r mut self, c: &'r mut Planes<R>, width: usize, parts: usize) -> Grads<'r, R> {
        Grads {
            c,
            dq: &mut self.dq[..width],
            dk: &mut self.dk[..width],
            dv: &mut self.dv[..width],
            dz: &mut self.dz[..parts * width],
            scratch: &mut self.scratch,
        }
    }
}
