//! The three dimensions of a scan.

use crate::ScanError;

/// Dimensions of a batch of sequences, stored row-major as `[B, T, C]`.
///
/// Element `(b, t, c)` lies at `(b * T + t) * C + c`: the channels of one token are contiguous.
///
/// ```
/// use gateloop_scan::ScanShape;
///
/// let shape = ScanShape::new(2, 5, 3)?;
/// assert_eq!(shape.len(), 30);
/// assert!(ScanShape::new(2, 0, 3).is_err());
/// # Ok::<(), gateloop_scan::ScanError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ScanShape {
    /// B: independent sequences.
    pub batch: usize,
    /// T: tokens a sequence.
    pub seqlen: usize,
    /// C: independent recurrences a sequence; heads x head dimension in a layer.
    pub channels: usize,
}

/// No array is longer.
const MAX_LEN: usize = isize::MAX as usize;

impl ScanShape {
    /// A shape of `batch` sequences, `seqlen` tokens, `channels` channels, each at least 1.
    ///
    /// # Errors
    /// [`ScanError::EmptyDimension`] if one is 0, [`ScanError::TooLarge`] if their product
    /// exceeds `isize::MAX`.
    #[inline]
    pub fn new(batch: usize, seqlen: usize, channels: usize) -> Result<Self, ScanError> {
        let len = batch.checked_mul(seqlen).and_then(|rows| rows.checked_mul(channels));
        match len {
            Some(1..=MAX_LEN) => Ok(Self { batch, seqlen, channels }),
            _ => Err(Self::error(batch, seqlen, channels)),
        }
    }

    /// What is wrong with dimensions that are none.
    #[cold]
    fn error(batch: usize, seqlen: usize, channels: usize) -> ScanError {
        let dimensions = [("batch", batch), ("seqlen", seqlen), ("channels", channels)];
        match dimensions.into_iter().find(|(_, size)| *size == 0) {
            Some((dimension, _)) => {
                ScanError::EmptyDimension { dimension, batch, seqlen, channels }
            }
            None => ScanError::TooLarge { batch, seqlen, channels },
        }
    }

    /// Elements of a `[B, T, C]` array.
    // A shape has no empty state, so `is_empty` would always be false.
    #[allow(clippy::len_without_is_empty)]
    pub const fn len(&self) -> usize {
        self.batch * self.seqlen * self.channels
    }

    /// Elements of a `[B, C]` array: one state a sequence.
    pub const fn state_len(&self) -> usize {
        self.batch * self.channels
    }

    /// Elements of a `[B, T]` array: one flag a token.
    pub const fn token_count(&self) -> usize {
        self.batch * self.seqlen
    }

    /// Where the channels of token `t` of sequence `batch` begin in a `[B, T, C]` array.
    pub(crate) const fn row(&self, batch: usize, t: usize) -> usize {
        (batch * self.seqlen + t) * self.channels
    }
}
