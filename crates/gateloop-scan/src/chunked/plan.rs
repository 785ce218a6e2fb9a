//! How a shape is cut up: pure functions, so that they can be tested without running anything.

use core::mem::size_of;
use core::ops::Range;

use crate::ScanShape;

use super::dispatch::{LINE, Level};
use super::request::{MAX_TILE_BYTES, Request};
use super::tile::Tile;

/// Lanes for which a kernel reserves room: the widest tile, and the line that aligns it.
pub(crate) const MAX_LANES: usize = (MAX_TILE_BYTES + 2 * LINE) / size_of::<f32>();
/// Bytes of one operand that are asked for in advance. More of them would push each other out of a
/// first-level cache before they are used.
const AHEAD_BYTES: usize = 4096;
/// Rows of just so many bytes all begin at the same place of a page, one page further each, and the hardware foresees the
/// next one badly: the adjoint of (1, 65536, 512) complex numbers reached 0.58 to 0.83 of the traffic's limit, and 0.93 to
/// 0.98 where the next row is asked for. Of rows of 3, 3.5, 4.5, 5, 6 or 8 KiB it is foreseen, and asking costs time.
const PAGE_BYTES: usize = 4096;
/// Bytes that a thread walks through when it is its turn, operands and results: they stay in a second-level
/// cache.
const TURN_BYTES: usize = 192 * 1024;

/// Who does what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Every group on the calling thread.
    Serial,
    /// Groups of tiles in parallel, each through all of time.
    Groups,
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
    /// Groups of tiles a sequence.
    groups_per_sequence: usize,
    /// Rows that a tile walks through before the next one of its group has its turn.
    pub(crate) block_len: usize,
    /// Channels a tile. The first one of a sequence is wider by `misalignment`, so that all others
    /// begin on a cache line; the last one may be narrower.
    tile_width: usize,
    /// Channels before the first cache line boundary.
    misalignment: usize,
    /// Elements of a cache line.
    line: usize,
}

impl Plan {
    pub(crate) fn new(request: &Request) -> Self {
        let Request { shape, element_bytes, threads, .. } = *request;
        let chunk_len = request.chunk_len();
        let is_large = request.is_large();
        let groups = if is_large { request.groups() } else { 1 };
        let tile_width = request.tile_width(groups);
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
            groups_per_sequence: groups,
            block_len: request.block_len,
            misalignment: request.misalignment,
            line: LINE / element_bytes,
        };
        if is_large && threads > shape.batch * groups && chunk_len < shape.seqlen {
            plan.schedule = Schedule::Chunks;
        } else if is_large && threads > 1 && plan.groups() > 1 {
            plan.schedule = Schedule::Groups;
        }
        plan
    }

    /// The plan for threads that each walk through whole rows, uncut.
    pub(crate) fn of_whole_rows(request: &Request) -> Self {
        // Tiles as wide as there is room for on the stack, and row after row.
        let tile_bytes = MAX_TILE_BYTES / size_of::<f32>() * request.element_bytes;
        let plan = Self::new(&Request { threads: 1, tile_bytes, block_len: 1, ..*request });
        let row_bytes = plan.shape.channels * request.element_bytes;
        let ahead = usize::from(request.streamed && row_bytes == PAGE_BYTES);
        Self { chunk_len: plan.shape.seqlen, ahead, ..plan }
    }

    /// Whole rows, one at least, of so many bytes.
    pub(crate) fn rows_of(&self, bytes: usize) -> usize {
        (bytes / LINE * self.line / self.shape.channels).max(1)
    }

    /// Rows of a turn, of so many operands and results.
    pub(crate) fn turn_len(&self, arrays: usize) -> usize {
        (TURN_BYTES / LINE * self.line / (self.tile_width * arrays)).max(1)
    }

    /// Channels of the widest tile.
    pub(crate) const fn widest(&self) -> usize {
        self.tile_width + self.misalignment
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

    /// Number of groups of the batch.
    pub(crate) fn groups(&self) -> usize {
        self.shape.batch * self.groups_per_sequence.min(self.tiles_per_sequence())
    }

    /// The tiles of group `index` of the batch: neighbours in one sequence.
    pub(crate) fn group(&self, index: usize) -> impl Iterator<Item = Tile> {
        let tiles = self.tiles_per_sequence();
        let groups = self.groups_per_sequence.min(tiles);
        let (batch, i) = (index / groups, index % groups);
        let edge = |i: usize| batch * tiles + i * tiles / groups;
        (edge(i)..edge(i + 1)).map(|tile| self.tile(tile))
    }

    /// The tiles of one sequence.
    pub(crate) fn tiles_of(&self, batch: usize) -> impl Iterator<Item = Tile> {
        let tiles = self.tiles_per_sequence();
        (batch * tiles..(batch + 1) * tiles).map(|tile| self.tile(tile))
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

#[cfg(test)]
mod tests {
    use super::{MAX_LANES, Plan, Schedule};
    use crate::ScanShape;
    use crate::chunked::request::{Bound, Request};

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
                let grouped: Vec<_> = (0..plan.groups()).flat_map(|g| plan.group(g)).collect();
                assert_eq!(grouped, (0..plan.tiles()).map(|i| plan.tile(i)).collect::<Vec<_>>());
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
    fn rows_of_a_page_are_asked_for_in_advance() {
        let ahead = |channels, streamed| {
            let shape = ScanShape::new(1, 65536, channels).unwrap();
            let request = Request { streamed, ..Request::scan::<f64>(shape, 2, 0) };
            Plan::of_whole_rows(&request).ahead
        };
        assert_eq!([511, 512, 513, 1024].map(|channels| ahead(channels, true)), [0, 1, 0, 0]);
        assert_eq!(ahead(512, false), 0);
    }

    #[test]
    fn threads_get_what_pays() {
        assert_eq!(plan(1, 64, 512, 16, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 512, 1, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 512, 2, 0).schedule, Schedule::Serial);
        assert_eq!(plan(1, 65536, 512, 4, 0).schedule, Schedule::Groups);
        assert_eq!(plan(1, 65536, 512, 16, 0).groups(), 8);
        assert_eq!(plan(2, 65536, 512, 2, 0).schedule, Schedule::Groups);
        assert_eq!(plan(1, 1_048_576, 8, 2, 0).schedule, Schedule::Chunks);
        assert_eq!(plan(1, 65536, 256, 16, 0).schedule, Schedule::Groups);
        assert_eq!(plan(16, 4096, 512, 16, 0).schedule, Schedule::Groups);
        assert_eq!(plan(3, 4096, 512, 4, 0).groups(), 12);
        let compute = |b, t, c, threads| {
            let shape = ScanShape::new(b, t, c).unwrap();
            let scan = Request::scan::<f32>(shape, threads, 0);
            Plan::new(&Request { bound: Bound::Compute, ..scan })
        };
        assert_eq!(compute(1, 65536, 512, 2).schedule, Schedule::Groups);
        assert_eq!(compute(1, 65536, 256, 16).schedule, Schedule::Chunks);
    }
}
