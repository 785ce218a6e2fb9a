//! The fused operators of CUDA tensors: gate, scan and readout in one kernel; the backward pass computes
//! the states again from checkpoints, so that training keeps the projections only.

mod side_by_side;
mod slice;

pub(crate) use side_by_side::fused_side_by_side;

use super::memory::{Place, address, address_of, array, dtype, kind, starts};
use crate::autograd::{Function, Saved};
use crate::error::{NnError, Result};
use crate::slices::{self, SequenceRanks};
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{Dims, GateLoopAdjointArgs, GateLoopArgs, Operation};
use gateloop_scan::gate_loop::GateMode;
use std::sync::Arc;
use tch::Tensor;

/// A fused operator: which, how the decay is computed, and which way time runs.
#[derive(Debug, Clone)]
pub(crate) struct Fused {
    /// `GateLoop` or `SimpleGateLoop`.
    pub(crate) operation: Operation,
    pub(crate) mode: GateMode,
    pub(crate) reverse: bool,
    /// Where sequences begin inside, [B, T] in row-major order.
    pub(crate) segment_starts: Option<Arc<[bool]>>,
    /// The ranks that share the sequence, if there are several.
    pub(crate) ranks: Option<Arc<dyn SequenceRanks>>,
}

/// `y` [B, T, C] and the last state [B, C].
///
/// # Shapes
/// `inputs`: q, k, v, each [B, T, C], and z [B, T, C, 2]; of `SimpleGateLoop` q, kv and z [B, T, C].
/// `state`: [B, C], complex for `GateLoop`.
pub(crate) fn fused(
    fused: Fused,
    inputs: &[&Tensor],
    state: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let [batch, seqlen, channels] = inputs[0].size()[..] else {
        let expected = "[B, T, C]".into();
        return Err(NnError::Shape { operand: "q", expected, actual: inputs[0].size() });
    };
    let shape = ScanShape::new(batch as usize, seqlen as usize, channels as usize)?;
    // The kernels trust the sizes.
    let names: &[&'static str] = if fused.operation == Operation::GateLoop {
        check("z", inputs[3], &[batch, seqlen, channels, 2])?;
        &["k", "v"]
    } else {
        &["kv", "z"]
    };
    for (name, input) in names.iter().zip(&inputs[1..]) {
        check(name, input, &[batch, seqlen, channels])?;
    }
    if let Some(state) = state {
        check("state", state, &[batch, channels])?;
    }
    let ranks = fused.ranks.clone();
    let enters = slices::enters_from_before(ranks.as_ref(), fused.reverse)?;
    let function = FusedFunction { fused, shape, has_h0: state.is_some() || enters };
    let mut outputs = slices::apply(function, inputs, state, ranks.as_ref())?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(y), Some(last)) => Ok((y, last)),
        _ => Err(NnError::Function { message: "the operator returned too few outputs".into() }),
    }
}

fn check(operand: &'static str, tensor: &Tensor, expected: &[i64]) -> Result<()> {
    if tensor.size() == expected {
        return Ok(());
    }
    let expected = format!("{expected:?}, to agree with `q`,");
    Err(NnError::Shape { operand, expected, actual: tensor.size() })
}

struct FusedFunction {
    fused: Fused,
    shape: ScanShape,
    has_h0: bool,
}

/// The operands in a form that the kernels take, or their gradients.
struct Operands {
    q: Tensor,
    k: Tensor,
    /// k again where there is no v.
    v: Tensor,
    /// [B, T, C] or [B, T, 2 C]: pairs side by side.
    z: Tensor,
}

/// What a forward pass computes.
struct Computed {
    y: Tensor,
    last: Tensor,
    /// For a backward pass, where one may follow.
    checkpoints: Option<Tensor>,
}

impl FusedFunction {
    fn is_complex(&self) -> bool {
        self.fused.operation == Operation::GateLoop
    }

    fn dims(&self, starts: Option<&Tensor>) -> Dims {
        Dims { shape: self.shape, reversed: self.fused.reverse, starts: address_of(starts) }
    }

    fn starts(&self, place: &Place) -> Result<Option<Tensor>> {
        starts(self.fused.segment_starts.as_deref(), self.shape, place.device)
    }

