//! Rounded weights, for generation: fewer bytes to read for a token.

use super::{Model, ModelError};
use gateloop_nn::{HasLinears, Linear, WeightKind};
use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use tch::Tensor;

impl Model {
    /// Rounds the weights of all affine maps, those that make the logits among them, and forgets the
    /// unrounded ones. Embedding, norms and biases stay in f32, and so does an embedding that makes the
    /// logits as well; activations and states are f32 whatever the weights are.
    ///
    /// The model cannot be trained or saved afterwards, nor be rounded again. It must be on the CPU and
    /// in f32. After an error it is what it was; `F32` changes nothing.
    pub fn quantize(&mut self, kind: WeightKind) -> Result<(), ModelError> {
        if kind == self.weights {
            return Ok(());
        }
        self.check_trainable()?;
        let linears = self.linears_mut()?;
        let rounded: Vec<Linear> =
            linears.iter().map(|linear| linear.quantized(kind)).collect::<Result<_, _>>()?;
        let mut replaced = HashSet::new();
        for (linear, rounded) in linears.into_iter().zip(rounded) {
            replaced.extend(linear.trained_weight().map(Tensor::data_ptr));
            *linear = rounded;
        }
        let mut variables = self.vs.variables_.lock().unwrap_or_else(PoisonError::into_inner);
        variables.trainable_variables.clear();
        variables.named_variables.retain(|_, parameter| !replaced.contains(&parameter.data_ptr()));
        for parameter in variables.named_variables.values() {
            let _ = parameter.set_requires_grad(false);
        }
        drop(variables);
        self.weights = kind;
        self.bytes_per_step = self.count_bytes()?;
        Ok(())
    }

    /// How the weights are kept.
    pub fn weight_kind(&self) -> WeightKind {
        self.weights
    }

    /// Bytes of weights that a decoding step reads: all but the embedding, of which it reads a row a
    /// sequence, unless the embedding makes the logits.
    pub fn bytes_per_step(&self) -> usize {
        self.bytes_per_step
    }

    pub(super) fn count_bytes(&mut self) -> Result<usize, ModelError> {
        let maps: usize = self.linears_mut()?.iter().map(|linear| linear.bytes()).sum();
        let tied =
            if self.to_logits.is_none() { self.token_emb.numel() * size_of::<f32>() } else { 0 };
        Ok(maps + tied)
    }

    /// Refuses what needs the weights as they were trained.
    pub(crate) fn check_trainable(&self) -> Result<(), ModelError> {
        match self.weights {
            WeightKind::F32 => Ok(()),
            kind => Err(ModelError::Quantized { kind }),
        }
    }

    fn linears_mut(&mut self) -> Result<Vec<&mut Linear>, ModelError> {
        let mut linears = Vec::new();
        for block in &mut self.blocks {
            linears.extend(Arc::get_mut(block).ok_or(ModelError::InUse)?.linears_mut());
        }
        linears.extend(&mut self.to_logits);
        Ok(linears)
    }
}
