//! Few sequences, many threads, arrays larger than the caches: each thread takes a stretch of time, and
//! the state that enters it is guessed.
//!
//! Decays forget. A walk that begins with a state of zero some tokens before a segment arrives there, as a
//! rule, with the very bits of the true state: what lies further back is less than the last digit. So every
//! segment is walked through from such a state, all at the same time, each thread reading and writing whole
//! rows one after the other, which is what memory is fastest at. When all are done, each guess is compared
//! with the state that the segment before has ended with, bit by bit. Where they differ, the segment is
//! walked through again from the true state until the two walks have met, after which all is as it was.
//!
//! So the result is that of one walk through all of time, whatever the guesses were worth. If a trial at one
//! boundary says that they are worth little, nothing is done here.

use core::mem::size_of_val;
use core::ops::Range;

use crate::{ParallelFor, ScanElement};

use super::dispatch::{Isa, Kernel};
use super::drive::{Pass, Walk};
use super::output::{Output, fence};
use super::plan::{Plan, Tile, shares};
use super::rows::Lanes;

/// Tokens by which a walk begins before its segment, what is tried first first.
const LEADS: [usize; 3] = [256, 512, 1024];
/// A segment is at least so many times as long.
const MIN_LEADS: usize = 4;
/// Rows after which two walks are compared.
const STRIDE: usize = 64;

/// Runs `pass` over segments, or returns false and has done nothing.
pub(super) fn run<P: Pass>(pass: &P, plan: &Plan, threads: &dyn ParallelFor) -> bool {
    let cuts = LEADS.iter().filter_map(|&lead| Cut::new(plan, threads.threads(), lead));
    let Some(cut) = cuts.into_iter().find(|cut| {
        let mut forgets = false;
        plan.level.dispatch(Trial { pass, plan, cut, forgets: &mut forgets });
        forgets
    }) else {
        return false;
    };
    let len = plan.shape.batch * cut.count * plan.shape.channels;
    let (mut guesses, mut ends) = (vec![P::Element::ZERO; len], vec![P::Element::ZERO; len]);
    {
        let (guesses, ends) = (&Output::new(&mut guesses, false), &Output::new(&mut ends, false));
        threads.for_each(plan.shape.batch * cut.count, &|task| {
            let (batch, index) = (task / cut.count, task % cut.count);
            plan.level.dispatch(Segment { pass, plan, cut: &cut, batch, index, guesses, ends });
        });
    }
    for index in 0..plan.tiles() {
        let tile = plan.tile(index);
        plan.level.dispatch(Mend { pass, cut: &cut, tile, guesses: &guesses, ends: &mut ends });
    }
    true
}

/// Time, cut up.
struct Cut {
    seqlen: usize,
    channels: usize,
    count: usize,
    lead: usize,
}

impl Cut {
    /// As many segments a sequence as give every thread as many. None if they would be short.
    fn new(plan: &Plan, threads: usize, lead: usize) -> Option<Self> {
        let count = shares(plan.shape.batch, threads);
        let is_long = plan.shape.seqlen / count >= MIN_LEADS * lead;
        let (seqlen, channels) = (plan.shape.seqlen, plan.shape.channels);
        (count > 1 && is_long).then_some(Self { seqlen, channels, count, lead })
    }

    /// Positions of segment `index`.
    fn segment(&self, index: usize) -> Range<usize> {
        let edge = |i: usize| i * self.seqlen / self.count;
        edge(index)..edge(index + 1)
    }

    /// Where the state of a tile at a segment lies in `[B, segments, C]`.
    fn lanes(&self, tile: Tile, segment: usize) -> Range<usize> {
        let at = (tile.batch * self.count + segment) * self.channels + tile.first;
        at..at + tile.width
    }
}

/// Whether two walks to the first boundary, one half as long as the other, arrive with the same bits.
struct Trial<'p, P: Pass> {
    pass: &'p P,
    plan: &'p Plan,
    cut: &'p Cut,
    forgets: &'p mut bool,
}

impl<P: Pass> Kernel for Trial<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let tiles = self.plan.tiles() / self.plan.shape.batch;
        let (at, lead) = (self.cut.segment(1).start, self.cut.lead);
        *self.forgets = (0..tiles).all(|index| {
            let tile = self.plan.tile(index);
            let [long, short] = [lead, lead / 2].map(|lead| {
                let mut state = Lanes::zero();
                approach::<I, P>(self.pass, tile, at - lead..at, &mut state);
                state
            });
            same_bits(&long.0[tile.lanes()], &short.0[tile.lanes()])
        });
    }
}

/// Walks through `positions` and writes nothing.
#[inline(always)]
fn approach<I: Isa, P: Pass>(
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    state: &mut Lanes<P::Element>,
) {
    let mut walk = Walk::reading(&mut state.0[tile.lanes()], None, 0);
    // SAFETY: nothing is written.
    unsafe { pass.walk::<I>(tile, positions, &mut walk) };
}

