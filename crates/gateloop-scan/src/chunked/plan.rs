//! How a shape is cut up: pure functions, so that they can be tested without running anything.

use core::mem::size_of;
use core::ops::Range;

use crate::{ScanElement, ScanShape};

use super::dispatch::LINE;
use super::output::line_of;

/// Lanes for which a kernel reserves room.
pub(super) const MAX_LANES: usize = 512;
/// A row of a tile is at most this wide: states and rows of a tile stay in a first-level cache.
const MAX_TILE_BYTES: usize = 2048;
/// A row of a tile is at least this wide, or memory is read in pieces too small to be fetched well.
const MIN_TILE_BYTES: usize = 256;
/// Below this many bytes of one operand, waking a thread takes longer than the scan.
const MIN_PARALLEL_BYTES: usize = 256 * 1024;
/// From this many bytes of one output on, it is written past the caches.
const MIN_STREAMED_BYTES: usize = 16 * 1024 * 1024;
/// With this many narrowest tiles, there is work for the threads without cutting time.
const ENOUGH_TILES: usize = 16;
/// Tokens of a chunk when time is cut.
const CHUNK_LEN: usize = 1024;
/// Shorter sequences are not cut.
const MIN_CHUNKS: usize = 4;

/// Some channels of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    /// The sequence.
    pub(super) batch: usize,
    /// The first channel.
    pub(super) first: usize,
    /// How many channels.
    pub(super) width: usize,
}

impl Tile {
    /// Where the tile's channels lie in a `[B, C]` array.
    pub(super) const fn in_state(&self, channels: usize) -> Range<usize> {
        let at = self.batch * channels + self.first;
        at..at + self.width
    }
}

/// Who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schedule {
    /// Every tile on the calling thread.
    Serial,
    /// Tiles in parallel, each through all of time.
    Tiles,
    /// Tiles and chunks in parallel, with the carries between two passes.
    Chunks,
}

/// A shape, cut up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    /// The whole.
    pub(super) shape: ScanShape,
    /// Who does what.
    pub(super) schedule: Schedule,
    /// Tokens a chunk; the last one may be shorter.
    chunk_len: usize,
    /// Channels a tile; the first and last one of a sequence may be narrower.
    tile_width: usize,
    /// Channels of the first tile, so that all others begin on a cache line.
    first_width: usize,
}

impl Plan {
    /// A plan for `threads` threads and an output whose first cache line boundary lies
    /// `misalignment` elements after its beginning.
    pub(super) fn new<E: ScanElement>(
        shape: ScanShape,
        threads: usize,
        misalignment: usize,
    ) -> Self {
        let chunk_len = chunk_len::<E>(shape);
        let tile_width = tile_width::<E>(shape, threads);
        let first_width =
            if misalignment == 0 || misalignment >= tile_width { tile_width } else { misalignment };
        let mut plan =
            Self { shape, schedule: Schedule::Serial, chunk_len, tile_width, first_width };
        let bytes = shape.len() * size_of::<E>();
        if threads > 1 && bytes >= MIN_PARALLEL_BYTES {
            // Two passes move 5/3 of the bytes of one.
            let cut_time = plan.chunks() > 1 && threads >= 2 * plan.tiles();
            plan.schedule = if cut_time { Schedule::Chunks } else { Schedule::Tiles };
        }
        plan
    }

    /// Number of chunks a sequence.
    pub(super) const fn chunks(&self) -> usize {
        self.shape.seqlen.div_ceil(self.chunk_len)
    }

    /// Positions of chunk `index`, in the order of the pass.
    pub(super) fn chunk(&self, index: usize) -> Range<usize> {
        let begin = index * self.chunk_len;
        begin..(begin + self.chunk_len).min(self.shape.seqlen)
    }

    const fn tiles_per_sequence(&self) -> usize {
        1 + self.shape.channels.saturating_sub(self.first_width).div_ceil(self.tile_width)
    }

    /// Number of tiles of the batch.
    pub(super) const fn tiles(&self) -> usize {
        self.shape.batch * self.tiles_per_sequence()
    }

    /// Tile `index` of the batch.
    pub(super) fn tile(&self, index: usize) -> Tile {
        let (batch, i) = (index / self.tiles_per_sequence(), index % self.tiles_per_sequence());
        let channels = self.shape.channels;
        let edge = |i: usize| match i {
            0 => 0,
            _ => (self.first_width + (i - 1) * self.tile_width).min(channels),
        };
        Tile { batch, first: edge(i), width: edge(i + 1) - edge(i) }
    }
}

/// Tokens a chunk: a function of the shape alone, because it decides how results are rounded.
fn chunk_len<E>(shape: ScanShape) -> usize {
    if std::env::var("NOCH").is_ok() {
        return shape.seqlen;
    }
    let row_bytes = shape.channels * size_of::<E>();
    let narrowest_tiles = shape.batch * row_bytes.div_ceil(MIN_TILE_BYTES);
    if narrowest_tiles >= ENOUGH_TILES || shape.seqlen < MIN_CHUNKS * CHUNK_LEN {
        shape.seqlen
    } else {
        CHUNK_LEN
    }
}

/// Channels a tile: as wide as leaves every thread a tile, in whole cache lines.
fn tile_width<E>(shape: ScanShape, threads: usize) -> usize {
    let channels_in = |bytes: usize| bytes / size_of::<E>();
    let fewest = shape.channels.div_ceil(channels_in(MAX_TILE_BYTES));
    let most = shape.channels.div_ceil(channels_in(MIN_TILE_BYTES));
    let tiles = threads.div_ceil(shape.batch).clamp(fewest, most);
    shape.channels.div_ceil(tiles).next_multiple_of(line_of::<E>())
}

/// Whether an output of this shape is written past the caches.
pub(super) fn is_streamed<E>(shape: ScanShape) -> bool {
    std::env::var("NT").is_err()
        && shape.len() * size_of::<E>() >= MIN_STREAMED_BYTES
        && shape.channels * size_of::<E>() >= 4 * LINE
}

#[cfg(test)]
mod tests {
    use super::{MAX_LANES, Plan, Schedule, Tile};
    use crate::ScanShape;

    fn plan(b: usize, t: usize, c: usize, threads: usize, misalignment: usize) -> Plan {
        Plan::new::<f32>(ScanShape::new(b, t, c).unwrap(), threads, misalignment)
    }

    #[test]
    fn tiles_and_chunks_partition_the_shape() {
        for channels in [1, 3, 8, 16, 33, 64, 257, 511, 512, 513, 4099] {
            for (threads, misalignment) in [(1, 0), (2, 12), (7, 15), (64, 4)] {
                let plan = plan(3, 5000, channels, threads, misalignment);
                let mut next = Tile { batch: 0, first: 0, width: 0 };
                for i in 0..plan.tiles() {
                    let tile = plan.tile(i);
                    assert!((1..=MAX_LANES).contains(&tile.width), "{plan:?} {tile:?}");
                    assert_eq!((tile.batch, tile.first), (next.batch, next.first));
                    next = Tile { first: tile.first + tile.width, ..tile };
                    if next.first == channels {
                        next = Tile { batch: tile.batch + 1, first: 0, width: 0 };
                    }
                }
                assert_eq!((next.batch, next.first), (3, 0));
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
        assert_eq!(plan(1, 65536, 512, 2, 0).schedule, Schedule::Tiles);
        assert_eq!(plan(1, 65536, 512, 16, 0).schedule, Schedule::Chunks);
        assert_eq!(plan(16, 4096, 512, 16, 0).schedule, Schedule::Tiles);
    }
}
