//! Several texts at once, at hardly more than the price of one.

use super::{GenerateError, PREFILL_PIECE, Sampler};
use crate::model::{DecodeState, Model, ModelError};
use tch::{Kind, Tensor};

/// A model in the middle of several texts of one length.
#[derive(Debug)]
pub struct BatchGenerator<'a> {
    model: &'a Model,
    state: DecodeState,
    /// What the model expects next, [B, V].
    logits: Vec<f32>,
    /// One a text.
    samplers: Vec<Sampler>,
    position: usize,
}

impl<'a> BatchGenerator<'a> {
    /// Reads prompts of equal lengths, in sequence mode; each has its sampler.
    pub fn new(
        model: &'a Model,
        prompts: &[&[i64]],
        samplers: Vec<Sampler>,
    ) -> Result<Self, GenerateError> {
        let len = prompts.first().map_or(0, |prompt| prompt.len());
        if len == 0 {
            return Err(GenerateError::EmptyPrompt);
        }
        if let Some(row) = prompts.iter().position(|prompt| prompt.len() != len) {
            let actual = prompts[row].len();
            return Err(GenerateError::UnequalPrompts { row, expected: len, actual });
        }
        if samplers.len() != prompts.len() {
            let (samplers, texts) = (samplers.len(), prompts.len());
            return Err(GenerateError::Samplers { samplers, texts });
        }
        let (logits, state) = read(model, prompts, len)?;
        Ok(Self { model, state, logits, samplers, position: len })
    }

    /// Reads one prompt, once, to go on from it in as many ways as there are samplers.
    pub fn from_one(
        model: &'a Model,
        prompt: &[i64],
        samplers: Vec<Sampler>,
    ) -> Result<Self, GenerateError> {
        if prompt.is_empty() {
            return Err(GenerateError::EmptyPrompt);
        }
        if samplers.is_empty() {
            return Err(GenerateError::Samplers { samplers: 0, texts: 1 });
        }
        let (logits, state) = read(model, &[prompt], prompt.len())?;
        let count = samplers.len();
        let state = if count == 1 { state } else { state.repeated(count)? };
        Ok(Self { model, state, logits: logits.repeat(count), samplers, position: prompt.len() })
    }

    /// What the model expects next in a text: logits over the vocabulary, `[V]`.
    ///
    /// # Panics
    /// If there is no such text.
    pub fn logits(&self, text: usize) -> &[f32] {
        let vocabulary = self.logits.len() / self.samplers.len();
        &self.logits[text * vocabulary..(text + 1) * vocabulary]
    }

    /// Draws a token for each text and reads them.
    pub fn next_tokens(&mut self) -> Result<Vec<i64>, GenerateError> {
        let position = self.position;
        let vocabulary = self.logits.len() / self.samplers.len();
        let rows = self.logits.chunks(vocabulary).zip(&mut self.samplers);
        let tokens = rows
            .map(|(logits, sampler)| sampler.draw(logits).map(|token| token as i64))
            .collect::<Option<Vec<i64>>>()
            .ok_or(GenerateError::NotFinite { position })?;
        self.logits = tch::no_grad(|| -> Result<_, ModelError> {
            let ids = Tensor::f_from_slice(&tokens)?.f_to_device(self.model.device())?;
            to_vec(&self.model.step(&ids, &mut self.state)?)
        })?;
        self.position += 1;
        Ok(tokens)
    }
}

/// The logits after the prompts, [B, V], and the state there.
fn read(
    model: &Model,
    prompts: &[&[i64]],
    len: usize,
) -> Result<(Vec<f32>, DecodeState), ModelError> {
    let batch = prompts.len() as i64;
    let mut state = model.initial_state(batch);
    let logits = tch::no_grad(|| -> Result<_, ModelError> {
        let ids = Tensor::f_from_slice(&prompts.concat())?.f_view([batch, len as i64])?;
        let mut logits = Vec::new();
        // However many texts there are, a piece has as many tokens.
        for piece in ids.f_to_device(model.device())?.f_split((PREFILL_PIECE / batch).max(1), 1)? {
            logits = to_vec(&model.prefill(&piece, &mut state)?)?;
        }
        Ok(logits)
    })?;
    Ok((logits, state))
}

fn to_vec(logits: &Tensor) -> Result<Vec<f32>, ModelError> {
    let flat = logits.f_flatten(0, -1)?.f_to_kind(Kind::Float)?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}
