//! What is done to every pair of tokens of a chunk, each in one pass over the pairs: on the CPU. libtorch's
//! operations would write a matrix in double precision for every sum in it.

use crate::elements::{Elements, Output, TensorElement};
use crate::error::{NnError, Result};
use crate::threads::for_each_piece;
use gateloop_scan::gate_loop::Real;
use tch::{Kind, Tensor};

macro_rules! by_kind {
    ($kind:expr, $function:ident($($arg:expr),*)) => {
        match $kind {
            Kind::Float => $function::<f32>($($arg),*),
            Kind::Double => $function::<f64>($($arg),*),
            actual => Err(NnError::Kind { operand: "q", expected: "Float or Double", actual }),
        }
    };
}

/// g[i] - g[j] for j <= i and minus infinity above the diagonal: of g, double [.., C], to [.., C, C].
pub(super) fn exponents(log_a: &Tensor, kind: Kind) -> Result<Tensor> {
    by_kind!(kind, exponents_of(log_a))
}

fn exponents_of<R: TensorElement + Real>(log_a: &Tensor) -> Result<Tensor> {
    let mut shape = log_a.size();
    let c = shape[shape.len() - 1];
    shape.push(c);
    let c = c as usize;
    let sums = Elements::of::<f64>("log_a", log_a)?;
    let sums = sums.slice::<f64>();
    let mut out = Output::<R>::new(&shape)?;
    let masked = R::narrow(f64::NEG_INFINITY.into());
    let mut chunks = vec![(); sums.len() / c];
    for_each_piece((out.slice_mut(), &mut chunks), [c * c, 1], |chunk, out, _| {
        let sums = &sums[chunk * c..][..c];
        for (i, row) in out.chunks_exact_mut(c).enumerate() {
            let (past, future) = row.split_at_mut(i + 1);
            for (out, earlier) in past.iter_mut().zip(sums) {
                // The difference of long sums in single precision would have lost the last digits.
                *out = R::narrow((sums[i] - earlier).into());
            }
            future.fill(masked);
        }
    });
    Ok(out.into_tensor())
}

/// The gradients that come back to the pairs.
pub(super) struct PairGrads {
    /// Of the scores before the decay, [.., C, C].
    pub(super) scores: Tensor,
    /// Of g, double [.., C].
    pub(super) log_a: Tensor,
    /// Of p, likewise.
    pub(super) phase: Tensor,
}

/// From the gradient of the decayed scores, those scores, the decays `e^{g[i]-g[j]}`, and
/// `sin(p[i]-p[j]) (q[i].k[j])`, all [.., C, C].
pub(super) fn gradients(
    dscores: &Tensor,
    [scores, decays, sines]: [&Tensor; 3],
) -> Result<PairGrads> {
    by_kind!(dscores.kind(), gradients_of(dscores, [scores, decays, sines]))
}

fn gradients_of<R: TensorElement + Real>(
    dscores: &Tensor,
    others: [&Tensor; 3],
) -> Result<PairGrads> {
    let shape = dscores.size();
    let c = shape[shape.len() - 1];
    let sums_shape = [&shape[..shape.len() - 2], &[2, c]].concat();
    let c = c as usize;
    let given = Elements::of::<R>("dscores", dscores)?;
    let given = given.slice::<R>();
    let [scores, decays, sines] = others.map(|x| Elements::of::<R>("scores", x));
    let (scores, decays, sines) = (scores?, decays?, sines?);
    let (scores, decays, sines) = (scores.slice::<R>(), decays.slice::<R>(), sines.slice::<R>());
    let mut out = Output::<R>::new(&shape)?;
    let mut sums = Output::<f64>::new(&sums_shape)?;
    for_each_piece((out.slice_mut(), sums.slice_mut()), [c * c, 2 * c], |chunk, out, sums| {
        sums.fill(0.0);
        let (log_a, phase) = sums.split_at_mut(c);
        for (i, out) in out.chunks_exact_mut(c).enumerate() {
            let row = chunk * c * c + i * c;
            let [given, scores, decays, sines] =
                [given, scores, decays, sines].map(|x| &x[row..row + c]);
            for ((out, &given), &decay) in out.iter_mut().zip(given).zip(decays) {
                *out = given * decay;
            }
            // A token and itself cancel at once; where decays are near zero the rest would be lost beside
            // them.
            let of_log_a = contribute(&given[..i], &scores[..i], 1.0, &mut log_a[..i]);
            // d cos(p[i]-p[j]) = -sin(p[i]-p[j]) (dp[i] - dp[j])
            let of_phase = contribute(&out[..i], &sines[..i], -1.0, &mut phase[..i]);
            log_a[i] += of_log_a;
            phase[i] += of_phase;
        }
    });
    let sums = sums.into_tensor();
    Ok(PairGrads {
        scores: out.into_tensor(),
        log_a: sums.f_select(-2, 0)?,
        phase: sums.f_select(-2, 1)?,
    })
}

/// Takes `sign x y` of each pair from its earlier token, and returns the sum for the later one.
#[inline]
fn contribute<R: Real>(x: &[R], y: &[R], sign: f64, earlier: &mut [f64]) -> f64 {
    /// Sums that do not wait for each other.
    const LANES: usize = 8;
    let mut later = [0.0; LANES];
    let wide = |x: R| x.widen().re;
    let whole = x.len() - x.len() % LANES;
    let pieces = x[..whole].chunks_exact(LANES).zip(y[..whole].chunks_exact(LANES));
    for ((x, y), earlier) in pieces.zip(earlier[..whole].chunks_exact_mut(LANES)) {
        for lane in 0..LANES {
            let product = sign * wide(x[lane]) * wide(y[lane]);
            later[lane] += product;
            earlier[lane] -= product;
        }
    }
    let mut sum: f64 = later.iter().sum();
    for ((&x, &y), earlier) in x[whole..].iter().zip(&y[whole..]).zip(&mut earlier[whole..]) {
        let product = sign * wide(x) * wide(y);
        sum += product;
        *earlier -= product;
    }
    sum
}
