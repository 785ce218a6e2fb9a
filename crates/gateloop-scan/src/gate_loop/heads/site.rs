//! Chunks of heads of sequences, and how threads share them.

use core::ops::Range;

use crate::ParallelFor;
use crate::chunked::dispatch::{Isa, Kernel, Level};

/// The sizes of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dims {
    pub(super) batch: usize,
    pub(super) seqlen: usize,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    pub(super) chunk_len: usize,
}

impl Dims {
    /// Chunks of a sequence.
    pub(super) const fn chunks(&self) -> usize {
        self.seqlen.div_ceil(self.chunk_len)
    }

    /// Numbers of a state: its real parts, then its imaginary parts.
    pub(super) const fn state(&self) -> usize {
        2 * self.head_dim * self.head_dim
    }
}

/// A chunk of a head of a sequence.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) batch: usize,
    pub(super) head: usize,
    pub(super) chunk: usize,
    pub(super) tokens: Range<usize>,
}

impl Site {
    /// The `index`-th one, chunks of a head one after the other.
    pub(super) fn new(dims: &Dims, index: usize) -> Self {
        let (stream, chunk) = (index / dims.chunks(), index % dims.chunks());
        let first = chunk * dims.chunk_len;
        let tokens = first..(first + dims.chunk_len).min(dims.seqlen);
        Self { batch: stream / dims.heads, head: stream % dims.heads, chunk, tokens }
    }

    /// Which head of which sequence, [B, H].
    pub(super) const fn stream(&self, dims: &Dims) -> usize {
        self.batch * dims.heads + self.head
    }

    /// Where its state lies in [B, H, N, 2, d, d].
    pub(super) const fn state(&self, dims: &Dims) -> usize {
        (self.stream(dims) * dims.chunks() + self.chunk) * dims.state()
    }

    /// The columns of its head in rows of all heads.
    pub(super) const fn columns(&self, dims: &Dims) -> Range<usize> {
        self.head * dims.head_dim..(self.head + 1) * dims.head_dim
    }
}

/// What is done to each chunk, whatever is done to the others.
pub(super) trait ChunkWork: Sync {
    /// Room to work in, which a thread uses for one chunk after the other.
    type Scratch;

    fn scratch(&self) -> Self::Scratch;

    /// Does it; `#[inline(always)]`, as all that it calls in its loops.
    fn chunk<I: Isa>(&self, site: &Site, scratch: &mut Self::Scratch);
}

/// Does the work on all chunks.
pub(super) fn for_each_chunk<W: ChunkWork>(
    work: &W,
    dims: &Dims,
    level: Level,
    threads: &dyn ParallelFor,
) {
    /// Pieces of work a thread: enough that one that is late keeps nobody waiting for long.
    const PIECES: usize = 4;
    let chunks = dims.batch * dims.heads * dims.chunks();
    let workers = threads.threads();
    let pieces = if workers > 1 { (PIECES * workers).min(chunks) } else { 1 };
    let piece = |index: usize| {
        let sites = index * chunks / pieces..(index + 1) * chunks / pieces;
        level.dispatch(Piece { work, dims, sites });
    };
    if pieces == 1 { piece(0) } else { threads.for_each(pieces, &piece) }
}

struct Piece<'w, W> {
    work: &'w W,
    dims: &'w Dims,
    sites: Range<usize>,
}

impl<W: ChunkWork> Kernel for Piece<'_, W> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let mut scratch = self.work.scratch();
        for index in self.sites {
            self.work.chunk::<I>(&Site::new(self.dims, index), &mut scratch);
        }
    }
}
