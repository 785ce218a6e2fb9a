//! Several maps of one x as one matrix product, its outputs side by side.
//!
//! Under autocast x is rounded once and not once for each map, and the gradients that come back to it are summed within
//! a product, in f32. For a GPU: here a matrix is copied to save passes over what many tokens have.

use super::Linear;
use crate::autocast::Autocast;
use crate::autograd::{self, Function, Saved};
use crate::error::Result;
use crate::lean::rows;
use tch::{Kind, Tensor};

/// A map beside others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    pub(crate) map: &'a Linear,
    /// How much of its gradient the map receives and passes on, as by
    /// [`scale_gradient`](crate::gate_loop::scale_gradient) of its output; but what is scaled here are weights and
    /// their gradients, of which there are fewer.
    pub(crate) fraction: f64,
}

/// W_i x + b_i of all maps, in their order; `None` where a map has no weights to train or they differ in kind.
///
/// # Shapes
/// - `x`: [.., in]; returns [.., sum of all out]
pub(crate) fn side_by_side(sides: &[Side<'_>], x: &Tensor) -> Result<Option<Tensor>> {
    let weights = sides.iter().map(|side| side.map.trained_weight());
    let Some(weights) = weights.collect::<Option<Vec<_>>>() else { return Ok(None) };
    let Some(weight_kind) = weights.first().map(|weight| weight.kind()) else { return Ok(None) };
    let biases: Vec<&Tensor> = sides.iter().filter_map(|side| side.map.bias()).collect();
    if weights.iter().chain(&biases).any(|parameter| parameter.kind() != weight_kind) {
        return Ok(None);
    }
    let columns = sides.iter().zip(&weights).map(|(side, weight)| Columns {
        width: weight.size()[0],
        has_bias: side.map.bias().is_some(),
        fraction: side.fraction,
    });
    let function = SideBySide {
        columns: columns.collect(),
        // What autocast would do, which leaves double precision alone.
        low: (Autocast::is_on() && x.kind() != Kind::Double).then_some(Kind::BFloat16),
        kinds: [x.kind(), weight_kind],
    };
    let inputs: Vec<&Tensor> = [x].into_iter().chain(weights).chain(biases).collect();
    Ok(Some(autograd::apply(function, &inputs)?.remove(0)))
}

/// The outputs of one map.
struct Columns {
    width: i64,
    has_bias: bool,
    fraction: f64,
}

/// Inputs x [.., in], N weights [out, in], and the bias `[out]` of each map that has one.
struct SideBySide {
    columns: Vec<Columns>,
    /// The kind of the product, if it is not that of the inputs.
    low: Option<Kind>,
    /// Of x and of the parameters.
    kinds: [Kind; 2],
}

impl SideBySide {
    fn lowered(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.low {
            Some(kind) => x.f_to_kind(kind)?,
            None => x.shallow_clone(),
        })
    }

    /// The biases side by side, with zeros where there is none; `None` if there are none at all.
    fn bias(&self, biases: &[Tensor]) -> Result<Option<Tensor>> {
        let Some(first) = biases.first() else { return Ok(None) };
        let total = self.columns.iter().map(|columns| columns.width).sum::<i64>();
        let kind = self.low.unwrap_or(first.kind());
        let all = Tensor::f_zeros([total], (kind, first.device()))?;
        let with_bias = self.parts(&all, 0)?.into_iter().zip(&self.columns);
        let with_bias = with_bias.filter(|(_, columns)| columns.has_bias);
        for ((mut part, _), bias) in with_bias.zip(biases) {
            part.f_copy_(bias)?;
        }
        Ok(Some(all))
    }

    /// What lies side by side along `dim`, map by map.
    fn parts(&self, of: &Tensor, dim: i64) -> Result<Vec<Tensor>> {
        let widths: Vec<i64> = self.columns.iter().map(|columns| columns.width).collect();
        Ok(of.f_split_with_sizes(widths, dim)?)
    }

    /// Scales what belongs to each map, in place: rows of the weights, or of their gradients.
    fn scale(&self, weight: &Tensor) -> Result<()> {
        for (mut part, columns) in self.parts(weight, 0)?.into_iter().zip(&self.columns) {
            if columns.fraction != 1.0 {
                let _ = part.f_mul_scalar_(columns.fraction)?;
            }
        }
        Ok(())
    }

    /// [`scale`](Self::scale) of weights that stay as they are.
    fn scaled(&self, weight: &Tensor) -> Result<Tensor> {
        if self.columns.iter().all(|columns| columns.fraction == 1.0) {
            return Ok(weight.shallow_clone());
        }
        let weight = weight.f_detach_copy()?;
        self.scale(&weight)?;
        Ok(weight)
    }
}

impl Function for SideBySide {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let (weights, biases) = inputs[1..].split_at(self.columns.len());
        let x = self.lowered(&inputs[0])?;
        let weight = self.lowered(&Tensor::f_cat(weights, 0)?)?;
        let y = x.f_linear(&weight, self.bias(biases)?.as_ref())?;
        saved.push(&x);
        saved.push(&weight);
        Ok(vec![y])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else {
            return Ok(needs_grad.iter().map(|_| None).collect());
        };
        let (x, weight, dy) = (&saved[0], &saved[1], rows(dy)?);
        let [x_kind, weight_kind] = self.kinds;
        let (needs_weights, needs_biases) = needs_grad[1..].split_at(self.columns.len());

