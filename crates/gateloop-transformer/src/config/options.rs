//! Options of the model that are chosen by name.

use gateloop_nn::gate_loop::Form;
use gateloop_nn::{Gelu, RelPos, RmsNormKind, WeightKind};
use serde::{Deserialize, Serialize};

/// What mixes over time in a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerKind {
    /// `gate_loop`: data-controlled complex decay, in heads.
    GateLoop,
    /// `attention`: full causal attention.
    Attention,
    /// `sliding_window_attention`: attention to the last `attention_window` tokens.
    SlidingWindowAttention,
    /// `simple_gate_loop`: a real gate for every channel.
    SimpleGateLoop,
}

impl LayerKind {
    /// Whether this is attention, to all tokens or to the last ones.
    pub fn is_attention(self) -> bool {
        matches!(self, Self::Attention | Self::SlidingWindowAttention)
    }
}

/// `window_order`: which windows of the data are learned from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowOrder {
    /// `random`: drawn anew each time, as the reference does.
    #[default]
    Random,
    /// `sequential`: the data is cut into as many stretches as a step has windows, and each is read from its
    /// beginning to its end, over and over.
    Sequential,
}

/// `loss_on`: which tokens are learned, and validated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// `all`: every token.
    #[default]
    All,
    /// `answers`: of a synthetic task, what follows from before in its line, and nothing else.
    Answers,
}

/// `schedule`: how the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// `constant`: as it is, the reference's.
    #[default]
    Constant,
    /// `cosine`: half a cosine down to `min_lr` (SGDR, arXiv 1608.03983, without restarts).
    Cosine,
    /// `linear`: a straight line down to `min_lr`.
    Linear,
}

/// `rel_pos`: how data-dependent relative positions are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelPosVariant {
    /// `corrected`: products of decays over the tokens between key and query.
    #[default]
    Corrected,
    /// `as_reference`: products over the features of a token, as the reference has it.
    AsReference,
}

/// `rms_norm`: how an RMSNorm keeps away from a division by zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RmsNormVariant {
    /// `clamped`: a length of at least 1e-12, as in the PyTorch reference.
    #[default]
    Clamped,
    /// `epsilon`: 1e-5 is added to the squared length, as in the JAX reference.
    Epsilon,
}

/// `gelu`: the activation of the feed-forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GeluVariant {
    /// `erf`: the exact one, as in the PyTorch reference.
    #[default]
    Erf,
    /// `tanh`: the approximation, as in the JAX reference.
    Tanh,
}

/// `gate_loop_form`: how the gate loop operator is computed; all forms give the same numbers, to
/// within rounding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FormVariant {
    /// `auto`: by the shape.
    #[default]
    Auto,
    /// `recurrent`: token by token.
    Recurrent,
    /// `scan`: a parallel scan; for heads of width 1 only.
    Scan,
    /// `chunkwise`: matrix products within chunks.
    Chunkwise,
    /// `quadratic`: the paper's surrogate attention.
    Quadratic,
}

/// `weights`: how weights are kept while text is generated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum WeightsVariant {
    /// `f32`: as they were trained.
    #[default]
    F32,
    /// `bf16`: rounded to bfloat16, half the bytes.
    Bf16,
    /// `int8`: whole numbers and a scale for each output, a quarter of the bytes.
    Int8,
}

impl From<WeightsVariant> for WeightKind {
    fn from(variant: WeightsVariant) -> Self {
        match variant {
            WeightsVariant::F32 => Self::F32,
            WeightsVariant::Bf16 => Self::Bf16,
            WeightsVariant::Int8 => Self::Int8,
        }
    }
}

impl From<RelPosVariant> for RelPos {
    fn from(variant: RelPosVariant) -> Self {
        match variant {
            RelPosVariant::Corrected => Self::Corrected,
            RelPosVariant::AsReference => Self::AsReference,
        }
    }
}

impl From<RmsNormVariant> for RmsNormKind {
    fn from(variant: RmsNormVariant) -> Self {
        match variant {
            RmsNormVariant::Clamped => Self::Clamped,
            RmsNormVariant::Epsilon => Self::Epsilon,
        }
    }
}

impl From<GeluVariant> for Gelu {
    fn from(variant: GeluVariant) -> Self {
        match variant {
            GeluVariant::Erf => Self::Erf,
            GeluVariant::Tanh => Self::Tanh,
        }
    }
}

impl From<FormVariant> for Form {
    fn from(variant: FormVariant) -> Self {
        match variant {
            FormVariant::Auto => Self::Auto,
            FormVariant::Recurrent => Self::Recurrent,
            FormVariant::Scan => Self::Scan,
            FormVariant::Chunkwise => Self::Chunkwise,
            FormVariant::Quadratic => Self::Quadratic,
        }
    }
}
