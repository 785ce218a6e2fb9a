//! Few sequences, many threads: each thread takes a stretch of time, and the state that enters it is guessed.
//!
//! Decays forget. A walk that begins with a state of zero some tokens before a segment arrives there, as a
//! rule, with the very bits of the true state: what lies further back is less than the last digit. So every
//! segment is walked through from such a state, all at the same time, each thread reading and writing whole
//! rows one after the other, which is what memory is fastest at. A thread that is done takes a part of what another
//! one has left, as a segment of its own. When all are done, each guess is compared
//! with the state that the segment before has ended with, bit by bit. Where they differ, the segment is
//! walked through again from the true state until the two walks have met, after which all is as it was.
//!
//! So the result is that of one walk through all of time, whatever the guesses were worth. If a trial
//! over the first tokens says that they are worth little, nothing is done here. What is done instead may round
//! differently, but not in those tokens: so the trial is the same for any number of threads, and no state
//! depends on later tokens.

use core::mem::size_of_val;
use core::ops::Range;
use std::sync::{Mutex, PoisonError};

use crate::{ParallelFor, ScanElement};

use super::dispatch::Level;
use super::drive::{self, Pass, Walk};
use super::output::fence;
use super::plan::Plan;
use super::request::shares;
use super::rows::Lanes;
use super::stretches::{Stretch, Stretches};
use super::tile::Tile;

/// A segment, and what is cut in two while it is walked through, is at least so many times as long as the walk that
/// leads to it.
const MIN_LEADS: usize = 3;
/// Bytes of one operand that a thread walks through before it looks whether another one has taken what comes next.
const ADVANCE_BYTES: usize = 512 * 1024;
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
    let lead = memory + memory / 4;
    let cut = Cut::new(plan, threads.threads(), lead);
    let stretches = Stretches::new(cut.stretches(plan.shape.batch), lead, MIN_LEADS * lead);
    let segments = Mutex::new(Vec::new());
    let walk = |own| {
        while let Some(stretch) = stretches.take(own) {
            let segment = Segment::walk(pass, plan, lead, &stretch, || {
                stretches.advance(own, plan.rows_of(ADVANCE_BYTES))
            });
            segments.lock().unwrap_or_else(PoisonError::into_inner).push(segment);
        }
    };
    match stretches.count() {
        1 => walk(0),
        tasks => threads.for_each(tasks, &walk),
    }
    let mut segments = segments.into_inner().unwrap_or_else(PoisonError::into_inner);
    segments.sort_by_key(|segment| (segment.batch, segment.positions.start));
    for sequence in segments.chunk_by_mut(|x, y| x.batch == y.batch) {
        for tile in plan.tiles_of(sequence[0].batch) {
            mend(pass, plan.level, tile, sequence);
        }
    }
    true
}

/// Time, cut up, before anyone has begun.
struct Cut {
    seqlen: usize,
    count: usize,
    lead: usize,
}

impl Cut {
    /// As many segments a sequence as give every thread as many, but not short ones.
    fn new(plan: &Plan, threads: usize, lead: usize) -> Self {
        let seqlen = plan.shape.seqlen;
        let count = shares(plan.shape.batch, threads).min(seqlen / (MIN_LEADS * lead)).max(1);
        Self { seqlen, count, lead }
    }

    /// The segments of all sequences.
    fn stretches(&self, batch: usize) -> impl Iterator<Item = Stretch> {
        let segment =
            move |i| Stretch { batch: i / self.count, positions: self.segment(i % self.count) };
        (0..batch * self.count).map(segment)
    }

    /// Positions of segment `index`. The first one needs no lead, and is longer by that.
    fn segment(&self, index: usize) -> Range<usize> {
        let walked = self.seqlen + (self.count - 1) * self.lead;
        let edge =
            |i: usize| if i == 0 { 0 } else { i * walked / self.count - (i - 1) * self.lead };
        edge(index)..edge(index + 1)
    }
}

/// After how many tokens a walk that begins with a state of zero has the bits of the true one, in all channels,
/// if it does at all.
fn try_out<P: Pass>(pass: &P, plan: &Plan) -> Option<usize> {
    let tiles = plan.tiles_of(0);
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

/// Some tokens of one sequence, all channels, walked through by one thread.
struct Segment<E> {
    batch: usize,
    positions: Range<usize>,
    /// `[C]`: the state that it was begun with.
    guess: Vec<E>,
    /// `[C]`: the state that it ended with.
    end: Vec<E>,
}

impl<E: ScanElement> Segment<E> {
    /// Walks through what `advance` gives, from the beginning of `stretch` on.
    fn walk<P: Pass<Element = E>>(
        pass: &P,
        plan: &Plan,
        lead: usize,
        stretch: &Stretch,
        advance: impl Fn() -> Option<Range<usize>>,
    ) -> Self {
        let begin = stretch.positions.start;
        let mut tiles: Vec<_> =
            plan.tiles_of(stretch.batch).map(|tile| (tile, Lanes::zero())).collect();
        for (tile, state) in &mut tiles {
            if begin == 0 {
                pass.start(*tile, &mut state.0[tile.lanes()]);
            } else {
                approach(plan.level, pass, *tile, begin - lead..begin, state);
            }
        }
        let states = |tiles: &[(Tile, Lanes<E>)]| {
            let mut states = vec![E::ZERO; plan.shape.channels];
            for (tile, state) in tiles {
                states[tile.channels()].copy_from_slice(&state.0[tile.lanes()]);
            }
            states
        };
        let guess = states(&tiles);
        if pass.goes_backwards() {
            tiles.reverse();
        }
        let mut end = begin;
        while let Some(positions) = advance() {
            end = positions.end;
            // One tile alone has nobody to wait for.
            let block_len = if tiles.len() > 1 { plan.block_len } else { positions.len() };
            for begin in positions.clone().step_by(block_len) {
                let block = begin..(begin + block_len).min(positions.end);
                for (tile, state) in &mut tiles {
                    let mut walk = Walk::writing(&mut state.0[tile.lanes()], None, plan.ahead);
                    // SAFETY: every token is given to one thread.
                    unsafe { drive::walk(plan.level, pass, *tile, block.clone(), &mut walk) };
                }
            }
        }
        fence();
        Self { batch: stretch.batch, positions: begin..end, guess, end: states(&tiles) }
    }
}

/// Compares the guesses of a tile with the truth, and mends what came of those that were wrong.
fn mend<P: Pass>(pass: &P, level: Level, tile: Tile, segments: &mut [Segment<P::Element>]) {
    let channels = tile.channels();
    for i in 1..segments.len() {
        let (before, segment) = segments.split_at_mut(i);
        let (truth, segment) = (&before[i - 1].end[channels.clone()], &mut segment[0]);
        let guess = &segment.guess[channels.clone()];
        if same_bits(guess, truth) {
            continue;
        }
        let (mut wrong, mut right) = (Lanes::zero(), Lanes::zero());
        wrong.0[tile.lanes()].copy_from_slice(guess);
        right.0[tile.lanes()].copy_from_slice(truth);
        if !meet(level, pass, tile, segment.positions.clone(), [&mut wrong, &mut right]) {
            segment.end[channels.clone()].copy_from_slice(&right.0[tile.lanes()]);
        }
    }
    if let Some(last) = segments.last() {
        // SAFETY: every tile is finished once.
        unsafe { pass.finish(tile, &last.end[channels]) };
    }
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
