//! The safe layer: operands that own their memory, every length checked.

use super::args::{
    Array, Dims, GateLoopAdjointArgs, GateLoopArgs, GateMode, ScanAdjointArgs, ScanArgs, Stream,
};
use super::error::CudaError;
use super::memory::{DeviceElement, DeviceVec, dtype_of};
use super::{Cuda, Operation};
use crate::error::check_len;
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

fn check<E: DeviceElement>(
    operand: &'static str,
    layout: &'static str,
    vec: &DeviceVec<E>,
    expected: usize,
) -> Result<(), CudaError> {
    Ok(check_len(operand, layout, vec.len(), expected)?)
}

fn ptr_of<E: DeviceElement>(vec: Option<&DeviceVec<E>>) -> u64 {
    vec.map_or(0, DeviceVec::ptr)
}

impl Cuda {
    /// [`crate::Scan::run`] on the device: the states and the last state.
    ///
    /// # Shapes
    /// `a`, `b`: `[B, T, C]`; `h0`: `[B, C]`; `starts`: `[B, T]`, not zero where a segment begins.
    ///
    /// # Errors
    /// [`CudaError::Scan`] names an operand of the wrong length.
    #[allow(clippy::too_many_arguments)] // The operands of the recurrence, each with its own meaning.
    pub fn run_scan<E: ScanElement + DeviceElement>(
        &self,
        stream: Stream,
        shape: ScanShape,
        a: &DeviceVec<E>,
        b: &DeviceVec<E>,
        h0: Option<&DeviceVec<E>>,
        starts: Option<&DeviceVec<u8>>,
        reversed: bool,
    ) -> Result<(DeviceVec<E>, DeviceVec<E>), CudaError> {
        let dims = dims(shape, starts, reversed)?;
        check("a", "[B, T, C]", a, shape.len())?;
        check("b", "[B, T, C]", b, shape.len())?;
        if let Some(h0) = h0 {
            check("h0", "[B, C]", h0, shape.state_len())?;
        }
        let h = DeviceVec::uninit(self, stream, shape.len())?;
        let h_last = DeviceVec::uninit(self, stream, shape.state_len())?;
        let dtype = dtype_of::<E>();
        let workspace =
            self.workspace(stream, self.workspace_bytes(Operation::Scan, dtype, shape)?)?;
        let args = ScanArgs {
            dims,
            dtype,
            a: Array::contiguous(a.ptr(), shape),
            b: Array::contiguous(b.ptr(), shape),
            h: Array::contiguous(h.ptr(), shape),
            h0: ptr_of(h0),
            h_last: h_last.ptr(),
        };
        // SAFETY: the lengths are checked, the outputs are ours, and memory is freed in stream order.
        unsafe { self.scan(stream, &workspace, &args)? };
        Ok((h, h_last))
    }

