//! The layer: projections, positions, scores, gates and the cache of keys and values.

use super::rel_pos::{self, RelPos};
use super::rotary::Rotary;
use super::state::{AttentionState, Cache};
use super::weights::{Weighing, past, weigh};
use super::window;
use crate::autocast::FullPrecision;
use crate::autograd::gradients_are_recorded;
use crate::error::{NnError, Result};
use crate::gate_loop::{TransitionMode, check_fraction, scale_gradient};
use crate::layer::{LayerInput, ONLY_FORWARD, SequenceLayer, sequence_dims, token_dims};
use crate::linear::{Bias, HasLinears, Linear};
use crate::precision::widen;
use crate::segments::Segments;
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
    /// How many tokens each one sees, itself included; all before it if `None`. Not with `rel_pos`, whose decays
    /// are a soft window of their own.
    pub window: Option<i64>,
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
            window: None,
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
        if let Some(window) = self.window {
            let problem = if window < 1 {
                format!("{window} is given, but at least 1 is needed: a token sees itself")
            } else if self.rel_pos.is_some() {
                "it cannot be combined with data_dependent_rel_pos: leave out one of them"
                    .to_owned()
            } else {
                return check_fraction(FRACTION, self.frac_gradient_rel_pos);
            };
            return Err(NnError::Config { key: "attention_window", problem });
        }
        check_fraction(FRACTION, self.frac_gradient_rel_pos)
    }
}

const FRACTION: &str = "frac_gradient_data_dependent_rel_pos";

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

impl Attention {
    /// The configuration that the layer was built from.
    pub fn config(&self) -> &AttentionConfig {
        &self.config
    }

    /// Real numbers in the state of one sequence after `tokens` tokens.
    pub fn state_len(&self, tokens: i64) -> i64 {
        let AttentionConfig { dim_head, heads, transition, window, .. } = self.config;
        let held = window.map_or(tokens, |window| window.min(tokens));
        held * heads * (self.key_width(transition) + dim_head)
    }

