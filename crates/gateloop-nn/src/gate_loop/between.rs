//! What lies between the matrix products of the chunkwise form: one kernel each on a GPU, libtorch's operations elsewhere.
//!
//! g and p are the sums of ln|a| and arg a from the start of a chunk, in double precision whatever the operands are: a sum of
//! 64 phases in f32 would leave five digits of the angle.

use crate::autograd::{self, Function, Saved};
use crate::cuda::heads as kernels;
use crate::device::on_gpu;
use crate::error::Result;
use tch::{Kind, Tensor};

/// The sums of a chunk's tokens, double [.., C].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sums<'t> {
    /// g
    pub(crate) log_a: &'t Tensor,
    /// p
    pub(crate) phase: &'t Tensor,
}

/// What [`weigh_adjoint`] gives.
#[derive(Debug)]
pub(crate) struct WeighGradients {
    /// The weighed scores again, [.., C, C].
    pub(crate) weighed: Tensor,
    /// Of the scores, [.., C, C].
    pub(crate) dscores: Tensor,
    /// Of g, double [.., C].
    pub(crate) dlog_a: Tensor,
    /// Of p, double [.., C].
    pub(crate) dphase: Tensor,
}

/// `e^{g[i]-g[j]} cos(p[i]-p[j]) scores[i, j]` for j <= i, and 0 above the diagonal, whatever is there.
///
/// # Shapes
/// - `scores`: [.., C, C], which nothing needs any more: the result may lie in its place
pub(super) fn weigh(scores: &Tensor, sums: Sums<'_>) -> Result<Tensor> {
    if on_gpu(scores) {
        let scores = scores.f_contiguous()?;
        kernels::weigh(&scores, sums)?;
        return Ok(scores);
    }
    let pairs = Pairs::new(sums)?;
    pairs.without_future(scores.f_mul(&pairs.cosine(scores.kind())?)?)
}

/// The adjoint of [`weigh`], from the scores, [.., C, C], and the gradient of what it gave; both as there.
///
/// The gradient of a decay at token t is a sum over the pairs i >= t > j that it stands between. As sums of decays come in,
/// it is a sum over tokens i >= t of what they get as the later one of a pair less what they get as the earlier one; the
/// pairs that lie wholly after t are in it twice, once of each sign. There are more of those than of the others, so they
/// have to vanish exactly: both signs are taken of the same numbers, and added up in double precision.
pub(super) fn weigh_adjoint(
    scores: &Tensor,
    dweighed: &Tensor,
    sums: Sums<'_>,
) -> Result<WeighGradients> {
    if on_gpu(scores) {
        let (weighed, dscores) = (scores.f_contiguous()?, dweighed.f_contiguous()?);
        let [dlog_a, dphase] = kernels::weigh_adjoint(&weighed, &dscores, sums)?;
        return Ok(WeighGradients { weighed, dscores, dlog_a, dphase });
    }
    let pairs = Pairs::new(sums)?;
    let cosine = pairs.cosine(scores.kind())?;
    let weighed = pairs.without_future(scores.f_mul(&cosine)?)?;
    let dlog_a = later_less_earlier(dweighed.f_mul(&weighed)?)?;
    let sine = pairs.sine(scores.kind())?;
    let dphase = later_less_earlier(scores.f_mul(&sine)?.f_mul(dweighed)?.f_neg()?)?;
    let dscores = pairs.without_future(dweighed.f_mul(&cosine)?)?;
    Ok(WeighGradients { weighed, dscores, dlog_a, dphase })
}

/// `[x e^g cos p, x e^g sin p]`, row by row: a query before it meets a state, or a key on its way into one.
///
/// # Shapes
/// - `x`: [.., C, d]; returns [.., C, 2 d]
pub(super) fn turn(x: &Tensor, sums: Sums<'_>) -> Result<Tensor> {
    Ok(autograd::apply(Turn, &[x, sums.log_a, sums.phase])?.remove(0))
}

