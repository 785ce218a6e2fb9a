//! The part of a layer that mixes over time: one of several kinds behind one interface.

use crate::config::{LayerKind, ModelConfig};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    Attention, AttentionConfig, AttentionState, GateLoop, GateLoopConfig, GateLoopState,
    HasLinears, LayerInput, Linear, NnError, SequenceLayer, SimpleGateLoop, SimpleGateLoopConfig,
    SimpleGateLoopState,
};
use tch::nn::Path;
use tch::{TchError, Tensor};

/// A layer's mixer.
#[derive(Debug)]
pub(super) enum Mixer {
    GateLoop(GateLoop),
    Attention(Attention),
    SimpleGateLoop(SimpleGateLoop),
}

/// What one layer remembers while it decodes.
#[derive(Debug)]
#[non_exhaustive]
pub enum LayerState {
    /// Complex [B, H, head_dim, head_dim].
    GateLoop(GateLoopState),
    /// Keys and values of every token so far, or of those in the window.
    Attention(AttentionState),
    /// [B, D].
    SimpleGateLoop(SimpleGateLoopState),
}

const COMPLEX_STATE: &str = "state.complex";
const STATE: &str = "state";
const KEYS: &str = "keys";
const VALUES: &str = "values";
const TOKENS: &str = "tokens";

impl LayerState {
    /// The tensors of the state, none before the first token.
    pub fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::GateLoop(state) => state.tensor().into_iter().collect(),
            Self::SimpleGateLoop(state) => state.tensor().into_iter().collect(),
            Self::Attention(state) => {
                state.tensors().into_iter().flat_map(|(keys, values)| [keys, values]).collect()
            }
        }
    }

    /// The tensors of the state by name, all of them real; none before the first token.
    pub(super) fn parts(&self) -> Result<Vec<(&'static str, Tensor)>, TchError> {
        Ok(match self {
            Self::GateLoop(state) => match state.tensor() {
                // [.., 2]: files of tensors have no complex numbers.
                Some(tensor) => vec![(COMPLEX_STATE, tensor.f_view_as_real()?)],
                None => Vec::new(),
            },
            Self::SimpleGateLoop(state) => {
                state.tensor().map(|tensor| (STATE, tensor.shallow_clone())).into_iter().collect()
            }
            Self::Attention(state) => match state.tensors() {
                // Copies: a ring is written to while decoding goes on.
                Some((keys, values)) => vec![
                    (KEYS, keys.f_detach_copy()?),
                    (VALUES, values.f_detach_copy()?),
                    (TOKENS, Tensor::f_from_slice(&[state.tokens()])?),
                ],
                None => Vec::new(),
            },
        })
    }

    /// Every row `count` times; nothing to repeat before the first token.
    pub(super) fn repeated(self, count: i64) -> Result<Self, TchError> {
        self.map(|x| {
            let mut repeats = vec![1; x.dim()];
            repeats[0] = count;
            x.f_repeat(repeats)
        })
    }

    /// The same numbers, through which no gradient goes.
    pub(super) fn detached(self) -> Result<Self, TchError> {
        self.map(Tensor::f_detach)
    }

    fn map(self, rows: impl Fn(&Tensor) -> Result<Tensor, TchError>) -> Result<Self, TchError> {
        Ok(match self {
            Self::GateLoop(state) => Self::GateLoop(match state.tensor() {
                Some(tensor) => GateLoopState::from_tensor(rows(tensor)?),
                None => state,
            }),
            Self::SimpleGateLoop(state) => Self::SimpleGateLoop(match state.tensor() {
                Some(tensor) => SimpleGateLoopState::from_tensor(rows(tensor)?),
                None => state,
            }),
            Self::Attention(state) => Self::Attention(match state.tensors() {
                Some((keys, values)) => {
                    AttentionState::from_ring(rows(keys)?, rows(values)?, state.tokens())
                }
                None => state,
            }),
        })
    }
}

