//! One long sequence in slices of time, a slice a rank.
//!
//! Rank r of R holds the tokens after those of rank r - 1; slices may differ in length. A slice does to the state that
//! enters it what a single token does, `h -> P h + H`, with P the product of its decays and H its last state from zero,
//! and such maps compose,
//!
//! ```text
//! (a1, b1) then (a2, b2) = (a2 a1, a2 b1 + b2)
//! ```
//!
//! (Blelloch, "Prefix sums and their applications", 1990). So the ranks gather P and H of all, each folds those before it
//! into the state that enters its own slice, and scans its slice from there; what travels has the size of a state,
//! however long the slices are. The gradient goes the same way from the last slice to the first. Derivation: docs/math.md.
//!
//! | what | where |
//! | --- | --- |
//! | the ranks, over any transport | [`SequenceRanks`] |
//! | ranks that are processes | [`gateloop_dist::Group`] |
//! | the scan | [`scan_over_ranks`](crate::scan_over_ranks) |
//! | the operator | [`gate_loop_over_ranks`](crate::gate_loop::gate_loop_over_ranks) |
//! | layers | [`LayerInput::with_ranks`](crate::LayerInput::with_ranks) |

mod boundary;
mod fold;
mod gather;
mod processes;
mod recurrence;
mod sliced;

use crate::error::Result;
use std::fmt::Debug;
use tch::Tensor;

pub(crate) use recurrence::{
    Pass, Recurrence, StateKind, Summary, entry_gradient_of_adjoint, product_of_logarithms,
};
pub(crate) use sliced::{apply, enters_from_before};

/// The ranks that share a sequence, in the order of time: each has a slice of it.
///
/// # Collectives
/// One all-gather a layer forward and one backward, in the order of the graph, which has to be the same on every rank:
/// the same layers, recorded or not recorded alike, and a backward pass on each rank through its own outputs (of a loss
/// that is zero, if need be). Under [`recompute`](crate::recompute()) the forward gather runs once more in the backward
/// pass. A rank that fails before a gather leaves the others waiting in it: an implementation should give up after a while.
///
/// The product of the decays of a slice must not overflow; gates never exceed one. Where it is zero, by underflow or
/// because a sequence begins in the slice, nothing is taken over from before, whatever it is.
///
/// ```
/// use gateloop_nn::{Result, SequenceRanks};
/// use tch::Tensor;
///
/// /// A rank that has the whole sequence.
/// #[derive(Debug)]
/// struct Alone;
///
/// impl SequenceRanks for Alone {
///     fn rank(&self) -> usize {
///         0
///     }
///
///     fn size(&self) -> usize {
///         1
///     }
///
///     fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
///         Ok(tensor.f_unsqueeze(0)?)
///     }
/// }
/// ```
pub trait SequenceRanks: Debug + Send + Sync {
    /// This rank, from 0, which has the first tokens, to [`size`](Self::size) - 1.
    fn rank(&self) -> usize;

    /// How many ranks there are, at least 1.
    fn size(&self) -> usize;

    /// The tensors of all ranks, stacked in the order of ranks. Every rank has to call it.
    ///
    /// # Shapes
    /// - `tensor`: a contiguous tensor of real numbers, `[N]`, of the same length, kind and type of device on every rank;
    ///   returns `[size, N]` of the same kind on the same device
    ///
    /// # Errors
    /// Any error, [`NnError::Gather`](crate::NnError::Gather) around one's own; the layer adds what was being gathered.
    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor>;
}
