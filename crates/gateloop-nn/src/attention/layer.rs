//! The layer: projections, positions, scores, gates and the cache of keys and values.

use super::rel_pos::{self, RelPos};
use super::rotary::Rotary;
use super::weights::{softmax_attention, weigh};
use crate::cuda::FullPrecision;
use crate::error::{NnError, Result};
use crate::gate_loop::{TransitionMode, check_fraction, scale_gradient};
use crate::layer::{SequenceLayer, sequence_dims, token_dims};
use crate::linear::{Bias, HasLinears, Linear};
use crate::precision::widen;
use tch::Tensor;
use tch::nn::Path;

/// An [`Attention`] layer to be built; the defaults are the reference's.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionConfig {
    /// Features of a token, D.
    pub dim: i64,
    /// Width d of a head.
    pub dim_head: i64,
    /// Number of heads.
    pub heads: i64,
    /// Whether q and k are turned by their position.
    pub rotary_emb: bool,
    /// Whether the output is multiplied by SiLU of a projection of the input.
    pub swish_gating: bool,
    /// Whether, and how, scores fade with decays that are computed from the data.
    pub rel_pos: Option<RelPos>,
    /// How much of its gradient the decays' projection receives, 0 to 1.
    pub frac_gradient_rel_pos: f64,
    /// How the decays are computed; anything but the default is an ablation.
    pub transition: TransitionMode,
    /// Whether the weights are the softmax of the scores or the scores themselves; if `None`, the
    /// softmax unless there are decays.
    pub softmax_normalize: Option<bool>,
}

impl AttentionConfig {
    /// The reference's defaults for a dimension: 8 heads of width 64, softmax, no positions.
    pub fn new(dim: i64) -> Self {
        Self {
            dim,
            dim_head: 64,
            heads: 8,
            rotary_emb: false,
            swish_gating: false,
            rel_pos: None,
            frac_gradient_rel_pos: 0.5,
            transition: TransitionMode::default(),
            softmax_normalize: None,
        }
    }

    /// Registers the parameters under `path`, with the reference's names: `to_qkv.0.weight`,
    /// `to_a.0.weight`, `to_gates.0.weight`, `to_out.1.{weight,bias}`, `rotary_emb.freqs`.
    pub fn init(&self, path: &Path<'_>) -> Result<Attention> {
        self.check()?;
        let inner = self.dim_head * self.heads;
        let project = |name: &str, width: i64| {
            Linear::new(&(path / name / 0), self.dim, width, Bias::Without)
        };
        let rotary = self.rotary_emb.then(|| Rotary::new(&(path / "rotary_emb"), self.dim_head));
        Ok(Attention {
            to_qkv: project("to_qkv", 3 * inner)?,
            to_a: self.rel_pos.map(|_| project("to_a", inner)).transpose()?,
            to_gates: self.swish_gating.then(|| project("to_gates", inner)).transpose()?,
            to_out: Linear::new(&(path / "to_out" / 1), inner, self.dim, Bias::With)?,
            rotary: rotary.transpose()?,
            config: self.clone(),
        })
    }

    fn check(&self) -> Result<()> {
        for (key, value) in [("dim", self.dim), ("dim_head", self.dim_head), ("heads", self.heads)]
        {
            if value < 1 {
                let problem = format!("{value} is given, but at least 1 is needed");
                return Err(NnError::Config { key, problem });
            }
        }
        if self.dim_head % 2 != 0 && (self.rotary_emb || self.rel_pos.is_some()) {
            let problem = format!(
                "{} is given, but rotary_emb and data_dependent_rel_pos turn pairs of features: \
                 an even width is needed",
                self.dim_head
            );
            return Err(NnError::Config { key: "dim_head", problem });
        }
        check_fraction("frac_gradient_data_dependent_rel_pos", self.frac_gradient_rel_pos)
    }
}

