//! Rotary position embedding (Su et al., "RoFormer", arXiv 2104.09864): a pair of features is turned
//! by an angle that grows with the position, so that a score depends on the distance only.

use crate::error::Result;
use crate::precision::widen;
use tch::Tensor;
use tch::nn::Path;

const THETA: f64 = 10_000.0;

/// The angles by which each pair of features turns from one token to the next.
///
/// `freqs` `[d / 2]` stands among the parameters, because the reference's weight files have it, but
/// is not trained.
#[derive(Debug)]
pub(crate) struct Rotary {
    freqs: Tensor,
}

impl Rotary {
    /// Registers `freqs` under `path`; `dim_head` is even.
    pub(super) fn new(path: &Path<'_>, dim_head: i64) -> Result<Self> {
        let pairs = dim_head / 2;
        let freqs = path.f_zeros_no_train("freqs", &[pairs])?;
        // Rounded to single precision as in the reference, whatever the kind of the model later.
        let values: Vec<f32> = (0..pairs)
            .map(|pair| THETA.powf(-2.0 * pair as f64 / dim_head as f64) as f32)
            .collect();
        tch::no_grad(|| freqs.shallow_clone().f_copy_(&Tensor::f_from_slice(&values)?))?;
        Ok(Self { freqs })
    }

    /// The turns of `len` tokens from position `first`.
    pub(super) fn turns(&self, first: i64, len: i64) -> Result<Turns> {
        // 8 bits count to 256.
        let freqs = widen(&self.freqs)?;
        let options = (freqs.kind(), freqs.device());
        let positions = Tensor::f_arange_start(first, first + len, options)?;
        let angles = positions.f_unsqueeze(-1)?.f_mul(&freqs)?;
        Ok(Turns { cos: angles.f_cos()?, sin: angles.f_sin()? })
    }
}

/// Cosine and sine of the angle of each pair at each token, [T, d / 2].
pub(super) struct Turns {
    cos: Tensor,
    sin: Tensor,
}

impl Turns {
    /// Turns the pairs (x[0], x[1]), (x[2], x[3]) ... of `x` [B, H, T, d].
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let pairs = x.f_unflatten(-1, [-1, 2])?;
        let (re, im) = (pairs.f_select(-1, 0)?, pairs.f_select(-1, 1)?);
        let turned_re = re.f_mul(&self.cos)?.f_sub(&im.f_mul(&self.sin)?)?;
        let turned_im = im.f_mul(&self.cos)?.f_add(&re.f_mul(&self.sin)?)?;
        Ok(Tensor::f_stack(&[turned_re, turned_im], -1)?.f_flatten(-2, -1)?.f_to_kind(x.kind())?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use tch::nn::VarStore;
    use tch::{Device, Kind};

    #[test]
    fn scores_depend_on_the_distance_only() {
        let vs = VarStore::new(Device::Cpu);
        let rotary = Rotary::new(&vs.root(), 6).unwrap();
        let x = Tensor::randn([2, 1, 1, 1, 6], (Kind::Float, Device::Cpu));
        let score = |i: i64, j: i64| {
            let q = rotary.turns(i, 1).unwrap().apply(&x.get(0)).unwrap();
            let k = rotary.turns(j, 1).unwrap().apply(&x.get(1)).unwrap();
            (q * k).sum(Kind::Double).double_value(&[])
        };
        for (i, j) in [(0, 0), (3, 1), (7, 0)] {
            assert!((score(i, j) - score(i + 40, j + 40)).abs() < 1e-4, "{i} {j}");
        }
        assert!((score(7, 0) - score(8, 0)).abs() > 1e-4, "the distance shows");
    }

    #[test]
    fn frequencies_fall_geometrically_and_are_not_trained() {
        let vs = VarStore::new(Device::Cpu);
        let _rotary = Rotary::new(&vs.root(), 4).unwrap();
        let freqs = &vs.variables()["freqs"];
        assert_eq!(Vec::<f32>::try_from(freqs).unwrap(), [1.0, 0.01]);
        assert!(!freqs.requires_grad() && vs.trainable_variables().is_empty());
    }
}
