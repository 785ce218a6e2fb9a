//! What is asked of a plan, and what the shape says about it: pure functions of sizes.

use core::mem::size_of;

use crate::{ScanElement, ScanShape};

use super::dispatch::LINE;

/// A row of a tile is at most this wide: states and rows of a tile stay in a first-level cache.
pub(super) const MAX_TILE_BYTES: usize = 2048;
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
/// From this many bytes of one operand on, the caches are out of reach, and threads that take turns over
/// whole rows are faster than threads that share each row.
const MIN_RELAY_BYTES: usize = 64 * 1024 * 1024;
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

    /// Up to so many bytes of one operand, waking a thread takes longer than the work.
    const fn min_parallel_bytes(self) -> usize {
        match self {
            Self::Memory => MIN_PARALLEL_BYTES,
            Self::Compute => MIN_PARALLEL_BYTES / 4,
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
    pub(super) fn chunk_len(&self) -> usize {
        let shape = self.shape;
        let has_parts = shape.batch * self.parts() >= self.bound.enough_parts();
        let is_short = shape.seqlen < self.bound.min_chunks() * CHUNK_LEN;
        if has_parts || is_short || !self.is_large() { shape.seqlen } else { CHUNK_LEN }
    }

    /// Whether there is work for more than one thread.
    pub(super) const fn is_large(&self) -> bool {
        self.bytes() > self.bound.min_parallel_bytes()
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
    pub(super) fn groups(&self) -> usize {
        if self.threads < self.bound.min_sharing() {
            return 1;
        }
        shares(self.shape.batch, self.threads).clamp(1, self.parts())
    }

    /// Channels a tile, in whole cache lines.
    pub(super) fn tile_width(&self, groups: usize) -> usize {
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

/// Whether a scan is so small that it is not worth a plan, let alone a second thread.
pub(crate) fn is_small<E: ScanElement>(shape: ScanShape) -> bool {
    !Request::scan::<E>(shape, 1, 0).is_large()
}

/// Whether an output of this shape is written past the caches.
pub(crate) fn is_streamed<E>(shape: ScanShape) -> bool {
    shape.len() * size_of::<E>() >= MIN_STREAMED_BYTES
        && shape.channels * size_of::<E>() >= 4 * LINE
}
