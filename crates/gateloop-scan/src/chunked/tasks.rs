//! What one thread does at a time.

use super::dispatch::{Isa, Kernel};
use super::drive::{Pass, Walk, apply};
use super::output::{Output, fence};
use super::plan::{Plan, Tile};
use super::rows::{Fold, Lanes};

/// One tile through all of time, in one pass.
///
/// At the end of a chunk the state is replaced by what the chunk's affine map says, so that the
/// result is that of [`Reduce`], the carries and [`FromState`], bit for bit.
pub(super) struct Through<'p, P> {
    pub(super) pass: &'p P,
    pub(super) plan: &'p Plan,
    pub(super) tile: Tile,
}

impl<P: Pass> Kernel for Through<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, plan, tile } = self;
        let (mut state, mut factor, mut offset) = (Lanes::zero(), Lanes::zero(), Lanes::zero());
        let state = &mut state.0[tile.lanes()];
        pass.start(tile, state);
        let last = plan.chunks() - 1;
        for chunk in 0..last {
            let mut before = Lanes::zero();
            let before = &mut before.0[tile.lanes()];
            before.copy_from_slice(state);
            let mut fold = Fold {
                factor: &mut factor.0[tile.lanes()],
                offset: &mut offset.0[tile.lanes()],
                lead: tile.lead,
            };
            fold.reset();
            let mut walk = Walk { state, fold: Some(fold), write: true, ahead: plan.ahead };
            // SAFETY: every tile is walked through by one task.
            unsafe { pass.walk::<I>(tile, plan.chunk(chunk), &mut walk) };

            let forgets = pass.forgets(tile.batch, plan.chunk(chunk));
            let maps = factor.0[tile.lanes()].iter().zip(&offset.0[tile.lanes()]);
            for ((state, &before), (&factor, &offset)) in
                state.iter_mut().zip(before.iter()).zip(maps)
            {
                *state = apply(forgets, factor, offset, before).unwrap_or(*state);
            }
        }
        let mut walk = Walk { state, fold: None, write: true, ahead: plan.ahead };
        // SAFETY: every tile is walked through and finished by one task.
        unsafe {
            pass.walk::<I>(tile, plan.chunk(last), &mut walk);
            pass.finish(tile, walk.state);
        }
        fence();
    }
}

/// One tile through one chunk, reduced to its affine map.
pub(super) struct Reduce<'p, P: Pass> {
    pub(super) pass: &'p P,
    pub(super) plan: &'p Plan,
    pub(super) tile: Tile,
    pub(super) chunk: usize,
    /// `[B, chunks, C]`.
    pub(super) factors: &'p Output<'p, P::Element>,
    /// `[B, chunks, C]`.
    pub(super) offsets: &'p Output<'p, P::Element>,
}

impl<P: Pass> Kernel for Reduce<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, plan, tile, chunk, factors, offsets } = self;
        let (mut state, mut factor, mut offset) = (Lanes::zero(), Lanes::zero(), Lanes::zero());
        let mut fold = Fold {
            factor: &mut factor.0[tile.lanes()],
            offset: &mut offset.0[tile.lanes()],
            lead: tile.lead,
        };
        fold.reset();
        let mut walk = Walk {
            state: &mut state.0[tile.lanes()],
            fold: Some(fold),
            write: false,
            ahead: plan.ahead,
        };
        // SAFETY: nothing is written.
        unsafe { pass.walk::<I>(tile, plan.chunk(chunk), &mut walk) };

        let row = tile.batch * plan.chunks() + chunk;
        let at = row * plan.shape.channels + tile.first;
        // SAFETY: every pair of tile and chunk is reduced by one task.
        unsafe {
            let mut row = factors.row(at, tile.width);
            row.lanes(0..tile.width).copy_from_slice(&factor.0[tile.lanes()]);
            let mut row = offsets.row(at, tile.width);
            row.lanes(0..tile.width).copy_from_slice(&offset.0[tile.lanes()]);
        }
    }
}

/// One tile through one chunk, from the state that enters it.
pub(super) struct FromState<'p, P: Pass> {
    pub(super) pass: &'p P,
    pub(super) plan: &'p Plan,
    pub(super) tile: Tile,
    pub(super) chunk: usize,
    /// `[B, chunks, C]`.
    pub(super) states: &'p [P::Element],
}

impl<P: Pass> Kernel for FromState<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, plan, tile, chunk, states } = self;
        let mut state = Lanes::zero();
        let state = &mut state.0[tile.lanes()];
        let row = tile.batch * plan.chunks() + chunk;
        let at = row * plan.shape.channels + tile.first;
        state.copy_from_slice(&states[at..at + tile.width]);
        let mut walk = Walk { state, fold: None, write: true, ahead: plan.ahead };
        // SAFETY: every pair of tile and chunk is walked through by one task, and the last chunk
        // of a tile exists once.
        unsafe {
            pass.walk::<I>(tile, plan.chunk(chunk), &mut walk);
            if chunk + 1 == plan.chunks() {
                pass.finish(tile, walk.state);
            }
        }
        fence();
    }
}