    fn operands(&self, place: &Place, inputs: &[Tensor]) -> Result<Operands> {
        let elements = inputs[0].kind();
        let q = place.plain("q", &inputs[0], elements)?;
        let k = place.plain("k", &inputs[1], elements)?;
        let (v, z) = if self.is_complex() {
            // Pairs lie side by side in what the projection wrote.
            let z = place.plain("z", &inputs[3].f_flatten(2, 3)?, elements)?;
            (place.plain("v", &inputs[2], elements)?, paired(z)?)
        } else {
            (k.shallow_clone(), place.plain("z", &inputs[2], elements)?)
        };
        Ok(Operands { q, k, v, z })
    }

    /// The rows of z, in its own elements.
    fn gates(&self, z: &Tensor) -> gateloop_scan::cuda::Array {
        let mut rows = array(z);
        if self.is_complex() {
            rows.batch_stride /= 2;
            rows.row_stride /= 2;
        }
        rows
    }

    /// The forward pass, from the state `h0`.
    fn run(
        &self,
        place: &Place,
        operands: &Operands,
        h0: Option<&Tensor>,
        keeps: bool,
    ) -> Result<Computed> {
        let elements = operands.q.kind();
        let dtype = dtype("q", elements)?;
        let operation = self.fused.operation;
        let state = kind(operation.state(dtype));
        let h0 =
            h0.map(|h0| place.plain("state", h0, state)?.f_contiguous().map_err(NnError::from));
        let h0 = h0.transpose()?;
        let (batch, channels) = (self.shape.batch as i64, self.shape.channels as i64);
        let count = self.shape.seqlen.div_ceil(place.cuda.checkpoint_len(operation, dtype)?) as i64;
        let y = place.empty(&operands.q.size(), elements)?;
        let last = place.empty(&[batch, channels], state)?;
        let checkpoints =
            keeps.then(|| place.empty(&[batch, count, channels], state)).transpose()?;
        let starts = self.starts(place)?;
        let args = GateLoopArgs {
            dims: self.dims(starts.as_ref()),
            dtype,
            q: array(&operands.q),
            k: array(&operands.k),
            v: array(&operands.v),
            z: self.gates(&operands.z),
            y: array(&y),
            h0: address_of(h0.as_ref()),
            h_last: address(&last),
            checkpoints: address_of(checkpoints.as_ref()),
            mode: self.fused.mode,
        };
        place.with_workspace(operation, dtype, self.shape, |workspace| {
            // SAFETY: `fused` and `fused_side_by_side` have checked the sizes, `operands` or `views` devices, kinds
            // and layouts; torch reuses memory in stream order only.
            unsafe { place.cuda.gate_loop(operation, place.stream, workspace, &args) }
        })?;
        Ok(Computed { y, last, checkpoints })
    }

    /// The backward pass: writes `grads`, and returns the gradient of the state if there was one.
    fn run_back(
        &self,
        place: &Place,
        (operands, checkpoints): (&Operands, &Tensor),
        [dy, dh_last]: [Option<&Tensor>; 2],
        grads: &Operands,
    ) -> Result<Option<Tensor>> {
        let elements = operands.q.kind();
        let dtype = dtype("q", elements)?;
        let operation = if self.is_complex() {
            Operation::GateLoopAdjoint
        } else {
            Operation::SimpleGateLoopAdjoint
        };
        let dy = match dy {
            Some(dy) => place.plain("dy", dy, elements)?,
            None => operands.q.f_zeros_like()?.f_contiguous()?,
        };
        let state = kind(operation.state(dtype));
        let dh_last = dh_last
            .map(|d| place.plain("dh_last", d, state)?.f_contiguous().map_err(NnError::from))
            .transpose()?;
        let (batch, channels) = (self.shape.batch as i64, self.shape.channels as i64);
        let dh0 = self.has_h0.then(|| place.empty(&[batch, channels], state)).transpose()?;
        let starts = self.starts(place)?;
        let args = GateLoopAdjointArgs {
            dims: self.dims(starts.as_ref()),
            dtype,
            q: array(&operands.q),
            k: array(&operands.k),
            v: array(&operands.v),
            z: self.gates(&operands.z),
            dy: array(&dy),
            dq: array(&grads.q),
            dk: array(&grads.k),
            dv: array(&grads.v),
            dz: self.gates(&grads.z),
            checkpoints: address(checkpoints),
            has_h0: self.has_h0,
            dh_last: address_of(dh_last.as_ref()),
            dh0: address_of(dh0.as_ref()),
            mode: self.fused.mode,
        };
        place.with_workspace(operation, dtype, self.shape, |workspace| {
            // SAFETY: as in `run`.
            unsafe { place.cuda.gate_loop_adjoint(operation, place.stream, workspace, &args) }
        })?;
        Ok(dh0)
    }
}

