//! `[generate]`: how text is sampled.

use serde::{Deserialize, Serialize};

use super::check::{check, fraction, positive, seed};
use super::{ConfigError, WeightsVariant};

/// How tokens are drawn; the defaults are those of the reference's training script.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerateConfig {
    /// Tokens to generate.
    pub tokens: usize,
    /// Divides the logits; 0 takes the most likely token each time.
    pub temperature: f64,
    /// Share of the vocabulary that is never drawn; see [`GenerateConfig::kept`].
    pub filter_thres: f64,
    /// How many of the largest logits are drawn from; unset: as `filter_thres` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that make up so much of the probability; 1 is all.
    pub top_p: f64,
    /// Only tokens at least so many times as likely as the likeliest; 0 is all.
    pub min_p: f64,
    /// Makes tokens that stood in the text lately less likely; 1 does not.
    pub repetition_penalty: f64,
    /// How many tokens the penalty looks back on.
    pub repetition_window: usize,
    /// Texts that end the writing; they are not part of what is written.
    pub stop: Vec<String>,
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
            filter_thres: Self::FILTER_THRES,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: 64,
            stop: Vec::new(),
            seed: None,
            weights: WeightsVariant::F32,
        }
    }
}

impl GenerateConfig {
    /// The reference's.
    const FILTER_THRES: f64 = 0.9;

    /// How many of the largest logits are kept: `top_k`, or else `ceil((1 - filter_thres) * num_tokens)`; at
    /// least 1.
    pub fn kept(&self, num_tokens: usize) -> usize {
        let share = ((1.0 - self.filter_thres) * num_tokens as f64).ceil() as usize;
        self.top_k.unwrap_or(share).clamp(1, num_tokens.max(1))
    }

    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("generate.tokens", self.tokens)?;
        let temperature = self.temperature;
        let usable = temperature >= 0.0 && temperature.is_finite();
        check(usable, "generate.temperature", temperature, "finite, 0 (greedy) or above")?;
        let share = self.filter_thres;
        check((0.0..1.0).contains(&share), "generate.filter_thres", share, "0 or above, below 1")?;
        self.top_k.map_or(Ok(()), |kept| positive("generate.top_k", kept))?;
        if let Some(kept) = self.top_k
            && share != Self::FILTER_THRES
        {
            return Err(ConfigError::Contradiction {
                first: format!("generate.top_k = {kept}"),
                second: format!("generate.filter_thres = {share}"),
                problem: "both say how many tokens are kept; leave one out",
            });
        }
        let above_0 = self.top_p > 0.0 && self.top_p <= 1.0;
        check(above_0, "generate.top_p", self.top_p, "above 0, to 1 (all)")?;
        fraction("generate.min_p", self.min_p)?;
        let penalty = self.repetition_penalty;
        let usable = penalty > 0.0 && penalty.is_finite();
        check(usable, "generate.repetition_penalty", penalty, "finite and above 0 (1 is none)")?;
        let empty = self.stop.iter().any(String::is_empty);
        check(!empty, "generate.stop", "\"\"", "texts of at least one character")?;
        self.seed.map_or(Ok(()), |value| seed("generate.seed", value))
    }
}
