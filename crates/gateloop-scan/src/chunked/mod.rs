//! The fast path on a CPU.
//!
//! Channels are the vector: one step of time is one pass over a row, which the compiler
//! vectorises. A tile of channels keeps its state in the first-level cache and streams through
//! time, so each input is read once and each output written once. Tiles go to threads; how
//! channels are tiled cannot change a result, because channels do not meet.
//!
//! When there are too few channels to feed many threads, time is cut into chunks:
//!
//! 1. each chunk but the last is reduced to the affine map that it applies to the state;
//! 2. the maps are applied one after the other to find the state that enters each chunk;
//! 3. each chunk is scanned from that state.
//!
//! Where the chunks lie depends on the shape alone. With few threads the same arithmetic is done
//! in one pass over the data, so a result has the same bits for any number of threads and any
//! instruction set. And since a token's state depends only on its chunk's start and the tokens
//! between, perturbing a token leaves all states before it as they were, bit for bit.

// A kernel is compiled for the instruction set of the function that it is inlined into.
#![allow(clippy::inline_always)]

mod backward;
mod dispatch;
mod drive;
mod forward;
mod output;
mod plan;
mod rows;
mod tasks;

use crate::adjoint::{ScanGrads, Upstream};
use crate::{Scan, ScanElement};

use self::backward::Backward;
use self::forward::Forward;
use self::output::Output;
use self::plan::{Plan, is_streamed};

/// Writes every state of `scan` to `h`.
pub(crate) fn scan<E: ScanElement>(scan: &Scan<'_, E>, h: &mut [E]) {
    let shape = scan.shape();
    let h = Output::new(h, is_streamed::<E>(shape));
    let plan = Plan::new::<E>(shape, rayon::current_num_threads(), h.misalignment());
    drive::run(&Forward { scan, h }, &plan);
}

/// Writes the gradients of `scan` to `grads`.
pub(crate) fn adjoint<E: ScanElement>(
    scan: &Scan<'_, E>,
    upstream: Upstream<'_, E>,
    grads: ScanGrads<'_, E>,
) {
    let shape = scan.shape();
    let streamed = is_streamed::<E>(shape);
    let da = Output::new(grads.da, streamed);
    let db = Output::new(grads.db, streamed);
    let dh0 = grads.dh0.map(|dh0| Output::new(dh0, false));
    let plan = Plan::new::<E>(shape, rayon::current_num_threads(), db.misalignment());
    drive::run(&Backward { scan, upstream, da, db, dh0 }, &plan);
}