/// The full causal attention of the reference (there `CausalFullAttention`), with a cache for decoding.
#[derive(Debug)]
pub struct Attention {
    to_qkv: Linear,
    to_a: Option<Linear>,
    to_gates: Option<Linear>,
    to_out: Linear,
    rotary: Option<Rotary>,
    config: AttentionConfig,
}

/// What an [`Attention`] remembers: the keys and values of all tokens so far. It grows with them.
#[derive(Debug)]
pub struct AttentionState(Option<(Tensor, Tensor)>);

impl AttentionState {
    /// The keys [B, H, t, d], with [`RelPos::Corrected`] [B, H, t, 2 d], and the values [B, H, t, d];
    /// `None` before the first token.
    pub fn tensors(&self) -> Option<(&Tensor, &Tensor)> {
        self.0.as_ref().map(|(keys, values)| (keys, values))
    }

    /// A state from tensors that [`tensors`](Self::tensors) gave; their shapes are checked when used.
    pub fn from_tensors(keys: Tensor, values: Tensor) -> Self {
        Self(Some((keys, values)))
    }
}

impl Attention {
    /// The configuration that the layer was built from.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Real numbers that the state of one sequence has for each token.
    pub fn state_len_per_token(&self) -> i64 {
        self.key_width(self.config.transition) * self.config.heads
            + self.config.dim_head * self.config.heads
    }

    /// [`forward`](SequenceLayer::forward) with other decays for this call, an ablation.
    ///
    /// # Shapes
    /// - `x`: [B, T, D], T >= 1; returns [B, T, D]
    pub fn forward_with(&self, x: &Tensor, transition: TransitionMode) -> Result<Tensor> {
        Ok(self.run(x, None, transition)?.0)
    }

    /// The decays in use: none where they are ablated.
    fn rel_pos(&self, transition: TransitionMode) -> Option<RelPos> {
        self.config.rel_pos.filter(|_| transition != TransitionMode::Identity)
    }

    fn key_width(&self, transition: TransitionMode) -> i64 {
        match self.rel_pos(transition) {
            Some(RelPos::Corrected) => 2 * self.config.dim_head,
            _ => self.config.dim_head,
        }
    }

    fn run(
        &self,
        x: &Tensor,
        state: Option<(&Tensor, &Tensor)>,
        transition: TransitionMode,
    ) -> Result<(Tensor, (Tensor, Tensor))> {
        let (batch, seqlen) = sequence_dims(x, self.config.dim)?;
        let AttentionConfig { dim_head, heads, .. } = self.config;
        let past = self.check_state(state, batch, transition)?;
        let split = |x: &Tensor| x.f_view([batch, seqlen, heads, dim_head])?.f_transpose(1, 2);
        let qkv = self.to_qkv.forward(x)?.f_chunk(3, -1)?;
        let (mut q, mut k, v) = (split(&qkv[0])?, split(&qkv[1])?, split(&qkv[2])?);
        if let Some(rotary) = &self.rotary {
            let turns = rotary.turns(past, seqlen)?;
            (q, k) = (turns.apply(&q)?, turns.apply(&k)?);
        }
        let cached = state.map(|(keys, _)| keys);
        let values = after(state.map(|(_, values)| values), v)?;
        let decays = self.rel_pos(transition).zip(self.to_a.as_ref());
        let (y, keys) = if let Some((rel_pos, to_a)) = decays {
            let z = to_a.forward(x)?.f_view([batch, seqlen, heads, dim_head / 2, 2])?;
            let z = scale_gradient(&z, self.config.frac_gradient_rel_pos)?;
            // Under autocast the projections are in a low precision, decays are not.
            let _full = FullPrecision::new();
            let (qk, z) = ((widen(&q)?, widen(&k)?), widen(&z)?);
            let (scores, keys) = self.fading_scores(rel_pos, qk, &z, transition, cached)?;
            let softmax = self.config.softmax_normalize.unwrap_or(false);
            (weigh(&scores, &widen(&values)?, softmax)?.f_to_kind(values.kind())?, keys)
        } else {
            let keys = after(cached, k)?;
            (self.attend(&q, &keys, &values)?, keys)
        };
        let mut y = y.f_transpose(1, 2)?.f_reshape([batch, seqlen, heads * dim_head])?;
        if let Some(gates) = &self.to_gates {
            y = y.f_mul(&gates.forward(x)?.f_silu()?)?;
        }
        Ok((self.to_out.forward(&y)?, (keys, values)))
    }

