//! The cache of keys and values: of all tokens, or a ring of the last ones.

use crate::error::{NnError, Result};
use tch::Tensor;

/// What an [`Attention`](super::Attention) remembers: the keys and values of all tokens so far, or, with a window, of
/// as many of the last ones.
#[derive(Debug)]
pub struct AttentionState(pub(super) Option<Cache>);

impl AttentionState {
    /// The keys [B, H, t, d], with [`RelPos::Corrected`](super::RelPos::Corrected) [B, H, t, 2 d], and the values
    /// [B, H, t, d]; `None` before the first token. With a window of W, t is at most W and token p stands at p mod W;
    /// decoding then writes into these tensors.
    pub fn tensors(&self) -> Option<(&Tensor, &Tensor)> {
        self.0.as_ref().map(|cache| (&cache.keys, &cache.values))
    }

    /// Tokens read so far.
    pub fn tokens(&self) -> i64 {
        self.0.as_ref().map_or(0, |cache| cache.tokens)
    }

    /// A state from tensors that [`tensors`](Self::tensors) gave, of an attention to all tokens; their shapes are
    /// checked when used.
    pub fn from_tensors(keys: Tensor, values: Tensor) -> Self {
        let tokens = keys.size().get(2).copied().unwrap_or(0);
        Self::from_ring(keys, values, tokens)
    }

    /// A state after `tokens` tokens from tensors that [`tensors`](Self::tensors) gave; their shapes are checked when
    /// used, and they are not written to.
    pub fn from_ring(keys: Tensor, values: Tensor, tokens: i64) -> Self {
        Self(Some(Cache { keys, values, tokens, owned: false }))
    }
}

/// Keys and values, [B, H, t, ..].
#[derive(Debug)]
pub(super) struct Cache {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
    /// Tokens read so far; more than t where a ring has gone round.
    pub(super) tokens: i64,
    /// Whether nobody else can have a handle to the tensors, so that they may be written to.
    owned: bool,
}

impl Cache {
    pub(super) fn new(keys: Tensor, values: Tensor, tokens: i64) -> Self {
        Self { keys, values, tokens, owned: true }
    }

    /// Errs unless the shapes are those of `heads` heads with keys and values of these `widths`.
    pub(super) fn check(
        &self,
        [batch, heads]: [i64; 2],
        widths: [i64; 2],
        window: Option<i64>,
    ) -> Result<()> {
        let held = window.map_or(self.tokens, |window| window.min(self.tokens));
        let parts = [("state's keys", &self.keys), ("state's values", &self.values)];
        for ((operand, tensor), width) in parts.into_iter().zip(widths) {
            let expected = [batch, heads, held, width];
            if tensor.size() != expected {
                let expected = format!("{expected:?}");
                return Err(NnError::Shape { operand, expected, actual: tensor.size() });
            }
        }
        Ok(())
    }

    /// Keys and values of the last `count` tokens, oldest first, of a ring of `window`; fewer if there are fewer.
    pub(super) fn latest(&self, count: i64, window: i64) -> Result<(Tensor, Tensor)> {
        let held = self.keys.size()[2];
        let count = count.min(held);
        // The place after the newest token's, where the oldest is if the ring is full.
        let next = if held < window { 0 } else { self.tokens % window };
        let ordered = |x: &Tensor| -> Result<Tensor> {
            Ok(x.f_roll([-next], [2])?.f_narrow(2, held - count, count)?)
        };
        Ok((ordered(&self.keys)?, ordered(&self.values)?))
    }

    /// A ring of `window` that holds the last of keys and values in the order of time, after `tokens` tokens.
    pub(super) fn ring(keys: &Tensor, values: &Tensor, tokens: i64, window: i64) -> Result<Self> {
        let held = keys.size()[2].min(window);
        let first = (tokens - held) % window;
        let placed = |x: &Tensor| -> Result<Tensor> {
            let last = x.f_narrow(2, x.size()[2] - held, held)?;
            // Without what is beside them, which may be large.
            Ok(if first == 0 { last.f_contiguous()? } else { last.f_roll([first], [2])? })
        };
        Ok(Self::new(placed(keys)?, placed(values)?, tokens))
    }

    /// Puts one token, [B, H, 1, ..], in the place of the oldest; `None` if this ring is not full, or not to be written
    /// to.
    pub(super) fn replace_oldest(
        &mut self,
        key: &Tensor,
        value: &Tensor,
        window: i64,
    ) -> Result<Option<()>> {
        if !self.owned || self.keys.size()[2] < window {
            return Ok(None);
        }
        let place = self.tokens % window;
        for (held, new) in [(&self.keys, key), (&self.values, value)] {
            held.f_narrow(2, place, 1)?.f_copy_(new)?;
        }
        self.tokens += 1;
        Ok(Some(()))
    }
}
