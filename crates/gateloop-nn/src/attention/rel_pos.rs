//! Positions that depend on the data: scores that fade and turn with the complex decays of the tokens
//! in between.
//!
//! Each pair of features p of a head has a decay `a[t,p] = sigmoid(|z|) e^{i arg z}`, and
//!
//! ```text
//! score[i,j] = sum_p Re(prod_{m=j+1..i} a[m,p]) (q[i,p] . k[j,p])
//! ```
//!
//! the surrogate attention of GateLoop (arXiv 2311.01927, section 3.3) with a decay for every pair.

use crate::error::Result;
use crate::gate_loop::{StateTransition, TransitionMode};
use tch::{Kind, Tensor};

/// How the products of decays are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RelPos {
    /// Over the tokens between key and query, as the formula says.
    #[default]
    Corrected,
    /// As the reference computes it, for its checkpoints: the product runs over the *features* of a
    /// token, its real part is kept at 1e-10 or above, q is multiplied by that and k divided.
    AsReference,
}

/// Tokens whose decays towards each other are formed pair by pair; later ones see them through keys
/// that have decayed to the block's end.
const BLOCK: i64 = 16;

/// Scales q and k [B, H, T, d] by the reference's factors; `z` is [B, T, H, d / 2, 2].
pub(super) fn scale_as_reference(
    q: &Tensor,
    k: &Tensor,
    z: &Tensor,
    mode: TransitionMode,
) -> Result<(Tensor, Tensor)> {
    const FLOOR: f64 = 1e-10;
    let z = z.f_contiguous()?.f_view_as_complex()?.f_transpose(1, 2)?; // [B, H, T, d / 2]
    let z = match mode {
        TransitionMode::Complex => z,
        _ => Tensor::f_complex(&z.f_real()?, &z.f_real()?.f_zeros_like()?)?,
    };
    let a = Tensor::f_polar(&z.f_abs()?.f_sigmoid()?, &z.f_angle()?)?;
    let factor = a.f_cumprod(-1, None::<Kind>)?.f_real()?.f_clamp_min(FLOOR)?.f_unsqueeze(-1)?;
    let scale = |x: &Tensor, by: &Tensor| -> Result<Tensor> {
        Ok(x.f_unflatten(-1, [-1, 2])?.f_mul(by)?.f_flatten(-2, -1)?)
    };
    Ok((scale(q, &factor)?, scale(k, &factor.f_reciprocal()?)?))
}

/// Scores of T queries against `m` cached keys and the T keys of the same tokens, [B, H, T, m + T], and
/// all keys as they have decayed to the last token: [B, H, m + T, 2 d], real parts before imaginary
/// ones. Scores of the future are zero.
///
/// # Shapes
/// `q`, `k`: [B, H, T, d]; `z`: [B, T, H, d / 2, 2]; `cached`: [B, H, m, 2 d]
pub(super) fn scores(
    q: &Tensor,
    k: &Tensor,
    z: &Tensor,
    mode: TransitionMode,
    cached: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let [batch, heads, seqlen, d] = q.size4()?.into();
    let pairs = z.f_reshape([batch, seqlen, heads * d / 2, 2])?;
    let transition = StateTransition::from_pre_activation(&pairs, mode)?;
    let by_head = |x: &Tensor| x.f_view([batch, seqlen, heads, d / 2])?.f_transpose(1, 2);
    let (log_a, phase) = (by_head(transition.log_magnitude())?, by_head(transition.phase())?);

    let mut keys = match cached {
        Some(cached) => cached.shallow_clone(),
        None => k.f_new_zeros([batch, heads, 0, 2 * d], (k.kind(), k.device()))?,
    };
    let mut rows = Vec::new();
    let total = keys.size()[2] + seqlen;
    for start in (0..seqlen).step_by(BLOCK as usize) {
        let len = BLOCK.min(seqlen - start);
        let tokens = |x: &Tensor| x.f_narrow(2, start, len);
        let block = Block {
            q: tokens(q)?,
            k: tokens(k)?,
            log_a: tokens(&log_a)?.f_cumsum(2, None::<Kind>)?,
            phase: tokens(&phase)?.f_cumsum(2, None::<Kind>)?,
        };
        let row = Tensor::f_cat(&[block.against_past(&keys)?, block.within()?], -1)?;
        let missing = total - row.size()[3];
        rows.push(row.f_constant_pad_nd([0, missing])?);
        keys = Tensor::f_cat(&[block.decay_past(&keys)?, block.decayed_keys()?], 2)?;
    }
    Ok((Tensor::f_cat(&rows, 2)?, keys))
}

