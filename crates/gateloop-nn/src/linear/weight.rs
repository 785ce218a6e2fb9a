//! A weight matrix as it is kept in memory.

use crate::elements::stored;
use crate::error::{NnError, Result};
use crate::matvec::Matrix;
use std::fmt;
use std::str::FromStr;
use tch::{Device, Kind, Tensor};

/// How the weights of a [`Linear`](super::Linear) are kept. What they are multiplied with, and the
/// sums, are f32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum WeightKind {
    /// As they were trained.
    #[default]
    F32,
    /// Rounded to the nearest bfloat16, ties to even: a relative error of at most 2^-9.
    Bf16,
    /// Whole numbers from -127 to 127 times a scale for each output: an error of at most half the
    /// scale, which is the largest weight of that output divided by 127.
    Int8,
}

impl WeightKind {
    /// Every kind, the widest first.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name: `f32`, `bf16` or `int8`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for WeightKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// By [`name`](WeightKind::name).
impl FromStr for WeightKind {
    type Err = NnError;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let problem = format!("`{name}` is none; the kinds of weights are f32, bf16, int8");
            NnError::Config { key: "weights", problem }
        })
    }
}

/// A matrix [out, in].
#[derive(Debug)]
pub(super) enum Weight {
    /// A parameter that can be trained; of any kind of floating point.
    Trained(Tensor),
    /// BFloat16 [out, in].
    Bf16(Tensor),
    /// Int8 [out, in] and Float [out, 1].
    Int8 { values: Tensor, scale: Tensor },
}

impl Weight {
    pub(super) fn kind(&self) -> WeightKind {
        match self {
            Self::Trained(_) => WeightKind::F32,
            Self::Bf16(_) => WeightKind::Bf16,
            Self::Int8 { .. } => WeightKind::Int8,
        }
    }

    /// The tensors that hold it.
    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Trained(weight) | Self::Bf16(weight) => vec![weight],
            Self::Int8 { values, scale } => vec![values, scale],
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.tensors().iter().map(|t| t.numel() * t.kind().elt_size_in_bytes()).sum()
    }

    /// [out, in]
    pub(super) fn size(&self) -> Vec<i64> {
        self.tensors()[0].size()
    }

    /// Rounds a trained weight.
    pub(super) fn quantized(&self, kind: WeightKind) -> Result<Self> {
        let Self::Trained(weight) = self else {
            let problem = format!("the weights are {} already: load them again", self.kind());
            return Err(NnError::Config { key: "weights", problem });
        };
        let (operand, actual) = ("weight", weight.kind());
        if actual != Kind::Float {
            return Err(NnError::Kind { operand, expected: "Float", actual });
        }
        if weight.device() != Device::Cpu {
            return Err(NnError::Device { operand, actual: weight.device() });
        }
        let weight = weight.f_detach()?;
        match kind {
            WeightKind::F32 => Ok(Self::Trained(weight)),
            WeightKind::Bf16 => Ok(Self::Bf16(weight.f_to_kind(Kind::BFloat16)?.f_contiguous()?)),
            WeightKind::Int8 => int8(&weight),
        }
    }

    /// The matrix in floating point.
    pub(super) fn widened(&self) -> Result<Tensor> {
        Ok(match self {
            Self::Trained(weight) => weight.shallow_clone(),
            Self::Bf16(weight) => weight.f_to_kind(Kind::Float)?,
            Self::Int8 { values, scale } => values.f_to_kind(Kind::Float)?.f_mul_(scale)?,
        })
    }

    /// The matrix where it lies, for the kernels that read it once; `None` unless they take it.
    pub(super) fn matrix(&self) -> Option<Matrix<'_>> {
        match self {
            Self::Trained(weight) => stored(weight).map(Matrix::F32),
            Self::Bf16(weight) => stored(weight).map(Matrix::Bf16),
            Self::Int8 { values, scale } => Some(Matrix::Int8(stored(values)?, stored(scale)?)),
        }
    }
}

/// Symmetric, per output channel: scale = max|w| / 127, value = round(w / scale).
fn int8(weight: &Tensor) -> Result<Weight> {
    if weight.f_isfinite()?.f_all()?.f_int64_value(&[])? == 0 {
        let problem = "the weights are not finite, so they have no int8 form".to_owned();
        return Err(NnError::Config { key: "weights", problem });
    }
    // Rows of zeros are zero times anything; below the smallest normal number no digits are lost that
    // a sum would notice.
    let largest = weight.f_abs()?.f_amax([1i64], true)?;
    let scale = largest.f_div_scalar(127.0)?.f_clamp_min(f64::from(f32::MIN_POSITIVE))?;
    let values = weight.f_div(&scale)?.f_round()?.f_clamp(-127.0, 127.0)?;
    Ok(Weight::Int8 { values: values.f_to_kind(Kind::Int8)?.f_contiguous()?, scale })
}
