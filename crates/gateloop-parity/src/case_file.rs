//! Reading a case.

use crate::error::ParityError;
use gateloop_transformer::weights::{Tensors, WeightFile};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// What a case is about.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Case {
    /// Its name, unique among all cases.
    pub name: String,
    /// `pytorch` or `jax`.
    pub framework: String,
    /// `model`, `layer` or `trajectory`.
    pub kind: String,
    /// Which layer.
    #[serde(default)]
    pub module: Option<String>,
    /// The options under the reference's names.
    pub options: Value,
    /// Ablations at the call.
    #[serde(default)]
    pub call: Call,
    /// For each quantity, how far the reference in single precision is from itself in double: the RMS over
    /// several runs whose weights differ by an ulp.
    #[serde(default)]
    pub reference: BTreeMap<String, f64>,
    /// The same of the first of these runs alone.
    #[serde(default)]
    pub once: BTreeMap<String, f64>,
    /// The optimiser's settings of a trajectory.
    #[serde(default)]
    pub optimizer: Value,
}

/// Ablations at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub struct Call {
    /// Drop the imaginary part.
    pub ablate_complex: Option<bool>,
    /// A transition of one.
    pub ablate_state_transition: Option<bool>,
}

/// An opened case.
#[derive(Debug)]
pub struct CaseFile {
    path: PathBuf,
    /// What it is about.
    pub case: Case,
    tensors: Tensors,
}

impl CaseFile {
    /// Reads a file whole.
    pub fn open(path: &Path) -> Result<Self, ParityError> {
        let file = WeightFile::open(path)?;
        let no_case = |problem: String| ParityError::NotACase { path: path.to_owned(), problem };
        let text = file.metadata().get("case");
        let text = text.ok_or_else(|| no_case("its metadata has no `case`".into()))?;
        let case = serde_json::from_str(text).map_err(|error| no_case(error.to_string()))?;
        let tensors = file.tensors(|name| Some(name.to_owned()))?;
        Ok(Self { path: path.to_owned(), case, tensors })
    }

    /// The tensors under a prefix such as `param`, by the rest of their names.
    pub fn group(&self, prefix: &str) -> Tensors {
        let strip = |(name, tensor): (&String, &Tensor)| {
            let rest = name.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((rest.to_owned(), tensor.shallow_clone()))
        };
        self.tensors.iter().filter_map(strip).collect()
    }

    /// A tensor that some cases have.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// A tensor that this kind of case has.
    pub fn need(&self, name: &str) -> Result<&Tensor, ParityError> {
        self.get(name).ok_or_else(|| self.no_case(format!("it has no tensor `{name}`")))
    }

    /// An option of the layer.
    pub(crate) fn option<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<T, ParityError> {
        let value = self.case.options.get(key).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value)
            .map_err(|error| self.no_case(format!("option `{key}`: {error}")))
    }

    pub(crate) fn no_case(&self, problem: String) -> ParityError {
        ParityError::NotACase { path: self.path.clone(), problem }
    }
}
