//! Generating text: one token at a time, at a cost that does not depend on how many came before.

mod sampler;
mod text;

pub use sampler::Sampler;
pub use text::TextStream;

use crate::model::{DecodeState, Model, ModelError};
use tch::Tensor;

/// Why no token can be generated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerateError {
    /// There is nothing to go on from.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// The model's output is not a number.
    #[error(
        "the logits after token {position} are not finite: the weights are damaged or training had diverged"
    )]
    NotFinite {
        /// Tokens read and written before.
        position: usize,
    },
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Tokens in one piece of a prompt: enough for full speed, and it bounds the memory of a long one.
const PREFILL_PIECE: i64 = 4096;

/// A model in the middle of a text.
#[derive(Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    state: DecodeState,
    /// What the model expects next, `[V]`.
    logits: Vec<f32>,
    sampler: Sampler,
    position: usize,
}

impl<'a> Generator<'a> {
    /// Reads the prompt, in sequence mode.
    pub fn new(model: &'a Model, prompt: &[i64], sampler: Sampler) -> Result<Self, GenerateError> {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        let mut state = model.initial_state(1);
        let logits = tch::no_grad(|| -> Result<_, ModelError> {
            let ids = Tensor::f_from_slice(prompt)?.f_unsqueeze(0)?.f_to_device(model.device())?;
            let mut logits = None;
            for piece in ids.f_split(PREFILL_PIECE, 1)? {
                logits = Some(model.prefill(&piece, &mut state)?);
            }
            to_vec(logits)
        })?;
        Ok(Self { model, state, logits, sampler, position: prompt.len() })
    }

    /// What the model expects next: logits over the vocabulary, `[V]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Draws a token and reads it.
    pub fn next_token(&mut self) -> Result<i64, GenerateError> {
        let position = self.position;
        let token =
            self.sampler.draw(&self.logits).ok_or(GenerateError::NotFinite { position })? as i64;
        self.logits = tch::no_grad(|| -> Result<_, ModelError> {
            let ids = Tensor::f_from_slice(&[token])?.f_to_device(self.model.device())?;
            to_vec(Some(self.model.step(&ids, &mut self.state)?))
        })?;
        self.position += 1;
        Ok(token)
    }
}

fn to_vec(logits: Option<Tensor>) -> Result<Vec<f32>, ModelError> {
    let Some(logits) = logits else { return Ok(Vec::new()) };
    let flat = logits.f_flatten(0, -1)?.f_to_kind(tch::Kind::Float)?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}
