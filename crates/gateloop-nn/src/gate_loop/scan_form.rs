//! The scan form, for heads of width 1: the state of a head is one complex number, and the whole
//! recurrence is a diagonal scan with the heads as channels.

use super::operator::{Dims, Operands};
use crate::error::Result;
use crate::scan::scan;
use tch::Tensor;

pub(super) fn run(
    operands: &Operands<'_>,
    state: Option<&Tensor>,
    dims: &Dims,
) -> Result<(Tensor, Tensor)> {
    let kv = operands.k.f_mul(operands.v)?;
    let kv = Tensor::f_complex(&kv, &kv.f_zeros_like()?)?;
    let h0 = state.map(|s| s.f_reshape([dims.batch, dims.heads])).transpose()?;
    let (h, h_last) = scan(&operands.transition.decay()?, &kv, h0.as_ref())?;
    let y = operands.q.f_mul(&h.f_real()?)?;
    Ok((y, h_last.f_view(dims.state())?))
}
