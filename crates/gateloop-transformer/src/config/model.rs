//! `[model]`: the shape of the network.

use serde::{Deserialize, Serialize};

use super::check::{fraction, positive};
use super::{ConfigError, FormVariant, GeluVariant, LayerKind, RelPosVariant, RmsNormVariant};

/// The options of the reference's `Transformer`, under its names and with its defaults, and some more.
///
/// The one default that differs is `checkpoint_gate_looped_attn`, which changes no result.
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
    /// The mixers, first layer first, over and over until `depth`; empty: all as
    /// `use_gate_looped_attn` says.
    pub layers: Vec<LayerKind>,
    /// The mixer where `layers` is empty: gate loops, or full attention.
    pub use_gate_looped_attn: bool,
    /// Number of heads, each with one complex decay; unset: one a channel, GateLoop's own setting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_loop_heads: Option<usize>,
    /// Inner width C = heads x head dimension of the gate loop; unset: `dim`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dim_gate_looped_attn: Option<usize>,
    /// Project the product of key and value, not each of them; an ablation, for one head a channel.
    pub direct_kv: bool,
    /// How the gate loop is computed; the numbers are the same.
    pub gate_loop_form: FormVariant,
    /// Compute the gate loop again in the backward pass instead of keeping what it needs.
    pub checkpoint_gate_looped_attn: bool,
    /// Width of a head of attention.
    pub dim_head: usize,
    /// Number of heads of attention.
    pub heads: usize,
    /// Rotary position embedding in attention.
    pub rotary_emb: bool,
    /// Tokens that `sliding_window_attention` sees, itself included.
    pub attention_window: usize,
    /// A simple gate loop, with its own norm and shortcut, in front of every attention: it tells where tokens are.
    pub simple_gate_loop_before_attention: bool,
    /// Softmax in attention; unset: unless there are data-dependent positions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attn_softmax_normalize: Option<bool>,
    /// Scores of attention that fade with complex decays computed from the data.
    pub data_dependent_rel_pos: bool,
    /// Over what the products of these decays run.
    pub rel_pos: RelPosVariant,
    /// Multiply the mixer's output by SiLU gates before its output projection.
    pub attn_add_swish_gating: bool,
    /// `LayerNorm(f(x) + x)` around each block, instead of `f(RMSNorm(x)) + x`.
    pub post_ln_norm: bool,
    /// LayerNorm on the gate loop's merged heads.
    pub sub_ln: bool,
    /// Ablation: drop the imaginary part of the decay's projection.
    pub ablate_complex: bool,
    /// Ablation: a decay of 1 everywhere.
    pub ablate_state_transition: bool,
    /// The gradient into the decay's projection is scaled by this, its value is not.
    pub frac_gradient_state_transition: f64,
    /// Whether the decay's projection adds a constant.
    pub state_transition_bias: bool,
    /// Whether the embedding's matrix is the one that makes the logits, too.
    pub tie_embedding: bool,
    /// The activation of the feed-forwards.
    pub gelu: GeluVariant,
    /// The RMSNorms.
    pub rms_norm: RmsNormVariant,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            num_tokens: 256,
            dim: 512,
            depth: 6,
            ff_mult: 4,
            layers: Vec::new(),
            use_gate_looped_attn: true,
            gate_loop_heads: None,
            dim_gate_looped_attn: None,
            direct_kv: false,
            gate_loop_form: FormVariant::Auto,
            checkpoint_gate_looped_attn: false,
            dim_head: 64,
            heads: 8,
            rotary_emb: false,
            attention_window: 256,
            simple_gate_loop_before_attention: false,
            attn_softmax_normalize: None,
            data_dependent_rel_pos: false,
            rel_pos: RelPosVariant::Corrected,
            attn_add_swish_gating: true,
            post_ln_norm: false,
            sub_ln: false,
            ablate_complex: false,
            ablate_state_transition: false,
            frac_gradient_state_transition: 0.9,
            state_transition_bias: true,
            tie_embedding: false,
            gelu: GeluVariant::Erf,
            rms_norm: RmsNormVariant::Clamped,
        }
    }
}

impl ModelConfig {
    /// The options in which the reference's JAX model differs from the PyTorch one.
    pub fn jax_reference() -> Self {
        Self {
            state_transition_bias: false,
            tie_embedding: true,
            gelu: GeluVariant::Tanh,
            rms_norm: RmsNormVariant::Epsilon,
            // There is no such thing in the JAX model.
            frac_gradient_state_transition: 1.0,
            ..Self::default()
        }
    }

    /// What mixes over time in layer `n`.
    pub fn layer(&self, n: usize) -> LayerKind {
        match n.checked_rem(self.layers.len()) {
            Some(index) => self.layers[index],
            None if self.use_gate_looped_attn => LayerKind::GateLoop,
            None => LayerKind::Attention,
        }
    }

