//! The recurrent form: the definition, token by token.

use super::operator::{Dims, Operands, state_or_zeros};
use crate::error::Result;
use tch::{Kind, Tensor};

pub(super) fn run(
    operands: &Operands<'_>,
    state: Option<&Tensor>,
    dims: &Dims,
) -> Result<(Tensor, Tensor)> {
    let decay = operands.transition.decay()?; // [B, T, H]
    let mut s = state_or_zeros(state, operands.q, dims)?;
    let mut outputs = Vec::with_capacity(dims.seqlen as usize);
    for t in 0..dims.seqlen {
        let heads = |x: &Tensor| x.f_select(1, t)?.f_view([dims.batch, dims.heads, dims.head_dim]);
        let (q, k, v) = (heads(operands.q)?, heads(operands.k)?, heads(operands.v)?);
        let a = decay.f_select(1, t)?.f_unsqueeze(-1)?.f_unsqueeze(-1)?;
        let kv = k.f_unsqueeze(-1)?.f_mul(&v.f_unsqueeze(-2)?)?; // [B, H, d, d]
        s = a.f_mul(&s)?.f_add(&kv)?;
        // Not a matrix product: of matrices this small libtorch makes a call for all its threads.
        let y = q.f_unsqueeze(-1)?.f_mul(&s.f_real()?)?;
        let y = y.f_sum_dim_intlist(-2i64, false, None::<Kind>)?; // [B, H, d]
        outputs.push(y.f_reshape([dims.batch, dims.heads * dims.head_dim])?);
    }
    Ok((Tensor::f_stack(&outputs, 1)?, s))
}