    /// [`crate::Scan::adjoint`] on the device: `(da, db, dh0)`.
    ///
    /// # Shapes
    /// As [`Cuda::run_scan`]; `h`, `dh`: `[B, T, C]`; `dh_last`: `[B, C]`.
    ///
    /// # Errors
    /// [`CudaError::Scan`] names an operand of the wrong length.
    #[allow(clippy::too_many_arguments)] // The operands of the recurrence, each with its own meaning.
    #[allow(clippy::type_complexity)]
    pub fn run_scan_adjoint<E: ScanElement + DeviceElement>(
        &self,
        stream: Stream,
        shape: ScanShape,
        a: &DeviceVec<E>,
        h: &DeviceVec<E>,
        h0: Option<&DeviceVec<E>>,
        starts: Option<&DeviceVec<u8>>,
        reversed: bool,
        dh: &DeviceVec<E>,
        dh_last: Option<&DeviceVec<E>>,
    ) -> Result<(DeviceVec<E>, DeviceVec<E>, DeviceVec<E>), CudaError> {
        let dims = dims(shape, starts, reversed)?;
        for (operand, vec) in [("a", a), ("h", h), ("dh", dh)] {
            check(operand, "[B, T, C]", vec, shape.len())?;
        }
        for (operand, vec) in [("h0", h0), ("dh_last", dh_last)] {
            if let Some(vec) = vec {
                check(operand, "[B, C]", vec, shape.state_len())?;
            }
        }
        let da = DeviceVec::uninit(self, stream, shape.len())?;
        let db = DeviceVec::uninit(self, stream, shape.len())?;
        let dh0 = DeviceVec::uninit(self, stream, shape.state_len())?;
        let dtype = dtype_of::<E>();
        let bytes = self.workspace_bytes(Operation::ScanAdjoint, dtype, shape)?;
        let workspace = self.workspace(stream, bytes)?;
        let args = ScanAdjointArgs {
            dims,
            dtype,
            a: Array::contiguous(a.ptr(), shape),
            h: Array::contiguous(h.ptr(), shape),
            dh: Array::contiguous(dh.ptr(), shape),
            da: Array::contiguous(da.ptr(), shape),
            db: Array::contiguous(db.ptr(), shape),
            h0: ptr_of(h0),
            dh_last: ptr_of(dh_last),
            dh0: dh0.ptr(),
        };
        // SAFETY: the lengths are checked, the outputs are ours, and memory is freed in stream order.
        unsafe { self.scan_adjoint(stream, &workspace, &args)? };
        Ok((da, db, dh0))
    }

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
        let dims = dims(shape, starts, reversed)?;
        let parts = parts(operation);
        let v = gates.check(operation, shape)?;
        if let Some(h0) = h0 {
            check("h0", "[B, C]", h0, parts * shape.state_len())?;
        }
        let dtype = dtype_of::<E>();
        let count = shape.seqlen.div_ceil(operation.checkpoint_len(dtype)?);
        let y = DeviceVec::uninit(self, stream, shape.len())?;
        let h_last = DeviceVec::uninit(self, stream, parts * shape.state_len())?;
        let checkpoints = DeviceVec::uninit(self, stream, parts * count * shape.state_len())?;
        let workspace = self.workspace(stream, self.workspace_bytes(operation, dtype, shape)?)?;
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
        // SAFETY: the lengths are checked, the outputs are ours, and memory is freed in stream order.
        unsafe { self.gate_loop(operation, stream, &workspace, &args)? };
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
        let dims = dims(shape, starts, reversed)?;
        let (parts, dtype) = (parts(operation), dtype_of::<E>());
        let v = gates.check(operation, shape)?;
        let count = shape.seqlen.div_ceil(operation.checkpoint_len(dtype)?);
        check("checkpoints", "[B, n, C]", checkpoints, parts * count * shape.state_len())?;
        check("dy", "[B, T, C]", dy, shape.len())?;
        if let Some(dh_last) = dh_last {
            check("dh_last", "[B, C]", dh_last, parts * shape.state_len())?;
        }
        let adjoint = match operation {
            Operation::GateLoop => Operation::GateLoopAdjoint,
            _ => Operation::SimpleGateLoopAdjoint,
        };
        let place = |len| DeviceVec::uninit(self, stream, len);
        let grads = GateLoopGrads {
            dq: place(shape.len())?,
            dk: place(shape.len())?,
            dv: place(shape.len())?,
            dz: place(parts * shape.len())?,
            dh0: place(parts * shape.state_len())?,
        };
        let workspace = self.workspace(stream, self.workspace_bytes(adjoint, dtype, shape)?)?;
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
        // SAFETY: the lengths are checked, the outputs are ours, and memory is freed in stream order.
        unsafe { self.gate_loop_adjoint(adjoint, stream, &workspace, &args)? };
        Ok(grads)
    }
}

fn dims(
    shape: ScanShape,
    starts: Option<&DeviceVec<u8>>,
    reversed: bool,
) -> Result<Dims, CudaError> {
    let shape = ScanShape::new(shape.batch, shape.seqlen, shape.channels)?;
    if let Some(starts) = starts {
        check("starts", "[B, T]", starts, shape.token_count())?;
    }
    Ok(Dims { shape, reversed, starts: ptr_of(starts) })
}

impl<E: DeviceElement> Gates<'_, E> {
    /// Checks the lengths; returns the address of `v`, of `k` where it is not read.
    fn check(&self, operation: Operation, shape: ScanShape) -> Result<u64, CudaError> {
        check("q", "[B, T, C]", self.q, shape.len())?;
        check("k", "[B, T, C]", self.k, shape.len())?;
        check("z", "[B, T, C]", self.z, parts(operation) * shape.len())?;
        match (operation, self.v) {
            (Operation::GateLoop, Some(v)) => {
                check("v", "[B, T, C]", v, shape.len())?;
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
