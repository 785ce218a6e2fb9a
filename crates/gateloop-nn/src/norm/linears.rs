//! Affine maps of a normed tensor that keep the tensor and not its norm: what is normed is computed again in
//! the backward pass. A layer keeps D numbers a token less.

use super::RmsNormKind;
use super::rms::RmsNormFunction;
use crate::autograd::{self, Function, Saved};
use crate::error::Result;
use crate::lean::{applies, rows, with_width};
use crate::linear::Linear;
use tch::{Kind, Tensor};

/// W_i norm(x) + b_i for one to three maps; `None` where nothing is to be saved or the maps have no
/// weights to train.
pub(super) fn norm_linears(
    kind: RmsNormKind,
    gamma: &Tensor,
    maps: &[&Linear],
    x: &Tensor,
) -> Result<Option<Vec<Tensor>>> {
    if !applies(x) {
        return Ok(None);
    }
    let mut inputs = vec![x, gamma];
    let Some(weights) = maps.iter().map(|map| map.trained_weight()).collect::<Option<Vec<_>>>()
    else {
        return Ok(None);
    };
    inputs.extend(weights);
    inputs.extend(maps.iter().filter_map(|map| map.bias()));
    let norm = RmsNormFunction { kind };
    let has_bias = |i: usize| maps.get(i).is_some_and(|map| map.bias().is_some());
    Ok(Some(match maps.len() {
        1 => autograd::apply(NormLinears { norm, has_bias: [has_bias(0)] }, &inputs)?,
        2 => autograd::apply(NormLinears { norm, has_bias: [0, 1].map(has_bias) }, &inputs)?,
        3 => autograd::apply(NormLinears { norm, has_bias: [0, 1, 2].map(has_bias) }, &inputs)?,
        _ => return Ok(None),
    }))
}

/// Inputs x [.., D], gamma `[D]`, N weights [out, D], and the bias `[out]` of each map that has one.
struct NormLinears<const N: usize> {
    norm: RmsNormFunction,
    has_bias: [bool; N],
}

/// x, gamma and the lengths of x's rows.
const NORM_SAVED: usize = 3;

impl<const N: usize> Function for NormLinears<N> {
    const OUTPUTS: usize = N;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let (weights, biases) = inputs[2..].split_at(N);
        let (x, options) = (&inputs[0], (inputs[0].kind(), inputs[0].device()));
        // Before what is normed, which goes at the end of this function and would leave a hole before what stays.
        let room = |weight: &Tensor| Tensor::f_empty(with_width(x, weight.size()[0]), options);
        let outputs = weights.iter().map(room).collect::<std::result::Result<Vec<_>, _>>()?;
        let normed = rows(&self.norm.forward(&inputs[..2], saved)?.remove(0))?;
        for weight in weights {
            saved.push(weight);
        }
        let mut biases = biases.iter();
        for ((y, weight), &has_bias) in outputs.iter().zip(weights).zip(&self.has_bias) {
            let bias = has_bias.then(|| biases.next()).flatten();
            let _ = normed.f_linear_out(&rows(y)?, weight, bias)?;
        }
        Ok(outputs)
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, weights) = (&saved[0], &saved[NORM_SAVED..]);
        let (needs_norm, needs_maps) = needs_grad.split_at(2);
        let dys = grad_outputs.iter().map(|dy| dy.as_ref().map(rows).transpose());
        let dys = dys.collect::<Result<Vec<_>>>()?;

        let mut grads: Vec<Option<Tensor>> = Vec::with_capacity(needs_grad.len());
        let dnormed = if needs_norm.contains(&true) { sum_back(&dys, weights)? } else { None };
        match dnormed {
            Some(dnormed) => {
                let norm = self.norm.gradients(&saved[..NORM_SAVED], &dnormed.f_view_as(x)?)?;
                grads.extend(norm.map(Some));
            }
            None => grads.extend([None, None]),
        }

        let normed = rows(&self.norm.normed([&saved[0], &saved[1], &saved[2]])?)?;
        for (dy, &needs) in dys.iter().zip(needs_maps) {
            grads.push(match dy {
                Some(dy) if needs => Some(dy.f_transpose(0, 1)?.f_mm(&normed)?),
                _ => None,
            });
        }
        let with_bias = dys.iter().zip(&self.has_bias).filter(|(_, has_bias)| **has_bias);
        for ((dy, _), &needs) in with_bias.zip(&needs_maps[N..]) {
            let sum = |dy: &Tensor| dy.f_sum_dim_intlist(0i64, false, None::<Kind>);
            grads.push(dy.as_ref().filter(|_| needs).map(sum).transpose()?);
        }
        Ok(grads)
    }
}

