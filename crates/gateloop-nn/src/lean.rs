//! Products of an activated tensor that keep what goes into the activation and not what comes out: that is
//! computed again in the backward pass, for a few operations an element.
//!
//! A feed-forward layer keeps 4 D numbers a token less, a gated projection D.

use crate::autocast::Autocast;
use crate::autograd::{self, Function, Saved, gradients_are_recorded, records_gradient};
use crate::cuda::silu_gated;
use crate::device::on_cpu;
use crate::elements::stored;
use crate::error::{NnError, Result};
use crate::feed_forward::Gelu;
use crate::linear::{Linear, forward_few};
use crate::pointwise::Before;
use tch::{Kind, Tensor};

/// Whether keeping less pays: a gradient is to be recorded, on a CPU. Under autocast libtorch's operations run in another
/// precision than their inputs, which it has to decide itself.
pub(crate) fn applies(x: &Tensor) -> bool {
    on_cpu(x)
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
    match forward_few(&[map], h, Before::Gelu(gelu))? {
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
    if let Some(gated) = silu_gated(y, g)? {
        return map.forward(&gated);
    }
    let gates = stored(g).filter(|_| g.size() == y.size() && !records_gradient(g));
    let few = gates.map(|gates| forward_few(&[map], y, Before::Swish(gates))).transpose()?;
    match few.flatten() {
        Some(mut y) => Ok(y.remove(0)),
        None => map.forward(&g.f_silu()?.f_mul(y)?),
    }
}

/// [.., D] as a matrix of rows.
pub(crate) fn rows(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_reshape([-1, x.size().last().copied().unwrap_or(1)])?)
}

/// The sizes of x [.., D] with another width.
pub(crate) fn with_width(x: &Tensor, width: i64) -> Vec<i64> {
    let mut dims = x.size();
    if let Some(last) = dims.last_mut() {
        *last = width;
    }
    dims
}

/// Inputs h [.., in], W [out, in] and b `[out]`.
struct GeluLinear {
    approximation: &'static str,
}

/// Rows whose activations are there at a time: enough for the products, and few enough for a cache.
const BLOCK_ROWS: i64 = 1024;

/// The blocks of so many rows, as (first, number).
fn blocks(rows: i64) -> impl Iterator<Item = (i64, i64)> {
    (0..rows).step_by(BLOCK_ROWS as usize).map(move |at| (at, BLOCK_ROWS.min(rows - at)))
}

impl GeluLinear {
    /// W gelu(h) + b for rows h.
    fn value(&self, [h, weight, bias]: [&Tensor; 3]) -> Result<Tensor> {
        let (n, out) = (h.size()[0], weight.size()[0]);
        let y = Tensor::f_empty([n, out], (h.kind(), h.device()))?;
        for (at, len) in blocks(n) {
            let activated = h.f_narrow(0, at, len)?.f_gelu(self.approximation)?;
            let _ = activated.f_linear_out(&y.f_narrow(0, at, len)?, weight, Some(bias))?;
        }
        Ok(y)
    }

    /// The gradients of h and W, as far as they are needed, for rows of h and of the gradient of the value.
    fn gradients(
        &self,
        [h, weight]: [&Tensor; 2],
        dy: &Tensor,
        [needs_h, needs_weight]: [bool; 2],
    ) -> Result<[Option<Tensor>; 2]> {
        let dh = needs_h.then(|| Tensor::f_empty(h.size(), (h.kind(), h.device()))).transpose()?;
        let mut dweight: Option<Tensor> = None;
        for (at, len) in blocks(h.size()[0]) {
            let [h, dy] = [h.f_narrow(0, at, len)?, dy.f_narrow(0, at, len)?];
            if needs_weight {
                let (dy, activated) = (dy.f_transpose(0, 1)?, h.f_gelu(self.approximation)?);
                dweight = Some(match dweight {
                    Some(mut sum) => sum.f_addmm_(&dy, &activated)?,
                    None => dy.f_mm(&activated)?,
                });
            }
            if let Some(dh) = &dh {
                // In its place, for here a training step takes the most memory.
                let d = dh.f_narrow(0, at, len)?;
                let _ = dy.f_mm_out(&d, weight)?;
                let _ = h.f_gelu_backward_grad_input(&d, &d, self.approximation)?;
            }
        }
        Ok([dh, dweight])
    }
}

impl Function for GeluLinear {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let [h, weight, bias] = inputs else { unreachable!("three inputs are given") };
        saved.push(h);
        saved.push(weight);
        let y = self.value([&rows(h)?, weight, bias])?;
        Ok(vec![y.f_view(&with_width(h, weight.size()[0])[..])?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None, None]) };
        let (h, weight) = (&saved[0], &saved[1]);
        let dy = rows(dy)?;
        let needs = [needs_grad[0], needs_grad[1]];
        let [dh, dweight] = self.gradients([&rows(h)?, weight], &dy, needs)?;
        let dh = dh.map(|dh| dh.f_view_as(h)).transpose()?;
        let dbias = needs_grad[2].then(|| dy.f_sum_dim_intlist(0i64, false, None::<Kind>));
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
        // More rows than a block has.
        let (y, g) = (leaf(&[3, 700, 5]), leaf(&[3, 700, 5]));
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
