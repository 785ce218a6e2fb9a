//! The fused operator with what follows it in a gated layer: what it reads out is computed again in the backward pass
//! rather than kept. A layer keeps C numbers a token less.

use super::{FusedFunction, Kept, Options, shape};
use crate::autograd::{self, Function, Saved};
use crate::error::{NnError, Result};
use crate::lean::{SwishLinear, applies};
use crate::linear::Linear;
use tch::Tensor;

/// W (y silu(g)) of the y of [`gate_loop`](super::gate_loop), from a state of zero, and the last state; `None` where
/// nothing is to be saved or `map` has no weight to train, or a bias.
///
/// # Shapes
/// - `qkv`: [B, T, 3 C], q, k and v side by side; `z`: [B, T, 2 C], pairs; `g`: [B, T, C]
/// - returns [B, T, out] and the last state, complex [B, C]
pub(crate) fn gated_gate_loop(
    [qkv, z, g]: [&Tensor; 3],
    map: &Linear,
    options: Options,
) -> Result<Option<(Tensor, Tensor)>> {
    let Some(weight) = map.trained_weight().filter(|_| map.bias().is_none() && applies(qkv)) else {
        return Ok(None);
    };
    let operator = FusedFunction { shape: shape(qkv)?, options, is_complex: true };
    let outputs = autograd::apply(Gated { operator }, &[qkv, z, g, weight])?;
    let [y, last] = outputs.try_into().map_err(|outputs: Vec<Tensor>| NnError::Function {
        message: format!("{} outputs came back instead of two", outputs.len()),
    })?;
    Ok(Some((y, last)))
}

/// Inputs qkv, z, g [B, T, C] and W [out, C].
struct Gated {
    operator: FusedFunction,
}

/// Of the inputs, those of the operator.
const PROJECTIONS: usize = 2;

impl Function for Gated {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let ([y, last], checkpoints) =
            self.operator.run(&inputs[..PROJECTIONS], saved.is_wanted())?;
        for tensor in inputs.iter().chain(&checkpoints) {
            saved.push(tensor);
        }
        let (g, weight) = (&inputs[2], &inputs[3]);
        Ok(vec![SwishLinear::value([&y, g, weight])?, last])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (inputs, rest) = saved.split_at(PROJECTIONS);
        let (needs_projections, needs) = needs_grad.split_at(PROJECTIONS);
        let needs_y = needs_projections.contains(&true);
        let [dy, dg, dweight] = match &grad_outputs[0] {
            Some(d) => {
                let ([y, _], _) = self.operator.run(inputs, false)?;
                let needs = [needs_y, needs[0], needs[1]];
                SwishLinear::gradients([&y, &rest[0], &rest[1]], d, needs)?
            }
            None => [None, None, None],
        };
        let last = grad_outputs[1].as_ref();
        let mut grads = if needs_y && (dy.is_some() || last.is_some()) {
            let kept = Kept { inputs, checkpoints: &rest[2], state: None };
            self.operator.gradients(&kept, dy.as_ref(), last)?
        } else {
            vec![None, None]
        };
        grads.extend([dg, dweight]);
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate_loop;
    use super::*;
    use crate::lean::swish_linear;
    use crate::linear::Bias;
    use gateloop_scan::gate_loop::GateMode;
    use tch::{Device, Kind, nn};

    #[test]
    fn values_and_gradients_are_those_of_the_two_one_by_one() -> Result<()> {
        let double = (Kind::Double, Device::Cpu);
        let leaf = |width: i64| Tensor::randn([2, 70, width], double).set_requires_grad(true);
        let (qkv, z, g) = (leaf(15), leaf(10), leaf(5));
        let mut vs = nn::VarStore::new(Device::Cpu);
        let map = Linear::new(&vs.root(), 5, 4, Bias::Without)?;
        vs.double();
        let parameters = vs.variables();
        let weight = &parameters["weight"];
        let starts: std::sync::Arc<[bool]> = (0..140).map(|i| i % 70 == 33).collect();
        for (mode, segment_starts, reverse) in [
            (GateMode::Complex, None, false),
            (GateMode::Complex, Some(starts), true),
            (GateMode::Real, None, false),
            (GateMode::Identity, None, false),
        ] {
            let options = Options { mode, reverse, segment_starts, ranks: None };
            let ours = gated_gate_loop([&qkv, &z, &g], &map, options.clone())?;
            let Some(ours) = ours else { panic!("a weight is trained here") };
            let (y, last) = gate_loop(&qkv, &z, None, options)?;
            let theirs = (swish_linear(&y, &g, &map)?, last);
            // Of the output, of the state, and of both; and leaves that are wanted alone.
            for (of_y, of_last) in [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0)] {
                for leaves in [&[&qkv, &z, &g, weight][..], &[&g], &[&qkv], &[weight]] {
                    let gradients = |(y, last): &(Tensor, Tensor)| {
                        let weights = Tensor::arange(y.numel() as i64, double).view_as(y).sin();
                        let sum = (y * weights).sum(Kind::Double) * of_y
                            + last.view_as_real().square().sum(Kind::Double) * of_last;
                        Tensor::f_run_backward(&[sum], leaves, true, false)
                    };
                    let (ours, theirs) = (gradients(&ours)?, gradients(&theirs)?);
                    for (ours, theirs) in ours.iter().zip(&theirs) {
                        assert_eq!(ours.defined(), theirs.defined());
                        let same = !ours.defined() || ours.allclose(theirs, 1e-12, 1e-14, false);
                        assert!(same, "{mode:?}: {ours:?} {theirs:?}");
                    }
                }
            }
            assert!(ours.0.equal(&theirs.0) && ours.1.equal(&theirs.1));
        }
        assert!(
            tch::no_grad(|| {
                let options = Options {
                    mode: GateMode::Complex,
                    reverse: false,
                    segment_starts: None,
                    ranks: None,
                };
                gated_gate_loop([&qkv, &z, &g], &map, options)
            })?
            .is_none()
        );
        Ok(())
    }
}
