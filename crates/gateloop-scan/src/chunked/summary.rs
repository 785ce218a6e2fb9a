//! The affine map of whole sequences: what they do to the state that enters, without a state being written.

use crate::{ParallelFor, ScanElement};

use super::drive::Pass;
use super::output::Output;
use super::plan::{Plan, Schedule};
use super::tasks::reduce;

/// Writes factor and offset of every sequence, `[B, C]`: the pass ends with `factor x start + offset`. A factor is zero where
/// the pass forgets.
///
/// The map of a chunk is that of [`drive::run`](super::drive::run), so the bits do not depend on the threads.
pub(crate) fn summarize<P: Pass>(
    pass: &P,
    plan: &Plan,
    threads: &dyn ParallelFor,
    [factors, offsets]: [&mut [P::Element]; 2],
) {
    let chunks = plan.chunks();
    if chunks == 1 {
        reduce_all(pass, plan, threads, [factors, offsets]);
        let channels = plan.shape.channels;
        for (batch, factors) in factors.chunks_exact_mut(channels).enumerate() {
            if pass.forgets(batch, plan.chunk(0)) {
                factors.fill(P::Element::ZERO);
            }
        }
        return;
    }
    let len = chunks * offsets.len();
    let mut maps = [0, 1].map(|_| vec![P::Element::ZERO; len]);
    let [of_factors, of_offsets] = &mut maps;
    reduce_all(pass, plan, threads, [of_factors, of_offsets]);
    combine(pass, plan, [&maps[0], &maps[1]], [factors, offsets]);
}

/// The map of every chunk, `[B, chunks, C]`.
fn reduce_all<P: Pass>(
    pass: &P,
    plan: &Plan,
    threads: &dyn ParallelFor,
    [factors, offsets]: [&mut [P::Element]; 2],
) {
    let chunks = plan.chunks();
    let (factors, offsets) = (Output::new(factors, false), Output::new(offsets, false));
    let task = |task: usize| {
        reduce(pass, plan, plan.tile(task / chunks), task % chunks, [&factors, &offsets]);
    };
    let tasks = plan.tiles() * chunks;
    match plan.schedule {
        Schedule::Serial => (0..tasks).for_each(task),
        Schedule::Groups | Schedule::Chunks => threads.for_each(tasks, &task),
    }
}

/// The maps of the chunks of each sequence, one after the other.
fn combine<P: Pass>(
    pass: &P,
    plan: &Plan,
    [of_factors, of_offsets]: [&[P::Element]; 2],
    [factors, offsets]: [&mut [P::Element]; 2],
) {
    let channels = plan.shape.channels;
    factors.fill(P::Element::ONE);
    offsets.fill(P::Element::ZERO);
    let rows = of_factors.chunks_exact(channels).zip(of_offsets.chunks_exact(channels));
    for (row, (of_factor, of_offset)) in rows.enumerate() {
        let (batch, chunk) = (row / plan.chunks(), row % plan.chunks());
        let forgets = pass.forgets(batch, plan.chunk(chunk));
        let lanes = batch * channels..(batch + 1) * channels;
        let maps = factors[lanes.clone()].iter_mut().zip(&mut offsets[lanes]);
        for (((factor, offset), &later), &added) in maps.zip(of_factor).zip(of_offset) {
            if forgets {
                (*factor, *offset) = (P::Element::ZERO, added);
            } else {
                (*factor, *offset) = (later * *factor, later * *offset + added);
            }
        }
    }
}