/// One segment of one sequence, all channels.
struct Segment<'p, P: Pass> {
    pass: &'p P,
    plan: &'p Plan,
    cut: &'p Cut,
    batch: usize,
    index: usize,
    /// `[B, segments, C]`: the state that it was begun with.
    guesses: &'p Output<'p, P::Element>,
    /// `[B, segments, C]`: the state that it ended with.
    ends: &'p Output<'p, P::Element>,
}

impl<P: Pass> Kernel for Segment<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, plan, cut, batch, index, guesses, ends } = self;
        let positions = cut.segment(index);
        let in_sequence = plan.tiles() / plan.shape.batch;
        let mut tiles: Vec<_> = (batch * in_sequence..(batch + 1) * in_sequence)
            .map(|tile| (plan.tile(tile), Lanes::zero()))
            .collect();
        let keep = |states: &Output<'_, P::Element>, (tile, state): &(Tile, Lanes<_>)| {
            let lanes = cut.lanes(*tile, index);
            // SAFETY: every segment is walked through by one task.
            let mut row = unsafe { states.row(lanes.start, lanes.len()) };
            row.lanes(0..tile.width).copy_from_slice(&state.0[tile.lanes()]);
        };
        for entry in &mut tiles {
            let (tile, state) = entry;
            if index == 0 {
                pass.start(*tile, &mut state.0[tile.lanes()]);
            } else {
                approach::<I, P>(pass, *tile, positions.start - cut.lead..positions.start, state);
            }
            keep(guesses, entry);
        }
        // One tile alone has nobody to wait for.
        let block_len = if tiles.len() > 1 { plan.block_len } else { positions.len() };
        for begin in positions.clone().step_by(block_len) {
            let block = begin..(begin + block_len).min(positions.end);
            for (tile, state) in &mut tiles {
                let mut walk = Walk::writing(&mut state.0[tile.lanes()], None, plan.ahead);
                // SAFETY: every segment is walked through by one task.
                unsafe { pass.walk::<I>(*tile, block.clone(), &mut walk) };
            }
        }
        for entry in &tiles {
            keep(ends, entry);
        }
        fence();
    }
}

/// Compares the guesses of a tile with the truth, and mends what came of those that were wrong.
struct Mend<'p, P: Pass> {
    pass: &'p P,
    cut: &'p Cut,
    tile: Tile,
    guesses: &'p [P::Element],
    ends: &'p mut [P::Element],
}

impl<P: Pass> Kernel for Mend<'_, P> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, cut, tile, guesses, ends } = self;
        for segment in 1..cut.count {
            let entered = cut.lanes(tile, segment);
            let truth = &ends[cut.lanes(tile, segment - 1)];
            if same_bits(&guesses[entered.clone()], truth) {
                continue;
            }
            let (mut wrong, mut right) = (Lanes::zero(), Lanes::zero());
            wrong.0[tile.lanes()].copy_from_slice(&guesses[entered.clone()]);
            right.0[tile.lanes()].copy_from_slice(truth);
            if !meet::<I, P>(pass, tile, cut.segment(segment), &mut wrong, &mut right) {
                ends[entered].copy_from_slice(&right.0[tile.lanes()]);
            }
        }
        // SAFETY: every tile is finished once.
        unsafe { pass.finish(tile, &ends[cut.lanes(tile, cut.count - 1)]) };
        fence();
    }
}

/// Walks through `positions` from the right state, writing, and from the wrong one, until they meet. False if
/// they do not.
#[inline(always)]
fn meet<I: Isa, P: Pass>(
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    wrong: &mut Lanes<P::Element>,
    right: &mut Lanes<P::Element>,
) -> bool {
    for begin in positions.clone().step_by(STRIDE) {
        let stride = begin..(begin + STRIDE).min(positions.end);
        approach::<I, P>(pass, tile, stride.clone(), wrong);
        let mut walk = Walk::writing(&mut right.0[tile.lanes()], None, 0);
        // SAFETY: the tasks that walked here have ended, and tiles are mended one after the other.
        unsafe { pass.walk::<I>(tile, stride, &mut walk) };
        if same_bits(&wrong.0[tile.lanes()], &right.0[tile.lanes()]) {
            return true;
        }
    }
    false
}

/// Equality that tells zeros apart and takes a NaN for itself.
pub(super) fn same_bits<E: ScanElement>(x: &[E], y: &[E]) -> bool {
    // SAFETY: the elements are floating-point numbers or pairs of them, which are all bytes and no padding.
    let bytes =
        |x: &[E]| unsafe { core::slice::from_raw_parts(x.as_ptr().cast::<u8>(), size_of_val(x)) };
    bytes(x) == bytes(y)
}
