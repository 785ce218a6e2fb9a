//! Whether and with what gradients a step is made, decided on the device that made the gradients.

use gateloop_nn::NnError;
use gateloop_nn::foreach::{AdamWGuard, total_norm_tensor};
use tch::{Device, Kind, Tensor};

/// Added to a norm that gradients are divided by, as PyTorch's `clip_grad_norm_` does.
pub(super) const CLIP_EPS: f64 = 1e-6;

/// What decides about a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Measured {
    pub(super) loss: f64,
    /// Before clipping.
    pub(super) grad_norm: f64,
}

impl Measured {
    pub(super) fn is_finite(&self) -> bool {
        self.loss.is_finite() && self.grad_norm.is_finite()
    }
}

/// The same on the device with what follows from it. Nothing is read back before [`read`](Self::read).
#[derive(Debug)]
pub(super) struct Verdict {
    /// Loss and norm, [2]: Double, which holds numbers of all other kinds.
    measured: Tensor,
    grad_scale: Option<Tensor>,
    refused: Tensor,
}

impl Verdict {
    /// Of the gradients of the sum of `losses`, scalars of one kind. The gradients are to be scaled down to `clip_norm` if
    /// their norm is above it, unless that is 0.
    pub(super) fn new(
        losses: &[Tensor],
        grads: &[Tensor],
        clip_norm: f64,
    ) -> Result<Self, NnError> {
        let loss = Tensor::f_stack(losses, 0)?.f_sum(Kind::Double)?;
        let norm = match total_norm_tensor(grads)? {
            Some(norm) => norm.f_to_kind(Kind::Double)?,
            None => loss.f_zeros_like()?,
        };
        let grad_scale = (clip_norm > 0.0).then(|| scale(&norm, clip_norm)).transpose()?;
        let measured = Tensor::f_stack(&[&loss, &norm], 0)?;
        // Of the numbers that are read back, so that device and host cannot disagree.
        let refused = measured.f_isfinite()?.f_all()?.f_logical_not()?.f_to_kind(Kind::Float)?;
        Ok(Self { measured, grad_scale, refused })
    }

    pub(super) fn guard(&self) -> AdamWGuard<'_> {
        AdamWGuard { grad_scale: self.grad_scale.as_ref(), found_inf: &self.refused }
    }

    /// Waits for all that the device was given so far.
    pub(super) fn read(&self) -> Result<Measured, NnError> {
        let measured = self.measured.f_to_device(Device::Cpu)?;
        let [loss, grad_norm] = [0, 1].map(|at| measured.f_double_value(&[at]));
        Ok(Measured { loss: loss?, grad_norm: grad_norm? })
    }
}

/// By what gradients of a norm are divided: 1 up to `clip_norm`.
fn scale(norm: &Tensor, clip_norm: f64) -> Result<Tensor, NnError> {
    let clipped = norm.f_add_scalar(CLIP_EPS)?.f_div_scalar(clip_norm)?;
    // Not `where`: that may copy its scalar to the device, and wait for the copy.
    Ok(clipped.f_masked_fill(&norm.f_le(clip_norm)?, 1.0)?.f_to_kind(Kind::Float)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    /// Gradients of norm 5.
    fn grads() -> [Tensor; 2] {
        [Tensor::from_slice(&[3f32, 0.0]), Tensor::from(-4f32)]
    }

    fn verdict(losses: &[f32], grads: &[Tensor], clip_norm: f64) -> Verdict {
        let losses: Vec<Tensor> = losses.iter().map(|loss| Tensor::from(*loss)).collect();
        Verdict::new(&losses, grads, clip_norm).unwrap()
    }

    fn grad_scale(clip_norm: f64) -> f32 {
        let scale = verdict(&[1.0], &grads(), clip_norm).grad_scale.unwrap();
        scale.double_value(&[]) as f32
    }

    #[test]
    fn losses_are_added_and_gradients_measured() {
        let verdict = verdict(&[0.5, 0.25], &grads(), 1.0);
        assert_eq!(verdict.read().unwrap(), Measured { loss: 0.75, grad_norm: 5.0 });
        assert_eq!(verdict.refused, Tensor::from(0f32));
    }

    #[test]
    fn only_what_is_above_the_bound_is_scaled() {
        assert_eq!(grad_scale(4.0), ((5.0 + CLIP_EPS) / 4.0) as f32);
        // At the bound itself the formula would divide by more than 1.
        assert_eq!(grad_scale(5.0), 1.0);
        assert_eq!(grad_scale(7.0), 1.0);
        assert!(verdict(&[1.0], &grads(), 0.0).grad_scale.is_none());
    }

    #[test]
    fn what_is_not_finite_is_refused_by_device_and_host() {
        let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        for value in bad {
            let [first, _] = grads();
            let of_grads = verdict(&[1.0], &[first, Tensor::from_slice(&[0.0, value])], 1.0);
            for verdict in [verdict(&[1.0, value], &grads(), 1.0), of_grads] {
                assert_eq!(verdict.refused, Tensor::from(1f32), "{value}");
                assert!(!verdict.read().unwrap().is_finite(), "{value}");
            }
        }
    }

    #[test]
    fn no_gradients_have_norm_0() {
        let verdict = verdict(&[1.5], &[], 1.0);
        assert_eq!(verdict.read().unwrap(), Measured { loss: 1.5, grad_norm: 0.0 });
        assert_eq!(verdict.refused, Tensor::from(0f32));
    }
}
