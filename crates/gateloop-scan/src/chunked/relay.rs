//! Few sequences, many threads, arrays larger than the caches: the threads take turns.
//!
//! Memory is fastest when each thread reads and writes whole rows, one after the other. Cut by channels,
//! two threads reach two thirds of that; cut in time, every chunk but the first would wait for its state.
//! But the arithmetic is a small part of the work. So a thread takes a few rows at a time, a leg, and
//!
//! 1. brings the leg's operands into its own cache, while it sends the results of its last leg to memory;
//! 2. waits for the state that the leg before hands on;
//! 3. walks through the leg, from cache to cache, and hands the state on.
//!
//! Only the third step is done by one thread at a time. The arithmetic is that of one walk through all of
//! time, so the bits are those of a single thread.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{panicking, yield_now};

use crate::{ParallelFor, ScanElement};

use super::dispatch::{Isa, Kernel};
use super::drive::{self, Pass, Walk};
use super::output::{Lines, Staged, exchange, fence};
use super::plan::Plan;
use super::rows::Lanes;
use super::tile::Tile;

/// Lines that are read or written of one array before the next one.
const GRAIN: usize = 8;

/// A pass that can be run in turns.
pub(super) trait Relayed<const IN: usize, const OUT: usize>: Pass {
    /// Rows that are read at a position.
    fn operands(&self, tile: Tile, position: usize) -> [&[Self::Element]; IN];

    /// Begins to write what [`walk`](Pass::walk) left at a position of `staged`.
    ///
    /// # Safety
    /// No other thread writes this position of this tile.
    unsafe fn begin<'s>(
        &'s self,
        tile: Tile,
        position: usize,
        staged: &'s Staged<Self::Element>,
    ) -> [Lines<'s, Self::Element>; OUT];
}

/// Runs `pass` in turns; `plan` has been made for that.
pub(super) fn run<P: Relayed<IN, OUT>, const IN: usize, const OUT: usize>(
    pass: &P,
    plan: &Plan,
    threads: &dyn ParallelFor,
) {
    let course = Course::new(plan, plan.turn_len(IN + OUT));
    threads.for_each(threads.threads(), &|_| {
        plan.level.dispatch(Runner::<P, IN, OUT> { pass, plan, course: &course });
    });
}

/// Some rows of a tile.
struct Leg {
    /// Number of the tile in the batch.
    index: usize,
    tile: Tile,
    turn: usize,
    positions: Range<usize>,
}

/// Who has come how far.
struct Course<E> {
    /// Rows of a leg.
    len: usize,
    /// The number of the leg that the next free thread takes.
    next: AtomicUsize,
    /// One for each tile of the batch.
    batons: Vec<Baton<E>>,
    /// A thread has left without handing on.
    is_abandoned: AtomicBool,
}

/// What is handed from leg to leg of a tile; on cache lines of its own.
#[repr(align(128))]
struct Baton<E> {
    /// Legs that are done.
    turn: AtomicUsize,
    state: UnsafeCell<Lanes<E>>,
}

// SAFETY: the state is touched only by the thread that walks leg number `turn`, which there is one of.
unsafe impl<E: Send> Sync for Baton<E> {}

impl<E: ScanElement> Course<E> {
    fn new(plan: &Plan, len: usize) -> Self {
        let baton = |_| Baton { turn: AtomicUsize::new(0), state: UnsafeCell::new(Lanes::zero()) };
        Self {
            len,
            next: AtomicUsize::new(0),
            batons: (0..plan.tiles()).map(baton).collect(),
            is_abandoned: AtomicBool::new(false),
        }
    }

    /// The next leg: tiles of a row first, as they lie in memory. Whoever hands on to a leg has therefore
    /// been taken by a thread that runs before the leg itself is.
    fn take(&self, plan: &Plan, backwards: bool) -> Option<Leg> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let tiles = plan.tiles() / plan.shape.batch;
        let seqlen = plan.shape.seqlen;
        let turns = seqlen.div_ceil(self.len);
        let batch = number / (tiles * turns);
        if batch >= plan.shape.batch {
            return None;
        }
        let (turn, i) = (number / tiles % turns, number % tiles);
        let i = if backwards { tiles - 1 - i } else { i };
        let index = batch * tiles + i;
        let begin = turn * self.len;
        let positions = begin..(begin + self.len).min(seqlen);
        Some(Leg { index, tile: plan.tile(index), turn, positions })
    }

    /// Waits until the leg before is done. False if that will never be.
    fn wait(&self, leg: &Leg) -> bool {
        /// Longer than any leg takes; the other thread may have been put to sleep.
        const PATIENCE: u32 = 1 << 14;
        let mut waited = 0_u32;
        while self.batons[leg.index].turn.load(Ordering::Acquire) != leg.turn {
            if self.is_abandoned.load(Ordering::Relaxed) {
                return false;
            }
            waited = waited.saturating_add(1);
            if waited < PATIENCE { spin_loop() } else { yield_now() }
        }
        true
    }
}

/// Tells the others if this thread panics: they would wait for ever.
struct Witness<'c>(&'c AtomicBool);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// What one thread does.
struct Runner<'p, P: Pass, const IN: usize, const OUT: usize> {
    pass: &'p P,
    plan: &'p Plan,
    course: &'p Course<P::Element>,
}

impl<P: Relayed<IN, OUT>, const IN: usize, const OUT: usize> Kernel for Runner<'_, P, IN, OUT> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { pass, plan, course } = self;
        let _witness = Witness(&course.is_abandoned);
        let mut staged = Staged::new(OUT, course.len, plan.widest());
        let mut last: Option<Leg> = None;
        let backwards = pass.goes_backwards();
        loop {
            let next = course.take(plan, backwards);
            for i in 0..course.len {
                let incoming = match row(next.as_ref(), i) {
                    Some((leg, position)) => pass.operands(leg.tile, position),
                    None => [&[][..]; IN],
                };
                let outgoing = match row(last.as_ref(), i) {
                    // SAFETY: every leg is taken by one thread.
                    Some((leg, position)) => unsafe { pass.begin(leg.tile, position, &staged) },
                    None => [const { Lines::none() }; OUT],
                };
                exchange::<I, _, IN, OUT>(incoming, outgoing, GRAIN, backwards);
            }
            let Some(leg) = next else { break };
            if !course.wait(&leg) {
                break;
            }
            let baton = &course.batons[leg.index];
            // SAFETY: it is this leg's turn, and no other thread has taken it.
            let state = unsafe { &mut (&mut *baton.state.get()).0[leg.tile.lanes()] };
            if leg.turn == 0 {
                pass.start(leg.tile, state);
            }
            staged.begin(leg.positions.start, leg.tile.width);
            let mut walk =
                Walk { state, fold: None, write: true, ahead: 0, staged: Some(&mut staged) };
            // SAFETY: every leg is taken by one thread.
            unsafe { drive::walk(plan.level, pass, leg.tile, leg.positions.clone(), &mut walk) };
            if leg.positions.end == plan.shape.seqlen {
                // SAFETY: a tile has one last leg.
                unsafe { pass.finish(leg.tile, walk.state) };
            }
            baton.turn.store(leg.turn + 1, Ordering::Release);
            last = Some(leg);
        }
        fence();
    }
}

/// Position `i` of a leg, if there is a leg and it is so long.
#[inline(always)]
fn row(leg: Option<&Leg>, i: usize) -> Option<(&Leg, usize)> {
    leg.map(|leg| (leg, leg.positions.start + i)).filter(|(leg, at)| *at < leg.positions.end)
}