impl Mixer {
    pub(super) fn new(
        path: &Path<'_>,
        kind: LayerKind,
        config: &ModelConfig,
    ) -> Result<Self, NnError> {
        let dim = config.dim as i64;
        Ok(match kind {
            LayerKind::GateLoop => Self::GateLoop(gate_loop(config, dim).init(path)?),
            LayerKind::Attention => Self::Attention(attention(config, dim).init(path)?),
            LayerKind::SlidingWindowAttention => {
                let window = Some(config.attention_window as i64);
                let layer = AttentionConfig { window, ..attention(config, dim) };
                Self::Attention(layer.init(path)?)
            }
            LayerKind::SimpleGateLoop => {
                // The norm stands in the shortcut around the layer.
                let layer =
                    SimpleGateLoopConfig { prenorm: false, ..SimpleGateLoopConfig::new(dim) };
                Self::SimpleGateLoop(layer.init(path)?)
            }
        })
    }

    /// Whether the state is one of this kind.
    pub(super) fn fits(&self, state: &LayerState) -> bool {
        matches!(
            (self, state),
            (Self::GateLoop(_), LayerState::GateLoop(_))
                | (Self::Attention(_), LayerState::Attention(_))
                | (Self::SimpleGateLoop(_), LayerState::SimpleGateLoop(_))
        )
    }

    /// The whole sequence with a transition for this call; the simple layer has but one.
    pub(super) fn forward_with(
        &self,
        input: LayerInput<'_>,
        transition: TransitionMode,
    ) -> Result<Tensor, NnError> {
        match self {
            Self::GateLoop(layer) => layer.forward_with(input, transition),
            Self::Attention(layer) => layer.forward_with(input, transition),
            Self::SimpleGateLoop(layer) => layer.forward_of(input),
        }
    }

    /// ln|a| of every gate at every token, [B, T, gates]; `None` for a kind that has no gates.
    pub(super) fn log_gate_magnitude(
        &self,
        input: LayerInput<'_>,
    ) -> Result<Option<Tensor>, NnError> {
        Ok(match self {
            Self::GateLoop(layer) => Some(layer.log_gate_magnitude(input)?),
            Self::Attention(_) => None,
            Self::SimpleGateLoop(layer) => Some(layer.log_gate_magnitude(input)?),
        })
    }

    /// A state from [`parts`](LayerState::parts); `None` if one is missing or cannot be one.
    pub(super) fn state(&self, part: impl Fn(&str) -> Option<Tensor>) -> Option<LayerState> {
        Some(match self {
            Self::GateLoop(_) => {
                let state = part(COMPLEX_STATE)?.f_contiguous().ok()?.f_view_as_complex().ok()?;
                LayerState::GateLoop(GateLoopState::from_tensor(state))
            }
            Self::SimpleGateLoop(_) => {
                LayerState::SimpleGateLoop(SimpleGateLoopState::from_tensor(part(STATE)?))
            }
            Self::Attention(_) => {
                let (keys, values) = (part(KEYS)?, part(VALUES)?);
                LayerState::Attention(match part(TOKENS) {
                    Some(tokens) if tokens.numel() == 1 => {
                        AttentionState::from_ring(keys, values, tokens.int64_value(&[0]))
                    }
                    Some(_) => return None,
                    None => AttentionState::from_tensors(keys, values),
                })
            }
        })
    }

    /// Real numbers in the state of one sequence after `tokens` tokens.
    pub(super) fn state_len(&self, tokens: i64) -> i64 {
        match self {
            Self::GateLoop(layer) => layer.state_len(),
            Self::Attention(layer) => layer.state_len(tokens),
            Self::SimpleGateLoop(layer) => layer.state_len(),
        }
    }
}

/// As in the reference, a constant transition leaves nothing for the other ablation to act on.
pub(super) fn transition_mode(
    ablate_complex: bool,
    ablate_state_transition: bool,
) -> TransitionMode {
    match (ablate_state_transition, ablate_complex) {
        (true, _) => TransitionMode::Identity,
        (false, true) => TransitionMode::Real,
        (false, false) => TransitionMode::Complex,
    }
}

