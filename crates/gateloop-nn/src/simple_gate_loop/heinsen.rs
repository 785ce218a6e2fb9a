//! The reference's log-space scan, faults and all, so that a model trained with it can be reproduced.
//!
//! Heinsen's form (arXiv 2311.06281): `h = e^{a*} sum e^{log b - a*}` with `a*` the running sum of
//! log a, here with a complex logarithm for the sign of b and libtorch's gradient through it. As in
//! the reference, b = 0 has the logarithm -inf, and what lies under the clamp gets no gradient.

use crate::error::Result;
use tch::{Kind, Tensor};

/// h [B, T, C] and `h_last` [B, C] of `a` and `b` [B, T, C], from the state `h0` [B, C].
pub(super) fn scan(
    a: &Tensor,
    b: &Tensor,
    h0: Option<&Tensor>,
    reverse: bool,
) -> Result<(Tensor, Tensor)> {
    let order = |x: &Tensor| if reverse { x.f_flip([1]) } else { Ok(x.shallow_clone()) };
    let (mut a, mut b) = (order(a)?, order(b)?);
    if let Some(h0) = h0 {
        // The state comes before the first token, as an input that nothing precedes.
        let h0 = h0.f_unsqueeze(1)?;
        a = Tensor::f_cat(&[h0.f_ones_like()?, a], 1)?;
        b = Tensor::f_cat(&[h0, b], 1)?;
    }
    let h = recurrence(&a, &b)?;
    let h_last = h.f_select(1, -1)?;
    let skipped = i64::from(h0.is_some());
    let h = h.f_narrow(1, skipped, h.size()[1] - skipped)?;
    Ok((order(&h)?, h_last))
}

fn recurrence(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let floor = if a.kind() == Kind::Half { 1e-7 } else { 1e-20 };
    let log_a = a.f_clamp_min(floor)?.f_log()?;
    let clamped = b.f_sign()?.f_mul(&b.f_abs()?.f_clamp_min(floor)?)?;
    // In single precision also where the rest is in double, as in the reference.
    let log_b = clamped.f_to_kind(Kind::ComplexFloat)?.f_log()?;
    let a_star = log_a.f_cumsum(1, None::<Kind>)?;
    let log_h = log_b.f_sub(&a_star)?.f_logcumsumexp(1)?.f_add(&a_star)?;
    Ok(log_h.f_exp()?.f_real()?)
}
