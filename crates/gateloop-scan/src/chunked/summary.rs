//! The affine map of whole sequences: what they do to the state that enters, without a state being written.

use core::ops::Range;

use crate::{ParallelFor, ScanElement};

use super::drive::{Pass, Walk, walk};
use super::output::Output;
use super::plan::{Plan, Schedule};
use super::rows::{Fold, Lanes};
use super::tile::Tile;

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
    let maps = &[Output::new(factors, false), Output::new(offsets, false)];
    let task = |task: usize| reduce_group(pass, plan, (task / chunks, task % chunks), maps);
    let tasks = plan.groups() * chunks;
    match plan.schedule {
        Schedule::Serial => (0..tasks).for_each(task),
        Schedule::Groups | Schedule::Chunks => threads.for_each(tasks, &task),
    }
}

/// A tile on its way, and its map so far.
struct Reader<E> {
    tile: Tile,
    state: Lanes<E>,
    factor: Lanes<E>,
    offset: Lanes<E>,
}

impl<E: ScanElement> Reader<E> {
    fn new(tile: Tile) -> Self {
        let mut factor = Lanes::zero();
        factor.0[tile.lanes()].fill(E::ONE);
        Self { tile, state: Lanes::zero(), factor, offset: Lanes::zero() }
    }

    fn walk<P: Pass<Element = E>>(&mut self, pass: &P, plan: &Plan, positions: Range<usize>) {
        let Self { tile, state, factor, offset } = self;
        let lanes = tile.lanes();
        let fold = Fold {
            factor: &mut factor.0[lanes.clone()],
            offset: &mut offset.0[lanes.clone()],
            lead: tile.lead,
        };
        let mut reading = Walk::reading(&mut state.0[lanes], Some(fold), plan.ahead);
        // SAFETY: nothing is written.
        unsafe { walk(plan.level, pass, *tile, positions, &mut reading) };
    }
}

/// A group of tiles through one chunk: a few rows each in turn, so that rows are read nearly as a whole.
fn reduce_group<P: Pass>(
    pass: &P,
    plan: &Plan,
    (group, chunk): (usize, usize),
    maps: &[Output<'_, P::Element>; 2],
) {
    let mut readers: Vec<Reader<P::Element>> = plan.group(group).map(Reader::new).collect();
    let positions = plan.chunk(chunk);
    let block_len = if readers.len() > 1 { plan.block_len } else { positions.len() };
    for begin in positions.clone().step_by(block_len) {
        let block = begin..(begin + block_len).min(positions.end);
        for reader in &mut readers {
            reader.walk(pass, plan, block.clone());
        }
    }
    for Reader { tile, factor, offset, .. } in &readers {
        let at = (tile.batch * plan.chunks() + chunk) * plan.shape.channels + tile.first;
        for (map, part) in maps.iter().zip([factor, offset]) {
            // SAFETY: every pair of tile and chunk is reduced by one task.
            let mut row = unsafe { map.row(at, tile.width) };
            row.lanes(0..tile.width).copy_from_slice(&part.0[tile.lanes()]);
        }
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