    /// [`forward`](SequenceLayer::forward) with other decays for this call, an ablation.
    ///
    /// # Shapes
    /// - `input`: [B, T, D], T >= 1; returns [B, T, D]
    pub fn forward_with<'a>(
        &self,
        input: impl Into<LayerInput<'a>>,
        transition: TransitionMode,
    ) -> Result<Tensor> {
        let input = input.into();
        input.without_ranks("attention over a split sequence is not built")?;
        self.run(&input.tensor()?, &mut None, transition, input.segments)
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

    /// Moves `state` to the end of x.
    fn run(
        &self,
        x: &Tensor,
        state: &mut Option<Cache>,
        transition: TransitionMode,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        let (batch, seqlen) = sequence_dims(x, self.config.dim)?;
        let AttentionConfig { dim_head, heads, window, .. } = self.config;
        self.check_state(state.as_ref(), batch, transition)?;
        if let Some(segments) = segments {
            segments.check(x)?;
            if state.is_some() {
                let problem = "attention cannot go on from a state into packed sequences";
                return Err(NnError::Config { key: "segments", problem: problem.into() });
            }
        }
        let split = |x: &Tensor| x.f_view([batch, seqlen, heads, dim_head])?.f_transpose(1, 2);
        let qkv = self.to_qkv.forward(x)?.f_chunk(3, -1)?;
        let (mut q, mut k, v) = (split(&qkv[0])?, split(&qkv[1])?, split(&qkv[2])?);
        if let Some(rotary) = &self.rotary {
            let turns = rotary.turns(state.as_ref().map_or(0, |cache| cache.tokens), seqlen)?;
            (q, k) = (turns.apply(&q)?, turns.apply(&k)?);
        }
        let decays = self.rel_pos(transition).zip(self.to_a.as_ref());
        let mixed = if let Some((rel_pos, to_a)) = decays {
            let z = to_a.forward(x)?.f_view([batch, seqlen, heads, dim_head / 2, 2])?;
            let z = scale_gradient(&z, self.config.frac_gradient_rel_pos)?;
            self.attend_fading(rel_pos, [&q, &k, &v], &z, transition, state, segments)?
        } else if let Some(window) = window {
            self.attend_window([&q, &k, &v], state, window, segments)?
        } else {
            self.attend([&q, &k, &v], state, segments)?
        };
        let mut y = mixed.f_transpose(1, 2)?.f_reshape([batch, seqlen, heads * dim_head])?;
        if let Some(gates) = &self.to_gates {
            y = y.f_mul(&gates.forward(x)?.f_silu()?)?;
        }
        self.to_out.forward(&y)
    }

    /// Attention whose scores fade.
    fn attend_fading(
        &self,
        rel_pos: RelPos,
        [q, k, v]: [&Tensor; 3],
        z: &Tensor,
        transition: TransitionMode,
        state: &mut Option<Cache>,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        // Under autocast the projections are in a low precision, decays are not.
        let _full = FullPrecision::new();
        let ((q, k), z) = ((widen(q)?, widen(k)?), widen(z)?);
        let cached = state.as_ref();
        let keys = cached.map(|cache| &cache.keys);
        let (scores, keys) = self.fading_scores(rel_pos, (q, k), &z, transition, keys)?;
        let values = after(cached.map(|cache| &cache.values), v)?;
        let visible = visible([&scores, &keys], segments)?;
        let softmax = self.config.softmax_normalize.unwrap_or(false);
        let y = weigh(&scores, &widen(&values)?, softmax, Some(&visible))?;
        let y = y.f_to_kind(values.kind())?;
        grow(state, keys, values);
        Ok(y)
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
                let keys = after(cached, &k)?;
                Ok((q.f_matmul(&keys.f_transpose(-2, -1)?)?, keys))
            }
        }
    }

    /// Attention to everything.
    fn attend(
        &self,
        [q, k, v]: [&Tensor; 3],
        state: &mut Option<Cache>,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        let cached = state.as_ref();
        let keys = after(cached.map(|cache| &cache.keys), k)?;
        let values = after(cached.map(|cache| &cache.values), v)?;
        let (weighing, operands) = (self.weighing(), [q, &keys, &values]);
        let y = if q.size()[2] == 1 {
            weighing.attend(operands, None)?
        } else if cached.is_none() && segments.is_none() {
            weighing.attend_causally(operands)?
        } else {
            weighing.attend(operands, Some(&visible([q, &keys], segments)?))?
        };
        grow(state, keys, values);
        Ok(y)
    }

    /// Attention to the last tokens.
    fn attend_window(
        &self,
        [q, k, v]: [&Tensor; 3],
        state: &mut Option<Cache>,
        window: i64,
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        let (weighing, seqlen) = (self.weighing(), q.size()[2]);
        if let Some(cache) = state
            && seqlen == 1
            && !gradients_are_recorded()
            && cache.replace_oldest(k, v, window)?.is_some()
        {
            // The weights do not depend on the order of the keys.
            return weighing.attend([q, &cache.keys, &cache.values], None);
        }
        let tokens = seqlen + state.as_ref().map_or(0, |cache| cache.tokens);
        // The first query sees one less than the window.
        let past = state.as_ref().map(|cache| cache.latest(window - 1, window)).transpose()?;
        let (past_keys, past_values) = past.unzip();
        let (keys, values) = (after(past_keys.as_ref(), k)?, after(past_values.as_ref(), v)?);
        let y = window::attend(weighing, [q, &keys, &values], window, segments)?;
        *state = Some(Cache::ring(&keys, &values, tokens, window)?);
        Ok(y)
    }

    fn weighing(&self) -> Weighing {
        // A layer whose decays are ablated normalises as it did with them.
        let softmax = self.config.softmax_normalize.unwrap_or(self.config.rel_pos.is_none());
        Weighing { softmax, scale: self.scale() }
    }

    fn scale(&self) -> f64 {
        1.0 / (self.config.dim_head as f64).sqrt()
    }

    fn check_state(
        &self,
        state: Option<&Cache>,
        batch: i64,
        transition: TransitionMode,
    ) -> Result<()> {
        let AttentionConfig { dim_head, heads, window, .. } = self.config;
        let widths = [self.key_width(transition), dim_head];
        state.map_or(Ok(()), |cache| cache.check([batch, heads], widths, window))
    }
}

/// Which keys [B, H, m, ..] are seen by the last T of them, whose scores or queries are [B, H, T, ..].
fn visible([queries, keys]: [&Tensor; 2], segments: Option<&Segments>) -> Result<Tensor> {
    let past = past(queries.size()[2], keys.size()[2], queries.device())?;
    match segments {
        Some(segments) => Ok(past.f_logical_and(&segments.same()?.f_unsqueeze(1)?)?),
        None => Ok(past),
    }
}

/// The cache of an attention to everything.
fn grow(state: &mut Option<Cache>, keys: Tensor, values: Tensor) {
    let tokens = keys.size()[2];
    *state = Some(Cache::new(keys, values, tokens));
}

/// New tokens after those of the cache, [B, H, t, ..].
fn after(cached: Option<&Tensor>, new: &Tensor) -> Result<Tensor> {
    match cached {
        Some(cached) => Ok(Tensor::f_cat(&[cached, new], 2)?),
        None => Ok(new.shallow_clone()),
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

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        self.forward_with(input, self.config.transition)
    }

    fn prefill(&self, x: &Tensor, state: &mut AttentionState) -> Result<Tensor> {
        self.prefill_of(x.into(), state)
    }

    fn prefill_of(&self, input: LayerInput<'_>, state: &mut AttentionState) -> Result<Tensor> {
        input.without_ranks(ONLY_FORWARD)?;
        self.run(&input.tensor()?, &mut state.0, self.config.transition, input.segments)
    }

    fn step(&self, x: &Tensor, state: &mut AttentionState) -> Result<Tensor> {
        token_dims(x, self.config.dim)?;
        Ok(self.prefill(&x.f_unsqueeze(1)?, state)?.f_squeeze_dim(1)?)
    }
}
