//! Normalisation over the features of a token.

mod fused;
mod linears;
mod rms;

use crate::autograd::{self, records_gradient};
use crate::cuda::{Normed, rms_norm};
use crate::device::on_cpu;
use crate::elements::stored;
use crate::error::{NnError, Result};
use crate::linear::{Linear, forward_all, forward_few};
use crate::pointwise::Before;
use linears::norm_linears;
use rms::RmsNormFunction;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};

/// y = x / length(x) * sqrt(D) * gamma: the root-mean-square norm. Parameter: `gamma` `[D]`,
/// initially one.
#[derive(Debug)]
pub struct RmsNorm {
    gamma: Tensor,
    kind: RmsNormKind,
}

/// How an [`RmsNorm`] keeps away from a division by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RmsNormKind {
    /// length(x) = max(|x|_2, 1e-12), as in the PyTorch reference
    #[default]
    Clamped,
    /// length(x) = sqrt(|x|_2^2 + 1e-5), as in the JAX reference
    Epsilon,
}

/// Below this length a vector is divided by it rather than by its own length.
pub(crate) const MIN_LENGTH: f64 = 1e-12;

/// What is added to the squared length.
pub(crate) const EPSILON: f64 = 1e-5;

impl RmsNorm {
    /// Registers `gamma` under `path`; the kind is the PyTorch reference's.
    pub fn new(path: &Path<'_>, dim: i64) -> Result<Self> {
        Self::of_kind(path, dim, RmsNormKind::default())
    }

    /// Registers `gamma` under `path`.
    pub fn of_kind(path: &Path<'_>, dim: i64, kind: RmsNormKind) -> Result<Self> {
        let gamma = path.f_var("gamma", &[dim], Init::Const(1.0))?;
        Ok(Self { gamma, kind })
    }

    /// # Shapes
    /// - `x`: [.., D]; returns the same
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_features(x, &self.gamma)?;
        if on_cpu(x) && matches!(x.kind(), Kind::Float | Kind::Double) {
            let function = RmsNormFunction { kind: self.kind };
            return Ok(autograd::apply(function, &[x, &self.gamma])?.remove(0));
        }
        match self.on_gpu(x, None)? {
            Some(normed) => Ok(normed.y),
            None => fused::rms_norm(x, &self.gamma, self.kind),
        }
    }

    /// The normed x by a GPU's kernel, in a lower kind if one is asked for; `None` where there is none.
    ///
    /// # Shapes
    /// - `x`: [.., D]; gives the same
    pub(crate) fn on_gpu(&self, x: &Tensor, low: Option<Kind>) -> Result<Option<Normed>> {
        check_features(x, &self.gamma)?;
        rms_norm([x, &self.gamma], self.kind, low)
    }

    /// Affine maps of the normed x.
    ///
    /// # Shapes
    /// - `x`: [.., D]; returns [.., out] for each map
    pub(crate) fn then(&self, maps: &[&Linear], x: &Tensor) -> Result<Vec<Tensor>> {
        check_features(x, &self.gamma)?;
        if let Some(y) = norm_linears(self.kind, &self.gamma, maps, x)? {
            return Ok(y);
        }
        let few = self.before().map(|before| forward_few(maps, x, before));
        match few.transpose()?.flatten() {
            Some(y) => Ok(y),
            None => forward_all(maps, &self.forward(x)?),
        }
    }

    /// The norm as part of a product with a few rows; `None` where its own gradient may be recorded, or it lies
    /// elsewhere than those kernels read.
    pub(crate) fn before(&self) -> Option<Before<'_>> {
        let gamma = stored(&self.gamma).filter(|_| !records_gradient(&self.gamma))?;
        Some(Before::RmsNorm { gamma, kind: self.kind })
    }
}

/// y = (x - mean) / sqrt(var + 1e-5) * weight + bias over the last dimension.
///
/// Parameters: `weight` `[D]`, initially one, and `bias` `[D]`, initially zero.
#[derive(Debug)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// Registers the parameters under `path`.
    pub fn new(path: &Path<'_>, dim: i64) -> Result<Self> {
        Ok(Self {
            weight: path.f_var("weight", &[dim], Init::Const(1.0))?,
            bias: path.f_var("bias", &[dim], Init::Const(0.0))?,
        })
    }

    /// # Shapes
    /// - `x`: [.., D]; returns the same
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        check_features(x, &self.weight)?;
        let dim = self.weight.size();
        Ok(x.f_layer_norm(dim, Some(&self.weight), Some(&self.bias), 1e-5, false)?)
    }
}

fn check_features(x: &Tensor, weight: &Tensor) -> Result<()> {
    let dim = weight.size()[0];
    if x.size().last() != Some(&dim) {
        let (expected, actual) = (format!("[.., {dim}]"), x.size());
        return Err(NnError::Shape { operand: "x", expected, actual });
    }
    // Checked here, because tch panics where libtorch refuses a call with a scalar argument.
    match x.kind() {
        Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16 => Ok(()),
        actual => {
            Err(NnError::Kind { operand: "x", expected: "a real floating-point kind", actual })
        }
    }
}