/// A few tokens; the sums of ln|a| and arg a run from the block's start, [B, H, len, d / 2].
struct Block {
    q: Tensor,
    k: Tensor,
    log_a: Tensor,
    phase: Tensor,
}

impl Block {
    /// Scores against keys that have decayed to the block's start.
    fn against_past(&self, keys: &Tensor) -> Result<Tensor> {
        let weight = self.log_a.f_exp()?;
        let re = by_pair(&self.q, &weight.f_mul(&self.phase.f_cos()?)?)?;
        let im = by_pair(&self.q, &weight.f_mul(&self.phase.f_sin()?)?.f_neg()?)?;
        Ok(Tensor::f_cat(&[re, im], -1)?.f_matmul(&keys.f_transpose(-2, -1)?)?)
    }

    /// Scores of the block's tokens against each other.
    fn within(&self) -> Result<Tensor> {
        let between = |x: &Tensor| x.f_unsqueeze(3)?.f_sub(&x.f_unsqueeze(2)?); // [B, H, i, j, d/2]
        let len = self.q.size()[2];
        let future = Tensor::f_ones([len, len], (Kind::Bool, self.q.device()))?.f_triu(1)?;
        // Masked before exp(): in the future the exponents are positive.
        let log_a = between(&self.log_a)?
            .f_masked_fill(&future.f_unsqueeze(-1)?, f64::NEG_INFINITY)?
            .f_exp()?;
        let decay = log_a.f_mul(&between(&self.phase)?.f_cos()?)?;
        let pairs = |x: &Tensor| x.f_unflatten(-1, [-1, 2]);
        let products = pairs(&self.q)?.f_unsqueeze(3)?.f_mul(&pairs(&self.k)?.f_unsqueeze(2)?)?;
        let products = products.f_sum_dim_intlist(-1i64, false, None::<Kind>)?;
        Ok(products.f_mul(&decay)?.f_sum_dim_intlist(-1i64, false, None::<Kind>)?)
    }

    /// Keys from before the block, decayed on to its end.
    fn decay_past(&self, keys: &Tensor) -> Result<Tensor> {
        let last = |x: &Tensor| x.f_narrow(2, -1, 1);
        let (weight, phase) = (last(&self.log_a)?.f_exp()?, last(&self.phase)?);
        let (cos, sin) = (weight.f_mul(&phase.f_cos()?)?, weight.f_mul(&phase.f_sin()?)?);
        let parts = keys.f_chunk(2, -1)?;
        let (re, im) = (&parts[0], &parts[1]);
        let turned_re = by_pair(re, &cos)?.f_sub(&by_pair(im, &sin)?)?;
        let turned_im = by_pair(re, &sin)?.f_add(&by_pair(im, &cos)?)?;
        Ok(Tensor::f_cat(&[turned_re, turned_im], -1)?)
    }

    /// The block's own keys, decayed to its end.
    fn decayed_keys(&self) -> Result<Tensor> {
        let rest = |x: &Tensor| x.f_narrow(2, -1, 1)?.f_sub(x);
        let (weight, phase) = (rest(&self.log_a)?.f_exp()?, rest(&self.phase)?);
        let re = by_pair(&self.k, &weight.f_mul(&phase.f_cos()?)?)?;
        let im = by_pair(&self.k, &weight.f_mul(&phase.f_sin()?)?)?;
        Ok(Tensor::f_cat(&[re, im], -1)?)
    }
}

/// Multiplies both features of each pair of x [.., d] by a factor [.., d / 2].
fn by_pair(x: &Tensor, factor: &Tensor) -> Result<Tensor> {
    Ok(x.f_unflatten(-1, [-1, 2])?.f_mul(&factor.f_unsqueeze(-1)?)?.f_flatten(-2, -1)?)
}
