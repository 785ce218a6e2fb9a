//! What can be wrong with a problem that a caller hands over.

/// Why a scan was refused. Nothing has been written when one of these comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// A dimension of the shape is zero.
    #[error(
        "the shape's {dimension} is 0 (batch {batch}, seqlen {seqlen}, channels {channels}): \
         every dimension must be at least 1, so skip the call when there is nothing to scan"
    )]
    EmptyDimension {
        /// `"batch"`, `"seqlen"` or `"channels"`.
        dimension: &'static str,
        /// Sequences asked for.
        batch: usize,
        /// Tokens a sequence asked for.
        seqlen: usize,
        /// Channels a token asked for.
        channels: usize,
    },

    /// The number of elements of the shape does not fit in `isize`, so no slice can hold them.
    #[error(
        "batch {batch} x seqlen {seqlen} x channels {channels} elements do not fit in memory: \
         split the batch, or split the sequence and hand the state over with `with_initial_state`"
    )]
    TooLarge {
        /// Sequences asked for.
        batch: usize,
        /// Tokens a sequence asked for.
        seqlen: usize,
        /// Channels a token asked for.
        channels: usize,
    },

    /// A slice does not have the length that the shape demands.
    #[error(
        "`{operand}` has {actual} elements, expected {expected}: \
         pass a contiguous row-major {layout} slice"
    )]
    Length {
        /// Name of the argument.
        operand: &'static str,
        /// Its layout, for example `"[B, T, C]"`.
        layout: &'static str,
        /// Elements that the shape demands.
        expected: usize,
        /// Elements that were given.
        actual: usize,
    },

    /// Rows do not have the dimensions that the other operands have.
    #[error(
        "`{operand}` is {actual:?}, expected {expected:?} (batch, seqlen, width): \
         pass rows of the same tokens and channels for every operand"
    )]
    Rows {
        /// Name of the argument.
        operand: &'static str,
        /// `[B, T, width]` that the other operands demand.
        expected: [usize; 3],
        /// `[B, T, width]` that was given.
        actual: [usize; 3],
    },

    /// Rows at these distances would leave the slice.
    #[error(
        "`{operand}` has {actual} elements, but rows {row_stride} apart and sequences \
         {batch_stride} apart reach to element {needed}: pass a longer slice or smaller strides"
    )]
    Stride {
        /// Name of the argument.
        operand: &'static str,
        /// Elements from token to token.
        row_stride: usize,
        /// Elements from sequence to sequence.
        batch_stride: usize,
        /// Elements that the rows span; `usize::MAX` if they cannot be counted.
        needed: usize,
        /// Elements that were given.
        actual: usize,
    },

    /// Rows to write to would share elements.
    #[error(
        "rows of `{operand}` overlap at strides of {row_stride} (tokens) and {batch_stride} \
         (sequences): an output needs rows at least as far apart as they are wide"
    )]
    Overlap {
        /// Name of the argument.
        operand: &'static str,
        /// Elements from token to token.
        row_stride: usize,
        /// Elements from sequence to sequence.
        batch_stride: usize,
    },

    /// A name that is none of the algorithms.
    #[error("no scan algorithm is called `{name}`: use one of auto, naive, tree, heinsen, chunked")]
    UnknownAlgorithm {
        /// The name that was given.
        name: String,
    },
}

/// Refuses a slice of the wrong length.
pub(crate) fn check_len(
    operand: &'static str,
    layout: &'static str,
    actual: usize,
    expected: usize,
) -> Result<(), ScanError> {
    if actual == expected {
        Ok(())
    } else {
        Err(ScanError::Length { operand, layout, expected, actual })
    }
}
