//! The affine map, with PyTorch's parameter names and initial values.

mod side_by_side;
mod weight;

pub(crate) use side_by_side::{Side, side_by_side};
pub use weight::WeightKind;

use crate::autograd::records_gradient;
use crate::elements::{Elements, Output, stored};
use crate::error::Result;
use crate::matvec::{Product, multiply};
use crate::pointwise::Before;
use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};
use weight::Weight;

/// y = x W^T + b over the last dimension.
///
/// Parameters: `weight` `[out, in]` and, if asked for, `bias` `[out]`, both drawn from
/// U(-1/sqrt(in), 1/sqrt(in)) as PyTorch's `nn.Linear` does.
#[derive(Debug)]
pub struct Linear {
    weight: Weight,
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

/// Whatever has affine maps in it.
pub trait HasLinears {
    /// All of them, in the order of the parameters' registration.
    fn linears_mut(&mut self) -> Vec<&mut Linear>;
}

/// Up to so many rows of x are multiplied by kernels that take the weights as they lie; for more, a matrix
/// product that packs its operands for reuse, as libtorch's does, is the right tool.
pub(crate) const FEW_ROWS: usize = 64;

impl Linear {
    /// Registers the parameters under `path`.
    pub fn new(path: &Path<'_>, in_dim: i64, out_dim: i64, bias: Bias) -> Result<Self> {
        let bound = 1.0 / (in_dim as f64).sqrt();
        let init = Init::Uniform { lo: -bound, up: bound };
        let weight = Weight::Trained(path.f_var("weight", &[out_dim, in_dim], init)?);
        let bias = match bias {
            Bias::With => Some(path.f_var("bias", &[out_dim], init)?),
            Bias::Without => None,
        };
        Ok(Self { weight, bias })
    }

    /// # Shapes
    /// - `x`: [.., in]; returns [.., out]
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match forward_few(&[self], x, Before::Nothing)? {
            Some(mut y) => Ok(y.remove(0)),
            None => Ok(x.f_linear(&self.weight.widened()?, self.bias.as_ref())?),
        }
    }

    /// How the weights are kept.
    pub fn weight_kind(&self) -> WeightKind {
        self.weight.kind()
    }

    /// Bytes that a product with one row reads: weights, scales and bias.
    pub fn bytes(&self) -> usize {
        let bias = self.bias.as_ref().map_or(0, |b| b.numel() * b.kind().elt_size_in_bytes());
        self.weight.bytes() + bias
    }

    /// The same map with rounded weights, on the CPU, for inference: they are parameters no longer and
    /// have no gradient. The bias stays as it is.
    pub fn quantized(&self, kind: WeightKind) -> Result<Self> {
        let bias = self.bias.as_ref().map(Tensor::f_detach).transpose()?;
        Ok(Self { weight: self.weight.quantized(kind)?, bias })
    }

    /// The parameter [out, in]; `None` where it was rounded.
    pub fn trained_weight(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Trained(weight) => Some(weight),
            Weight::Bf16(_) | Weight::Int8 { .. } => None,
        }
    }

    /// The constant that is added, `[out]`.
    pub(crate) fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Whether libtorch would record a product with the weights for a backward pass.
    fn records_gradient(&self) -> bool {
        match &self.weight {
            Weight::Trained(weight) => records_gradient(weight),
            Weight::Bf16(_) | Weight::Int8 { .. } => {
                self.bias.as_ref().is_some_and(records_gradient)
            }
        }
    }

    /// [in, out]
    fn dims(&self) -> Option<(i64, i64)> {
        match self.weight.size()[..] {
            [out_dim, in_dim] => Some((in_dim, out_dim)),
            _ => None,
        }
    }
}

/// Several maps of one x: for few rows the threads meet once for all of them.
///
/// # Shapes
/// - `x`: [.., in]; returns [.., out] for each map
pub fn forward_all(maps: &[&Linear], x: &Tensor) -> Result<Vec<Tensor>> {
    match forward_few(maps, x, Before::Nothing)? {
        Some(y) => Ok(y),
        None => maps.iter().map(|map| map.forward(x)).collect(),
    }
}

/// The products of what `before` makes of a few rows x, by the kernels that read every weight once; `None` where they
/// do not apply: many rows, a gradient to be recorded, other kinds and devices, shapes that do not fit.
pub(crate) fn forward_few(
    maps: &[&Linear],
    x: &Tensor,
    before: Before<'_>,
) -> Result<Option<Vec<Tensor>>> {
    let size = x.size();
    let Some((&in_dim, batch)) = size.split_last() else { return Ok(None) };
    let rows = batch.iter().product::<i64>() as usize;
    let applies = (1..=FEW_ROWS).contains(&rows)
        && in_dim > 0
        && x.kind() == Kind::Float
        && x.device() == Device::Cpu
        && !(records_gradient(x) || maps.iter().any(|map| map.records_gradient()));
    if !applies {
        return Ok(None);
    }
    let x = Elements::of::<f32>("x", x)?;
    let mut outputs = Vec::with_capacity(maps.len());
    for map in maps {
        match map.dims() {
            Some((i, out_dim)) if i == in_dim => {
                outputs.push(Output::<f32>::new(&[batch, &[out_dim]].concat())?);
            }
            _ => return Ok(None),
        }
    }
    let mut products = Vec::with_capacity(maps.len());
    for (map, output) in maps.iter().zip(&mut outputs) {
        let Some(matrix) = map.weight.matrix() else { return Ok(None) };
        let bias = match &map.bias {
            Some(bias) => match stored(bias) {
                Some(bias) => Some(bias),
                None => return Ok(None),
            },
            None => None,
        };
        products.push(Product { matrix, bias, y: output.slice_mut() });
    }
    multiply(x.slice(), rows, before, &mut products);
    Ok(Some(outputs.into_iter().map(Output::into_tensor).collect()))
}
