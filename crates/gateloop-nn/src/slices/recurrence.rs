//! What a differentiable recurrence has to say about itself, so that it can be run slice by slice.

use crate::autograd::{Function, Saved};
use crate::error::{NnError, Result};
use tch::{Device, Kind, Tensor};

/// A function whose last input may be the state before its first token, and whose last output is the state after its last
/// one; its `saved` begins with its first input.
pub(crate) trait Recurrence: Function + Sized {
    /// How many inputs there are without the state.
    fn operands(&self) -> usize;

    /// Which way it runs, and where sequences begin inside.
    fn pass(&self) -> Pass<'_>;

    /// What a state is, given the first input.
    fn state(&self, first: &Tensor) -> Result<StateKind>;

    /// The width of the product of decays, the state's or 1, given the inputs.
    fn product_width(&self, operands: &[Tensor]) -> i64;

    /// What the inputs do to a state that enters. Where a sequence begins inside, the product is not looked at.
    fn summary(&self, operands: &[Tensor]) -> Result<Summary>;

    /// The last state from nothing, by the whole function.
    fn last_state(&self, operands: &[Tensor]) -> Result<Tensor> {
        self.forward(operands, &mut Saved::nothing())?.pop().ok_or_else(too_few)
    }

    /// The gradient of the state that enters, [B, C], where one was given.
    fn entry_gradient(&self, saved: &[Tensor], grad_outputs: &[Option<Tensor>]) -> Result<Tensor> {
        entry_gradient_of_adjoint(self, saved, grad_outputs)
    }
}

/// [`Recurrence::entry_gradient`] by the whole adjoint.
pub(crate) fn entry_gradient_of_adjoint<F: Recurrence>(
    function: &F,
    saved: &[Tensor],
    grad_outputs: &[Option<Tensor>],
) -> Result<Tensor> {
    let needs_grad = vec![true; function.operands() + 1];
    let grads = function.backward(saved, grad_outputs, &needs_grad)?;
    grads.into_iter().next_back().flatten().ok_or_else(too_few)
}

pub(super) fn too_few() -> NnError {
    NnError::Function { message: "a recurrence returned no state".into() }
}

/// How time is passed through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pass<'a> {
    /// Whether time runs from the last token to the first.
    pub(crate) reverse: bool,
    /// Where sequences begin inside, [B, T] in row-major order.
    pub(crate) starts: Option<&'a [bool]>,
}

/// What a state is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateKind {
    /// [B, C]
    pub(crate) dims: [i64; 2],
    pub(crate) kind: Kind,
    pub(crate) device: Device,
}

impl StateKind {
    /// Zeros [B, `width`].
    pub(super) fn zeros(&self, width: i64) -> Result<Tensor> {
        Ok(Tensor::f_zeros([self.dims[0], width], (self.kind, self.device))?)
    }
}

/// The map `h -> product h + last` of a slice.
#[derive(Debug)]
pub(crate) struct Summary {
    /// [B, C], or [B, 1] if it is the same for all channels.
    pub(crate) product: Tensor,
    /// [B, C]
    pub(crate) last: Tensor,
}

/// The product of decays over time from their logarithms and phases, without phases real; the sums are taken in double
/// precision, as those of long slices would lose the angle in single.
///
/// # Shapes
/// `log_magnitude`, `phase`: [B, T, C]; returns [B, C] of the kind `kind`
pub(crate) fn product_of_logarithms(
    log_magnitude: &Tensor,
    phase: Option<&Tensor>,
    kind: Kind,
) -> Result<Tensor> {
    let sum = |x: &Tensor| x.f_sum_dim_intlist(1i64, false, Kind::Double);
    let modulus = sum(log_magnitude)?.f_exp()?;
    let product = match phase {
        Some(phase) => Tensor::f_polar(&modulus, &sum(phase)?)?,
        None => modulus,
    };
    Ok(product.f_to_kind(kind)?)
}
