//! e^{x + i p} of a log magnitude and a phase, with a gradient that stays finite.

use crate::autograd::{self, Function, Saved};
use crate::error::Result;
use tch::Tensor;

/// e^{`log_magnitude` + i `phase`}, complex, of the shape of both.
///
/// libtorch's own gradient of `polar` divides by the modulus and may be NaN where that is subnormal:
/// in f32, after a chunk of 127 decays of one half. This one is a product with the result.
pub(super) fn exp_polar(log_magnitude: &Tensor, phase: &Tensor) -> Result<Tensor> {
    Ok(autograd::apply(ExpPolar, &[log_magnitude, phase])?.remove(0))
}

struct ExpPolar;

impl Function for ExpPolar {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let a = Tensor::f_polar(&inputs[0].f_exp()?, &inputs[1])?;
        saved.push(&a);
        Ok(vec![a])
    }

    /// da/dx = a and da/dp = i a, so dx + i dp = conj(a) da.
    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(da) = &grad_outputs[0] else { return Ok(vec![None, None]) };
        let both = saved[0].f_conj()?.f_mul(da)?;
        Ok(vec![Some(both.f_real()?), Some(both.f_imag()?)])
    }
}
