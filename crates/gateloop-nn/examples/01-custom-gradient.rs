//! Lesson 1: an operation with a gradient of its own.
//!
//! `cargo run -p gateloop-nn --example 01-custom-gradient`
//!
//! Rounding has a derivative of zero almost everywhere, so nothing before it would ever learn. The
//! straight-through estimator lets the gradient pass as if the rounding were not there. tch has no
//! place for such a rule; [`Function`] is one.

use gateloop_nn::Result;
use gateloop_nn::autograd::{self, Function, Saved};
use tch::{Kind, Tensor};

/// y = round(x) going forward, the identity going backward.
struct StraightThroughRound;

impl Function for StraightThroughRound {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], _saved: &mut Saved) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].f_round()?])
    }

    fn backward(
        &self,
        _saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![grad_outputs[0].as_ref().map(Tensor::shallow_clone)])
    }
}

/// The gradient of sum((y - 1)^2) with respect to the x behind y.
fn gradient(round: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Vec<f64>> {
    let x = Tensor::from_slice(&[0.2, 0.7, 1.4, 2.6]).set_requires_grad(true);
    (round(&x)? - 1.0).square().sum(Kind::Double).f_backward()?;
    Ok(Vec::try_from(x.grad())?)
}

fn main() -> Result<()> {
    let plain = gradient(|x| Ok(x.round()))?;
    let custom = gradient(|x| Ok(autograd::apply(StraightThroughRound, &[x])?.remove(0)))?;
    println!("x                                   [0.2, 0.7, 1.4, 2.6]");
    println!("gradient through round              {plain:?}");
    println!("gradient through the custom round   {custom:?}");
    Ok(())
}
