//! The output gate of CUDA tensors, y silu(gates): one pass each way.

use super::memory::{Place, address, dtype};
use crate::autograd::{self, Function, Saved};
use crate::device::on_gpu;
use crate::error::{NnError, Result};
use gateloop_scan::cuda::{SiluGateAdjointArgs, SiluGateArgs};
use tch::{Kind, Tensor};

/// y silu(gates), differentiable; `None` where no kernel does it.
///
/// # Shapes
/// - `y`, `gates`: [.., C]; returns [.., C]
pub(crate) fn silu_gated(y: &Tensor, gates: &Tensor) -> Result<Option<Tensor>> {
    let applies = on_gpu(y)
        && gates.device() == y.device()
        && gates.kind() == y.kind()
        && gates.size() == y.size()
        && matches!(y.kind(), Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half);
    if !applies {
        return Ok(None);
    }
    Ok(Some(autograd::apply(SiluGate, &[y, gates])?.remove(0)))
}

/// Inputs y and gates.
struct SiluGate;

impl Function for SiluGate {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        for input in inputs {
            saved.push(input);
        }
        Ok(vec![silu_gate(&inputs[0], &inputs[1])?])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dgated) = &grad_outputs[0] else { return Ok(vec![None, None]) };
        let (y, gates) = (&saved[0], &saved[1]);
        let dgates = Tensor::f_empty(y.size(), (y.kind(), y.device()))?;
        let dy = silu_gate_adjoint(dgated, [y, gates, &dgates])?;
        Ok(vec![Some(dy), Some(dgates)])
    }
}

/// y silu(gates).
///
/// # Shapes
/// - `y`: [.., C]; `gates`: the same, whose rows may lie among other columns; returns [.., C]
pub(super) fn silu_gate(y: &Tensor, gates: &Tensor) -> Result<Tensor> {
    let place = Place::of("y", y)?;
    let y = y.f_contiguous()?;
    let (args, _gates) = args(&place, &y, gates)?;
    let gated = place.empty(&y.size(), y.kind())?;
    let args = SiluGateArgs { gated: address(&gated), ..args };
    // SAFETY: the tensors have the sizes that are told and are alive until the launch is in the stream; torch reuses
    // their memory in stream order only.
    unsafe { place.cuda.silu_gate(place.stream, &args) }?;
    Ok(gated)
}

/// The gradient of y; writes that of the gates to `dgates`.
///
/// # Shapes
/// - `dgates`: as `gates`, its rows evenly apart
pub(super) fn silu_gate_adjoint(
    dgated: &Tensor,
    [y, gates, dgates]: [&Tensor; 3],
) -> Result<Tensor> {
    let place = Place::of("y", y)?;
    let y = y.f_contiguous()?;
    let (forward, _gates) = args(&place, &y, gates)?;
    let dgated = place.plain("dgated", dgated, y.kind())?.f_contiguous()?;
    let dy = place.empty(&y.size(), y.kind())?;
    let into = row_stride(dgates).filter(|_| dgates.kind() == y.kind());
    let Some(dgates_stride) = into.filter(|_| dgates.size() == y.size()) else {
        let expected = format!("{:?}, rows evenly apart", y.size());
        return Err(NnError::Shape { operand: "dgates", expected, actual: dgates.size() });
    };
    let args = SiluGateAdjointArgs {
        forward,
        dgated: address(&dgated),
        dy: address(&dy),
        dgates: address(dgates),
        dgates_stride,
    };
    // SAFETY: as in `silu_gate`.
    unsafe { place.cuda.silu_gate_adjoint(place.stream, &args) }?;
    Ok(dy)
}

/// What the kernels are told of y and the gates, and the gates that this points to.
fn args(place: &Place, y: &Tensor, gates: &Tensor) -> Result<(SiluGateArgs, Tensor)> {
    if gates.size() != y.size() {
        let expected = format!("{:?}, to agree with `y`,", y.size());
        return Err(NnError::Shape { operand: "gates", expected, actual: gates.size() });
    }
    let gates = place.plain("gates", gates, y.kind())?;
    let (gates, gates_stride) = match row_stride(&gates) {
        Some(stride) => (gates, stride),
        None => (gates.f_contiguous()?, y.size().last().copied().unwrap_or(1)),
    };
    let width = y.size().last().copied().unwrap_or(1) as usize;
    let args = SiluGateArgs {
        dtype: dtype("y", y.kind())?,
        rows: y.numel() / width.max(1),
        width,
        y: address(y),
        gates: address(&gates),
        gates_stride,
        gated: 0,
    };
    Ok((args, gates))
}

/// How far apart the rows [.., C] are, if that is the same from each to the next and their numbers are neighbours.
fn row_stride(tensor: &Tensor) -> Option<i64> {
    let (size, stride) = (tensor.size(), tensor.stride());
    let (dims, last) = (size.len(), *stride.last()?);
    if last != 1 {
        return None;
    }
    let Some(row) = dims.checked_sub(2) else { return Some(size[0]) };
    let even = (0..row).all(|dim| stride[dim] == stride[dim + 1] * size[dim + 1]);
    even.then_some(stride[row])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn rows_are_evenly_apart_where_one_stride_reaches_them_all() {
        let all = Tensor::zeros([2, 3, 12], (Kind::Float, Device::Cpu));
        assert_eq!(row_stride(&all), Some(12));
        assert_eq!(row_stride(&all.narrow(2, 4, 4)), Some(12));
        assert_eq!(row_stride(&all.select(0, 1).select(0, 0)), Some(12));
        assert_eq!(row_stride(&all.narrow(1, 0, 2)), None);
        assert_eq!(row_stride(&all.transpose(1, 2)), None);
    }
}
