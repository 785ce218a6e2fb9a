//! Windows of token ids: random ones to train on, fixed ones to validate on.

use serde::{Deserialize, Serialize};

use super::draw::Draws;
use super::{Corpus, DataError, Mark, Split, Tokens};
use crate::config::LossOn;
use std::ops::Range;

/// Token ids of several windows, one after the other.
///
/// # Shapes
/// `ids` and `marks` are `[batch, window_len]`, row-major. The inputs are the first `window_len - 1` tokens of a
/// row, the targets the last `window_len - 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The ids, row by row.
    pub ids: Vec<i64>,
    /// Of a synthetic task: what each token is in it.
    pub marks: Option<Vec<Mark>>,
    /// Where documents begin, `[batch, window_len]`, if a model is to know nothing there of the tokens before.
    pub document_starts: Option<Vec<bool>>,
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
        let rows = rows.max(1);
        (0..self.batch)
            .step_by(rows)
            .map(move |n| self.rows(n..self.batch.min(n.saturating_add(rows))))
    }

    fn rows(&self, rows: Range<usize>) -> Self {
        let tokens = rows.start * self.window_len..rows.end * self.window_len;
        Self {
            ids: self.ids[tokens.clone()].to_vec(),
            marks: self.marks.as_ref().map(|all| all[tokens.clone()].to_vec()),
            document_starts: self.document_starts.as_ref().map(|all| all[tokens].to_vec()),
            batch: rows.len(),
            window_len: self.window_len,
        }
    }

    /// The rows of a share, which are as many as those of the others, or one less.
    pub fn part(&self, share: Share) -> Self {
        let Share { index, of } = share;
        self.rows(self.batch * index / of..self.batch * (index + 1) / of)
    }

    /// The part of every row that is rank `rank`'s of `size` that share the sequence: as many inputs as the others have, or
    /// one less. The first token of a part is the last target of the part before.
    pub fn slice(&self, rank: usize, size: usize) -> Self {
        let start = self.slice_start(rank, size);
        let width = self.slice_len(rank, size) + 1;
        Self {
            ids: columns(&self.ids, self.window_len, start, width),
            marks: self.marks.as_ref().map(|all| columns(all, self.window_len, start, width)),
            document_starts: self
                .document_starts
                .as_ref()
                .map(|all| columns(all, self.window_len, start, width)),
            batch: self.batch,
            window_len: width,
        }
    }

    /// How many inputs of a row are those of rank `rank` of `size`.
    pub fn slice_len(&self, rank: usize, size: usize) -> usize {
        self.slice_start(rank + 1, size) - self.slice_start(rank, size)
    }

    fn slice_start(&self, rank: usize, size: usize) -> usize {
        self.window_len.saturating_sub(1) * rank / size
    }

    /// Which tokens the loss is taken over, `[batch, window_len]`; `None` for all. The first token of a document is
    /// never predicted: nothing is known before it.
    pub fn counts(&self, loss_on: LossOn) -> Option<Vec<bool>> {
        let answers = self.marks.as_ref().filter(|_| loss_on == LossOn::Answers);
        if answers.is_none() && self.document_starts.is_none() {
            return None;
        }
        let is_answer = |n: usize| answers.is_none_or(|marks| marks[n] == Mark::Answer);
        let is_start = |n: usize| self.document_starts.as_ref().is_some_and(|starts| starts[n]);
        Some((0..self.ids.len()).map(|n| is_answer(n) && !is_start(n)).collect())
    }

    /// Whether an answer is among the tokens that are predicted.
    pub fn has_answers(&self) -> bool {
        let rows = self.marks.iter().flat_map(|marks| marks.chunks(self.window_len.max(1)));
        rows.flat_map(|row| row.iter().skip(1)).any(|mark| *mark == Mark::Answer)
    }

    /// Windows that begin at the first number of each pair, read by someone who knows what stands there from the second
    /// one on.
    pub(crate) fn gather(
        tokens: Tokens<'_>,
        starts: impl ExactSizeIterator<Item = (usize, usize)>,
        window_len: usize,
    ) -> Self {
        let batch = starts.len();
        let mut ids = Vec::with_capacity(batch * window_len);
        let mut marks = tokens.has_answers().then(|| Vec::with_capacity(batch * window_len));
        let mut document_starts =
            tokens.has_documents().then(|| Vec::with_capacity(batch * window_len));
        for (start, known_from) in starts {
            tokens.copy_to(start, window_len, &mut ids);
            if let Some(starts) = &mut document_starts {
                tokens.document_starts(start, window_len, starts);
            }
            if let Some(marks) = &mut marks {
                marks.extend(tokens.marks(start, window_len, known_from).into_iter().flatten());
            }
        }
        Self { ids, marks, document_starts, batch, window_len }
    }
}

