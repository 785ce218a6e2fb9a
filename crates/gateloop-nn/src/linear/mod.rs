//! The affine map, with PyTorch's parameter names and initial values.

mod side_by_side;
mod weight;

pub(crate) use side_by_side::{Side, side_by_side};
pub use weight::WeightKind;

use crate::autograd::records_gradient;
use crate::device::on_cpu;
use crate::elements::{Elements, Output, stored};
use crate::error::Result;
use crate::feed_forward::Gelu;
use crate::matvec::{Map, Product, multiply, multiply_twice};
use crate::pointwise::Before;
use tch::nn::{Init, Path};
use tch::{Kind, Tensor};
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

    /// Out, and the map for the kernels of a few rows of `in_dim` numbers; `None` where they do not apply.
    fn as_few(&self, in_dim: i64) -> Option<(i64, Map<'_>)> {
        let out_dim = match self.weight.size()[..] {
            [out_dim, width] if width == in_dim => out_dim,
            _ => return None,
        };
        let bias = match &self.bias {
            Some(bias) => Some(stored(bias)?),
            None => None,
        };
        Some((out_dim, Map { matrix: self.weight.matrix()?, bias }))
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
    let Some(few) = Few::of(maps, x)? else { return Ok(None) };
    let mut outputs = Vec::with_capacity(maps.len());
    for map in maps {
        match map.as_few(few.in_dim) {
            Some((out_dim, map)) => outputs.push((map, few.output(out_dim)?)),
            None => return Ok(None),
        }
    }
    let mut products: Vec<_> =
        outputs.iter_mut().map(|(map, y)| Product { map: *map, y: y.slice_mut() }).collect();
    multiply(few.x.slice(), few.rows, before, &mut products);
    Ok(Some(outputs.into_iter().map(|(_, y)| y.into_tensor()).collect()))
}

/// `contract` of gelu(`expand` of what `before` makes of a few rows x); `None` as of [`forward_few`].
pub(crate) fn forward_few_twice(
    [expand, contract]: [&Linear; 2],
    gelu: Gelu,
    x: &Tensor,
    before: Before<'_>,
) -> Result<Option<Tensor>> {
    let Some(few) = Few::of(&[expand, contract], x)? else { return Ok(None) };
    let Some((inner, expand)) = expand.as_few(few.in_dim) else { return Ok(None) };
    let Some((out_dim, map)) = contract.as_few(inner) else { return Ok(None) };
    let mut y = few.output(out_dim)?;
    let product = Product { map, y: y.slice_mut() };
    multiply_twice(few.x.slice(), few.rows, before, (expand, gelu), product);
    Ok(Some(y.into_tensor()))
}

/// A few rows x, [.., in], in f32 on the CPU.
struct Few {
    x: Elements,
    /// All dimensions of x but the last.
    batch: Vec<i64>,
    rows: usize,
    in_dim: i64,
}

impl Few {
    /// `None` where there are others, or where a gradient is to be recorded.
    fn of(maps: &[&Linear], x: &Tensor) -> Result<Option<Self>> {
        let mut batch = x.size();
        let Some(in_dim) = batch.pop() else { return Ok(None) };
        let rows = batch.iter().product::<i64>() as usize;
        let applies = (1..=FEW_ROWS).contains(&rows)
            && in_dim > 0
            && x.kind() == Kind::Float
            && on_cpu(x)
            && !(records_gradient(x) || maps.iter().any(|map| map.records_gradient()));
        if !applies {
            return Ok(None);
        }
        Ok(Some(Self { x: Elements::of::<f32>("x", x)?, batch, rows, in_dim }))
    }

    fn output(&self, out_dim: i64) -> Result<Output<f32>> {
        Output::new(&[&self.batch[..], &[out_dim]].concat())
    }
}
