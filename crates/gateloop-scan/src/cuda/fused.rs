//! The safe layer of the fused operators.

use super::args::{Array, GateLoopAdjointArgs, GateLoopArgs, Stream};
use super::error::CudaError;
use super::memory::{DeviceElement, DeviceVec, dtype_of};
use super::owned::{Home, ptr_of};
use super::{Cuda, Operation};
use crate::gate_loop::GateMode;
use crate::{ScanElement, ScanShape};

/// The inputs of a fused operator, each `[B, T, C]`.
///
/// For [`Operation::GateLoop`] `z` holds a pair for each channel, `[B, T, C, 2]`; for
/// [`Operation::SimpleGateLoop`] `k` is kv and there is no `v`.
#[derive(Debug)]
pub struct Gates<'a, E> {
    /// Queries.
    pub q: &'a DeviceVec<E>,
    /// Keys.
    pub k: &'a DeviceVec<E>,
    /// Values.
    pub v: Option<&'a DeviceVec<E>>,
    /// Pre-activations of the decays.
    pub z: &'a DeviceVec<E>,
}

/// What a fused operator returns.
#[derive(Debug)]
pub struct GateLoopResult<E> {
    /// Outputs, `[B, T, C]`.
    pub y: DeviceVec<E>,
    /// State after the last token, `[B, C]`, of [`Operation::GateLoop`] as pairs `[B, C, 2]`.
    pub h_last: DeviceVec<E>,
    /// What the adjoint needs.
    pub checkpoints: DeviceVec<E>,
}

/// The gradients of a fused operator, in the shapes of what they belong to.
#[derive(Debug)]
pub struct GateLoopGrads<E> {
    /// Of the queries.
    pub dq: DeviceVec<E>,
    /// Of the keys.
    pub dk: DeviceVec<E>,
    /// Of the values; arbitrary for [`Operation::SimpleGateLoop`].
    pub dv: DeviceVec<E>,
    /// Of the pre-activations.
    pub dz: DeviceVec<E>,
    /// Of the initial state.
    pub dh0: DeviceVec<E>,
}

impl Cuda {
    /// A fused operator forward, [`Operation::GateLoop`] or [`Operation::SimpleGateLoop`].
    ///
    /// # Shapes
    /// `gates` as described there; `h0`: `[B, C]`, of [`Operation::GateLoop`] as pairs `[B, C, 2]`.
    ///
    /// # Errors
    /// [`CudaError::Scan`] names an operand of the wrong length, [`CudaError::Operand`] one that lacks.
    #[allow(clippy::too_many_arguments)] // The operands of the recurrence, each with its own meaning.
    pub fn run_gate_loop<E: ScanElement + DeviceElement>(
        &self,
        operation: Operation,
        stream: Stream,
        shape: ScanShape,
        gates: &Gates<'_, E>,
        h0: Option<&DeviceVec<E>>,
        starts: Option<&DeviceVec<u8>>,
        reversed: bool,
        mode: GateMode,
    ) -> Result<GateLoopResult<E>, CudaError> {
        let home = Home { cuda: self, stream };
        let dims = home.dims(shape, starts, reversed)?;
        let parts = parts(operation);
        let v = gates.check(operation, shape, home)?;
        if let Some(h0) = h0 {
            home.check("h0", "[B, C]", h0, parts * shape.state_len())?;
        }
        let dtype = dtype_of::<E>();
        let count = shape.seqlen.div_ceil(self.checkpoint_len(operation, dtype)?);
        let y = DeviceVec::uninit(self, stream, shape.len())?;
        let h_last = DeviceVec::uninit(self, stream, parts * shape.state_len())?;
        let checkpoints = DeviceVec::uninit(self, stream, parts * count * shape.state_len())?;
        let bytes = self.workspace_bytes(operation, dtype, shape)?;
        let args = GateLoopArgs {
            dims,
            dtype,
            q: Array::contiguous(gates.q.ptr(), shape),
            k: Array::contiguous(gates.k.ptr(), shape),
            v: Array::contiguous(v, shape),
            z: Array::contiguous(gates.z.ptr(), shape),
            y: Array::contiguous(y.ptr(), shape),
            h0: ptr_of(h0),
            h_last: h_last.ptr(),
            checkpoints: checkpoints.ptr(),
            mode,
        };
        self.with_workspace(stream, bytes, |workspace| {
            // SAFETY: lengths, device and stream are checked, the outputs are ours, and all of it is
            // freed in the order of this stream.
            unsafe { self.gate_loop(operation, stream, workspace, &args) }
        })?;
        Ok(GateLoopResult { y, h_last, checkpoints })
    }

