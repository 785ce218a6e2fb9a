//! The state transition `a[t]`, in polar form.

use super::polar::exp_polar;
use crate::autograd::{self, Function, Saved, gradients_are_recorded};
use crate::error::{NnError, Result};
use crate::precision::widen;
use crate::slices::product_of_logarithms;
use gateloop_scan::gate_loop::GateMode;
use std::f64::consts::PI;
use tch::{Kind, Tensor};

/// What a state transition is computed from the pre-activation z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransitionMode {
    /// a = sigmoid(|z|) e^{i arg z}
    #[default]
    Complex,
    /// a = sigmoid(|Re z|) sign(Re z): the reference's `ablate_complex`
    Real,
    /// a = 1, whatever z: the reference's `ablate_state_transition`
    Identity,
}

/// The decay of each head at each token as log magnitude and phase, both [B, T, H].
///
/// The chunkwise form needs logarithms and angles, the scan needs the number itself; the polar form
/// gives either without a division, and only non-positive numbers reach exp().
#[derive(Debug)]
pub struct StateTransition {
    log_magnitude: Tensor,
    phase: Tensor,
}

/// Its exponential is 0 in double precision, too; and sums of it, unlike those of the infinite logarithm of 0, are
/// numbers whose differences keep eleven digits after the point over a chunk.
const FORGET: f64 = -1000.0;

impl StateTransition {
    /// From a log magnitude (finite, at most 0) and a phase in radians, both [B, T, H].
    pub fn from_polar(log_magnitude: &Tensor, phase: &Tensor) -> Result<Self> {
        let expected = log_magnitude.size();
        if expected.len() != 3 {
            let (operand, needed) = ("log_magnitude", "[B, T, H]".into());
            return Err(NnError::Shape { operand, expected: needed, actual: expected });
        }
        if phase.size() != expected {
            let needed = format!("the shape of the log magnitude, {expected:?},");
            return Err(NnError::Shape {
                operand: "phase",
                expected: needed,
                actual: phase.size(),
            });
        }
        if phase.kind() != log_magnitude.kind() {
            return Err(NnError::Kind {
                operand: "phase",
                expected: "the kind of the log magnitude",
                actual: phase.kind(),
            });
        }
        Ok(Self { log_magnitude: log_magnitude.shallow_clone(), phase: phase.shallow_clone() })
    }

    /// From the pre-activation z, [B, T, H, 2]: its real and its imaginary part.
    pub fn from_pre_activation(z: &Tensor, mode: TransitionMode) -> Result<Self> {
        if z.dim() != 4 || z.size()[3] != 2 {
            return Err(NnError::Shape {
                operand: "z",
                expected: "[B, T, H, 2]".into(),
                actual: z.size(),
            });
        }
        match mode {
            TransitionMode::Complex => {
                let z = z.f_contiguous()?.f_view_as_complex()?;
                Ok(Self { log_magnitude: log_sigmoid(&z.f_abs()?)?, phase: z.f_angle()? })
            }
            TransitionMode::Real => {
                let re = z.f_select(3, 0)?;
                // The sign as a phase: 0 or pi. It is piecewise constant and carries no gradient.
                let phase = re.f_lt(0.0)?.f_to_kind(re.kind())?.f_mul_scalar(PI)?;
                Ok(Self { log_magnitude: log_sigmoid(&re.f_abs()?)?, phase })
            }
            TransitionMode::Identity => {
                let ones = z.f_select(3, 0)?.f_zeros_like()?;
                Ok(Self { phase: ones.shallow_clone(), log_magnitude: ones })
            }
        }
    }

    /// The same with a = 0 at the tokens where a sequence begins inside, Bool [B, T]: nothing goes on from the token
    /// before, and no gradient goes to these decays.
    pub(crate) fn forgetting_at(self, starts: &Tensor) -> Result<Self> {
        let log_magnitude = self.log_magnitude.f_masked_fill(&starts.f_unsqueeze(-1)?, FORGET)?;
        Ok(Self { log_magnitude, ..self })
    }

    /// ln|a|, [B, T, H], never positive.
    pub fn log_magnitude(&self) -> &Tensor {
        &self.log_magnitude
    }

    /// arg a in radians, [B, T, H].
    pub fn phase(&self) -> &Tensor {
        &self.phase
    }

