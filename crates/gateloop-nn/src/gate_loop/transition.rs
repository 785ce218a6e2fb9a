//! The state transition `a[t]`, in polar form.

use super::polar::exp_polar;
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

/// The value of z with `fraction` of its gradient.
pub(crate) fn scale_gradient(z: &Tensor, fraction: f64) -> Result<Tensor> {
    if fraction == 1.0 || !z.requires_grad() {
        return Ok(z.shallow_clone());
    }
    let kept = z.f_mul_scalar(fraction)?;
    Ok(kept.f_add(&z.f_detach()?.f_mul_scalar(1.0 - fraction)?)?)
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
