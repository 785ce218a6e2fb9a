//! Generating text: one token at a time, at a cost that does not depend on how many came before.

mod batch;
mod sampler;
mod saved;
pub mod speed;
mod stop;
mod text;

pub use batch::BatchGenerator;
pub use sampler::Sampler;
pub use saved::SavedState;
pub use stop::StopStrings;
pub use text::TextStream;

use crate::model::{Model, ModelError};
use crate::weights::WeightsError;
use std::path::PathBuf;

/// Why no token can be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to go on from.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// The prompts of a batch are not of one length.
    #[error(
        "prompt {row} has {actual} tokens, the first one {expected}: prompts read together are of one \
         length"
    )]
    UnequalPrompts {
        /// The offending prompt's place.
        row: usize,
        /// Tokens of the first prompt.
        expected: usize,
        /// Tokens of the offending one.
        actual: usize,
    },
    /// Not as many samplers as texts.
    #[error("{samplers} samplers for {texts} texts: give each text its own")]
    Samplers {
        /// Samplers given.
        samplers: usize,
        /// Texts to be written.
        texts: usize,
    },
    /// The model's output is not a number.
    #[error(
        "the logits after token {position} are not finite: the weights are damaged or training had diverged"
    )]
    NotFinite {
        /// Tokens read and written before.
        position: usize,
    },
    /// The state of several texts was to be saved as one.
    #[error("the state of {texts} texts cannot be saved as that of one: write one text")]
    SeveralStates {
        /// How many there are.
        texts: usize,
    },
    /// A file that is not a saved state.
    #[error("`{}` is not a saved state ({problem}): give a file that `--save-state` has written", path.display())]
    DamagedState {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The state was computed with other weights.
    #[error(
        "the state in `{}` was computed with another model or other weights: read the text again with these",
        path.display()
    )]
    ForeignState {
        /// The file.
        path: PathBuf,
    },
    /// A state's file cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Tokens in one piece of a prompt: enough for full speed, and it bounds the memory of a long one.
const PREFILL_PIECE: i64 = 4096;

/// A model in the middle of a text.
#[derive(Debug)]
pub struct Generator<'a>(BatchGenerator<'a>);

impl<'a> Generator<'a> {
    /// Reads the prompt, in sequence mode.
    pub fn new(model: &'a Model, prompt: &[i64], sampler: Sampler) -> Result<Self, GenerateError> {
        Ok(Self(BatchGenerator::from_one(model, prompt, vec![sampler])?))
    }

    /// What the model expects next: logits over the vocabulary, `[V]`.
    pub fn logits(&self) -> &[f32] {
        self.0.logits(0)
    }

    /// Draws a token and reads it.
    pub fn next_token(&mut self) -> Result<i64, GenerateError> {
        Ok(self.0.next_tokens()?[0])
    }
}
