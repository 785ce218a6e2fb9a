//! Memory for time: a part of the graph that keeps its inputs only and is computed again in the
//! backward pass.

use crate::autocast::Autocast;
use crate::autograd::{self, Function, Saved};
use crate::error::{NnError, Result};
use tch::{Kind, Tensor};

/// Runs `f` on `inputs` without keeping what lies between its inputs and its `N` outputs.
///
/// The backward pass runs `f` once more (gradient checkpointing; Chen et al., "Training deep nets
/// with sublinear memory cost", arXiv 1604.06174). If `f` gives the same numbers each time, values
/// and gradients are those of `f` itself, bit for bit; except that libtorch may add up the parts of a
/// gradient in another order where an input is used in several places.
///
/// Only `inputs` receive gradients: a tensor that `f` has captured is a constant to it, unless it is one of the
/// parameters of [`recompute_with`]. Autocast is in the backward pass what it was in the forward pass.
///
/// ```
/// use gateloop_nn::recompute;
/// use tch::{Device, Kind, Tensor};
///
/// let x = Tensor::arange(3, (Kind::Double, Device::Cpu)).set_requires_grad(true);
/// let [y] = recompute(|x| Ok([x[0].f_square()?.f_exp()?]), &[&x])?;
/// y.sum(Kind::Double).backward();
/// assert!(x.grad().allclose(&(&x * 2.0 * x.square().exp()), 1e-12, 0.0, false));
/// # Ok::<(), gateloop_nn::NnError>(())
/// ```
pub fn recompute<const N: usize, F>(f: F, inputs: &[&Tensor]) -> Result<[Tensor; N]>
where
    F: Fn(&[Tensor]) -> Result<[Tensor; N]> + Send + Sync + 'static,
{
    recompute_with(f, inputs, &[])
}

/// [`recompute`] of an `f` that has captured `parameters`, which receive their gradients, too. `f` is still given
/// `inputs` alone.
pub fn recompute_with<const N: usize, F>(
    f: F,
    inputs: &[&Tensor],
    parameters: &[&Tensor],
) -> Result<[Tensor; N]>
where
    F: Fn(&[Tensor]) -> Result<[Tensor; N]> + Send + Sync + 'static,
{
    let function = Recomputed { f, inputs: inputs.len(), autocast: Autocast::is_on() };
    let operands: Vec<&Tensor> = inputs.iter().chain(parameters).copied().collect();
    let outputs = autograd::apply(function, &operands)?;
    outputs.try_into().map_err(|outputs: Vec<Tensor>| NnError::Function {
        message: format!("{} outputs came back instead of {N}", outputs.len()),
    })
}

/// N outputs, known from the type of F.
struct Recomputed<const N: usize, F> {
    f: F,
    /// How many of what was given are the function's inputs; parameters follow.
    inputs: usize,
    autocast: bool,
}

impl<const N: usize, F> Function for Recomputed<N, F>
where
    F: Fn(&[Tensor]) -> Result<[Tensor; N]> + Send + Sync + 'static,
{
    const OUTPUTS: usize = N;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        for tensor in inputs {
            saved.push(tensor);
        }
        Ok((self.f)(&inputs[..self.inputs])?.into())
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (inputs, parameters) = saved.split_at(self.inputs);
        let leaves = inputs
            .iter()
            .zip(needs_grad)
            .map(|(input, &needs)| Ok(input.f_detach()?.f_set_requires_grad(needs)?))
            .collect::<Result<Vec<Tensor>>>()?;
        let scalar = tch::with_grad(|| {
            let _autocast = self.autocast.then(Autocast::bf16);
            contract(&(self.f)(&leaves)?, grad_outputs)
        })?;
        let wanted: Vec<&Tensor> = leaves
            .iter()
            .chain(parameters)
            .zip(needs_grad)
            .filter_map(|(tensor, needs)| needs.then_some(tensor))
            .collect();
        let Some(scalar) = scalar.filter(Tensor::requires_grad) else {
            return Ok(needs_grad.iter().map(|_| None).collect());
        };
        let mut grads = Tensor::f_run_backward(&[scalar], &wanted, false, false)?.into_iter();
        let next = |needs: &bool| {
            let grad = if *needs { grads.next() } else { None };
            grad.filter(Tensor::defined)
        };
        Ok(needs_grad.iter().map(next).collect())
    }
}

/// The real number whose gradient with respect to each output is what was given: Re(sum conj(g) y).
fn contract(outputs: &[Tensor], grads: &[Option<Tensor>]) -> Result<Option<Tensor>> {
    let mut total: Option<Tensor> = None;
    for (output, grad) in outputs.iter().zip(grads) {
        let Some(grad) = grad else { continue };
        if !output.requires_grad() {
            continue;
        }
        let mut product = grad.f_conj()?.f_mul(output)?;
        if product.is_complex() {
            product = product.f_real()?;
        }
        // One kind for all: outputs of a low precision stand beside states of a high one.
        let part = product.f_sum(Kind::Double)?;
        total = Some(match total {
            Some(total) => total.f_add(&part)?,
            None => part,
        });
    }
    Ok(total)
}
