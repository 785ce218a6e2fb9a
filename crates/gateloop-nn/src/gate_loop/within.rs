//! What the tokens of a chunk say to each other.

use super::between::{Sums, weigh, weigh_adjoint};
use crate::autograd::{self, Function, Saved};
use crate::error::Result;
use tch::Tensor;

/// `y[i] = sum_{j<=i} e^{g[i]-g[j]} cos(p[i]-p[j]) (q[i].k[j]) v[j]`.
///
/// # Shapes
/// - `q`, `k`, `v`: [.., C, d]
/// - returns y [.., C, d]
pub(super) fn within_chunk([q, k, v]: [&Tensor; 3], sums: Sums<'_>) -> Result<Tensor> {
    Ok(autograd::apply(WithinChunk, &[q, k, v, sums.log_a, sums.phase])?.remove(0))
}

/// Inputs q, k, v, g and p of [`within_chunk`]. They are all that is kept: the scores, C numbers a token, are multiplied
/// once more in the backward pass.
struct WithinChunk;

impl Function for WithinChunk {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        for tensor in inputs {
            saved.push(tensor);
        }
        let [q, k, v, log_a, phase] = inputs else { unreachable!("five inputs are given") };
        let scores = weigh(&q.f_matmul(&k.f_transpose(-2, -1)?)?, Sums { log_a, phase })?;
        Ok(vec![scores.f_matmul(v)?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None, None, None, None]) };
        let [q, k, v, log_a, phase] = saved else { unreachable!("five tensors are kept") };
        let scores = q.f_matmul(&k.f_transpose(-2, -1)?)?;
        let dweighed = dy.f_matmul(&v.f_transpose(-2, -1)?)?;
        let pairs = weigh_adjoint(&scores, &dweighed, Sums { log_a, phase })?;
        let dv = pairs.weighed.f_transpose(-2, -1)?.f_matmul(dy)?;
        let dq = pairs.dscores.f_matmul(k)?;
        let dk = pairs.dscores.f_transpose(-2, -1)?.f_matmul(q)?;
        Ok([dq, dk, dv, pairs.dlog_a, pairs.dphase].map(Some).into())
    }
}
