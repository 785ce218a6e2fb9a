//! What can go wrong in this crate.

use gateloop_scan::ScanError;
use gateloop_scan::cuda::CudaError;
use std::error::Error;
use tch::{Device, Kind, TchError};

/// Every failure of an operator or a layer.
///
/// A message names the operand, what it is and what was expected, so that it can be mended without
/// reading this crate's sources.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NnError {
    /// An operand has the wrong shape.
    #[error("`{operand}` has shape {actual:?}, but {expected} is needed")]
    Shape {
        /// The operand's name in the documentation of the function.
        operand: &'static str,
        /// The shape that was needed, in words.
        expected: String,
        /// The shape that was given.
        actual: Vec<i64>,
    },
    /// An operand has an element type that the operation does not take.
    #[error("`{operand}` has kind {actual:?}, but {expected} is needed: convert it with `to_kind`")]
    Kind {
        /// The operand's name.
        operand: &'static str,
        /// The kinds that are taken, in words.
        expected: &'static str,
        /// The kind that was given.
        actual: Kind,
    },
    /// An operand lies on a device for which the operation has no implementation, or apart from others.
    #[error(
        "`{operand}` is on {actual:?}, where this operation is not to be had or the other operands are \
         not: move it with `to_device`"
    )]
    Device {
        /// The operand's name.
        operand: &'static str,
        /// Where it is.
        actual: Device,
    },
    /// A configuration that no layer can be built from.
    #[error("`{key}`: {problem}")]
    Config {
        /// The option's name.
        key: &'static str,
        /// What is wrong with its value, and what would be right.
        problem: String,
    },
    /// A form of the operator was asked for that does not exist for these shapes.
    #[error("the `{form}` form needs {needs}; choose another form or `Auto`")]
    Form {
        /// The form's name.
        form: &'static str,
        /// The condition that does not hold.
        needs: &'static str,
    },
    /// What the ranks of a sequence have could not be gathered.
    #[error("rank {rank} could not gather the {what} of the slices: {source}")]
    Gather {
        /// What was to be gathered; a [`SequenceRanks`](crate::SequenceRanks) that fails need not know it.
        what: &'static str,
        /// The rank that says so.
        rank: usize,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The ranks of a sequence gathered something else than each of them has: their shapes or kinds do not agree.
    #[error(
        "the {what} of the slices came as {actual:?}, but {expected:?} is needed: do all ranks run the same model?"
    )]
    Gathered {
        /// What was gathered.
        what: &'static str,
        /// The shape and kind that this rank's own part implies.
        expected: (Vec<i64>, Kind),
        /// What came.
        actual: (Vec<i64>, Kind),
    },
    /// A custom function failed, forward or backward.
    #[error("custom autograd function: {message}")]
    Function {
        /// The message of the failure, with its causes.
        message: String,
    },
    /// The scan refused its operands.
    #[error("scan: {0}")]
    Scan(#[from] ScanError),
    /// A kernel could not be launched.
    #[error("CUDA: {0}")]
    Cuda(#[from] CudaError),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] TchError),
}

/// A result whose error is [`NnError`].
pub type Result<T, E = NnError> = std::result::Result<T, E>;
