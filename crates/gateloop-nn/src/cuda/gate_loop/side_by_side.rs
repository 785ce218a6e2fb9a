//! The fused operators of projections that lie side by side in one tensor, as one product has written them. Their
//! gradients are written side by side too, where that product's gradient wants them: nothing is copied together.

use super::{Computed, Fused, FusedFunction, Operands, check};
use crate::autograd::{self, Function, Saved};
use crate::cuda::gate::{silu_gate, silu_gate_adjoint};
use crate::cuda::memory::Place;
use crate::error::{NnError, Result};
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::Operation;
use tch::Tensor;

/// `y` [B, T, C] and the last state [B, C], of a whole sequence; with gates, y silu(gates).
///
/// # Shapes
/// - `projected`: [B, T, n C]: of `GateLoop` q, k, v and the pairs of z, n = 5 and C even, else q, kv and z, n = 3; and
///   after them, if `gated`, C gates
/// - `state`: [B, C], complex for `GateLoop`
pub(crate) fn fused_side_by_side(
    fused: Fused,
    projected: &Tensor,
    gated: bool,
    state: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    if fused.ranks.is_some() {
        let problem = "over several ranks the operands of an operator lie apart".into();
        return Err(NnError::Config { key: "ranks", problem });
    }
    let layout = Layout { is_complex: fused.operation == Operation::GateLoop, gated };
    let [batch, seqlen, channels] = layout.dims(projected)?;
    if let Some(state) = state {
        check("state", state, &[batch, channels])?;
    }
    let shape = ScanShape::new(batch as usize, seqlen as usize, channels as usize)?;
    let operator = FusedFunction { fused, shape, has_h0: state.is_some() };
    let inputs: Vec<&Tensor> = [projected].into_iter().chain(state).collect();
    let mut outputs = autograd::apply(SideBySide { operator, layout }, &inputs)?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(y), Some(last)) => Ok((y, last)),
        _ => Err(NnError::Function { message: "the operator returned too few outputs".into() }),
    }
}

/// What lies side by side.
#[derive(Debug, Clone, Copy)]
struct Layout {
    is_complex: bool,
    gated: bool,
}

impl Layout {
    /// In multiples of C.
    fn width(self) -> i64 {
        let operands = if self.is_complex { 5 } else { 3 };
        operands + i64::from(self.gated)
    }

    /// B, T and C.
    fn dims(self, projected: &Tensor) -> Result<[i64; 3]> {
        let width = self.width();
        // A pair at an odd place is no complex number.
        let unit = if self.is_complex { 2 * width } else { width };
        match projected.size()[..] {
            [batch, seqlen, all] if all % unit == 0 => Ok([batch, seqlen, all / width]),
            _ => Err(NnError::Shape {
                operand: "projected",
                expected: format!("[B, T, a multiple of {unit}]"),
                actual: projected.size(),
            }),
        }
    }

    /// Views of the operands, or of their gradients, and of the gates.
    fn views(self, projected: &Tensor) -> Result<(Operands, Option<Tensor>)> {
        let [_, _, channels] = self.dims(projected)?;
        let part = |at: i64, width: i64| projected.f_narrow(2, at * channels, width * channels);
        let (q, k) = (part(0, 1)?, part(1, 1)?);
        let (v, z) = if self.is_complex {
            (part(2, 1)?, part(3, 2)?)
        } else {
            (k.shallow_clone(), part(2, 1)?)
        };
        let gates = self.gated.then(|| part(self.width() - 1, 1)).transpose()?;
        Ok((Operands { q, k, v, z }, gates))
    }
}

/// Inputs: what was projected, and the state if there is one.
struct SideBySide {
    operator: FusedFunction,
    layout: Layout,
}

impl Function for SideBySide {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let place = Place::of("projected", &inputs[0])?;
        let projected = inputs[0].f_contiguous()?;
        let (operands, gates) = self.layout.views(&projected)?;
        let Computed { y, last, checkpoints } =
            self.operator.run(&place, &operands, inputs.get(1), saved.is_wanted())?;
        for tensor in [&projected].into_iter().chain(&checkpoints) {
            saved.push(tensor);
        }
        let Some(gates) = gates else { return Ok(vec![y, last]) };
        saved.push(&y);
        Ok(vec![silu_gate(&y, &gates)?, last])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let place = Place::of("projected", &saved[0])?;
        let (operands, gates) = self.layout.views(&saved[0])?;
        let dprojected = place.empty(&saved[0].size(), saved[0].kind())?;
        let (grads, dgates) = self.layout.views(&dprojected)?;
        let [arriving, dlast] = [&grad_outputs[0], &grad_outputs[1]].map(Option::as_ref);
        let dy = match (gates, dgates, arriving) {
            (Some(gates), Some(dgates), Some(arriving)) => {
                Some(silu_gate_adjoint(arriving, [&saved[2], &gates, &dgates])?)
            }
            (_, Some(mut dgates), None) => {
                let _ = dgates.f_zero_()?;
                None
            }
            (_, _, arriving) => arriving.map(Tensor::shallow_clone),
        };
        let kept = (&operands, &saved[1]);
        let dh0 = self.operator.run_back(&place, kept, [dy.as_ref(), dlast], &grads)?;
        let mut grads = vec![Some(dprojected)];
        grads.extend(dh0.map(Some));
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use tch::{Device, Kind};

    const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

    #[test]
    fn the_views_are_what_was_projected() {
        let columns = Tensor::arange(24, OPTIONS).view([1, 1, 24]).repeat([2, 3, 1]);
        let first = |part: &Tensor| (part.double_value(&[1, 2, 0]), part.size()[2]);
        for gated in [false, true] {
            let channels = if gated { 4 } else { 2 };
            let complex = columns.narrow(2, 0, if gated { 24 } else { 10 });
            let layout = Layout { is_complex: true, gated };
            assert_eq!(layout.dims(&complex).unwrap(), [2, 3, channels]);
            let (Operands { q, k, v, z }, gates) = layout.views(&complex).unwrap();
            let c = channels as f64;
            assert_eq!([&q, &k, &v].map(first), [0.0, c, 2.0 * c].map(|at| (at, channels)));
            assert_eq!(first(&z), (3.0 * c, 2 * channels));
            assert_eq!(gates.as_ref().map(first), gated.then_some((5.0 * c, channels)));
        }
        let layout = Layout { is_complex: false, gated: false };
        let (Operands { q, k, z, .. }, gates) = layout.views(&columns).unwrap();
        assert_eq!([&q, &k, &z].map(first), [0.0, 8.0, 16.0].map(|at| (at, 8)));
        assert!(gates.is_none());
    }

    /// Sizes are looked at before the device, so that this shows without a GPU.
    #[test]
    fn sizes_that_do_not_fit_are_named() {
        let fused = Fused {
            operation: Operation::GateLoop,
            mode: gateloop_scan::gate_loop::GateMode::Complex,
            reverse: false,
            segment_starts: None,
            ranks: None,
        };
        let refused = |size: &[i64], state: Option<&Tensor>| {
            let projected = Tensor::zeros(size, OPTIONS);
            fused_side_by_side(fused.clone(), &projected, true, state).unwrap_err().to_string()
        };
        for size in [&[2, 5, 18][..], &[2, 5, 25], &[2, 24]] {
            assert!(refused(size, None).contains("`projected`"), "{size:?}");
        }
        let state = Tensor::zeros([2, 3], OPTIONS);
        assert!(refused(&[2, 5, 24], Some(&state)).contains("`state`"));
        assert!(refused(&[2, 5, 24], None).contains("`projected`"), "it is on the CPU");
    }
}
