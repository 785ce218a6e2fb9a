//! Random numbers that are the same on every machine and for every version of the `rand` crate.

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A `ChaCha` stream from which whole numbers are drawn, each from exactly one 64-bit word.
///
/// One word a draw makes the position in the stream a plain count, so that it can be saved and
/// sought. The price is a bias of at most n / 2^64, which no data set is large enough to show.
#[derive(Clone, Debug)]
pub(super) struct Draws {
    rng: ChaCha8Rng,
}

impl Draws {
    /// The stream of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// An independent stream of the same seed.
    pub(super) fn stream(mut self, stream: u64) -> Self {
        self.rng.set_stream(stream);
        self
    }

    /// Moves to the position after `drawn` numbers.
    pub(super) fn seek(&mut self, drawn: u64) {
        // ChaCha counts 32-bit words.
        self.rng.set_word_pos(u128::from(drawn) * 2);
    }

    /// A number below `n`, or 0 for `n` = 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let word = u128::from(self.rng.next_u64());
        ((word * n as u128) >> 64) as usize
    }

    /// True once in `n` times.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of the first `n` letters.
    pub(super) fn letter(&mut self, n: usize) -> u8 {
        b'a' + self.below(n) as u8
    }
}
