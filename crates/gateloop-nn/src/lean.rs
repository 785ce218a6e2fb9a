//! Products of an activated tensor that keep what goes into the activation and not what comes out: that is
//! computed again in the backward pass, for a few operations an element.
//!
//! A feed-forward layer keeps 4 D numbers a token less, a gated projection D.

use crate::autocast::Autocast;
use crate::autograd::{self, Function, Saved, gradients_are_recorded, records_gradient};
use crate::elements::stored;
use crate::error::{NnError, Result};
use crate::feed_forward::Gelu;
use crate::linear::{Linear, forward_few};
use crate::pointwise;
use tch::{Device, Kind, Tensor};

/// Whether keeping less pays: a gradient is to be recorded, on a CPU. Under autocast libtorch's operations run in another
/// precision than their inputs, which it has to decide itself.
pub(crate) fn applies(x: &Tensor) -> bool {
    x.device() == Device::Cpu
        && matches!(x.kind(), Kind::Float | Kind::Double)
        && gradients_are_recorded()
        && !Autocast::is_on()
}

/// W gelu(h) + b.
///
/// # Shapes
/// - `h`: [.., in]; returns [.., out]
pub(crate) fn gelu_linear(h: &Tensor, gelu: Gelu, map: &Linear) -> Result<Tensor> {
    let approximation = gelu.approximation();
    match (map.trained_weight(), map.bias()) {
        (Some(weight), Some(bias)) if applies(h) => {
            let function = GeluLinear { approximation };
            return Ok(autograd::apply(function, &[h, weight, bias])?.remove(0));
        }
        _ => (),
    }
    match forward_few(&[map], h, |h| pointwise::gelu(h, gelu).into())? {
        Some(mut y) => Ok(y.remove(0)),
        None => map.forward(&h.f_gelu(approximation)?),
    }
}

/// W (y silu(g)), the product of y and silu(g) taken element by element.
///
/// # Shapes
/// - `y`, `g`: [.., in]; returns [.., out]
pub(crate) fn swish_linear(y: &Tensor, g: &Tensor, map: &Linear) -> Result<Tensor> {
    match (map.trained_weight(), map.bias()) {
        (Some(weight), None) if applies(y) => {
            return Ok(autograd::apply(SwishLinear, &[y, g, weight])?.remove(0));
        }
        _ => (),
    }
    let gates = stored(g).filter(|_| g.size() == y.size() && !records_gradient(g));
    let few = gates
        .map(|gates| forward_few(&[map], y, |y| pointwise::swish(y, gates).into()))
        .transpose()?;
    match few.flatten() {
        Some(mut y) => Ok(y.remove(0)),
        None => map.forward(&g.f_silu()?.f_mul(y)?),
    }
}

/// [.., D] as a matrix of rows.
pub(crate) fn rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_reshape([-1, x.size().last().copied().unwrap_or(1)])?)
}

/// Inputs h [.., in], W [out, in] and b `[out]`.
struct GeluLinear {
    approximation: &'static str,
}

impl Function for GeluLinear {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        saved.push(&inputs[0]);
        saved.push(&inputs[1]);
        let activated = inputs[0].f_gelu(self.approximation)?;
        Ok(vec![activated.f_linear(&inputs[1], Some(&inputs[2]))?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None, None]) };
        let (h, weight) = (&saved[0], &saved[1]);
        let dy_rows = rows(dy)?;
        let dweight = if needs_grad[1] {
            let activated = rows(&h.f_gelu(self.approximation)?)?;
            Some(dy_rows.f_transpose(0, 1)?.f_mm(&activated)?)
        } else {
            None
        };
        let dbias = needs_grad[2].then(|| dy_rows.f_sum_dim_intlist(0i64, false, None::<Kind>));
        let dh = if needs_grad[0] {
            // In its place, for here a training step takes the most memory.
            let d = dy_rows.f_mm(weight)?.f_view_as(h)?;
            Some(h.f_gelu_backward_grad_input(&d, &d, self.approximation)?)
        } else {
            None
        };
        Ok(vec![dh, dweight, dbias.transpose()?])
    }
}

/// Inputs y and g [.., in] and W [out, in].
pub(crate) struct SwishLinear;

impl SwishLinear {
    /// W (y silu(g)).
    pub(crate) fn value([y, g, weight]: [&Tensor; 3]) -> Result<Tensor> {
        Ok(g.f_silu()?.f_mul_(y)?.f_linear(weight, None::<Tensor>)?)
    }

