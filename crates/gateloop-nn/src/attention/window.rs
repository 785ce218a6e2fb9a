//! Attention to the last W tokens: a band of the scores, cut into blocks where the sequence is longer than the band is
//! wide, so that time and memory grow with T x W.

use super::weights::{Weighing, past};
use crate::error::Result;
use crate::segments::Segments;
use tch::{Kind, Tensor};

/// Each of T queries over itself and the W - 1 keys before it; `k` and `v` have m older tokens, m < W, before those of
/// the queries. Sequences that begin inside are kept apart; then m is 0.
///
/// # Shapes
/// `q`: [B, H, T, d]; `k`, `v`: [B, H, m + T, d]; returns [B, H, T, d]
pub(super) fn attend(
    weighing: Weighing,
    [q, k, v]: [&Tensor; 3],
    window: i64,
    segments: Option<&Segments>,
) -> Result<Tensor> {
    let (seqlen, keys) = (q.size()[2], k.size()[2]);
    if seqlen > window {
        return Blocks::new(q, keys, window)?.attend(weighing, [q, k, v], segments);
    }
    let mut visible = past(seqlen, keys, q.device())?.f_triu(keys - seqlen - (window - 1))?;
    if let Some(segments) = segments {
        visible = visible.f_logical_and(&segments.same()?.f_unsqueeze(1)?)?;
    }
    weighing.attend([q, k, v], Some(&visible))
}

/// N blocks of W queries, each over the keys of its own block and of the one before.
struct Blocks {
    batch: i64,
    heads: i64,
    seqlen: i64,
    window: i64,
    n: i64,
    /// Keys before the first query.
    past: i64,
}

impl Blocks {
    fn new(q: &Tensor, keys: i64, window: i64) -> Result<Self> {
        let (batch, heads, seqlen, _) = q.size4()?;
        let n = seqlen.div_euclid(window) + i64::from(seqlen % window != 0);
        Ok(Self { batch, heads, seqlen, window, n, past: keys - seqlen })
    }

    fn attend(
        &self,
        weighing: Weighing,
        [q, k, v]: [&Tensor; 3],
        segments: Option<&Segments>,
    ) -> Result<Tensor> {
        let visible = self.visible(q, segments)?;
        let [q, k, v] = [self.own(q)?, self.with_block_before(k)?, self.with_block_before(v)?];
        let width = v.size()[3];
        let y = weighing.attend([&q, &k, &v], Some(&visible))?;
        Ok(y.f_view([self.batch, self.n, self.heads, self.window, width])?
            .f_transpose(1, 2)?
            .f_reshape([self.batch, self.heads, self.n * self.window, width])?
            .f_narrow(2, 0, self.seqlen)?)
    }

    fn end_padding(&self) -> i64 {
        self.n * self.window - self.seqlen
    }

    /// [B, H, T, d] as [B N, H, W, d].
    fn own(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.size()[3];
        Ok(x.f_constant_pad_nd([0, 0, 0, self.end_padding()])?
            .f_reshape([self.batch, self.heads, self.n, self.window, width])?
            .f_transpose(1, 2)?
            .f_reshape([-1, self.heads, self.window, width])?)
    }

    /// [B, H, m + T, d] as [B N, H, 2 W, d].
    fn with_block_before(&self, x: &Tensor) -> Result<Tensor> {
        let width = x.size()[3];
        let front = self.window - self.past;
        let blocks = x
            .f_constant_pad_nd([0, 0, front, self.end_padding()])?
            .f_reshape([self.batch, self.heads, self.n + 1, self.window, width])?
            .f_transpose(1, 2)?; // [B, N + 1, H, W, d]
        let pairs =
            Tensor::f_cat(&[blocks.f_narrow(1, 0, self.n)?, blocks.f_narrow(1, 1, self.n)?], 3)?;
        Ok(pairs.f_reshape([-1, self.heads, 2 * self.window, width])?)
    }

    /// What the queries of each block see of its 2 W keys, [B N, 1, W, 2 W]. Queries of the padding see at least
    /// themselves: the softmax of nothing is not a number.
    fn visible(&self, q: &Tensor, segments: Option<&Segments>) -> Result<Tensor> {
        let (window, device) = (self.window, q.device());
        let options = (Kind::Bool, device);
        let band = Tensor::f_ones([window, 2 * window], options)?.f_tril(window)?.f_triu(1)?;
        // Before the first key there is only padding.
        let is_token = Tensor::f_arange(2 * window, (Kind::Int64, device))?
            .f_ge(window - self.past)?
            .f_view([1, 1, 2 * window])?;
        let others = Tensor::f_ones([self.n - 1, 1, 2 * window], options)?;
        let is_token = Tensor::f_cat(&[is_token, others], 0)?; // [N, 1, 2 W]
        let mut visible = band.f_logical_and(&is_token)?.f_unsqueeze(0)?; // [1, N, W, 2 W]
        if let Some(segments) = segments {
            let ids = segments.ids()?;
            let own = ids
                .f_constant_pad_nd([0, self.end_padding()])?
                .f_view([self.batch, self.n, window])?;
            let blocks = ids.f_constant_pad_nd([window, self.end_padding()])?.f_view([
                self.batch,
                self.n + 1,
                window,
            ])?;
            let keys = Tensor::f_cat(
                &[blocks.f_narrow(1, 0, self.n)?, blocks.f_narrow(1, 1, self.n)?],
                2,
            )?;
            let same = own.f_unsqueeze(-1)?.f_eq_tensor(&keys.f_unsqueeze(-2)?)?;
            visible = visible.f_logical_and(&same)?;
        }
        let blocks = [self.batch, self.n, window, 2 * window];
        Ok(visible.f_expand(blocks, false)?.f_reshape([-1, 1, window, 2 * window])?)
    }
}
