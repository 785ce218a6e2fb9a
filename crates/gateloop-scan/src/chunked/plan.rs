//! How a shape is cut up: pure functions, so that they can be tested without running anything.

use core::mem::size_of;
use core::ops::Range;

use crate::{ScanElement, ScanShape};

use super::dispatch::{LINE, Level};

/// Lanes for which a kernel reserves room: the widest tile, and the line that aligns it.
pub(crate) const MAX_LANES: usize = (MAX_TILE_BYTES + 2 * LINE) / size_of::<f32>();
/// A row of a tile is at most this wide: states and rows of a tile stay in a first-level cache.
const MAX_TILE_BYTES: usize = 2048;
/// A row of a tile is at least this wide, if channels are cut finer to feed more threads.
const MIN_TILE_BYTES: usize = 256;
/// From this many threads a widest tile on, more parallel work is worth its price: cutting time
/// moves 5/3 of the bytes, and cutting rows finer halves the rate at which they are read, because
/// what the hardware fetches in advance is then another tile's.
const CROWD: usize = 3;
/// Below this many bytes of one operand, waking a thread takes longer than the scan.
const MIN_PARALLEL_BYTES: usize = 256 * 1024;
/// From this many bytes of one output on, it is written past the caches.
const MIN_STREAMED_BYTES: usize = 16 * 1024 * 1024;
/// With this many narrowest tiles, there is work for the threads without cutting time.
const ENOUGH_TILES: usize = 16;
/// Bytes of one operand that are asked for in advance. More of them would push each other out of a
/// first-level cache before they are used.
const AHEAD_BYTES: usize = 4096;
/// Tokens of a chunk when time is cut.
const CHUNK_LEN: usize = 1024;
/// Shorter sequences are not cut.
const MIN_CHUNKS: usize = 4;

/// Some channels of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    /// The sequence.
    pub(crate) batch: usize,
    /// The first channel.
    pub(crate) first: usize,
    /// How many channels.
    pub(crate) width: usize,
    /// Lanes left free before the first one, so that a cache line of the output is one of the
    /// state too.
    pub(crate) pad: usize,
    /// Lanes before the first cache line boundary, of the output and of the state.
    pub(crate) lead: usize,
}

impl Tile {
    /// Where the tile's channels lie in a `[B, C]` array.
    pub(crate) const fn in_state(&self, channels: usize) -> Range<usize> {
        let at = self.batch * channels + self.first;
        at..at + self.width
    }

    /// One channel alone.
    pub(crate) const fn lane(batch: usize, channel: usize) -> Self {
        Self { batch, first: channel, width: 1, pad: 0, lead: 0 }
    }

    /// All channels of a sequence, for what is not done lane by lane.
    pub(crate) const fn sequence(batch: usize, channels: usize) -> Self {
        Self { batch, first: 0, width: channels, pad: 0, lead: 0 }
    }

    /// Where they lie in a [`Lanes`](super::rows::Lanes).
    pub(crate) const fn lanes(&self) -> Range<usize> {
        self.pad..self.pad + self.width
    }
}

/// Who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Every tile on the calling thread.
    Serial,
    /// Tiles in parallel, each through all of time.
    Tiles,
    /// Tiles and chunks in parallel, with the carries between two passes.
    Chunks,
}

/// A shape, cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The whole.
    pub(crate) shape: ScanShape,
    /// Who does what.
    pub(crate) schedule: Schedule,
    /// How many rows in advance inputs are asked for; 0 for never.
    pub(crate) ahead: usize,
    /// With which instruction set.
    pub(crate) level: Level,
    /// Tokens a chunk; the last one may be shorter.
    chunk_len: usize,
    /// Channels a tile. The first one of a sequence is wider by `misalignment`, so that all others
    /// begin on a cache line; the last one may be narrower.
    tile_width: usize,
    /// Channels before the first cache line boundary.
    misalignment: usize,
    /// Elements of a cache line.
    line: usize,
}

/// What a plan is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// The whole.
    pub(crate) shape: ScanShape,
    /// Bytes of an element of a row.
    pub(crate) element_bytes: usize,
    /// A row of a tile is at most this wide.
    pub(crate) tile_bytes: usize,
    /// How many threads there are.
    pub(crate) threads: usize,
    /// How many elements after the beginning of the output its first cache line boundary lies.
    pub(crate) misalignment: usize,
    /// Whether the output is written past the caches.
    pub(crate) streamed: bool,
}

impl Request {
    /// For a scan of elements E.
    pub(crate) fn scan<E: ScanElement>(
        shape: ScanShape,
        threads: usize,
        misalignment: usize,
    ) -> Self {
        Self {
            shape,
            element_bytes: size_of::<E>(),
            tile_bytes: MAX_TILE_BYTES,
            threads,
            misalignment,
            streamed: is_streamed::<E>(shape),
        }
    }

    /// Tokens a chunk: a function of the shape alone, because it decides how results are rounded.
    fn chunk_len(&self) -> usize {
        let Self { shape, element_bytes, .. } = *self;
        let narrowest_tiles =
            shape.batch * (shape.channels * element_bytes).div_ceil(MIN_TILE_BYTES);
        if narrowest_tiles >= ENOUGH_TILES || shape.seqlen < MIN_CHUNKS * CHUNK_LEN {
            shape.seqlen
        } else {
            CHUNK_LEN
        }
    }

