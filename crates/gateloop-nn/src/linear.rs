//! The affine map, with PyTorch's parameter names and initial values.

use crate::error::Result;
use tch::Tensor;
use tch::nn::{Init, Path};

/// y = x W^T + b over the last dimension.
///
/// Parameters: `weight` `[out, in]` and, if asked for, `bias` `[out]`, both drawn from
/// U(-1/sqrt(in), 1/sqrt(in)) as PyTorch's `nn.Linear` does.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// Whether a [`Linear`] adds a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// y = x W^T + b
    With,
    /// y = x W^T
    Without,
}

impl Linear {
    /// Registers the parameters under `path`.
    pub fn new(path: &Path<'_>, in_dim: i64, out_dim: i64, bias: Bias) -> Result<Self> {
        let bound = 1.0 / (in_dim as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = path.f_var("weight", &[out_dim, in_dim], init)?;
        let bias = match bias {
            Bias::With => Some(path.f_var("bias", &[out_dim], init)?),
            Bias::Without => None,
        };
        Ok(Self { weight, bias })
    }

    /// # Shapes
    /// - `x`: [.., in]; returns [.., out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
    }
}