/// Inputs x, g and p of [`turn`].
struct Turn;

impl Function for Turn {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        for tensor in inputs {
            saved.push(tensor);
        }
        let [x, log_a, phase] = inputs else { unreachable!("three inputs are given") };
        let sums = Sums { log_a, phase };
        if on_gpu(x) {
            return Ok(vec![kernels::turn(x, sums)?]);
        }
        let [cos, sin] = directions(sums, x.kind())?;
        Ok(vec![Tensor::f_cat(&[x.f_mul(&cos)?, x.f_mul(&sin)?], -1)?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None, None]) };
        let [x, log_a, phase] = saved else { unreachable!("three tensors are kept") };
        let sums = Sums { log_a, phase };
        if on_gpu(x) {
            return Ok(kernels::turn_adjoint(x, dy, sums)?.map(Some).into());
        }
        let [cos, sin] = directions(sums, x.kind())?;
        let halves = dy.f_chunk(2, -1)?;
        let dx = halves[0].f_mul(&cos)?.f_add_(&halves[1].f_mul(&sin)?)?;
        let across = halves[1].f_mul(&cos)?.f_sub_(&halves[0].f_mul(&sin)?)?;
        let over_row = |y: &Tensor| x.f_mul(y)?.f_sum_dim_intlist(-1, false, Kind::Double);
        let (dlog_a, dphase) = (over_row(&dx)?, over_row(&across)?);
        Ok([dx, dlog_a, dphase].map(Some).into())
    }
}

/// e^g cos p and e^g sin p, [.., C, 1].
fn directions(Sums { log_a, phase }: Sums<'_>, kind: Kind) -> Result<[Tensor; 2]> {
    let size = log_a.f_exp()?;
    let part = |of: Tensor| of.f_mul(&size)?.f_to_kind(kind)?.f_unsqueeze(-1);
    Ok([part(phase.f_cos()?)?, part(phase.f_sin()?)?])
}

/// The tokens of a chunk two by two, double [.., C, C]: later ones by earlier ones.
struct Pairs {
    /// e^{g[i]-g[j]}, and 0 above the diagonal, where it might be infinite.
    size: Tensor,
    /// p[i]-p[j]
    angle: Tensor,
    /// Bool [C, C]: what is above the diagonal.
    future: Tensor,
}

impl Pairs {
    fn new(Sums { log_a, phase }: Sums<'_>) -> Result<Self> {
        let c = log_a.size()[log_a.dim() - 1];
        let future = Tensor::f_ones([c, c], (Kind::Bool, log_a.device()))?.f_triu(1)?;
        let differences = |x: &Tensor| x.f_unsqueeze(-1)?.f_sub(&x.f_unsqueeze(-2)?);
        let exponents = differences(log_a)?.f_masked_fill_(&future, f64::NEG_INFINITY)?;
        Ok(Self { size: exponents.f_exp()?, angle: differences(phase)?, future })
    }

    fn cosine(&self, kind: Kind) -> Result<Tensor> {
        Ok(self.angle.f_cos()?.f_mul_(&self.size)?.f_to_kind(kind)?)
    }

    fn sine(&self, kind: Kind) -> Result<Tensor> {
        Ok(self.angle.f_sin()?.f_mul_(&self.size)?.f_to_kind(kind)?)
    }

    fn without_future(&self, mut pairs: Tensor) -> Result<Tensor> {
        Ok(pairs.f_masked_fill_(&self.future, 0.0)?)
    }
}