    /// a itself, complex, [B, T, H].
    pub fn decay(&self) -> Result<Tensor> {
        exp_polar(&self.log_magnitude, &self.phase)
    }
}

/// The product of the decays over time, complex [B, C] of the kind `kind`, from pre-activations [B, T, C, 2].
pub(crate) fn pre_activation_product(z: &Tensor, mode: GateMode, kind: Kind) -> Result<Tensor> {
    let mode = match mode {
        GateMode::Complex => TransitionMode::Complex,
        GateMode::Real => TransitionMode::Real,
        GateMode::Identity => TransitionMode::Identity,
    };
    let transition = StateTransition::from_pre_activation(&widen(z)?, mode)?;
    product_of_logarithms(transition.log_magnitude(), Some(transition.phase()), kind)
}

/// ln sigmoid(x) = -ln(1 + e^{-x}) for x that is not negative.
///
/// libtorch's own `log_sigmoid` wakes all its threads for a handful of numbers, and they then stand in
/// the way of those that multiply the weights of a decoding step.
fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok(x.f_neg()?.f_softplus()?.f_neg()?)
}

/// z itself with `fraction` of its gradient.
pub(crate) fn scale_gradient(z: &Tensor, fraction: f64) -> Result<Tensor> {
    if fraction == 1.0 || !z.requires_grad() || !gradients_are_recorded() {
        return Ok(z.shallow_clone());
    }
    Ok(autograd::apply(ScaleGradient { fraction }, &[z])?.remove(0))
}

struct ScaleGradient {
    fraction: f64,
}

impl Function for ScaleGradient {
    const OUTPUTS: usize = 1;

    /// The input, which libtorch takes for a view of it: nothing is copied.
    fn forward(&self, inputs: &[Tensor], _saved: &mut Saved) -> Result<Vec<Tensor>> {
        Ok(vec![inputs[0].shallow_clone()])
    }

    fn backward(
        &self,
        _saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let scaled = grad_outputs[0].as_ref().map(|dz| dz.f_mul_scalar(self.fraction));
        Ok(vec![scaled.transpose()?])
    }
}

/// Checks the `fraction` of a gradient.
pub(crate) fn check_fraction(key: &'static str, fraction: f64) -> Result<()> {
    if (0.0..=1.0).contains(&fraction) {
        return Ok(());
    }
    let problem = format!("{fraction} is given, but a fraction from 0 to 1 is needed");
    Err(NnError::Config { key, problem })
}

/// The complex kind whose parts have this real kind.
pub(super) fn complex_kind(kind: Kind) -> Result<Kind> {
    match kind {
        Kind::Float => Ok(Kind::ComplexFloat),
        Kind::Double => Ok(Kind::ComplexDouble),
        actual => Err(NnError::Kind { operand: "q", expected: "Float or Double", actual }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_scaled_gradient_leaves_the_value_where_it_is() -> Result<()> {
        let options = (Kind::Float, Device::Cpu);
        let x = Tensor::arange(6, options).set_requires_grad(true);
        // A product, and a leaf; of each once the whole and once a part.
        for z in [&x * 2.0, x.shallow_clone(), (&x * 2.0).narrow(0, 1, 4)] {
            for fraction in [0.0, 0.25, 1.0] {
                let scaled = scale_gradient(&z, fraction)?;
                assert_eq!(scaled.data_ptr(), z.data_ptr());
                assert_eq!(scaled, z);
                let gradient = |y: &Tensor| {
                    // The value is used beside it, and reshaped as the layers do.
                    let loss = y.view([-1, 2]).square().sum(Kind::Float) + z.sum(Kind::Float);
                    Ok::<_, tch::TchError>(
                        Tensor::f_run_backward(&[loss], &[&x], true, false)?.remove(0),
                    )
                };
                let beside = Tensor::f_run_backward(&[z.sum(Kind::Float)], &[&x], true, false)?;
                let expected = (gradient(&z)? - &beside[0]) * fraction + &beside[0];
                assert_eq!(gradient(&scaled)?, expected);
            }
        }
        let unrecorded = tch::no_grad(|| scale_gradient(&x, 0.5))?;
        assert_eq!(unrecorded.data_ptr(), x.data_ptr());
        Ok(())
    }
}
