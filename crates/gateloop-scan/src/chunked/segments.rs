//! Few sequences, many threads: each thread takes a stretch of time, and the state that enters it is guessed.
//!
//! Decays forget. A walk that begins with a state of zero some tokens before a segment arrives there, as a
//! rule, with the very bits of the true state: what lies further back is less than the last digit. So every
//! segment is walked through from such a state, all at the same time, each thread reading and writing whole
//! rows one after the other, which is what memory is fastest at. When all are done, each guess is compared
//! with the state that the segment before has ended with, bit by bit. Where they differ, the segment is
//! walked through again from the true state until the two walks have met, after which all is as it was.
//!
//! So the result is that of one walk through all of time, whatever the guesses were worth. If a trial
//! over the first tokens says that they are worth little, nothing is done here. What is done instead may round
//! differently, but not in those tokens: so the trial is the same for any number of threads, and no state
//! depends on later tokens.

use core::mem::size_of_val;
use core::ops::Range;

use crate::{ParallelFor, ScanElement};

use super::dispatch::Level;
use super::drive::{self, Pass, Walk};
use super::output::{Output, fence};
use super::plan::Plan;
use super::request::shares;
use super::rows::Lanes;
use super::tile::Tile;

/// A segment is at least so many times as long as the walk that leads to it.
const MIN_LEADS: usize = 3;
/// The trial: where the walk that knows nothing begins, and of how many tokens it may need one to forget that.
/// More would cost too much time where they do not help.
const TRIAL_BEGIN: usize = 64;
const TRIAL_SHARE: usize = 8;
const TRIAL_MAX: usize = 1024;
/// Channels of the trial's trial.
const FEW: usize = 32;
/// Tokens after which two walks are compared.
const STRIDE: usize = 32;

/// Runs `pass` over segments, or returns false and has done nothing.
pub(super) fn run<P: Pass>(pass: &P, plan: &Plan, threads: &dyn ParallelFor) -> bool {
    let Some(memory) = try_out(pass, plan) else { return false };
    // Other tokens may take somewhat longer to forget than those of the trial.
    let cut = Cut::new(plan, threads.threads(), memory + memory / 4);
    let len = plan.shape.batch * cut.count * plan.shape.channels;
    let (mut guesses, mut ends) = (vec![P::Element::ZERO; len], vec![P::Element::ZERO; len]);
    {
        let (guesses, ends) = (&Output::new(&mut guesses, false), &Output::new(&mut ends, false));
        let walk = |task| {
            Segment { batch: task / cut.count, index: task % cut.count, guesses, ends }
                .walk(pass, plan, &cut);
        };
        match plan.shape.batch * cut.count {
            1 => walk(0),
            tasks => threads.for_each(tasks, &walk),
        }
    }
    for index in 0..plan.tiles() {
        mend(pass, plan, &cut, plan.tile(index), &guesses, &mut ends);
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
    /// As many segments a sequence as give every thread as many, but not short ones.
    fn new(plan: &Plan, threads: usize, lead: usize) -> Self {
        let (seqlen, channels) = (plan.shape.seqlen, plan.shape.channels);
        let count = shares(plan.shape.batch, threads).min(seqlen / (MIN_LEADS * lead)).max(1);
        Self { seqlen, channels, count, lead }
    }

    /// Positions of segment `index`. The first one needs no lead, and is longer by that.
    fn segment(&self, index: usize) -> Range<usize> {
        let walked = self.seqlen + (self.count - 1) * self.lead;
        let edge =
            |i: usize| if i == 0 { 0 } else { i * walked / self.count - (i - 1) * self.lead };
        edge(index)..edge(index + 1)
    }

    /// Where the state of a tile at a segment lies in `[B, segments, C]`.
    fn lanes(&self, tile: Tile, segment: usize) -> Range<usize> {
        let at = (tile.batch * self.count + segment) * self.channels + tile.first;
        at..at + tile.width
    }
}

/// After how many tokens a walk that begins with a state of zero has the bits of the true one, in all channels,
/// if it does at all.
fn try_out<P: Pass>(pass: &P, plan: &Plan) -> Option<usize> {
    let in_sequence = plan.tiles() / plan.shape.batch;
    let tiles = (0..in_sequence).map(|index| plan.tile(index));
    // Some channels alone first: if they do not forget, little time is lost.
    let first = plan.tile(0);
    let few = Tile { width: first.width.min(FEW), ..first };
    let mut memories = core::iter::once(few).chain(tiles).map(|tile| memory_of(pass, plan, tile));
    memories.try_fold(0, |longest, memory| memory.map(|memory| longest.max(memory)))
}

/// The same of a tile.
fn memory_of<P: Pass>(pass: &P, plan: &Plan, tile: Tile) -> Option<usize> {
    let end = (plan.shape.seqlen / TRIAL_SHARE).min(TRIAL_MAX);
    if end <= TRIAL_BEGIN {
        return None;
    }
    let (mut truth, mut guess) = (Lanes::zero(), Lanes::zero());
    pass.start(tile, &mut truth.0[tile.lanes()]);
    approach(plan.level, pass, tile, 0..TRIAL_BEGIN, &mut truth);
    let met = (TRIAL_BEGIN..end).step_by(STRIDE).find(|&at| {
        approach(plan.level, pass, tile, at..at + STRIDE, &mut truth);
        approach(plan.level, pass, tile, at..at + STRIDE, &mut guess);
        same_bits(&truth.0[tile.lanes()], &guess.0[tile.lanes()])
    });
    Some(met? + STRIDE - TRIAL_BEGIN)
}

/// Walks through `positions` and writes nothing.
fn approach<P: Pass>(
    level: Level,
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    state: &mut Lanes<P::Element>,
) {
    let mut walk = Walk::reading(&mut state.0[tile.lanes()], None, 0);
    // SAFETY: nothing is written.
    unsafe { drive::walk(level, pass, tile, positions, &mut walk) };
}

/// One segment of one sequence, all channels.
struct Segment<'p, E> {
    batch: usize,
    index: usize,
    /// `[B, segments, C]`: the state that it was begun with.
    guesses: &'p Output<'p, E>,
    /// `[B, segments, C]`: the state that it ended with.
    ends: &'p Output<'p, E>,
}

