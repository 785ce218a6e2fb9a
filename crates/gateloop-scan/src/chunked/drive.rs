//! Runs a pass over tiles and chunks, on as many threads as the plan says.

use core::ops::Range;

use crate::{ParallelFor, ScanElement};

use super::dispatch::{Isa, Kernel, Level};
use super::output::{Output, Staged};
use super::plan::{Plan, Schedule};
use super::rows::Fold;
use super::tasks::{from_state, reduce, through};
use super::tile::Tile;

/// A recurrence that walks through time with a state a lane: the scan, or its adjoint.
pub(crate) trait Pass: Sync {
    /// The number that is scanned.
    type Element: ScanElement;

    /// Whether it walks through memory from its end to its beginning.
    fn goes_backwards(&self) -> bool;

    /// Writes the state that enters the first position.
    fn start(&self, tile: Tile, state: &mut [Self::Element]);

    /// Whether the state after `positions` does not depend on the one before.
    fn forgets(&self, batch: usize, positions: Range<usize>) -> bool;

    /// Advances `walk` through `positions`, which count in the order of this pass.
    ///
    /// # Safety
    /// If `walk.write`, no other thread walks through any of these positions of this tile.
    unsafe fn walk<I: Isa>(
        &self,
        tile: Tile,
        positions: Range<usize>,
        walk: &mut Walk<'_, Self::Element>,
    );

    /// Takes the state after the last position.
    ///
    /// # Safety
    /// No other thread finishes this tile.
    unsafe fn finish(&self, tile: Tile, state: &[Self::Element]);
}

/// What a walk carries along, each `[tile.width]`.
pub(crate) struct Walk<'s, E> {
    /// The state.
    pub(crate) state: &'s mut [E],
    /// The affine map of the walk, if it is wanted.
    pub(crate) fold: Option<Fold<'s, E>>,
    /// Whether outputs are written.
    pub(crate) write: bool,
    /// How many rows in advance inputs are asked for; 0 for never.
    pub(crate) ahead: usize,
    /// Where outputs are written to in place of the output arrays.
    pub(crate) staged: Option<&'s mut Staged<E>>,
}

impl<'s, E> Walk<'s, E> {
    /// Writes no outputs.
    pub(crate) fn reading(state: &'s mut [E], fold: Option<Fold<'s, E>>, ahead: usize) -> Self {
        Self { state, fold, write: false, ahead, staged: None }
    }

    /// Whether nothing but the state is wanted.
    #[inline(always)]
    pub(crate) fn only_moves(&self) -> bool {
        !self.write && self.fold.is_none()
    }

    /// The position whose operands are to be asked for at this one.
    #[inline(always)]
    pub(crate) fn later(&self, position: usize, seqlen: usize) -> Option<usize> {
        let later = position + self.ahead;
        (self.ahead > 0 && later < seqlen).then_some(later)
    }

    /// Writes outputs where they belong.
    pub(crate) fn writing(state: &'s mut [E], fold: Option<Fold<'s, E>>, ahead: usize) -> Self {
        Self { state, fold, write: true, ahead, staged: None }
    }
}

/// [`Pass::walk`] with an instruction set, as a function of its own: it is long, and called from many places.
///
/// # Safety
/// As for [`Pass::walk`].
pub(crate) unsafe fn walk<P: Pass>(
    level: Level,
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    walk: &mut Walk<'_, P::Element>,
) {
    struct Apart<'w, 's, P: Pass> {
        pass: &'w P,
        tile: Tile,
        positions: Range<usize>,
        walk: &'w mut Walk<'s, P::Element>,
    }

    impl<P: Pass> Kernel for Apart<'_, '_, P> {
        #[inline(always)]
        fn run<I: Isa>(self) {
            // SAFETY: the promise of the caller of the function around.
            unsafe { self.pass.walk::<I>(self.tile, self.positions, self.walk) };
        }
    }

    level.dispatch(Apart { pass, tile, positions, walk });
}

/// Runs `pass` as `plan` says.
pub(crate) fn run<P: Pass>(pass: &P, plan: &Plan, threads: &dyn ParallelFor) {
    let through = |group| through(pass, plan, group);
    match plan.schedule {
        Schedule::Serial => (0..plan.groups()).for_each(through),
        Schedule::Groups => threads.for_each(plan.groups(), &through),
        Schedule::Chunks => by_chunks(pass, plan, threads),
    }
}

/// Two passes over the data, with the carries between them.
fn by_chunks<P: Pass>(pass: &P, plan: &Plan, threads: &dyn ParallelFor) {
    let (chunks, channels) = (plan.chunks(), plan.shape.channels);
    // [B, chunks, C]; the last chunk's map is not needed and stays unset.
    let len = plan.shape.batch * chunks * channels;
    let (mut factors, mut offsets) = (vec![P::Element::ZERO; len], vec![P::Element::ZERO; len]);
    {
        let (factors, offsets) =
            (&Output::new(&mut factors, false), &Output::new(&mut offsets, false));
        threads.for_each(plan.tiles() * (chunks - 1), &|task| {
            let (tile, chunk) = (plan.tile(task / (chunks - 1)), task % (chunks - 1));
            reduce(pass, plan, tile, chunk, [factors, offsets]);
        });
    }

    let mut states = vec![P::Element::ZERO; len];
    for batch in 0..plan.shape.batch {
        carry(pass, plan, batch, &Maps { factors: &factors, offsets: &offsets }, &mut states);
    }

    let states = &states;
    threads.for_each(plan.tiles() * chunks, &|task| {
        let (tile, chunk) = (plan.tile(task / chunks), task % chunks);
        from_state(pass, plan, tile, chunk, states);
    });
}

/// The affine maps of all chunks, `[B, chunks, C]`.
struct Maps<'m, E> {
    factors: &'m [E],
    offsets: &'m [E],
}

/// Writes the state that enters each chunk of one sequence.
fn carry<P: Pass>(
    pass: &P,
    plan: &Plan,
    batch: usize,
    maps: &Maps<'_, P::Element>,
    states: &mut [P::Element],
) {
    let (chunks, channels) = (plan.chunks(), plan.shape.channels);
    let sequence = batch * chunks * channels;
    let all = Tile::sequence(batch, channels);
    pass.start(all, &mut states[sequence..sequence + channels]);
    for chunk in 0..chunks - 1 {
        let at = sequence + chunk * channels;
        let forgets = pass.forgets(batch, plan.chunk(chunk));
        for c in 0..channels {
            let before = states[at + c];
            let (factor, offset) = (maps.factors[at + c], maps.offsets[at + c]);
            states[at + channels + c] =
                apply(forgets, factor, offset, before).unwrap_or_else(|| {
                    let mut state = [before];
                    let mut walk = Walk::reading(&mut state, None, 0);
                    let lane = Tile::lane(batch, c);
                    // SAFETY: nothing is written.
                    unsafe { self::walk(plan.level, pass, lane, plan.chunk(chunk), &mut walk) };
                    state[0]
                });
        }
    }
}

/// The state after a chunk, by its map. `None` if the map is no use: a product of decays, or a
/// state reached from zero, can overflow where the true state does not.
#[inline(always)]
pub(crate) fn apply<E: ScanElement>(forgets: bool, factor: E, offset: E, before: E) -> Option<E> {
    let after = if forgets { offset } else { factor * before + offset };
    after.is_finite().then_some(after)
}
