//! What a sequence does to the state that enters it, and to the gradient that enters it from behind, with nothing else
//! computed: no readout forward, no gradients of operands backward.

use core::ops::Range;

use crate::ScanElement;
use crate::chunked::dispatch::Isa;
use crate::chunked::drive::{Pass, Walk};
use crate::chunked::output::prefetch;
use crate::chunked::rows::{fold_backward, retreat};
use crate::chunked::tile::Tile;

use super::kind::Kind;
use super::operator::Operator;
use super::planes::{DecayRow, MAX_WIDTH, Planes};
use super::rows::Rows;

/// The forward pass that only reads, to be reduced to its map.
pub(super) struct Forth<'p, 'a, K: Kind> {
    pub(super) operator: &'p Operator<'a, K>,
}

impl<K: Kind> Pass for Forth<'_, '_, K> {
    type Element = K::State;

    fn goes_backwards(&self) -> bool {
        self.operator.reversed
    }

    fn start(&self, _tile: Tile, state: &mut [K::State]) {
        state.fill(K::State::ZERO);
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        let operator = self.operator;
        positions.any(|position| operator.is_cut(batch, operator.token(position)))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, K::State>,
    ) {
        let operator = self.operator;
        let (ahead, seqlen) = (walk.ahead, operator.shape.seqlen);
        let Some(fold) = &mut walk.fold else { return };
        let [mut h, mut product] = [Planes::zero(tile.width), Planes::zero(tile.width)];
        K::load(fold.offset, &mut h);
        K::load(fold.factor, &mut product);
        let mut decays = DecayRow::zero();
        for position in positions {
            let later = Some(position + ahead).filter(|&later| ahead > 0 && later < seqlen);
            let t = operator.token(position);
            let row = operator.operands(tile, t);
            if let Some(later) = later {
                operator.operands(tile, operator.token(later)).prefetch_input();
            }
            if operator.is_cut(tile.batch, t) {
                // Of the product nothing is left then, whatever it is.
                row.input.begin(&mut h);
                continue;
            }
            let mut decays = decays.row(tile.width);
            K::decays(operator.mode, row.z, &mut decays);
            K::compose(&decays, row.input, &mut h, &mut product);
        }
        K::store(&h, fold.offset);
        K::store(&product, fold.factor);
    }

    unsafe fn finish(&self, _tile: Tile, _state: &[K::State]) {}
}

/// The adjoint's walk from the last token to the first, of which only what one token hands to the next is wanted:
/// `c[t] = conj(a[t]) (q[t] dy[t] + c[t+1])`.
pub(super) struct Back<'p, 'a, K: Kind> {
    pub(super) operator: &'p Operator<'a, K>,
    pub(super) dy: Rows<'p, K::Real>,
}

impl<K: Kind> Back<'_, '_, K> {
    /// The token that this pass visits at `position`.
    #[inline(always)]
    fn token(&self, position: usize) -> usize {
        self.operator.token(self.operator.shape.seqlen - 1 - position)
    }

    /// Advances the map of the walk, or, if it only moves, its state.
    #[inline(always)]
    pub(super) fn reduce(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, K::State>,
    ) {
        let operator = self.operator;
        let mut decays = DecayRow::zero();
        let (mut a, mut dh) = ([K::State::ZERO; MAX_WIDTH], [K::State::ZERO; MAX_WIDTH]);
        let (a, dh) = (&mut a[..tile.width], &mut dh[..tile.width]);
        for position in positions {
            let t = self.token(position);
            let row = operator.operands(tile, t);
            if let Some(later) = walk.later(position, operator.shape.seqlen) {
                let later = self.token(later);
                operator.operands(tile, later).prefetch_gate();
                prefetch(self.dy.row(tile.batch, later, tile.first..tile.first + tile.width));
            }
            let mut decays = decays.row(tile.width);
            K::decays(operator.mode, row.z, &mut decays);
            K::store(&Planes::of_decays(&decays), a);
            let mut g = Planes::zero(tile.width);
            let dy = self.dy.row(tile.batch, t, tile.first..tile.first + tile.width);
            for ((g, &q), &dy) in g.re_mut().iter_mut().zip(row.q).zip(dy) {
                *g = q * dy;
            }
            K::store(&g, dh);
            let is_cut = operator.is_cut(tile.batch, t);
            if let Some(fold) = &mut walk.fold {
                fold_backward(fold, a, dh);
                if is_cut {
                    fold.offset.fill(K::State::ZERO);
                }
            }
            if walk.only_moves() {
                retreat(walk.state, a, dh);
                if is_cut {
                    walk.state.fill(K::State::ZERO);
                }
            }
        }
    }
}

impl<K: Kind> Pass for Back<'_, '_, K> {
    type Element = K::State;

    fn goes_backwards(&self) -> bool {
        !self.operator.reversed
    }

    fn start(&self, _tile: Tile, state: &mut [K::State]) {
        state.fill(K::State::ZERO);
    }

    fn forgets(&self, batch: usize, mut positions: Range<usize>) -> bool {
        positions.any(|position| self.operator.is_cut(batch, self.token(position)))
    }

    #[inline(always)]
    unsafe fn walk<I: Isa>(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, K::State>,
    ) {
        self.reduce(tile, positions, walk);
    }

    unsafe fn finish(&self, _tile: Tile, _state: &[K::State]) {}
}
