//! From scores to outputs.

use crate::error::Result;
use tch::{Kind, Tensor};

/// Softmax attention without more than q, k and v: libtorch's fused kernel, which keeps no scores.
///
/// # Shapes
/// `q`: [B, H, T, d], the last T of the m tokens of `k` and `v` [B, H, m, d]; returns [B, H, T, d]
pub(super) fn softmax_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let (queries, keys) = (q.size()[2], k.size()[2]);
    let from_start = queries == keys;
    let past = if from_start { None } else { Some(future(q, keys)?.f_logical_not()?) };
    Ok(Tensor::f_scaled_dot_product_attention(q, k, v, past, 0.0, from_start, None, false)?)
}

/// Outputs of scores [B, H, T, m] over v [B, H, m, d]; what lies in the future is left out.
pub(super) fn weigh(scores: &Tensor, v: &Tensor, softmax: bool) -> Result<Tensor> {
    let future = future(scores, scores.size()[3])?;
    let weights = if softmax {
        scores.f_masked_fill(&future, f64::NEG_INFINITY)?.f_softmax(-1, None::<Kind>)?
    } else {
        scores.f_masked_fill(&future, 0.0)?
    };
    Ok(weights.f_matmul(v)?)
}

/// Where a key comes after its query, [T, m]: T is the third dimension of `q`.
fn future(q: &Tensor, keys: i64) -> Result<Tensor> {
    let queries = q.size()[2];
    let all = Tensor::f_ones([queries, keys], (Kind::Bool, q.device()))?;
    Ok(all.f_triu(keys - queries + 1)?)
}
