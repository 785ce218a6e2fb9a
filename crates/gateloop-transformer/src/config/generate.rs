//! `[generate]`: how text is sampled.

use serde::{Deserialize, Serialize};

use super::check::{check, positive, seed};
use super::{ConfigError, WeightsVariant};

/// How tokens are drawn; the defaults are those of the reference's training script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// Tokens to generate.
    pub tokens: usize,
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Share of the vocabulary that is never drawn; see [`GenerateConfig::top_k`].
    pub filter_thres: f64,
    /// Seed of the draws; unset: a new one each time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// How `gateloop generate` keeps the weights; training and its samples have them in f32.
    pub weights: WeightsVariant,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            tokens: 512,
            temperature: 1.0,
            filter_thres: 0.9,
            seed: None,
            weights: WeightsVariant::F32,
        }
    }
}

impl GenerateConfig {
    /// How many of the largest logits are kept: `ceil((1 - filter_thres) * num_tokens)`, at least 1.
    pub fn top_k(&self, num_tokens: usize) -> usize {
        let kept = ((1.0 - self.filter_thres) * num_tokens as f64).ceil();
        (kept as usize).clamp(1, num_tokens.max(1))
    }

    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("generate.tokens", self.tokens)?;
        let temperature = self.temperature;
        let usable = temperature >= 0.0 && temperature.is_finite();
        check(usable, "generate.temperature", temperature, "finite, 0 (greedy) or above")?;
        let share = self.filter_thres;
        check((0.0..1.0).contains(&share), "generate.filter_thres", share, "0 or above, below 1")?;
        self.seed.map_or(Ok(()), |value| seed("generate.seed", value))
    }
}
