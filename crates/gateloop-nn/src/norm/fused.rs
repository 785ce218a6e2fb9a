//! The root-mean-square norm by libtorch's own kernel: for what neither our function on the CPU nor our kernel on a GPU
//! takes, as other kinds, other devices and long rows.

use super::{EPSILON, MIN_LENGTH, RmsNormKind};
use crate::error::Result;
use tch::{Kind, Tensor};

/// y = x / sqrt(mean(x^2) + eps) * gamma, which has the sqrt(D) of the definition in it. libtorch differentiates it.
///
/// # Shapes
/// - `x`: [.., D]; `gamma`: `[D]`; returns [.., D]
pub(super) fn rms_norm(x: &Tensor, gamma: &Tensor, kind: RmsNormKind) -> Result<Tensor> {
    let dim = gamma.size();
    let features = gamma.numel() as f64;
    let eps = match kind {
        // Added where the definition clamps: with m the shortest length, y is off by (m / |x|)^2 / 2 of itself, which
        // shows only where |x| is near m, and a vector of zeros has the definition's gradient. Of a million features
        // it is 1e-30, which f32 represents.
        RmsNormKind::Clamped => MIN_LENGTH * MIN_LENGTH / features,
        RmsNormKind::Epsilon => EPSILON / features,
    };
    // The kernel takes one kind, and gives that of a product of the two.
    let kind = wider(x.kind(), gamma.kind());
    let (x, gamma) = (x.f_to_kind(kind)?, gamma.f_to_kind(kind)?);
    Ok(x.f_internal_fused_rms_norm(dim, Some(&gamma), eps)?.0)
}

/// The kind of a product of real numbers of these kinds.
fn wider(x: Kind, y: Kind) -> Kind {
    match (x, y) {
        (x, y) if x == y => x,
        (Kind::Double, _) | (_, Kind::Double) => Kind::Double,
        _ => Kind::Float,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// The definition in libtorch's operations one by one.
    fn defined(x: &Tensor, gamma: &Tensor, kind: RmsNormKind) -> Tensor {
        let scale = (gamma.numel() as f64).sqrt();
        match kind {
            RmsNormKind::Clamped => {
                x / x.norm_scalaropt_dim(2.0, [-1i64], true).clamp_min(MIN_LENGTH) * scale * gamma
            }
            RmsNormKind::Epsilon => {
                let squares = x.square().sum_dim_intlist(-1i64, true, None::<Kind>);
                x * (squares + EPSILON).rsqrt() * scale * gamma
            }
        }
    }

    /// Rows of 33 features: of numbers around 1, around 100 and around 1e-3, and of zeros.
    fn data(of: Kind) -> [Tensor; 3] {
        let options = (Kind::Double, Device::Cpu);
        let waves = |len: i64, step: f64| (Tensor::arange(len, options) * step).sin();
        let sizes = Tensor::from_slice(&[1.0, 100.0, 1e-3, 0.0]).view([4, 1]);
        let x = waves(4 * 33, 0.7).view([4, 33]) * sizes;
        let gamma = waves(33, 1.3) + 1.5;
        [x, gamma, waves(4 * 33, 2.9).view([4, 33])].map(|tensor| tensor.to_kind(of))
    }

    /// y, dx and dgamma.
    fn run(
        norm: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
        [x, gamma, weights]: &[Tensor; 3],
    ) -> Result<[Tensor; 3]> {
        let leaf = |t: &Tensor| t.detach().copy().set_requires_grad(true);
        let (x, gamma) = (leaf(x), leaf(gamma));
        let y = norm(&x, &gamma)?;
        y.f_mul(weights)?.f_sum(None::<Kind>)?.f_backward()?;
        Ok([y.detach(), x.grad(), gamma.grad()])
    }

    #[test]
    fn values_and_gradients_are_those_of_the_definition() -> Result<()> {
        for kind in [RmsNormKind::Clamped, RmsNormKind::Epsilon] {
            for (of, epsilon) in
                [(Kind::Double, f64::EPSILON), (Kind::Float, f64::from(f32::EPSILON))]
            {
                let data = data(of);
                let ours = run(|x, gamma| rms_norm(x, gamma, kind), &data)?;
                let expected = run(|x, gamma| Ok(defined(x, gamma, kind)), &data)?;
                // Row by row, for that of zeros has a gradient of 1e12.
                let rows = |t: &Tensor| t.to_kind(Kind::Double).view([-1, 33]).unbind(0);
                for ((name, ours), expected) in
                    ["y", "dx", "dgamma"].into_iter().zip(&ours).zip(&expected)
                {
                    assert_eq!(ours.kind(), of);
                    for (row, (ours, expected)) in rows(ours).iter().zip(rows(expected)).enumerate()
                    {
                        let largest = expected.abs().max().double_value(&[]);
                        assert!(largest.is_finite() && (largest > 0.0 || name == "y"));
                        let off = (ours - &expected).abs().max().double_value(&[]);
                        // Sums over the features, and over the rows.
                        let allowed = 64.0 * epsilon * largest;
                        assert!(off <= allowed, "{kind:?} {of:?} {name} of row {row}: {off:e}");
                    }
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_kind_is_that_of_a_product() -> Result<()> {
        let [x, gamma, _] = data(Kind::Float);
        let expected = rms_norm(&x, &gamma, RmsNormKind::Clamped)?;
        for of in [Kind::Half, Kind::BFloat16, Kind::Double] {
            for (x, gamma) in [
                (x.to_kind(of), gamma.shallow_clone()),
                (x.shallow_clone(), gamma.to_kind(of)),
                (x.to_kind(of), gamma.to_kind(of)),
            ] {
                let y = rms_norm(&x, &gamma, RmsNormKind::Clamped)?;
                assert_eq!(y.kind(), (&x * &gamma).kind());
                // Of numbers of eight bits.
                assert!(y.allclose(&expected.to_kind(y.kind()), 2e-2, 1e-2, false), "{of:?}");
            }
        }
        Ok(())
    }
}
