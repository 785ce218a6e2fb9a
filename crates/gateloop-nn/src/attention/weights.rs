//! From scores to outputs, and which keys a query sees.

use crate::error::Result;
use tch::{Device, Kind, Tensor};

/// Attention of all queries [B, H, T, d] over all keys [B, H, m, d] that are visible to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weighing {
    /// Whether weights are the softmax of the scores, or the scores.
    pub(super) softmax: bool,
    /// The factor of the products.
    pub(super) scale: f64,
}

impl Weighing {
    /// # Shapes
    /// `v`: [B, H, m, d]; `visible`: broadcasts to [B, H, T, m]; all keys are if `None`; returns [B, H, T, d]
    pub(super) fn attend(
        self,
        [q, k, v]: [&Tensor; 3],
        visible: Option<&Tensor>,
    ) -> Result<Tensor> {
        if self.softmax {
            // libtorch's fused kernel, which keeps no scores.
            let scale = Some(self.scale);
            return Ok(Tensor::f_scaled_dot_product_attention(
                q, k, v, visible, 0.0, false, scale, false,
            )?);
        }
        let scores = q.f_mul_scalar(self.scale)?.f_matmul(&k.f_transpose(-2, -1)?)?;
        weigh(&scores, v, false, visible)
    }

    /// [`attend`](Self::attend) of T queries over the keys of the same tokens, none of the future.
    pub(super) fn attend_causally(self, [q, k, v]: [&Tensor; 3]) -> Result<Tensor> {
        if !self.softmax {
            let visible = past(q.size()[2], k.size()[2], q.device())?;
            return self.attend([q, k, v], Some(&visible));
        }
        let scale = Some(self.scale);
        let mask = None::<Tensor>;
        Ok(Tensor::f_scaled_dot_product_attention(q, k, v, mask, 0.0, true, scale, false)?)
    }
}

/// Outputs of scores [B, H, T, m] over v [B, H, m, d]; what is not visible is left out.
pub(super) fn weigh(
    scores: &Tensor,
    v: &Tensor,
    softmax: bool,
    visible: Option<&Tensor>,
) -> Result<Tensor> {
    let hidden = visible.map(Tensor::f_logical_not).transpose()?;
    let fill = |with: f64| match &hidden {
        Some(hidden) => scores.f_masked_fill(hidden, with),
        None => Ok(scores.shallow_clone()),
    };
    let weights =
        if softmax { fill(f64::NEG_INFINITY)?.f_softmax(-1, None::<Kind>)? } else { fill(0.0)? };
    Ok(weights.f_matmul(v)?)
}

/// Which of `keys` tokens the last `queries` of them see: themselves and what came before, [T, m].
pub(super) fn past(queries: i64, keys: i64, device: Device) -> Result<Tensor> {
    Ok(Tensor::f_ones([queries, keys], (Kind::Bool, device))?.f_tril(keys - queries)?)
}