impl<E: ScanElement> Segment<'_, E> {
    fn walk<P: Pass<Element = E>>(self, pass: &P, plan: &Plan, cut: &Cut) {
        let Self { batch, index, guesses, ends } = self;
        let positions = cut.segment(index);
        let in_sequence = plan.tiles() / plan.shape.batch;
        let mut tiles: Vec<_> = (batch * in_sequence..(batch + 1) * in_sequence)
            .map(|tile| (plan.tile(tile), Lanes::zero()))
            .collect();
        if pass.goes_backwards() {
            tiles.reverse();
        }
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
                let lead = positions.start - cut.lead..positions.start;
                approach(plan.level, pass, *tile, lead, state);
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
                unsafe { drive::walk(plan.level, pass, *tile, block.clone(), &mut walk) };
            }
        }
        for entry in &tiles {
            keep(ends, entry);
        }
        fence();
    }
}

/// Compares the guesses of a tile with the truth, and mends what came of those that were wrong.
fn mend<P: Pass>(
    pass: &P,
    plan: &Plan,
    cut: &Cut,
    tile: Tile,
    guesses: &[P::Element],
    ends: &mut [P::Element],
) {
    for segment in 1..cut.count {
        let entered = cut.lanes(tile, segment);
        let truth = &ends[cut.lanes(tile, segment - 1)];
        if same_bits(&guesses[entered.clone()], truth) {
            continue;
        }
        let (mut wrong, mut right) = (Lanes::zero(), Lanes::zero());
        wrong.0[tile.lanes()].copy_from_slice(&guesses[entered.clone()]);
        right.0[tile.lanes()].copy_from_slice(truth);
        if !meet(plan.level, pass, tile, cut.segment(segment), [&mut wrong, &mut right]) {
            ends[entered].copy_from_slice(&right.0[tile.lanes()]);
        }
    }
    // SAFETY: every tile is finished once.
    unsafe { pass.finish(tile, &ends[cut.lanes(tile, cut.count - 1)]) };
    fence();
}

/// Walks through `positions` from the right state, writing, and from the wrong one, until they meet. False if
/// they do not.
fn meet<P: Pass>(
    level: Level,
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    [wrong, right]: [&mut Lanes<P::Element>; 2],
) -> bool {
    for begin in positions.clone().step_by(STRIDE) {
        let stride = begin..(begin + STRIDE).min(positions.end);
        approach(level, pass, tile, stride.clone(), wrong);
        let mut walk = Walk::writing(&mut right.0[tile.lanes()], None, 0);
        // SAFETY: the tasks that walked here have ended, and tiles are mended one after the other.
        unsafe { drive::walk(level, pass, tile, stride, &mut walk) };
        if same_bits(&wrong.0[tile.lanes()], &right.0[tile.lanes()]) {
            return true;
        }
    }
    false
}

/// Equality that tells zeros apart and takes a NaN for itself.
fn same_bits<E: ScanElement>(x: &[E], y: &[E]) -> bool {
    // SAFETY: the elements are floating-point numbers or pairs of them, which are all bytes and no padding.
    let bytes =
        |x: &[E]| unsafe { core::slice::from_raw_parts(x.as_ptr().cast::<u8>(), size_of_val(x)) };
    bytes(x) == bytes(y)
}
