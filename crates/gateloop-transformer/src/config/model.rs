//! `[model]`: the shape of the network.

use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::check::{fraction, positive};

/// The options of the reference's `Transformer`, under its names and with its defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "the reference's options, under its names")]
pub struct ModelConfig {
    /// Size of the vocabulary V; 256 for bytes.
    pub num_tokens: usize,
    /// Width D of the residual stream.
    pub dim: usize,
    /// Number of layers, each a gate loop and a feed-forward.
    pub depth: usize,
    /// The feed-forward's hidden width is `dim * ff_mult`.
    pub ff_mult: usize,
    /// Gate loops as the mixer; `false` asks for full attention, which is not available yet.
    pub use_gate_looped_attn: bool,
    /// Number of heads, each with one complex decay; unset: one a channel, GateLoop's own setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_loop_heads: Option<usize>,
    /// Inner width C = heads x head dimension of the mixer; unset: `dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim_gate_looped_attn: Option<usize>,
    /// Multiply the mixer's output by SiLU gates before its output projection.
    pub attn_add_swish_gating: bool,
    /// `LayerNorm(f(x) + x)` around each block, instead of `f(RMSNorm(x)) + x`.
    pub post_ln_norm: bool,
    /// LayerNorm on the mixer's merged heads.
    pub sub_ln: bool,
    /// Ablation: drop the imaginary part of the decay's projection.
    pub ablate_complex: bool,
    /// Ablation: a decay of 1 everywhere.
    pub ablate_state_transition: bool,
    /// The gradient into the decay's projection is scaled by this, its value is not.
    pub frac_gradient_state_transition: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            num_tokens: 256,
            dim: 512,
            depth: 6,
            ff_mult: 4,
            use_gate_looped_attn: true,
            gate_loop_heads: None,
            dim_gate_looped_attn: None,
            attn_add_swish_gating: true,
            post_ln_norm: false,
            sub_ln: false,
            ablate_complex: false,
            ablate_state_transition: false,
            frac_gradient_state_transition: 0.9,
        }
    }
}

impl ModelConfig {
    /// Inner width C of the mixer: `dim_gate_looped_attn`, or else `dim`.
    pub fn inner_dim(&self) -> usize {
        self.dim_gate_looped_attn.unwrap_or(self.dim)
    }

    /// Number of heads: `gate_loop_heads`, or else one a channel.
    pub fn heads(&self) -> usize {
        self.gate_loop_heads.unwrap_or_else(|| self.inner_dim())
    }

    /// Channels a head, C / heads; 0 for a configuration that [`validate`](Self::validate) refuses.
    pub fn head_dim(&self) -> usize {
        self.inner_dim().checked_div(self.heads()).unwrap_or(0)
    }

    /// Checks the ranges, and that the heads divide the inner dimension.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("model.num_tokens", self.num_tokens)?;
        positive("model.dim", self.dim)?;
        positive("model.depth", self.depth)?;
        positive("model.ff_mult", self.ff_mult)?;
        positive("model.dim_gate_looped_attn", self.inner_dim())?;
        positive("model.gate_loop_heads", self.heads())?;
        fraction("model.frac_gradient_state_transition", self.frac_gradient_state_transition)?;
        if !self.use_gate_looped_attn {
            return Err(ConfigError::FullAttention);
        }
        let (heads, inner_dim) = (self.heads(), self.inner_dim());
        if inner_dim.is_multiple_of(heads) {
            Ok(())
        } else {
            Err(ConfigError::HeadsDoNotDivide {
                heads,
                inner_dim,
                nearby: nearby_divisors(inner_dim, heads),
            })
        }
    }

    /// The keys in which two models differ: name, value here, value there.
    ///
    /// Optional keys are compared by what they resolve to, so a key that spells out its default
    /// is no difference.
    pub fn diff(&self, other: &Self) -> Vec<(String, String, String)> {
        let (ours, theirs) = (self.resolved_entries(), other.resolved_entries());
        ours.into_iter()
            .zip(theirs)
            .filter(|(our, their)| our.1 != their.1)
            .map(|((key, our), (_, their))| (key, our, their))
            .collect()
    }

    /// Every key with its value, optional ones resolved.
    fn resolved_entries(&self) -> Vec<(String, String)> {
        let resolved = Self {
            gate_loop_heads: Some(self.heads()),
            dim_gate_looped_attn: Some(self.inner_dim()),
            ..self.clone()
        };
        // A struct of plain values always serialises to an object.
        match serde_json::to_value(resolved) {
            Ok(serde_json::Value::Object(entries)) => {
                entries.into_iter().map(|(key, value)| (key, value.to_string())).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The two divisors of `n` on either side of `near`.
fn nearby_divisors(n: usize, near: usize) -> Vec<usize> {
    let mut divisors = Vec::new();
    for small in
        (1..).take_while(|small| small * small <= n).filter(|small| n.is_multiple_of(*small))
    {
        divisors.extend([small, n / small]);
    }
    divisors.sort_unstable();
    divisors.dedup();
    let above = divisors.partition_point(|divisor| *divisor < near);
    divisors[above.saturating_sub(2)..(above + 2).min(divisors.len())].to_vec()
}
