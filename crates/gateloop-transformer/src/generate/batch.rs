//! Several texts at once, at hardly more than the price of one.

use super::{GenerateError, PREFILL_PIECE, Sampler, SavedState};
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
        let mut samplers = samplers;
        for (sampler, prompt) in samplers.iter_mut().zip(prompts) {
            sampler.observe_all(prompt);
        }
        let mut state = model.initial_state(prompts.len() as i64);
        let logits = read(model, &mut state, prompts, len)?;
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
        let mut state = model.initial_state(1);
        let logits = read(model, &mut state, &[prompt], prompt.len())?;
        let mut samplers = samplers;
        for sampler in &mut samplers {
            sampler.observe_all(prompt);
        }
        Self { model, state, logits, samplers: Vec::new(), position: prompt.len() }.split(samplers)
    }

    /// Goes on from a saved state in as many ways as there are samplers.
    pub fn from_saved(
        model: &'a Model,
        saved: &SavedState,
        samplers: Vec<Sampler>,
    ) -> Result<Self, GenerateError> {
        if samplers.is_empty() {
            return Err(GenerateError::Samplers { samplers: 0, texts: 1 });
        }
        let mut samplers = samplers;
        for sampler in &mut samplers {
            sampler.observe_all(&saved.recent);
        }
        let state = model.state_from(&saved.tensors)?;
        let (logits, position) = (saved.logits.clone(), saved.position);
        Self { model, state, logits, samplers: Vec::new(), position }.split(samplers)
    }

    /// One text as many.
    fn split(mut self, samplers: Vec<Sampler>) -> Result<Self, GenerateError> {
        let count = samplers.len();
        if count > 1 {
            self.state = self.state.repeated(count)?;
            self.logits = self.logits.repeat(count);
        }
        self.samplers = samplers;
        Ok(self)
    }

    /// Reads more of every text: the same tokens for all.
    pub fn read(&mut self, tokens: &[i64]) -> Result<(), GenerateError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let texts = vec![tokens; self.samplers.len()];
        self.logits = read(self.model, &mut self.state, &texts, tokens.len())?;
        for sampler in &mut self.samplers {
            sampler.observe_all(tokens);
        }
        self.position += tokens.len();
        Ok(())
    }

    /// Tokens read and written so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// What is needed to go on later, of the one text that there is; `identity` is the model's.
    pub fn saved(&self, identity: &str) -> Result<SavedState, GenerateError> {
        let [sampler] = &self.samplers[..] else {
            return Err(GenerateError::SeveralStates { texts: self.samplers.len() });
        };
        Ok(SavedState {
            identity: identity.to_owned(),
            tensors: self.state.tensors()?,
            logits: self.logits.clone(),
            position: self.position,
            recent: sampler.recent().collect(),
        })
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
        for (sampler, &token) in self.samplers.iter_mut().zip(&tokens) {
            sampler.observe(token);
        }
        self.position += 1;
        Ok(tokens)
    }
}

/// Moves the state past texts of one length; returns the logits there, [B, V].
fn read(
    model: &Model,
    state: &mut DecodeState,
    prompts: &[&[i64]],
    len: usize,
) -> Result<Vec<f32>, ModelError> {
    let batch = prompts.len() as i64;
    tch::no_grad(|| {
        let ids = Tensor::f_from_slice(&prompts.concat())?.f_view([batch, len as i64])?;
        let mut logits = Vec::new();
        // However many texts there are, a piece has as many tokens.
        for piece in ids.f_to_device(model.device())?.f_split((PREFILL_PIECE / batch).max(1), 1)? {
            logits = to_vec(&model.prefill(&piece, state)?)?;
        }
        Ok(logits)
    })
}

fn to_vec(logits: &Tensor) -> Result<Vec<f32>, ModelError> {
    let flat = logits.f_flatten(0, -1)?.f_to_kind(Kind::Float)?;
    let mut values = vec![0.0; flat.numel()];
    flat.f_copy_data(&mut values, flat.numel())?;
    Ok(values)
}