    /// Scores with decays, and the keys to remember.
    fn fading_scores(
        &self,
        rel_pos: RelPos,
        (q, k): (Tensor, Tensor),
        z: &Tensor,
        transition: TransitionMode,
        cached: Option<&Tensor>,
    ) -> Result<(Tensor, Tensor)> {
        let q = q.f_mul_scalar(self.scale())?;
        match rel_pos {
            RelPos::Corrected => rel_pos::scores(&q, &k, z, transition, cached),
            RelPos::AsReference => {
                let (q, k) = rel_pos::scale_as_reference(&q, &k, z, transition)?;
                let keys = after(cached, k)?;
                Ok((q.f_matmul(&keys.f_transpose(-2, -1)?)?, keys))
            }
        }
    }

    /// Attention without decays.
    fn attend(&self, q: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
        // A layer whose decays are ablated normalises as it did with them.
        if self.config.softmax_normalize.unwrap_or(self.config.rel_pos.is_none()) {
            return softmax_attention(q, keys, values);
        }
        let scores = q.f_mul_scalar(self.scale())?.f_matmul(&keys.f_transpose(-2, -1)?)?;
        weigh(&scores, values, false)
    }

    fn scale(&self) -> f64 {
        1.0 / (self.config.dim_head as f64).sqrt()
    }

    /// The number of tokens that a state holds.
    fn check_state(
        &self,
        state: Option<(&Tensor, &Tensor)>,
        batch: i64,
        transition: TransitionMode,
    ) -> Result<i64> {
        let Some((keys, values)) = state else { return Ok(0) };
        let tokens = keys.size().get(2).copied().unwrap_or(0);
        let widths = [self.key_width(transition), self.config.dim_head];
        for ((operand, tensor), width) in
            [("state's keys", keys), ("state's values", values)].into_iter().zip(widths)
        {
            let expected = [batch, self.config.heads, tokens, width];
            if tensor.size() != expected {
                let expected = format!("{expected:?}");
                return Err(NnError::Shape { operand, expected, actual: tensor.size() });
            }
        }
        Ok(tokens)
    }
}

/// New tokens after those of the cache, [B, H, t, ..].
fn after(cached: Option<&Tensor>, new: Tensor) -> Result<Tensor> {
    match cached {
        Some(cached) => Ok(Tensor::f_cat(&[cached, &new], 2)?),
        None => Ok(new),
    }
}

impl HasLinears for Attention {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let Self { to_qkv, to_a, to_gates, to_out, .. } = self;
        [to_qkv].into_iter().chain(to_a).chain(to_gates).chain([to_out]).collect()
    }
}

impl SequenceLayer for Attention {
    type State = AttentionState;

    fn initial_state(&self, _batch: i64) -> AttentionState {
        AttentionState(None)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, self.config.transition)
    }

    fn prefill(&self, x: &Tensor, state: &mut AttentionState) -> Result<Tensor> {
        let (y, next) = self.run(x, state.tensors(), self.config.transition)?;
        state.0 = Some(next);
        Ok(y)
    }

    fn step(&self, x: &Tensor, state: &mut AttentionState) -> Result<Tensor> {
        token_dims(x, self.config.dim)?;
        Ok(self.prefill(&x.f_unsqueeze(1)?, state)?.f_squeeze_dim(1)?)
    }
}