/// From what each pair of tokens contributes, [.., later, earlier], what each token does: [.., C].
fn later_less_earlier(mut pairs: Tensor) -> Result<Tensor> {
    // A token and itself cancel at once; where decays are near zero the rest would be lost beside them.
    let pairs = pairs.f_tril_(-1)?;
    let sum = |dim: i64| pairs.f_sum_dim_intlist(dim, false, Kind::Double);
    Ok(sum(-1)?.f_sub(&sum(-2)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

    /// g and p of three chunks of seven tokens, several turns round.
    fn sums() -> [Tensor; 2] {
        let steps = || Tensor::rand([3, 7], DOUBLE);
        let (log_a, phase) = (steps().neg(), steps() * 9.0 - 4.0);
        [log_a, phase].map(|x| x.cumsum(-1, Kind::Double).set_requires_grad(true))
    }

    fn leaf(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DOUBLE).set_requires_grad(true)
    }

    fn assert_near(ours: &Tensor, theirs: &Tensor) {
        assert!(ours.allclose(theirs, 1e-12, 1e-13, false), "{ours} {theirs}");
    }

    #[test]
    fn weighed_scores_and_their_gradients_are_those_of_the_formula() -> Result<()> {
        let ([log_a, phase], scores, dweighed) =
            (sums(), leaf(&[3, 7, 7]), Tensor::randn([3, 7, 7], DOUBLE));
        let of_pairs = |x: &Tensor| x.unsqueeze(-1) - x.unsqueeze(-2);
        let formula = (of_pairs(&log_a).exp() * of_pairs(&phase).cos() * &scores).tril(0);
        let leaves = [&scores, &log_a, &phase];
        let sum = (&formula * &dweighed).sum(Kind::Double);
        let theirs = Tensor::f_run_backward(&[sum], &leaves, false, false)?;

        let (log_a, phase) = (log_a.detach(), phase.detach());
        let sums = Sums { log_a: &log_a, phase: &phase };
        assert_near(&weigh(&scores.detach(), sums)?, &formula.detach());
        let ours = weigh_adjoint(&scores.detach(), &dweighed, sums)?;
        assert_near(&ours.weighed, &formula.detach());
        for (ours, theirs) in [ours.dscores, ours.dlog_a, ours.dphase].iter().zip(&theirs) {
            assert_near(ours, theirs);
        }
        Ok(())
    }

    #[test]
    fn what_is_to_come_does_not_matter() -> Result<()> {
        let [log_a, phase] = sums().map(|x| x.detach());
        let sums = Sums { log_a: &log_a, phase: &phase };
        let spoilt = || {
            let future = Tensor::ones([7, 7], (Kind::Bool, Device::Cpu)).triu(1);
            Tensor::ones([3, 7, 7], DOUBLE).masked_fill(&future, f64::NAN)
        };
        let ours = weigh_adjoint(&spoilt(), &spoilt(), sums)?;
        let WeighGradients { weighed, dscores, dlog_a, dphase } = &ours;
        for tensor in [&weigh(&spoilt(), sums)?, weighed, dscores, dlog_a, dphase] {
            assert!(bool::try_from(tensor.isfinite().all())?);
        }
        assert_eq!(weighed.triu(1).abs().max().double_value(&[]), 0.0);
        Ok(())
    }

    #[test]
    fn turned_rows_and_their_gradients_are_those_of_the_formula() -> Result<()> {
        let ([log_a, phase], x) = (sums(), leaf(&[3, 7, 5]));
        let leaves = [&x, &log_a, &phase];
        let dy = Tensor::randn([3, 7, 10], DOUBLE);
        let by = |of: Tensor| &x * (log_a.exp() * of).unsqueeze(-1);
        let formula = Tensor::cat(&[by(phase.cos()), by(phase.sin())], -1);
        let ours = turn(&x, Sums { log_a: &log_a, phase: &phase })?;
        assert_near(&ours, &formula);
        let gradients = |y: &Tensor| {
            Tensor::f_run_backward(&[(y * &dy).sum(Kind::Double)], &leaves, false, false)
        };
        for (ours, theirs) in gradients(&ours)?.iter().zip(&gradients(&formula)?) {
            assert_near(ours, theirs);
        }
        Ok(())
    }
}
