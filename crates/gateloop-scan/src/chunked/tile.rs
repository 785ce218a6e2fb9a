//! The part of a row that is walked through at a time.

use core::ops::Range;

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
    /// Its channels.
    pub(crate) const fn channels(&self) -> Range<usize> {
        self.first..self.first + self.width
    }

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