    /// Whether a layer of the model is of this kind.
    pub fn has(&self, kind: LayerKind) -> bool {
        (0..self.depth.min(self.layers.len().max(1))).any(|n| self.layer(n) == kind)
    }

    /// Inner width C of a gate loop: `dim_gate_looped_attn`, or else `dim`.
    pub fn inner_dim(&self) -> usize {
        self.dim_gate_looped_attn.unwrap_or(self.dim)
    }

    /// Number of heads of a gate loop: the option, or else one a channel.
    pub fn gate_loop_heads(&self) -> usize {
        self.gate_loop_heads.unwrap_or_else(|| self.inner_dim())
    }

    /// Channels a head, C / heads; 0 for a configuration that [`validate`](Self::validate) refuses.
    pub fn head_dim(&self) -> usize {
        self.inner_dim().checked_div(self.gate_loop_heads()).unwrap_or(0)
    }

    /// Checks the ranges, and that the heads fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("model.num_tokens", self.num_tokens)?;
        positive("model.dim", self.dim)?;
        positive("model.depth", self.depth)?;
        positive("model.ff_mult", self.ff_mult)?;
        positive("model.dim_gate_looped_attn", self.inner_dim())?;
        positive("model.gate_loop_heads", self.gate_loop_heads())?;
        fraction("model.frac_gradient_state_transition", self.frac_gradient_state_transition)?;
        positive("model.dim_head", self.dim_head)?;
        positive("model.heads", self.heads)?;
        if self.has(LayerKind::GateLoop) {
            self.validate_gate_loop()?;
        }
        positive("model.attention_window", self.attention_window)?;
        if self.has(LayerKind::Attention) || self.has(LayerKind::SlidingWindowAttention) {
            return self.validate_attention();
        }
        if self.simple_gate_loop_before_attention {
            return Err(ConfigError::Contradiction {
                first: "model.simple_gate_loop_before_attention = true".to_owned(),
                second: self.said_of_layers(),
                problem: "there is no attention; add a layer of it or leave the option out",
            });
        }
        Ok(())
    }

    /// The key that chooses the mixers, with its value.
    pub(super) fn said_of_layers(&self) -> String {
        let key = if self.layers.is_empty() { "use_gate_looped_attn" } else { "layers" };
        format!("model.{key} = {}", self.entry(key))
    }

    fn validate_gate_loop(&self) -> Result<(), ConfigError> {
        let (heads, inner_dim) = (self.gate_loop_heads(), self.inner_dim());
        if !inner_dim.is_multiple_of(heads) {
            let nearby = nearby_divisors(inner_dim, heads);
            return Err(ConfigError::HeadsDoNotDivide { heads, inner_dim, nearby });
        }
        if self.direct_kv && heads != inner_dim {
            return Err(ConfigError::Contradiction {
                first: "model.direct_kv = true".to_owned(),
                second: format!("model.gate_loop_heads = {heads}"),
                problem: "the product of key and value is one number only with one head a channel; leave one out",
            });
        }
        if self.gate_loop_form == FormVariant::Scan && heads != inner_dim {
            return Err(ConfigError::ScanOfWideHeads { heads, inner_dim });
        }
        Ok(())
    }

    fn validate_attention(&self) -> Result<(), ConfigError> {
        if self.data_dependent_rel_pos && self.has(LayerKind::SlidingWindowAttention) {
            return Err(ConfigError::Contradiction {
                first: "model.data_dependent_rel_pos = true".to_owned(),
                second: self.said_of_layers(),
                problem: "scores that fade are a soft window of their own; leave one out",
            });
        }
        let dim_head = self.dim_head;
        let needs_pairs = [
            ("rotary_emb", self.rotary_emb),
            ("data_dependent_rel_pos", self.data_dependent_rel_pos),
        ];
        match needs_pairs.into_iter().find(|(_, on)| *on) {
            Some((because, _)) if !dim_head.is_multiple_of(2) => {
                Err(ConfigError::OddHead { dim_head, because })
            }
            _ => Ok(()),
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

    /// The value of a key as text, `unset` for an optional one without a value.
    pub(crate) fn entry(&self, key: &str) -> String {
        let value = serde_json::to_value(self).ok().and_then(|value| value.get(key).cloned());
        value.map_or_else(|| "unset".to_owned(), |value| value.to_string().replace('"', ""))
    }

    /// Every key with its value, optional ones resolved.
    fn resolved_entries(&self) -> Vec<(String, String)> {
        let layers = if self.layers.is_empty() { vec![self.layer(0)] } else { self.layers.clone() };
        let resolved = Self {
            layers,
            use_gate_looped_attn: true,
            gate_loop_heads: Some(self.gate_loop_heads()),
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
