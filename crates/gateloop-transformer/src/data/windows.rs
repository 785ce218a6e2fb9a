//! Windows of token ids: random ones to train on, fixed ones to validate on.

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::{Corpus, DataError, Split};

/// Token ids of several windows, one after the other.
///
/// # Shapes
/// `ids` is `[batch, window_len]`, row-major. The inputs are the first `window_len - 1` tokens of a
/// row, the targets the last `window_len - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The ids, row by row.
    pub ids: Vec<i64>,
    /// Number of rows.
    pub batch: usize,
    /// Tokens a row: the sequence length and one.
    pub window_len: usize,
}

impl Batch {
    /// The tokens that are predicted: all but the first of each row.
    pub fn targets(&self) -> usize {
        self.batch * self.window_len.saturating_sub(1)
    }

    /// The same rows in batches of at most `rows`; of one, if `rows` is 0.
    pub fn chunks(&self, rows: usize) -> impl Iterator<Item = Self> + '_ {
        let window_len = self.window_len.max(1);
        self.ids.chunks(rows.max(1).saturating_mul(window_len)).map(move |ids| Self {
            ids: ids.to_vec(),
            batch: ids.len() / window_len,
            window_len: self.window_len,
        })
    }

    fn gather(
        bytes: &[u8],
        starts: impl ExactSizeIterator<Item = usize>,
        window_len: usize,
    ) -> Self {
        let batch = starts.len();
        let mut ids = Vec::with_capacity(batch * window_len);
        for start in starts {
            ids.extend(bytes[start..start + window_len].iter().copied().map(i64::from));
        }
        Self { ids, batch, window_len }
    }
}

/// Where a [`WindowSampler`] is in its stream; a few bytes in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SamplerState {
    /// The seed of the stream.
    pub seed: u64,
    /// Windows drawn so far.
    pub drawn: u64,
}

/// Draws windows uniformly from a split, the same ones for the same seed on every machine.
#[derive(Clone, Debug)]
pub struct WindowSampler {
    corpus: Corpus,
    split: Split,
    window_len: usize,
    /// How many windows there are to draw from.
    starts: usize,
    draws: Draws,
    state: SamplerState,
}

impl WindowSampler {
    /// A sampler of windows of `seq_len + 1` bytes; errs if the split does not hold one.
    pub fn new(
        corpus: &Corpus,
        split: Split,
        seq_len: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        let window_len = seq_len.saturating_add(1);
        Ok(Self {
            corpus: corpus.clone(),
            split,
            window_len,
            starts: corpus.window_starts(split, window_len)?,
            draws: Draws::new(seed),
            state: SamplerState { seed, drawn: 0 },
        })
    }

    /// The next `batch` windows.
    pub fn next_batch(&mut self, batch: usize) -> Batch {
        // Wraps rather than panics on the count that only a damaged state can hold.
        self.state.drawn = self.state.drawn.wrapping_add(batch as u64);
        let (draws, starts) = (&mut self.draws, self.starts);
        let starts = (0..batch).map(|_| draws.below(starts));
        Batch::gather(self.corpus.split(self.split), starts, self.window_len)
    }

    /// The position, to go on from later.
    pub fn state(&self) -> SamplerState {
        self.state
    }

    /// Goes on exactly where the sampler was that gave this state.
    pub fn restore(&mut self, state: SamplerState) {
        self.draws = Draws::new(state.seed);
        self.draws.seek(state.drawn);
        self.state = state;
    }
}

/// Reads a split in stretches, each window of a stretch after the one before.
///
/// A split is cut into `streams` stretches of one length. A batch has the next window of some of them, in turn; after
/// the last window of the stretches all begin again.
#[derive(Clone, Debug)]
pub struct StreamSampler {
    corpus: Corpus,
    split: Split,
    seq_len: usize,
    streams: usize,
    /// Windows of a stretch.
    windows: usize,
    state: SamplerState,
}

impl StreamSampler {
    /// A sampler of windows of `seq_len + 1` bytes; errs if a stretch does not hold one.
    pub fn new(
        corpus: &Corpus,
        split: Split,
        seq_len: usize,
        streams: usize,
        seed: u64,
    ) -> Result<Self, DataError> {
        let (streams, seq_len) = (streams.max(1), seq_len.max(1));
        let len = corpus.split(split).len();
        // A window predicts the first byte of the next one, so all but the last byte are begun with.
        let windows = (len / streams).saturating_sub(1) / seq_len;
        if windows == 0 {
            let needed = streams.saturating_mul(seq_len.saturating_add(1));
            return Err(DataError::StretchesTooShort { split, len, streams, needed });
        }
        let state = SamplerState { seed, drawn: 0 };
        Ok(Self { corpus: corpus.clone(), split, seq_len, streams, windows, state })
    }

    /// The next window of the next `batch` streams, and whether they begin their stretches.
    pub fn next_batch(&mut self, batch: usize) -> (Batch, bool) {
        let streams = self.streams as u64;
        let first = (self.state.drawn % streams) as usize;
        let window = ((self.state.drawn / streams) % self.windows as u64) as usize;
        let bytes = self.corpus.split(self.split);
        let stretch = bytes.len() / self.streams;
        let starts = (first..first + batch)
            .map(|stream| stream % self.streams * stretch + window * self.seq_len);
        let gathered = Batch::gather(bytes, starts, self.seq_len + 1);
        self.state.drawn = self.state.drawn.wrapping_add(batch as u64);
        (gathered, window == 0)
    }

    /// The position, to go on from later.
    pub fn state(&self) -> SamplerState {
        self.state
    }

    /// Goes on exactly where the sampler was that gave this state.
    pub fn restore(&mut self, state: SamplerState) {
        self.state = state;
    }
}

/// `count` windows of `seq_len + 1` bytes, evenly spaced from the first to the last of a split.
///
/// They depend on nothing else, so every validation of every run sees the same ones.
pub fn fixed_windows(
    corpus: &Corpus,
    split: Split,
    count: usize,
    seq_len: usize,
) -> Result<Batch, DataError> {
    let window_len = seq_len.saturating_add(1);
    let last = corpus.window_starts(split, window_len)? - 1;
    let gaps = count.saturating_sub(1).max(1) as u128;
    let starts = (0..count).map(|index| (index as u128 * last as u128 / gaps) as usize);
    Ok(Batch::gather(corpus.split(split), starts, window_len))
}