fn gate_loop(config: &ModelConfig, dim: i64) -> GateLoopConfig {
    GateLoopConfig {
        dim_inner: Some(config.inner_dim() as i64),
        heads: Some(config.gate_loop_heads() as i64),
        direct_kv: config.direct_kv,
        swish_gating: config.attn_add_swish_gating,
        sub_ln: config.sub_ln,
        frac_gradient_state_transition: config.frac_gradient_state_transition,
        transition: transition_mode(config.ablate_complex, config.ablate_state_transition),
        transition_bias: config.state_transition_bias,
        form: config.gate_loop_form.into(),
        recompute: config.checkpoint_gate_looped_attn,
        ..GateLoopConfig::new(dim)
    }
}

fn attention(config: &ModelConfig, dim: i64) -> AttentionConfig {
    AttentionConfig {
        dim_head: config.dim_head as i64,
        heads: config.heads as i64,
        rotary_emb: config.rotary_emb,
        swish_gating: config.attn_add_swish_gating,
        rel_pos: config.data_dependent_rel_pos.then(|| config.rel_pos.into()),
        frac_gradient_rel_pos: config.frac_gradient_state_transition,
        transition: transition_mode(config.ablate_complex, config.ablate_state_transition),
        softmax_normalize: config.attn_softmax_normalize,
        ..AttentionConfig::new(dim)
    }
}

impl HasLinears for Mixer {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        match self {
            Self::GateLoop(layer) => layer.linears_mut(),
            Self::Attention(layer) => layer.linears_mut(),
            Self::SimpleGateLoop(layer) => layer.linears_mut(),
        }
    }
}

impl SequenceLayer for Mixer {
    type State = LayerState;

    fn initial_state(&self, batch: i64) -> LayerState {
        match self {
            Self::GateLoop(layer) => LayerState::GateLoop(layer.initial_state(batch)),
            Self::Attention(layer) => LayerState::Attention(layer.initial_state(batch)),
            Self::SimpleGateLoop(layer) => LayerState::SimpleGateLoop(layer.initial_state(batch)),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, NnError> {
        self.forward_of(x.into())
    }

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor, NnError> {
        match self {
            Self::GateLoop(layer) => layer.forward_of(input),
            Self::Attention(layer) => layer.forward_of(input),
            Self::SimpleGateLoop(layer) => layer.forward_of(input),
        }
    }

    fn prefill(&self, x: &Tensor, state: &mut LayerState) -> Result<Tensor, NnError> {
        self.prefill_of(x.into(), state)
    }

    fn prefill_of(&self, input: LayerInput<'_>, state: &mut LayerState) -> Result<Tensor, NnError> {
        match (self, state) {
            (Self::GateLoop(layer), LayerState::GateLoop(state)) => layer.prefill_of(input, state),
            (Self::Attention(layer), LayerState::Attention(state)) => {
                layer.prefill_of(input, state)
            }
            (Self::SimpleGateLoop(layer), LayerState::SimpleGateLoop(state)) => {
                layer.prefill_of(input, state)
            }
            _ => Err(foreign()),
        }
    }

    fn step(&self, x: &Tensor, state: &mut LayerState) -> Result<Tensor, NnError> {
        self.step_of(x.into(), state)
    }

    fn step_of(&self, input: LayerInput<'_>, state: &mut LayerState) -> Result<Tensor, NnError> {
        match (self, state) {
            (Self::GateLoop(layer), LayerState::GateLoop(state)) => layer.step_of(input, state),
            (Self::Attention(layer), LayerState::Attention(state)) => layer.step_of(input, state),
            (Self::SimpleGateLoop(layer), LayerState::SimpleGateLoop(state)) => {
                layer.step_of(input, state)
            }
            _ => Err(foreign()),
        }
    }
}

/// The model has looked at the kinds of its states before; this is for whoever comes without.
fn foreign() -> NnError {
    let problem = "a layer got the state of a layer of another kind".to_owned();
    NnError::Config { key: "layers", problem }
}
