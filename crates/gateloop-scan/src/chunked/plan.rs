//! How a shape is cut up: pure functions, so that they can be tested without running anything.

use core::mem::size_of;
use core::ops::Range;

use crate::{ScanElement, ScanShape};

use super::dispatch::{LINE, Level};

/// Lanes for which a kernel reserves room: the widest tile, and the line that aligns it.
pub(crate) const MAX_LANES: usize = (MAX_TILE_BYTES + 2 * LINE) / size_of::<f32>();
/// A row of a tile is at most this wide: states and rows of a tile stay in a first-level cache.
const MAX_TILE_BYTES: usize = 2048;
/// Where several threads share a row, tiles are at most this wide. Tiles of a thread then take turns
/// ([`Request::block_len`]), so that it reads and writes whole stretches of a row nearly at once, as the
/// memory likes it.
const SHARED_TILE_BYTES: usize = 512;
/// Rows that a tile of a scan walks through before the next one of its group has its turn.
const BLOCK_LEN: usize = 8;
/// Up to this many bytes of one operand, waking a thread takes longer than the scan.
const MIN_PARALLEL_BYTES: usize = 256 * 1024;
/// From this many bytes of one operand on, segments are so long that the walks to them do not matter.
const MIN_SEGMENTS_BYTES: usize = 4 * 1024 * 1024;
/// From this many bytes of one output on, it is written past the caches.
const MIN_STREAMED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a row that would keep a thread busy.
const PART_BYTES: usize = 256;
/// Bytes of one operand that are asked for in advance. More of them would push each other out of a
/// first-level cache before they are used.
const AHEAD_BYTES: usize = 4096;
/// From this many bytes of one operand on, the caches are out of reach, and threads that take turns over
/// whole rows are faster than threads that share each row.
const MIN_RELAY_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that a thread walks through when it is its turn, operands and results: they stay in a second-level
/// cache.
const TURN_BYTES: usize = 192 * 1024;
/// Tokens of a chunk when time is cut.
const CHUNK_LEN: usize = 1024;

/// What a pass takes its time for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Reading and writing: the two passes over time that is cut must be shared by many threads to pay.
    Memory,
    /// Its arithmetic.
    Compute,
}

impl Bound {
    /// From how many parts on there is work for the threads without cutting time.
    const fn enough_parts(self) -> usize {
        match self {
            Self::Memory => 2,
            Self::Compute => 8,
        }
    }

    /// Sequences of fewer chunks are not cut.
    const fn min_chunks(self) -> usize {
        match self {
            Self::Memory => 16,
            Self::Compute => 4,
        }
    }

    /// How few threads can share a row. Where memory counts, two lose more than they gain: each asks for the
    /// lines next to its own, which the other one is writing.
    const fn min_sharing(self) -> usize {
        match self {
            Self::Memory => 4,
            Self::Compute => 2,
        }
    }
}

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
    /// Rows that a tile walks through before the next one of its group has its turn.
    pub(crate) block_len: usize,
    /// What takes the time.
    pub(crate) bound: Bound,
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
            block_len: BLOCK_LEN,
            bound: Bound::Memory,
        }
    }

    /// Tokens a chunk: a function of the shape alone, because it decides how results are rounded.
    fn chunk_len(&self) -> usize {
        let shape = self.shape;
        let has_parts = shape.batch * self.parts() >= self.bound.enough_parts();
        let is_short = shape.seqlen < self.bound.min_chunks() * CHUNK_LEN;
        if has_parts || is_short || !self.is_large() { shape.seqlen } else { CHUNK_LEN }
    }

    /// Whether there is work for more than one thread.
    const fn is_large(&self) -> bool {
        self.bytes() > MIN_PARALLEL_BYTES
    }

    /// Bytes of an operand.
    const fn bytes(&self) -> usize {
        self.shape.len() * self.element_bytes
    }

    /// Whether whole sequences cannot be shared out evenly.
    const fn splits_sequences(&self) -> bool {
        self.threads > 1 && !self.shape.batch.is_multiple_of(self.threads)
    }

    /// Whether it would be faster if memory were short enough for [`segments`](super::segments).
    pub(crate) fn wants_segments(&self) -> bool {
        let splits = self.splits_sequences() && self.bytes() >= MIN_SEGMENTS_BYTES;
        splits || self.chunk_len() < self.shape.seqlen
    }

    /// Whether turns are better than threads that share each row.
    pub(crate) fn wants_turns(&self) -> bool {
        self.streamed
            && self.splits_sequences()
            && self.chunk_len() == self.shape.seqlen
            && self.bytes() >= MIN_RELAY_BYTES
    }

    /// Parts of a row, each enough for a thread.
    const fn parts(&self) -> usize {
        (self.shape.channels * self.element_bytes).div_ceil(PART_BYTES)
    }

    /// Into how many groups of tiles a sequence is cut.
    fn groups(&self) -> usize {
        if self.threads < self.bound.min_sharing() {
            return 1;
        }
        shares(self.shape.batch, self.threads).clamp(1, self.parts())
    }

    /// Channels a tile, in whole cache lines.
    fn tile_width(&self, groups: usize) -> usize {
        let Self { shape, element_bytes, tile_bytes, streamed, .. } = *self;
        let bytes =
            if groups > 1 && streamed { SHARED_TILE_BYTES.min(tile_bytes) } else { tile_bytes };
        let line = LINE / element_bytes;
        let widest = (bytes / element_bytes).max(line);
        shape.channels.div_ceil(groups).next_multiple_of(line).min(widest)
    }
}

/// Into how many parts each sequence has to be cut so that every thread has as many.
pub(crate) const fn shares(batch: usize, threads: usize) -> usize {
    threads / greatest_common_divisor(batch, threads)
}

const fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
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
        Self { chunk_len: plan.shape.seqlen, ..plan }
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

/// Whether a scan is so small that it is not worth a plan, let alone a second thread.
pub(crate) fn is_small<E: ScanElement>(shape: ScanShape) -> bool {
    !Request::scan::<E>(shape, 1, 0).is_large()
}

/// Whether an output of this shape is written past the caches.
pub(crate) fn is_streamed<E>(shape: ScanShape) -> bool {
    shape.len() * size_of::<E>() >= MIN_STREAMED_BYTES
        && shape.channels * size_of::<E>() >= 4 * LINE
}

#[cfg(test)]
mod tests {
    use super::{Bound, MAX_LANES, Plan, Request, Schedule};
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
