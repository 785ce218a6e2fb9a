//! What the tokens of a chunk say to each other, with a gradient of the decays that does not cancel.
//!
//! The gradient of a decay at token t is a sum over the pairs i >= t > j that it stands between. As sums
//! of decays come in, it is a sum over tokens i >= t of what they get as the later one of a pair less what
//! they get as the earlier one; the pairs that lie wholly after t are in it twice, once of each sign. There
//! are more of those than of the others, so they have to vanish exactly: both signs are taken of one
//! matrix, and added up in double precision.

use crate::autograd::{self, Function, Saved};
use crate::error::Result;
use tch::{Kind, Tensor};

/// `y[i] = sum_{j<=i} e^{g[i]-g[j]} cos(p[i]-p[j]) (q[i].k[j]) v[j]`.
///
/// # Shapes
/// - `q`, `k`, `v`: [.., C, d]
/// - `log_a`, `phase`: g and p, double [.., C]
/// - returns y [.., C, d]
pub(super) fn within_chunk(
    [q, k, v]: [&Tensor; 3],
    log_a: &Tensor,
    phase: &Tensor,
) -> Result<Tensor> {
    Ok(autograd::apply(WithinChunk, &[q, k, v, log_a, phase])?.remove(0))
}

/// The rotation of each token by its phase.
pub(super) struct Rotation {
    cos: Tensor, // [.., 1]
    sin: Tensor,
}

impl Rotation {
    /// By phases [..] in double precision, which a narrower angle of several turns would not keep.
    pub(super) fn by(phase: &Tensor, kind: Kind) -> Result<Self> {
        let narrow = |x: Tensor| x.f_to_kind(kind)?.f_unsqueeze(-1);
        Ok(Self { cos: narrow(phase.f_cos()?)?, sin: narrow(phase.f_sin()?)? })
    }

    /// [x cos p, x sin p]
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_cat(&[x.f_mul(&self.cos)?, x.f_mul(&self.sin)?], -1)?)
    }

    /// [-x sin p, x cos p]: a quarter turn further.
    fn quarter_further(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Tensor::f_cat(&[x.f_mul(&self.sin)?.f_neg()?, x.f_mul(&self.cos)?], -1)?)
    }

    /// The adjoint of [`of`](Self::of) in x.
    fn back(&self, dx: &Tensor) -> Result<Tensor> {
        let halves = dx.f_chunk(2, -1)?;
        Ok(halves[0].f_mul(&self.cos)?.f_add_(&halves[1].f_mul(&self.sin)?)?)
    }
}

/// e^{g[i]-g[j]} for j <= i and 0 above the diagonal, [.., C, C].
fn decays(log_a: &Tensor, kind: Kind) -> Result<Tensor> {
    let c = log_a.size()[log_a.dim() - 1];
    let future = Tensor::f_ones([c, c], (Kind::Bool, log_a.device()))?.f_triu(1)?;
    let mut exponents = log_a.f_unsqueeze(-1)?.f_sub(&log_a.f_unsqueeze(-2)?)?.f_to_kind(kind)?;
    // Masked before exp(): above the diagonal the exponents are positive.
    Ok(exponents.f_masked_fill_(&future, f64::NEG_INFINITY)?.f_exp_()?)
}

/// Inputs q, k, v, g and p of [`within_chunk`].
struct WithinChunk;

impl Function for WithinChunk {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let [q, k, v, log_a, phase] = inputs else { unreachable!("five inputs are given") };
        let rotation = Rotation::by(phase, q.kind())?;
        let decays = decays(log_a, q.kind())?;
        let scores =
            rotation.of(q)?.f_matmul(&rotation.of(k)?.f_transpose(-2, -1)?)?.f_mul_(&decays)?;
        let y = scores.f_matmul(v)?;
        for tensor in [q, k, v, phase, &decays, &scores] {
            saved.push(tensor);
        }
        Ok(vec![y])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None, None, None, None]) };
        let [q, k, v, phase, decays, scores] = saved else { unreachable!("six tensors are kept") };
        let rotation = Rotation::by(phase, q.kind())?;
        let (q2, k2) = (rotation.of(q)?, rotation.of(k)?);
        let dv = scores.f_transpose(-2, -1)?.f_matmul(dy)?;
        let dscores = dy.f_matmul(&v.f_transpose(-2, -1)?)?;
        let sines = q2.f_matmul(&rotation.quarter_further(k)?.f_transpose(-2, -1)?)?;
        let dlog_a = later_less_earlier(dscores.f_mul(scores)?)?;
        let dscores = dscores.f_mul(decays)?;
        let dphase = later_less_earlier(sines.f_mul(&dscores)?)?.f_neg()?;
        let dq = rotation.back(&dscores.f_matmul(&k2)?)?;
        let dk = rotation.back(&dscores.f_transpose(-2, -1)?.f_matmul(&q2)?)?;
        Ok([dq, dk, dv, dlog_a, dphase].map(Some).into())
    }
}

/// From what each pair of tokens contributes, [.., later, earlier], what each token does: [.., C].
fn later_less_earlier(mut pairs: Tensor) -> Result<Tensor> {
    // A token and itself cancel at once; where decays are near zero the rest would be lost beside them.
    let pairs = pairs.f_tril_(-1)?;
    let sum = |dim: i64| pairs.f_sum_dim_intlist(dim, false, Kind::Double);
    Ok(sum(-1)?.f_sub(&sum(-2)?)?)
}