/// Some columns of a matrix whose rows follow one another.
fn columns<T: Copy>(rows: &[T], row_len: usize, start: usize, width: usize) -> Vec<T> {
    rows.chunks(row_len.max(1)).flat_map(|row| &row[start..start + width]).copied().collect()
}

/// Which of the windows of every batch are a rank's: part `index` of `of`, where the batch of all is that much larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// How many parts there are, at least 1.
    pub of: usize,
}

impl Default for Share {
    /// Everything.
    fn default() -> Self {
        Self { index: 0, of: 1 }
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
    share: Share,
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
            share: Share::default(),
            state: SamplerState { seed, drawn: 0 },
        })
    }

    /// The same stream, of which each batch is a part only; the parts together are the batch of who has all.
    pub fn shared(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// The next `batch` windows.
    pub fn next_batch(&mut self, batch: usize) -> Batch {
        let Share { index, of } = self.share;
        // Wraps rather than panics on the count that only a damaged state can hold.
        self.state.drawn = self.state.drawn.wrapping_add((batch * of) as u64);
        let drawn: Vec<usize> = (0..batch * of).map(|_| self.draws.below(self.starts)).collect();
        let starts = drawn[index * batch..][..batch].iter().map(|start| (*start, *start));
        Batch::gather(self.corpus.tokens(self.split), starts, self.window_len)
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
    /// Whether a window's reader knows the ones before it.
    is_carried: bool,
    share: Share,
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
        let len = corpus.tokens(split).len();
        // A window predicts the first byte of the next one, so all but the last byte are begun with.
        let windows = (len / streams).saturating_sub(1) / seq_len;
        if windows == 0 {
            let needed = streams.saturating_mul(seq_len.saturating_add(1));
            return Err(DataError::StretchesTooShort { split, len, streams, needed });
        }
        let state = SamplerState { seed, drawn: 0 };
        Ok(Self {
            corpus: corpus.clone(),
            split,
            seq_len,
            streams,
            windows,
            is_carried: false,
            share: Share::default(),
            state,
        })
    }

    /// For a reader whose state goes from window to window: it can answer what the line asks for that began before.
    pub fn carried(mut self) -> Self {
        self.is_carried = true;
        self
    }

    /// The same stretches, of which each batch reads a part only; the parts together are the batch of who has all.
    pub fn shared(mut self, share: Share) -> Self {
        self.share = share;
        self
    }

    /// The next window of the next `batch` streams, and whether they begin their stretches.
    pub fn next_batch(&mut self, batch: usize) -> (Batch, bool) {
        let streams = self.streams as u64;
        let Share { index, of } = self.share;
        let first = (self.state.drawn % streams) as usize + index * batch;
        let window = ((self.state.drawn / streams) % self.windows as u64) as usize;
        let tokens = self.corpus.tokens(self.split);
        let stretch = tokens.len() / self.streams;
        let starts = (first..first + batch).map(|stream| {
            let begin = stream % self.streams * stretch;
            let start = begin + window * self.seq_len;
            (start, if self.is_carried { begin } else { start })
        });
        let gathered = Batch::gather(tokens, starts, self.seq_len + 1);
        self.state.drawn = self.state.drawn.wrapping_add((batch * of) as u64);
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
    let starts = starts.map(|start| (start, start));
    Ok(Batch::gather(corpus.tokens(split), starts, window_len))
}