    /// Channels a tile: as wide as leaves each of `threads` threads a tile of every sequence, in whole
    /// cache lines.
    fn tile_width(&self, threads: usize) -> usize {
        let Self { shape, element_bytes, tile_bytes, .. } = *self;
        let fewest = shape.channels.div_ceil(tile_bytes / element_bytes);
        let most = shape.channels.div_ceil(MIN_TILE_BYTES / element_bytes);
        let tiles = threads.clamp(fewest, most.max(fewest));
        shape.channels.div_ceil(tiles).next_multiple_of(LINE / element_bytes)
    }
}

impl Plan {
    pub(crate) fn new(request: &Request) -> Self {
        let Request { shape, element_bytes, threads, .. } = *request;
        let chunk_len = request.chunk_len();
        let cuts_time = chunk_len < shape.seqlen;
        let widest = request.tile_bytes / element_bytes;
        let crowded = threads >= CROWD * shape.batch * shape.channels.div_ceil(widest);
        let threads_a_sequence =
            if crowded && !cuts_time { threads.div_ceil(shape.batch) } else { 1 };
        let tile_width = request.tile_width(threads_a_sequence);
        let ahead = if request.streamed {
            (AHEAD_BYTES / (tile_width * element_bytes)).clamp(2, 8)
        } else {
            0
        };
        let mut plan = Self {
            shape,
            schedule: Schedule::Serial,
            ahead,
            level: Level::best(),
            chunk_len,
            tile_width,
            misalignment: request.misalignment,
            line: LINE / element_bytes,
        };
        let is_large = shape.len() * element_bytes >= MIN_PARALLEL_BYTES;
        if is_large && crowded && cuts_time {
            plan.schedule = Schedule::Chunks;
        } else if is_large && threads > 1 && plan.tiles() > 1 {
            plan.schedule = Schedule::Tiles;
        }
        plan
    }

    /// The same with another instruction set.
    #[cfg(test)]
    pub(crate) fn at(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Number of chunks a sequence.
    pub(crate) const fn chunks(&self) -> usize {
        self.shape.seqlen.div_ceil(self.chunk_len)
    }

    /// Positions of chunk `index`, in the order of the pass.
    pub(crate) fn chunk(&self, index: usize) -> Range<usize> {
        let begin = index * self.chunk_len;
        begin..(begin + self.chunk_len).min(self.shape.seqlen)
    }

    fn tiles_per_sequence(&self) -> usize {
        // A row shorter than the misalignment is one tile.
        self.shape.channels.saturating_sub(self.misalignment).div_ceil(self.tile_width).max(1)
    }

    /// Number of tiles of the batch.
    pub(crate) fn tiles(&self) -> usize {
        self.shape.batch * self.tiles_per_sequence()
    }

    /// Tile `index` of the batch.
    pub(crate) fn tile(&self, index: usize) -> Tile {
        let (batch, i) = (index / self.tiles_per_sequence(), index % self.tiles_per_sequence());
        let channels = self.shape.channels;
        let edge = |i: usize| match i {
            0 => 0,
            _ => (self.misalignment + i * self.tile_width).min(channels),
        };
        let pad = if i == 0 { (self.line - self.misalignment) % self.line } else { 0 };
        let width = edge(i + 1) - edge(i);
        let lead = if i == 0 { self.misalignment.min(width) } else { 0 };
        Tile { batch, first: edge(i), width, pad, lead }
    }
}

/// Whether an output of this shape is written past the caches.
pub(crate) fn is_streamed<E>(shape: ScanShape) -> bool {
    shape.len() * size_of::<E>() >= MIN_STREAMED_BYTES
        && shape.channels * size_of::<E>() >= 4 * LINE
}

#[cfg(test)]
mod tests {
    use super::{MAX_LANES, Plan, Request, Schedule};
    use crate::ScanShape;

    fn plan(b: usize, t: usize, c: usize, threads: usize, misalignment: usize) -> Plan {
        let shape = ScanShape::new(b, t, c).unwrap();
        Plan::new(&Request::scan::<f32>(shape, threads, misalignment))
    }

    #[test]
    fn tiles_and_chunks_partition_the_shape() {
        for channels in [1, 3, 8, 16, 33, 64, 257, 511, 512, 513, 4099] {
            for (threads, misalignment) in [(1, 0), (2, 12), (7, 15), (64, 4)] {
                let plan = plan(3, 5000, channels, threads, misalignment);
                let mut next = (0, 0);
                for i in 0..plan.tiles() {
                    let tile = plan.tile(i);
                    assert!(tile.width >= 1 && tile.lanes().end <= MAX_LANES, "{plan:?} {tile:?}");
                    assert_eq!((tile.batch, tile.first), next);
                    let end = tile.first + tile.width;
                    next = if end == channels { (tile.batch + 1, 0) } else { (tile.batch, end) };
                }
                assert_eq!(next, (3, 0));
                let covered: usize = (0..plan.chunks()).map(|k| plan.chunk(k).len()).sum();
                assert_eq!(covered, 5000);
            }
        }
    }

    #[test]
    fn chunks_do_not_depend_on_threads() {
        for channels in [1, 64, 512, 4096] {
            let chunk_len = plan(1, 65536, channels, 1, 0).chunk_len;
            for threads in [2, 3, 16, 128] {
                assert_eq!(plan(1, 65536, channels, threads, 0).chunk_len, chunk_len);
            }
        }
    }

    #[test]
    fn small_shapes_stay_on_the_calling_thread() {
        assert_eq!(plan(1, 64, 512, 16, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 512, 1, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 512, 2, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 1024, 2, 0).schedule, Schedule::Tiles);
        assert_eq!(plan(1, 65536, 512, 16, 0).schedule, Schedule::Chunks);
        assert_eq!(plan(16, 4096, 512, 16, 0).schedule, Schedule::Tiles);
    }
}
