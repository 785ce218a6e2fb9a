//! Gate, scan and readout in one pass.

use core::ops::Range;

use crate::ScanElement;
use crate::chunked::dispatch::Isa;
use crate::chunked::drive::{Pass, Walk};
use crate::chunked::output::{Output, prefetch};
use crate::chunked::rows::fold_forward;
use crate::chunked::tile::Tile;

use super::CHECKPOINT_LEN;
use super::kind::{Input, Kind};
use super::operator::Operator;
use super::planes::{DecayRow, MAX_WIDTH, Planes};
use super::rows::SharedRows;

/// Writes `y`, and the states that are wanted.
pub(super) struct Forward<'p, 'a, K: Kind> {
    pub(super) operator: &'p Operator<'a, K>,
    pub(super) y: SharedRows<'p, K::Real>,
    pub(super) h_last: Option<Output<'p, K::State>>,
    /// `[B, checkpoints, C]`
    pub(super) checkpoints: Option<Output<'p, K::State>>,
}

/// The operands of one row of a tile.
pub(super) struct Operands<'r, R> {
    pub(super) q: &'r [R],
    pub(super) input: Input<'r, R>,
    pub(super) z: &'r [R],
}

impl<R> Operands<'_, R> {
    /// Asks for what will soon be read.
    #[inline(always)]
    pub(super) fn prefetch(&self) {
        prefetch(self.q);
        self.prefetch_input();
    }

    /// The same of what moves a state.
    #[inline(always)]
    pub(super) fn prefetch_input(&self) {
        prefetch(self.input.k);
        if let Some(v) = self.input.v {
            prefetch(v);
        }
        prefetch(self.z);
    }

    /// The same of what moves the gradient of a state.
    #[inline(always)]
    pub(super) fn prefetch_gate(&self) {
        prefetch(self.q);
        prefetch(self.z);
    }
}

impl<K: Kind> Operator<'_, K> {
    /// The operands of token `t`.
    #[inline(always)]
    pub(super) fn operands(&self, tile: Tile, t: usize) -> Operands<'_, K::Real> {
        let columns = tile.first..tile.first + tile.width;
        let gates = K::GATE_PARTS * columns.start..K::GATE_PARTS * columns.end;
        Operands {
            q: self.q.row(tile.batch, t, columns.clone()),
            input: Input {
                k: self.k.row(tile.batch, t, columns.clone()),
                v: self.v.as_ref().map(|v| v.row(tile.batch, t, columns.clone())),
            },
            z: self.z.row(tile.batch, t, gates),
        }
    }

    /// Whether nothing comes before `position` of the pass.
    #[inline(always)]
    pub(super) fn is_first(&self, batch: usize, position: usize) -> bool {
        (position == 0 && self.h0.is_none()) || self.is_cut(batch, self.token(position))
    }

    /// Where the checkpoint at `position` lies in `[B, checkpoints, C]`.
    #[inline(always)]
    pub(super) fn checkpoint_at(&self, tile: Tile, position: usize) -> usize {
        let row = tile.batch * self.checkpoint_count() + position / CHECKPOINT_LEN;
        row * self.shape.channels + tile.first
    }
}

impl<K: Kind> Pass for Forward<'_, '_, K> {
    type Element = K::State;

    fn goes_backwards(&self) -> bool {
        self.operator.reversed
    }

    fn start(&self, tile: Tile, state: &mut [K::State]) {
        match self.operator.h0 {
            Some(h0) => state.copy_from_slice(&h0[tile.in_state(self.operator.shape.channels)]),
            None => state.fill(K::State::ZERO),
        }
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        positions.any(|position| self.operator.is_first(batch, position))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, K::State>,
    ) {
        let operator = self.operator;
        let mut states = [Planes::zero(tile.width), Planes::zero(tile.width)];
        let [mut h, mut next] = states.each_mut();
        let mut decays = DecayRow::zero();
        K::load(walk.state, h);
        let mut y = [K::Real::ZERO; MAX_WIDTH];
        let y = &mut y[..tile.width];
        for position in positions {
            let t = operator.token(position);
            let row = operator.operands(tile, t);
            let later = position + walk.ahead;
            if walk.ahead > 0 && later < operator.shape.seqlen {
                operator.operands(tile, operator.token(later)).prefetch();
            }
            if walk.write && position.is_multiple_of(CHECKPOINT_LEN) {
                // SAFETY: the checkpoint belongs to this tile and these positions.
                unsafe { self.checkpoint(tile, position, h) };
            }
            let first = operator.is_first(tile.batch, position);
            let mut decays = decays.row(tile.width);
            K::decays(operator.mode, row.z, &mut decays);
            if first {
                row.input.begin(h);
            } else {
                K::advance(&decays, row.input, h, next);
                core::mem::swap(&mut h, &mut next);
            }
            if walk.write {
                for ((y, &q), &h) in y.iter_mut().zip(row.q).zip(h.re()) {
                    *y = q * h;
                }
                let columns = tile.first..tile.first + tile.width;
                // SAFETY: the row belongs to this tile and these positions, which the caller
                // promises to be this thread's.
                unsafe { self.y.row(tile.batch, t, columns) }.write::<I>(y);
            }
            if let Some(fold) = &mut walk.fold {
                let (a, b) = aside::<K>(&decays, row.input);
                if first {
                    fold.offset.copy_from_slice(&b[..tile.width]);
                } else {
                    fold_forward(fold, &a[..tile.width], &b[..tile.width]);
                }
            }
        }
        K::store(h, walk.state);
    }

    unsafe fn finish(&self, tile: Tile, state: &[K::State]) {
        if let Some(h_last) = &self.h_last {
            let at = tile.in_state(self.operator.shape.channels).start;
            // SAFETY: each tile is finished once, and its channels are its own.
            let mut row = unsafe { h_last.row(at, tile.width) };
            row.lanes(0..tile.width).copy_from_slice(state);
        }
    }
}

impl<K: Kind> Forward<'_, '_, K> {
    /// Keeps the state before `position`, if checkpoints are wanted.
    ///
    /// # Safety
    /// No other thread writes this checkpoint of this tile.
    #[inline(always)]
    unsafe fn checkpoint(&self, tile: Tile, position: usize, h: &Planes<K::Real>) {
        if let Some(checkpoints) = &self.checkpoints {
            let at = self.operator.checkpoint_at(tile, position);
            // SAFETY: the caller's promise.
            let mut row = unsafe { checkpoints.row(at, tile.width) };
            K::store(h, row.lanes(0..tile.width));
        }
    }
}

/// Decays and inputs of a row as numbers of the state's type, for the fold.
#[inline(always)]
fn aside<K: Kind>(
    decays: &super::planes::Decays<'_, K::Real>,
    input: Input<'_, K::Real>,
) -> ([K::State; MAX_WIDTH], [K::State; MAX_WIDTH]) {
    let width = decays.re.len();
    let (mut a, mut b) = ([K::State::ZERO; MAX_WIDTH], [K::State::ZERO; MAX_WIDTH]);
    K::store(&Planes::of_decays(decays), &mut a[..width]);
    let mut x = Planes::zero(width);
    input.begin(&mut x);
    K::store(&x, &mut b[..width]);
    (a, b)
}
