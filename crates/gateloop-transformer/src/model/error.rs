//! Why a model cannot be built or run.

use gateloop_nn::{NnError, WeightKind};
use tch::{Kind, Tensor};

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Token ids are not a matrix or a vector of 64-bit integers.
    #[error("`ids` is {kind:?} {shape:?}, but Int64 {expected} is needed")]
    Ids {
        /// The shape given.
        shape: Vec<i64>,
        /// The element type given.
        kind: Kind,
        /// The shape needed, in words.
        expected: &'static str,
    },
    /// A token id that the vocabulary does not have.
    #[error(
        "token id {id} is outside the vocabulary 0..{num_tokens}: raise `model.num_tokens` or map the ids"
    )]
    OutOfVocabulary {
        /// The smallest or largest offending id.
        id: i64,
        /// The size of the vocabulary.
        num_tokens: i64,
    },
    /// A state that belongs to another model.
    #[error(
        "the decoding state does not belong to this model ({problem}): take it from `initial_state` of the same model"
    )]
    State {
        /// What tells them apart.
        problem: String,
    },
    /// Weights that were rounded for inference cannot be trained or saved.
    #[error(
        "the model's weights are {kind}, for inference only: load the checkpoint again to train or \
         save it, and compute losses within `tch::no_grad`"
    )]
    Quantized {
        /// How the weights are kept.
        kind: WeightKind,
    },
    /// Weights cannot be replaced while a backward pass may still need them.
    #[error(
        "losses of this model wait for their backward pass: drop them before its weights are rounded"
    )]
    InUse,
    /// A layer refused its configuration or its input.
    #[error(transparent)]
    Layer(#[from] NnError),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

pub(super) fn ids_error(ids: &Tensor, expected: &'static str) -> ModelError {
    ModelError::Ids { shape: ids.size(), kind: ids.kind(), expected }
}
