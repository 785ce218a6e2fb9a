//! What one thread does at a time.

use core::ops::Range;

use crate::ScanElement;

use super::dispatch::Level;
use super::drive::{Pass, Walk, apply, walk};
use super::output::{Output, fence};
use super::plan::Plan;
use super::rows::{Fold, Lanes};
use super::tile::Tile;

/// A tile on its way.
struct Traveller<E> {
    tile: Tile,
    state: Lanes<E>,
    // Apart: many short sequences have none, and a traveller is moved to where it waits for its turn.
    map: Option<Box<ChunkMap<E>>>,
}

/// The affine map of the chunk so far, and the state that entered the chunk.
struct ChunkMap<E> {
    factor: Lanes<E>,
    offset: Lanes<E>,
    before: Lanes<E>,
}

impl<E: ScanElement> Traveller<E> {
    fn new<P: Pass<Element = E>>(pass: &P, tile: Tile, has_map: bool) -> Self {
        let map = || {
            let [factor, offset, before] = [0; 3].map(|_| Lanes::zero());
            Box::new(ChunkMap { factor, offset, before })
        };
        let mut state = Lanes::zero();
        pass.start(tile, &mut state.0[tile.lanes()]);
        Self { tile, state, map: has_map.then(map) }
    }

    fn enter(&mut self) {
        if let Some(map) = &mut self.map {
            let lanes = self.tile.lanes();
            map.before.0[lanes.clone()].copy_from_slice(&self.state.0[lanes.clone()]);
            map.factor.0[lanes.clone()].fill(E::ONE);
            map.offset.0[lanes].fill(E::ZERO);
        }
    }

    /// # Safety
    /// No other thread walks through these positions of this tile.
    unsafe fn walk<P: Pass<Element = E>>(
        &mut self,
        level: Level,
        pass: &P,
        positions: Range<usize>,
        ahead: usize,
    ) {
        let tile = self.tile;
        let fold = self.map.as_mut().map(|map| Fold {
            factor: &mut map.factor.0[tile.lanes()],
            offset: &mut map.offset.0[tile.lanes()],
            lead: tile.lead,
        });
        let state = &mut self.state.0[tile.lanes()];
        // SAFETY: the caller's promise.
        unsafe { walk(level, pass, tile, positions, &mut Walk::writing(state, fold, ahead)) };
    }

    fn leave(&mut self, forgets: bool) {
        let lanes = self.tile.lanes();
        let Some(map) = &self.map else { return };
        let maps = map.factor.0[lanes.clone()].iter().zip(&map.offset.0[lanes.clone()]);
        let states = self.state.0[lanes.clone()].iter_mut().zip(&map.before.0[lanes]);
        for ((state, &before), (&factor, &offset)) in states.zip(maps) {
            *state = apply(forgets, factor, offset, before).unwrap_or(*state);
        }
    }
}

/// A group of tiles through all of time, in one pass.
///
/// At the end of a chunk the state is replaced by what the chunk's affine map says, so that the
/// result is that of [`reduce`], the carries and [`from_state`], bit for bit.
pub(super) fn through<P: Pass>(pass: &P, plan: &Plan, group: usize) {
    let last = plan.chunks() - 1;
    if last == 0 && plan.shape.seqlen <= plan.block_len {
        // Nobody has to wait for a turn.
        for tile in plan.group(group) {
            let mut tile = Traveller::new(pass, tile, false);
            // SAFETY: every tile is walked through, and finished, by one task.
            unsafe {
                tile.walk(plan.level, pass, 0..plan.shape.seqlen, 0);
                pass.finish(tile.tile, &tile.state.0[tile.tile.lanes()]);
            }
        }
        return fence();
    }
    let mut tiles: Vec<Traveller<P::Element>> =
        plan.group(group).map(|tile| Traveller::new(pass, tile, last > 0)).collect();
    if pass.goes_backwards() {
        tiles.reverse();
    }
    for chunk in 0..=last {
        if chunk == last {
            // The map of the last chunk is not needed.
            for tile in &mut tiles {
                tile.map = None;
            }
        }
        tiles.iter_mut().for_each(Traveller::enter);
        let positions = plan.chunk(chunk);
        // One tile alone has nobody to wait for.
        let block_len = if tiles.len() > 1 { plan.block_len } else { positions.len() };
        for begin in positions.clone().step_by(block_len) {
            let block = begin..(begin + block_len).min(positions.end);
            for tile in &mut tiles {
                // SAFETY: every tile is walked through by one task.
                unsafe { tile.walk(plan.level, pass, block.clone(), plan.ahead) };
            }
        }
        for tile in &mut tiles {
            tile.leave(tile.map.is_some() && pass.forgets(tile.tile.batch, positions.clone()));
        }
    }
    for tile in &tiles {
        // SAFETY: every tile is finished by one task.
        unsafe { pass.finish(tile.tile, &tile.state.0[tile.tile.lanes()]) };
    }
    fence();
}

/// One tile through one chunk, reduced to its affine map: writes it to `[B, chunks, C]` of factors and offsets.
pub(super) fn reduce<P: Pass>(
    pass: &P,
    plan: &Plan,
    tile: Tile,
    chunk: usize,
    maps: [&Output<'_, P::Element>; 2],
) {
    let (mut state, mut factor, mut offset) = (Lanes::zero(), Lanes::zero(), Lanes::zero());
    let mut fold = Fold {
        factor: &mut factor.0[tile.lanes()],
        offset: &mut offset.0[tile.lanes()],
        lead: tile.lead,
    };
    fold.reset();
    let mut reading = Walk::reading(&mut state.0[tile.lanes()], Some(fold), plan.ahead);
    // SAFETY: nothing is written.
    unsafe { walk(plan.level, pass, tile, plan.chunk(chunk), &mut reading) };

    let row = tile.batch * plan.chunks() + chunk;
    let at = row * plan.shape.channels + tile.first;
    for (map, part) in maps.into_iter().zip([&factor, &offset]) {
        // SAFETY: every pair of tile and chunk is reduced by one task.
        let mut row = unsafe { map.row(at, tile.width) };
        row.lanes(0..tile.width).copy_from_slice(&part.0[tile.lanes()]);
    }
}

/// One tile through one chunk, from the state that enters it, of `[B, chunks, C]`.
pub(super) fn from_state<P: Pass>(
    pass: &P,
    plan: &Plan,
    tile: Tile,
    chunk: usize,
    states: &[P::Element],
) {
    let mut state = Lanes::zero();
    let state = &mut state.0[tile.lanes()];
    let row = tile.batch * plan.chunks() + chunk;
    let at = row * plan.shape.channels + tile.first;
    state.copy_from_slice(&states[at..at + tile.width]);
    let mut writing = Walk::writing(state, None, plan.ahead);
    // SAFETY: every pair of tile and chunk is walked through by one task, and the last chunk
    // of a tile exists once.
    unsafe {
        walk(plan.level, pass, tile, plan.chunk(chunk), &mut writing);
        if chunk + 1 == plan.chunks() {
            pass.finish(tile, writing.state);
        }
    }
    fence();
}
