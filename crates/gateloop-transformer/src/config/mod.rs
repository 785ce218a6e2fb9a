//! One run of training or generation as a TOML file of five tables.
//!
//! Every key has the reference's name and the reference's default, so an empty file is a valid
//! configuration. Unknown keys are refused with a suggestion: an option that is silently not passed
//! on is worse than a typo that stops.
//!
//! ```
//! use gateloop_transformer::config::Config;
//!
//! let text = "[model]\ndim = 256\n[train]\nsteps = 400\n";
//! let config = Config::from_toml_str(text, "quick.toml", &["train.lr=1e-3".to_owned()])?;
//! assert_eq!((config.model.gate_loop_heads(), config.train.steps, config.train.lr), (256, 400, 1e-3));
//!
//! let typo = Config::from_toml_str("[model]\ndimm = 256", "quick.toml", &[]).unwrap_err();
//! assert!(typo.to_string().contains("did you mean `model.dim`?"));
//! # Ok::<(), gateloop_transformer::config::ConfigError>(())
//! ```

use std::path::Path;

use serde::{Deserialize, Serialize};

mod check;
mod data;
mod dist;
mod documents;
mod error;
mod generate;
mod model;
mod options;
mod overrides;
mod parse;
mod suggest;
mod synthetic;
mod train;

pub use data::{DataConfig, Source};
pub use dist::DistConfig;
pub use documents::Documents;
pub use error::ConfigError;
pub use generate::GenerateConfig;
pub use model::ModelConfig;
pub use options::{
    FormVariant, GeluVariant, LayerKind, LossOn, RelPosVariant, RmsNormVariant, Schedule,
    WeightsVariant, WindowOrder,
};
pub use synthetic::Synthetic;
pub use train::TrainConfig;

/// Everything that a run is: what is trained, on what, how, and how samples are drawn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network.
    pub model: ModelConfig,
    /// Where the bytes come from.
    pub data: DataConfig,
    /// The optimiser and the rhythm of the run.
    pub train: TrainConfig,
    /// What several processes do that train together.
    pub dist: DistConfig,
    /// How text is sampled.
    pub generate: GenerateConfig,
}

impl Config {
    /// Reads a file, applies overrides such as `train.steps=100` in order, and validates.
    pub fn load(path: impl AsRef<Path>, overrides: &[String]) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::from_toml_str(&text, &path.display().to_string(), overrides)
    }

    /// The same from a text; `origin` is what error messages call it.
    pub fn from_toml_str(
        text: &str,
        origin: &str,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let mut tables = parse::tables(text, origin)?;
        overrides::apply(&mut tables, overrides)?;
        let config = parse::config(tables, origin)?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every range; [`Config::load`] and [`Config::from_toml_str`] have done so already.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        self.data.validate()?;
        self.train.validate()?;
        self.dist.validate()?;
        self.validate_answers()?;
        self.validate_sequence_ranks()?;
        if self.train.carry_state && self.model.has(LayerKind::Attention) {
            return Err(ConfigError::Contradiction {
                first: "train.carry_state = true".to_owned(),
                second: self.model.said_of_layers(),
                problem: "the state of full attention grows with every window; leave one out, or take \
                          sliding_window_attention",
            });
        }
        if let Some(documents) = &self.data.documents
            && self.train.carry_state
            && self.model.has(LayerKind::SlidingWindowAttention)
        {
            return Err(ConfigError::Contradiction {
                first: "train.carry_state = true".to_owned(),
                second: format!("data.documents = \"{}\"", documents.to_string().escape_debug()),
                problem: "the ring of sliding_window_attention cannot begin anew in the middle of a window; leave one out",
            });
        }
        self.generate.validate()
    }

    /// Only layers whose state has a fixed size can share a sequence.
    fn validate_sequence_ranks(&self) -> Result<(), ConfigError> {
        let DistConfig { sequence_ranks, .. } = self.dist;
        if sequence_ranks == 1 {
            return Ok(());
        }
        let contradiction = |second: String, problem| {
            let first = format!("dist.sequence_ranks = {sequence_ranks}");
            Err(ConfigError::Contradiction { first, second, problem })
        };
        let attention = [LayerKind::Attention, LayerKind::SlidingWindowAttention];
        if attention.into_iter().any(|kind| self.model.has(kind)) {
            let problem = "attention needs the keys of all tokens, which no rank has; take layers with gates alone";
            return contradiction(self.model.said_of_layers(), problem);
        }
        if self.train.carry_state {
            let problem = "a state that goes from window to window lies with the last rank; leave one out, and make the \
                           windows longer";
            return contradiction("train.carry_state = true".to_owned(), problem);
        }
        if self.train.seq_len < sequence_ranks {
            let second = format!("train.seq_len = {}", self.train.seq_len);
            return contradiction(
                second,
                "every rank needs a token; take fewer ranks or longer windows",
            );
        }
        Ok(())
    }

    /// Answers cannot be learned alone where there are none.
    fn validate_answers(&self) -> Result<(), ConfigError> {
        let has_answers = matches!(self.data.source, Source::Synthetic(kind) if kind.has_answers());
        if self.train.loss_on == LossOn::Answers && !has_answers {
            return Err(ConfigError::Contradiction {
                first: "train.loss_on = \"answers\"".to_owned(),
                second: format!("data.source = \"{}\"", self.data.source),
                problem: "only synthetic tasks have answers; take \"all\", or one of the tasks",
            });
        }
        Ok(())
    }

    /// The configuration with all its defaults written out; it loads back equal.
    ///
    /// An optional key that is not set is left out, so that what follows from another key (the
    /// number of heads from the inner dimension) still follows when the file is edited.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self)
            .map_err(|error| ConfigError::Serialize { message: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