/// z with every pair at an even place, as a complex number needs it.
fn paired(z: Tensor) -> Result<Tensor> {
    let pair = 2 * z.kind().elt_size_in_bytes();
    let stride = z.stride();
    let is_paired =
        stride.iter().take(2).all(|s| s % 2 == 0) && (z.data_ptr() as usize).is_multiple_of(pair);
    Ok(if is_paired { z } else { z.f_contiguous()? })
}

impl Function for FusedFunction {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let place = Place::of("q", &inputs[0])?;
        let given = if self.is_complex() { 4 } else { 3 };
        let operands = self.operands(&place, &inputs[..given])?;
        let state = inputs.get(given);
        let Computed { y, last, checkpoints } =
            self.run(&place, &operands, state, saved.is_wanted())?;
        for tensor in inputs[..given].iter().chain(&checkpoints) {
            saved.push(tensor);
        }
        Ok(vec![y, last])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let place = Place::of("q", &saved[0])?;
        let given = if self.is_complex() { 4 } else { 3 };
        let operands = self.operands(&place, &saved[..given])?;
        let like = |tensor: &Tensor| place.empty(&tensor.size(), tensor.kind());
        let (q, k, z) = (like(&operands.q)?, like(&operands.k)?, like(&operands.z)?);
        let v = if self.is_complex() { like(&operands.v)? } else { k.shallow_clone() };
        let grads = Operands { q, k, v, z };
        let arriving = [grad_outputs[0].as_ref(), grad_outputs[1].as_ref()];
        let dh0 = self.run_back(&place, (&operands, &saved[given]), arriving, &grads)?;
        let Operands { q, k, v, z } = grads;
        let mut grads = vec![Some(q), Some(k)];
        if self.is_complex() {
            let shape = saved[3].size();
            grads.extend([Some(v), Some(z.f_view(shape.as_slice())?)]);
        } else {
            grads.push(Some(z));
        }
        grads.extend(dh0.map(Some));
        Ok(grads)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use tch::{Device, Kind};

    /// Sizes are looked at before the device, so that this shows without a GPU.
    #[test]
    fn operands_that_do_not_fit_are_named() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        let (x, short) = (zeros(&[2, 5, 4]), zeros(&[2, 5, 3]));
        let (z, state) = (zeros(&[2, 5, 4, 2]), zeros(&[2, 4]));
        let complex = Fused {
            operation: Operation::GateLoop,
            mode: GateMode::Complex,
            reverse: false,
            segment_starts: None,
            ranks: None,
        };
        let real = Fused { operation: Operation::SimpleGateLoop, ..complex.clone() };
        let refused = |which: &Fused, inputs: &[&Tensor], state: Option<&Tensor>| {
            fused(which.clone(), inputs, state).unwrap_err().to_string()
        };
        for (operand, inputs) in
            [("k", [&x, &short, &x, &z]), ("v", [&x, &x, &short, &z]), ("z", [&x, &x, &x, &x])]
        {
            let message = refused(&complex, &inputs, Some(&state));
            assert!(message.contains(&format!("`{operand}`")), "{message}");
        }
        for (operand, inputs) in [("kv", [&x, &short, &x]), ("z", [&x, &x, &short])] {
            let message = refused(&real, &inputs, Some(&state));
            assert!(message.contains(&format!("`{operand}`")), "{message}");
        }
        let message = refused(&real, &[&x, &x, &x], Some(&zeros(&[2, 3])));
        assert!(message.contains("`state`"), "{message}");
    }
}