    /// The gradient of [`Cuda::run_gate_loop`]; `operation` is that of the forward pass.
    ///
    /// # Shapes
    /// As the forward pass; `dy`: `[B, T, C]`; `dh_last` like `h_last`.
    ///
    /// # Errors
    /// As the forward pass.
    #[allow(clippy::too_many_arguments)] // The operands of the recurrence, each with its own meaning.
    pub fn run_gate_loop_adjoint<E: ScanElement + DeviceElement>(
        &self,
        operation: Operation,
        stream: Stream,
        shape: ScanShape,
        gates: &Gates<'_, E>,
        has_h0: bool,
        starts: Option<&DeviceVec<u8>>,
        reversed: bool,
        mode: GateMode,
        checkpoints: &DeviceVec<E>,
        dy: &DeviceVec<E>,
        dh_last: Option<&DeviceVec<E>>,
    ) -> Result<GateLoopGrads<E>, CudaError> {
        let home = Home { cuda: self, stream };
        let dims = home.dims(shape, starts, reversed)?;
        let (parts, dtype) = (parts(operation), dtype_of::<E>());
        let v = gates.check(operation, shape, home)?;
        let count = shape.seqlen.div_ceil(self.checkpoint_len(operation, dtype)?);
        home.check("checkpoints", "[B, n, C]", checkpoints, parts * count * shape.state_len())?;
        home.check("dy", "[B, T, C]", dy, shape.len())?;
        if let Some(dh_last) = dh_last {
            home.check("dh_last", "[B, C]", dh_last, parts * shape.state_len())?;
        }
        let adjoint = match operation {
            Operation::GateLoop => Operation::GateLoopAdjoint,
            Operation::SimpleGateLoop => Operation::SimpleGateLoopAdjoint,
            other => {
                let problem = format!("{}: name that of the forward pass", other.name());
                return Err(CudaError::Operand { operand: "operation", problem });
            }
        };
        let place = |len| DeviceVec::uninit(self, stream, len);
        let grads = GateLoopGrads {
            dq: place(shape.len())?,
            dk: place(shape.len())?,
            dv: place(shape.len())?,
            dz: place(parts * shape.len())?,
            dh0: place(parts * shape.state_len())?,
        };
        let bytes = self.workspace_bytes(adjoint, dtype, shape)?;
        let args = GateLoopAdjointArgs {
            dims,
            dtype,
            q: Array::contiguous(gates.q.ptr(), shape),
            k: Array::contiguous(gates.k.ptr(), shape),
            v: Array::contiguous(v, shape),
            z: Array::contiguous(gates.z.ptr(), shape),
            dy: Array::contiguous(dy.ptr(), shape),
            dq: Array::contiguous(grads.dq.ptr(), shape),
            dk: Array::contiguous(grads.dk.ptr(), shape),
            dv: Array::contiguous(grads.dv.ptr(), shape),
            dz: Array::contiguous(grads.dz.ptr(), shape),
            checkpoints: checkpoints.ptr(),
            has_h0,
            dh_last: ptr_of(dh_last),
            dh0: grads.dh0.ptr(),
            mode,
        };
        self.with_workspace(stream, bytes, |workspace| {
            // SAFETY: lengths, device and stream are checked, the outputs are ours, and all of it is
            // freed in the order of this stream.
            unsafe { self.gate_loop_adjoint(adjoint, stream, workspace, &args) }
        })?;
        Ok(grads)
    }
}

impl<E: DeviceElement> Gates<'_, E> {
    /// Checks the lengths; returns the address of `v`, of `k` where it is not read.
    fn check(
        &self,
        operation: Operation,
        shape: ScanShape,
        home: Home<'_>,
    ) -> Result<u64, CudaError> {
        home.check("q", "[B, T, C]", self.q, shape.len())?;
        home.check("k", "[B, T, C]", self.k, shape.len())?;
        home.check("z", "[B, T, C]", self.z, parts(operation) * shape.len())?;
        match (operation, self.v) {
            (Operation::GateLoop, Some(v)) => {
                home.check("v", "[B, T, C]", v, shape.len())?;
                Ok(v.ptr())
            }
            (Operation::GateLoop, None) => {
                let problem = "missing: gate_loop needs values".to_owned();
                Err(CudaError::Operand { operand: "v", problem })
            }
            _ => Ok(self.k.ptr()),
        }
    }
}

/// Real numbers in a state.
const fn parts(operation: Operation) -> usize {
    match operation {
        Operation::GateLoop | Operation::GateLoopAdjoint => 2,
        _ => 1,
    }
}