    /// The gradients of y, g and W, as far as they are needed, from that of the value.
    pub(crate) fn gradients(
        [y, g, weight]: [&Tensor; 3],
        d: &Tensor,
        [needs_y, needs_g, needs_weight]: [bool; 3],
    ) -> Result<[Option<Tensor>; 3]> {
        let d = rows(d)?;
        let silu = g.f_silu()?;
        let dweight = needs_weight
            .then(|| Ok::<_, NnError>(d.f_transpose(0, 1)?.f_mm(&rows(&silu.f_mul(y)?)?)?));
        let dweight = dweight.transpose()?;
        if !(needs_y || needs_g) {
            return Ok([None, None, dweight]);
        }
        let dgated = d.f_mm(weight)?.f_view_as(y)?;
        let dg = needs_g.then(|| g.f_silu_backward(&dgated.f_mul(y)?)).transpose()?;
        let dy = needs_y.then(|| dgated.f_mul(&silu)).transpose()?;
        Ok([dy, dg, dweight])
    }
}

impl Function for SwishLinear {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        for input in inputs {
            saved.push(input);
        }
        Ok(vec![Self::value([&inputs[0], &inputs[1], &inputs[2]])?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(d) = &grad_outputs[0] else { return Ok(vec![None, None, None]) };
        let needs = [needs_grad[0], needs_grad[1], needs_grad[2]];
        Ok(Self::gradients([&saved[0], &saved[1], &saved[2]], d, needs)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::{gelu_linear, swish_linear};
    use crate::error::Result;
    use crate::feed_forward::Gelu;
    use crate::linear::{Bias, Linear, WeightKind};
    use tch::{Device, Kind, Tensor, nn};

    /// The gradients of a weighted sum of `y`, one for each leaf.
    fn gradients(y: &Tensor, leaves: &[&Tensor]) -> Result<Vec<Tensor>> {
        let weights =
            Tensor::arange(y.numel() as i64, (Kind::Double, Device::Cpu)).view_as(y).sin();
        Ok(Tensor::f_run_backward(&[(y * weights).sum(Kind::Double)], leaves, false, false)?)
    }

    fn assert_same(ours: &[Tensor], libtorchs: &[Tensor]) {
        for (ours, libtorchs) in ours.iter().zip(libtorchs) {
            assert!(ours.allclose(libtorchs, 1e-12, 1e-14, false), "{ours:?} {libtorchs:?}");
        }
    }

    #[test]
    fn rounded_weights_pass_gradients_on() -> Result<()> {
        let leaf = || Tensor::randn([2, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (h, g) = (leaf(), leaf());
        let vs = nn::VarStore::new(Device::Cpu);
        let map = Linear::new(&vs.root(), 5, 4, Bias::Without)?.quantized(WeightKind::Bf16)?;
        let run = |h: &Tensor, g: &Tensor| {
            Ok::<_, crate::NnError>([gelu_linear(h, Gelu::Erf, &map)?, swish_linear(h, g, &map)?])
        };
        // One of the two inputs at a time, and neither.
        let [_, gated] = run(&h.detach(), &g)?;
        let [mapped, _] = run(&h, &g.detach())?;
        for (y, leaf) in [(&gated, &g), (&mapped, &h)] {
            let grads = Tensor::f_run_backward(&[y.sum(Kind::Float)], &[leaf], false, false)?;
            assert!(grads[0].abs().max().double_value(&[]) > 0.0);
        }
        let alone = run(&h.detach(), &g.detach())?;
        for (alone, recorded) in alone.iter().zip([mapped, gated]) {
            assert!(!alone.requires_grad() && alone.allclose(&recorded, 1e-5, 1e-6, false));
        }
        Ok(())
    }

    #[test]
    fn gradients_are_those_of_the_operations_one_by_one() -> Result<()> {
        let leaf = |shape: &[i64]| {
            Tensor::randn(shape, (Kind::Double, Device::Cpu)).set_requires_grad(true)
        };
        let (y, g) = (leaf(&[2, 3, 5]), leaf(&[2, 3, 5]));
        let mut vs = nn::VarStore::new(Device::Cpu);
        let map = Linear::new(&vs.root(), 5, 4, Bias::Without)?;
        vs.double();
        let parameters = vs.variables();
        let weight = &parameters["weight"];
        let ours = swish_linear(&y, &g, &map)?;
        let theirs = (&y * g.silu()).linear(weight, None::<Tensor>);
        let leaves = [&y, &g, weight];
        assert_same(&gradients(&ours, &leaves)?, &gradients(&theirs, &leaves)?);

        let mut vs = nn::VarStore::new(Device::Cpu);
        let map = Linear::new(&vs.root(), 5, 4, Bias::With)?;
        vs.double();
        let parameters = vs.variables();
        let (weight, bias) = (&parameters["weight"], &parameters["bias"]);
        for gelu in [Gelu::Erf, Gelu::Tanh] {
            let ours = gelu_linear(&y, gelu, &map)?;
            let theirs = y.gelu(gelu.approximation()).linear(weight, Some(bias));
            let leaves = [&y, weight, bias];
            assert_same(&gradients(&ours, &leaves)?, &gradients(&theirs, &leaves)?);
        }
        Ok(())
    }
}