/// The sum of dy_i W_i, the last one first, as libtorch adds gradients up.
fn sum_back(dys: &[Option<Tensor>], weights: &[Tensor]) -> Result<Option<Tensor>> {
    let mut sum: Option<Tensor> = None;
    for (dy, weight) in dys.iter().zip(weights).rev() {
        let Some(dy) = dy else { continue };
        sum = Some(match sum {
            Some(mut sum) => sum.f_addmm_(dy, weight)?,
            None => dy.f_mm(weight)?,
        });
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use crate::error::Result;
    use crate::linear::{Bias, Linear, WeightKind};
    use crate::norm::{RmsNorm, RmsNormKind};
    use tch::{Device, Kind, Tensor, nn};

    /// The gradients of all leaves, of a weighted sum of the outputs.
    fn gradients(outputs: &[Tensor], leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
        let weighted = |y: &Tensor| {
            let weights = Tensor::arange(y.numel() as i64, (Kind::Double, Device::Cpu));
            (y * weights.view_as(y).sin()).sum(Kind::Double)
        };
        let sum: Tensor = outputs.iter().map(weighted).sum();
        Ok(Tensor::f_run_backward(&[sum], leaves, false, false)?)
    }

    #[test]
    fn gradients_are_those_of_the_norm_and_the_maps_one_by_one() -> Result<()> {
        let options = (Kind::Double, Device::Cpu);
        for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
            for biases in [&[Bias::With][..], &[Bias::Without, Bias::With, Bias::Without]] {
                let mut vs = nn::VarStore::new(Device::Cpu);
                let root = vs.root();
                let norm = RmsNorm::of_kind(&(&root / "norm"), 5, kind)?;
                let maps = biases.iter().enumerate();
                let maps = maps.map(|(i, &bias)| Linear::new(&(&root / i), 5, 3 + i as i64, bias));
                let maps = maps.collect::<Result<Vec<_>>>()?;
                let maps: Vec<&Linear> = maps.iter().collect();
                vs.double();
                let x = Tensor::randn([2, 3, 5], options).set_requires_grad(true);
                let parameters = vs.trainable_variables();
                let leaves: Vec<&Tensor> = [&x].into_iter().chain(&parameters).collect();

                let ours = norm.then(&maps, &x)?;
                let normed = norm.forward(&x)?;
                let theirs = maps.iter().map(|map| map.forward(&normed));
                let theirs = theirs.collect::<Result<Vec<_>>>()?;
                let pairs = gradients(&ours, &leaves)?.into_iter().chain(ours);
                for (ours, theirs) in
                    pairs.zip(gradients(&theirs, &leaves)?.into_iter().chain(theirs))
                {
                    assert!(ours.allclose(&theirs, 1e-12, 1e-14, false), "{ours:?} {theirs:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn a_norm_before_rounded_weights_has_its_gradient() -> Result<()> {
        let vs = nn::VarStore::new(Device::Cpu);
        let root = vs.root();
        let norm = RmsNorm::new(&(&root / "norm"), 4)?;
        let map = Linear::new(&(&root / 0), 4, 2, Bias::Without)?.quantized(WeightKind::Int8)?;
        let x = Tensor::randn([3, 4], (Kind::Float, Device::Cpu));
        let y = norm.then(&[&map], &x)?.remove(0);
        y.square().sum(Kind::Float).f_backward()?;
        let gamma = &vs.variables()["norm.gamma"];
        assert!(gamma.grad().abs().min().double_value(&[]) > 0.0);
        let alone = tch::no_grad(|| norm.then(&[&map], &x))?.remove(0);
        assert!(alone.allclose(&y, 1e-5, 1e-6, false));
        Ok(())
    }

    #[test]
    fn outputs_that_nothing_depends_on_have_no_part_in_it() -> Result<()> {
        let vs = nn::VarStore::new(Device::Cpu);
        let root = vs.root();
        let norm = RmsNorm::new(&(&root / "norm"), 4)?;
        let (first, second) = (
            Linear::new(&(&root / 0), 4, 2, Bias::With)?,
            Linear::new(&(&root / 1), 4, 2, Bias::With)?,
        );
        let x = Tensor::randn([3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = norm.then(&[&first, &second], &x)?;
        y[1].sum(Kind::Float).f_backward()?;
        let alone = second.forward(&norm.forward(&x)?)?;
        let expected = Tensor::f_run_backward(&[alone.sum(Kind::Float)], &[&x], false, false)?;
        assert!(x.grad().allclose(&expected[0], 1e-6, 1e-6, false));
        assert!(!vs.variables()["0.weight"].grad().defined());
        Ok(())
    }
}
