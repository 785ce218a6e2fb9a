//! A text's state in a file, so that a long context is read once.

use super::GenerateError;
use crate::weights::{self, Metadata, Tensors, WeightFile};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// What a model remembers of a text, and what it expects next. Its size does not depend on the text's length where
/// all layers are gate loops.
#[derive(Debug)]
pub struct SavedState {
    pub(super) identity: String,
    /// Of the layers, by name.
    pub(super) tensors: Tensors,
    /// `[V]`
    pub(super) logits: Vec<f32>,
    pub(super) position: usize,
    /// The last tokens, the oldest first.
    pub(super) recent: Vec<i64>,
}

const KEY: &str = "gateloop.state";
const LAYERS: &str = "layers.";
const LOGITS: &str = "logits";

/// What is not a tensor.
#[derive(Serialize, Deserialize)]
struct Header {
    model: String,
    position: usize,
    recent: Vec<i64>,
}

impl SavedState {
    /// Tokens of the text.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The last tokens of the text, the oldest first: as many as the sampler looked back on.
    pub fn recent(&self) -> &[i64] {
        &self.recent
    }

    /// Writes the file; it appears whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), GenerateError> {
        let header = Header {
            model: self.identity.clone(),
            position: self.position,
            recent: self.recent.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|e| damaged(path, &e))?;
        let layers = self.tensors.iter();
        let mut tensors: Tensors =
            layers.map(|(name, t)| (format!("{LAYERS}{name}"), t.shallow_clone())).collect();
        let logits = Tensor::f_from_slice(&self.logits).map_err(weights::WeightsError::from)?;
        tensors.insert(LOGITS.to_owned(), logits);
        Ok(weights::write(path, &tensors, Metadata::from([(KEY.to_owned(), header)]))?)
    }

    /// Reads a file, and refuses one that was written with another model than that of `identity`.
    pub fn read(path: &Path, identity: &str) -> Result<Self, GenerateError> {
        let file = WeightFile::open(path)?;
        let header = file.metadata().get(KEY).ok_or_else(|| damaged(path, &"it has no header"))?;
        let header: Header = serde_json::from_str(header).map_err(|e| damaged(path, &e))?;
        if header.model != identity {
            return Err(GenerateError::ForeignState { path: path.to_owned() });
        }
        let tensors = file.tensors(|name| name.strip_prefix(LAYERS).map(str::to_owned))?;
        let logits = file.tensors(|name| (name == LOGITS).then(|| name.to_owned()))?;
        let logits = logits.get(LOGITS).ok_or_else(|| damaged(path, &"it has no logits"))?;
        let logits = logits.f_to_kind(Kind::Float).map_err(weights::WeightsError::from)?;
        let mut values = vec![0.0; logits.numel()];
        logits.f_copy_data(&mut values, logits.numel()).map_err(weights::WeightsError::from)?;
        let Header { model, position, recent } = header;
        Ok(Self { identity: model, tensors, logits: values, position, recent })
    }
}

fn damaged(path: &Path, problem: &dyn std::fmt::Display) -> GenerateError {
    GenerateError::DamagedState { path: path.to_owned(), problem: problem.to_string() }
}