        let mut grads = Vec::with_capacity(needs_grad.len());
        grads.push(if needs_grad[0] {
            Some(dy.f_mm(&self.scaled(weight)?)?.f_to_kind(x_kind)?.f_view_as(x)?)
        } else {
            None
        });
        if needs_weights.contains(&true) {
            let dweight = dy.f_transpose(0, 1)?.f_mm(&rows(x)?)?.f_to_kind(weight_kind)?;
            self.scale(&dweight)?;
            let parts = self.parts(&dweight, 0)?.into_iter().zip(needs_weights);
            grads.extend(parts.map(|(part, &needs)| needs.then_some(part)));
        } else {
            grads.extend(needs_weights.iter().map(|_| None));
        }
        let with_bias = self.parts(&dy, 1)?.into_iter().zip(&self.columns);
        let with_bias = with_bias.filter(|(_, columns)| columns.has_bias);
        for ((dy, columns), &needs) in with_bias.zip(needs_biases) {
            let sum = || dy.f_sum_dim_intlist(0i64, false, weight_kind);
            let scaled = || sum()?.f_mul_scalar(columns.fraction);
            grads.push(needs.then(scaled).transpose()?);
        }
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate_loop::scale_gradient;
    use crate::linear::Bias;
    use tch::{Device, nn};

    /// Three maps of 6 features, of which the second has a bias and a fraction of its gradient.
    fn maps(vs: &nn::VarStore) -> Result<[Linear; 3]> {
        let root = vs.root();
        Ok([
            Linear::new(&(&root / 0), 6, 9, Bias::Without)?,
            Linear::new(&(&root / 1), 6, 4, Bias::With)?,
            Linear::new(&(&root / 2), 6, 3, Bias::Without)?,
        ])
    }

    const FRACTIONS: [f64; 3] = [1.0, 0.75, 1.0];

    fn together(maps: &[Linear], x: &Tensor) -> Result<Option<Tensor>> {
        let sides = maps.iter().zip(FRACTIONS).map(|(map, fraction)| Side { map, fraction });
        side_by_side(&sides.collect::<Vec<_>>(), x)
    }

    fn one_by_one(maps: &[Linear], x: &Tensor) -> Result<Tensor> {
        let outputs = maps.iter().zip(FRACTIONS);
        let outputs = outputs.map(|(map, fraction)| scale_gradient(&map.forward(x)?, fraction));
        Ok(Tensor::f_cat(&outputs.collect::<Result<Vec<_>>>()?, -1)?)
    }

    /// The gradients of all leaves, of a weighted sum of the outputs.
    fn gradients(y: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
        let weights = Tensor::arange(y.numel() as i64, (Kind::Double, Device::Cpu)).sin();
        let loss = (y.to_kind(Kind::Double) * weights.view_as(y)).sum(Kind::Double);
        Ok(Tensor::f_run_backward(&[loss], leaves, false, false)?)
    }

    fn distance(actual: &Tensor, expected: &Tensor) -> f64 {
        let (actual, expected) = (actual.to_kind(Kind::Double), expected.to_kind(Kind::Double));
        ((&actual - &expected).norm() / expected.norm()).double_value(&[])
    }

    #[test]
    fn values_and_gradients_are_those_of_the_maps_one_by_one() -> Result<()> {
        for (kind, low, allowed) in [
            (Kind::Double, false, 1e-14),
            (Kind::Double, true, 1e-14), // which autocast leaves alone
            (Kind::Float, false, 1e-6),
            (Kind::Float, true, 1e-2), // 2^-8, of a product and of its operands
        ] {
            let mut vs = nn::VarStore::new(Device::Cpu);
            let maps = maps(&vs)?;
            vs.set_kind(kind);
            let x = Tensor::randn([2, 50, 6], (kind, Device::Cpu)).set_requires_grad(true);
            let parameters = vs.trainable_variables();
            let leaves: Vec<&Tensor> = [&x].into_iter().chain(&parameters).collect();
            let expected = one_by_one(&maps, &x)?;
            let ours = {
                let _autocast = low.then(Autocast::bf16);
                together(&maps, &x)?
            };
            let ours = ours.unwrap_or_else(|| panic!("trained maps of one kind lie side by side"));
            let is_low = low && kind == Kind::Float;
            assert_eq!(ours.kind(), if is_low { Kind::BFloat16 } else { kind });
            let pairs = gradients(&ours, &leaves)?.into_iter().zip(gradients(&expected, &leaves)?);
            for (ours, expected) in pairs {
                assert_eq!(ours.kind(), kind);
                let apart = distance(&ours, &expected);
                assert!(apart < allowed, "{kind:?} {low} {:?}: {apart:e}", expected.size());
            }
            assert!(distance(&ours, &expected) < allowed, "{kind:?} {low}");
        }
        Ok(())
    }

    #[test]
    fn what_wants_no_gradient_gets_none() -> Result<()> {
        let vs = nn::VarStore::new(Device::Cpu);
        let maps = maps(&vs)?;
        let parameters = vs.variables();
        let frozen = ["0.weight", "1.bias"];
        for name in frozen {
            let _ = parameters[name].set_requires_grad(false);
        }
        let x = Tensor::randn([3, 6], (Kind::Float, Device::Cpu));
        let Some(y) = together(&maps, &x)? else { panic!("they lie side by side") };
        y.sum(Kind::Float).f_backward()?;
        for (name, parameter) in &parameters {
            assert_eq!(parameter.grad().defined(), !frozen.contains(&name.as_str()), "{name}");
        }
        let rounded = maps[0].quantized(crate::WeightKind::Int8)?;
        assert!(side_by_side(&[Side { map: &rounded, fraction: 1.0 }], &x)?.is_none());
        Ok(())
    }
}
