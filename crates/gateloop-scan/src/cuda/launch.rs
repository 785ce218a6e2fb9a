//! The raw layer: checks what can be checked of pointers and strides, plans, launches.

use super::args::{
    Array, Dims, GateLoopAdjointArgs, GateLoopArgs, RawWorkspace, ScanAdjointArgs, ScanArgs,
    Stream, check_bytes,
};
use super::error::CudaError;
use super::params::{GateLoopAdjointParams, GateLoopParams, ScanAdjointParams, ScanParams};
use super::plan::Plan;
use super::{Cuda, Dtype, Operation};
use crate::ScanShape;

/// The arrays of an operation: name, where it lies, bytes of an element.
type Arrays<'a> = &'a [(&'static str, Array, usize)];
/// The states of an operation, each of them optional: name and address.
type States<'a> = &'a [(&'static str, u64)];

impl Cuda {
    /// Scans in stream order.
    ///
    /// # Safety
    /// Every address is device memory of this context, valid for the whole of its array until the
    /// stream is done; nothing else writes to it meanwhile. `h` may be `a` or `b`.
    ///
    /// # Errors
    /// [`CudaError::Operand`] for a null or misaligned array; those of the plan and of the driver.
    pub unsafe fn scan(
        &self,
        stream: Stream,
        workspace: &RawWorkspace,
        args: &ScanArgs,
    ) -> Result<(), CudaError> {
        let ScanArgs { dims, dtype, a, b, h, h0, h_last } = *args;
        let size = dtype.bytes();
        let arrays = [("a", a, size), ("b", b, size), ("h", h, size)];
        let states = [("h0", h0), ("h_last", h_last)];
        let plan = self.plan(Operation::Scan, dtype, &dims, &arrays, &states)?;
        let params = ScanParams {
            a: a.view(&dims, size),
            b: b.view(&dims, size),
            h: h.view(&dims, size),
            h0,
            h_last,
            starts: dims.starts(),
            shape: plan.shape,
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch(&plan, stream, workspace, params) }
    }

    /// The gradient of [`Cuda::scan`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::scan`].
    ///
    /// # Errors
    /// As [`Cuda::scan`].
    pub unsafe fn scan_adjoint(
        &self,
        stream: Stream,
        workspace: &RawWorkspace,
        args: &ScanAdjointArgs,
    ) -> Result<(), CudaError> {
        let ScanAdjointArgs { dims, dtype, a, h, dh, da, db, h0, dh_last, dh0 } = *args;
        let size = dtype.bytes();
        let arrays =
            [("a", a, size), ("h", h, size), ("dh", dh, size), ("da", da, size), ("db", db, size)];
        let states = [("h0", h0), ("dh_last", dh_last), ("dh0", dh0)];
        let plan = self.plan(Operation::ScanAdjoint, dtype, &dims, &arrays, &states)?;
        let params = ScanAdjointParams {
            a: a.view(&dims, size),
            h: h.view(&dims, size),
            dh: dh.view(&dims, size),
            da: da.view(&dims, size),
            db: db.view(&dims, size),
            h0,
            dh_last,
            dh0,
            starts: dims.starts(),
            shape: plan.shape,
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch(&plan, stream, workspace, params) }
    }

    /// Runs [`Operation::GateLoop`] or [`Operation::SimpleGateLoop`] in stream order.
    ///
    /// # Safety
    /// As [`Cuda::scan`].
    ///
    /// # Errors
    /// As [`Cuda::scan`]; [`CudaError::Operand`] for another operation.
    pub unsafe fn gate_loop(
        &self,
        operation: Operation,
        stream: Stream,
        workspace: &RawWorkspace,
        args: &GateLoopArgs,
    ) -> Result<(), CudaError> {
        let GateLoopArgs { dims, dtype, q, k, v, z, y, h0, h_last, checkpoints, mode } = *args;
        let (size, gate) =
            gate_sizes(operation, Operation::GateLoop, Operation::SimpleGateLoop, dtype)?;
        let mut arrays = vec![("q", q, size), ("k", k, size), ("z", z, gate), ("y", y, size)];
        if operation == Operation::GateLoop {
            arrays.push(("v", v, size));
        }
        let states = [("h0", h0), ("h_last", h_last), ("checkpoints", checkpoints)];
        let plan = self.plan(operation, dtype, &dims, &arrays, &states)?;
        let params = GateLoopParams {
            q: q.view(&dims, size),
            k: k.view(&dims, size),
            v: v.view(&dims, size),
            z: z.view(&dims, gate),
            y: y.view(&dims, size),
            h0,
            h_last,
            checkpoints,
            starts: dims.starts(),
            shape: plan.shape,
            mode: mode as u32,
            checkpoint_len: self.checkpoint_len(operation, dtype)? as u32,
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch(&plan, stream, workspace, params) }
    }

    /// The gradient of [`Cuda::gate_loop`]: [`Operation::GateLoopAdjoint`] or
    /// [`Operation::SimpleGateLoopAdjoint`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::scan`].
    ///
    /// # Errors
    /// As [`Cuda::gate_loop`].
    pub unsafe fn gate_loop_adjoint(
        &self,
        operation: Operation,
        stream: Stream,
        workspace: &RawWorkspace,
        args: &GateLoopAdjointArgs,
    ) -> Result<(), CudaError> {
        let GateLoopAdjointArgs { dims, dtype, q, k, v, z, dy, dq, dk, dv, dz, .. } = *args;
        let both = (Operation::GateLoopAdjoint, Operation::SimpleGateLoopAdjoint);
        let (size, gate) = gate_sizes(operation, both.0, both.1, dtype)?;
        let mut arrays = vec![("q", q, size), ("k", k, size), ("z", z, gate), ("dy", dy, size)];
        arrays.extend([("dq", dq, size), ("dk", dk, size), ("dz", dz, gate)]);
        if operation == Operation::GateLoopAdjoint {
            arrays.extend([("v", v, size), ("dv", dv, size)]);
        }
        if args.checkpoints == 0 {
            let problem = "null: run the forward pass with a place for them".to_owned();
            return Err(CudaError::Operand { operand: "checkpoints", problem });
        }
        let states =
            [("checkpoints", args.checkpoints), ("dh_last", args.dh_last), ("dh0", args.dh0)];
        let plan = self.plan(operation, dtype, &dims, &arrays, &states)?;
        let params = GateLoopAdjointParams {
            q: q.view(&dims, size),
            k: k.view(&dims, size),
            v: v.view(&dims, size),
            z: z.view(&dims, gate),
            dy: dy.view(&dims, size),
            dq: dq.view(&dims, size),
            dk: dk.view(&dims, size),
            dv: dv.view(&dims, size),
            dz: dz.view(&dims, gate),
            checkpoints: args.checkpoints,
            dh_last: args.dh_last,
            dh0: args.dh0,
            starts: dims.starts(),
            shape: plan.shape,
            mode: args.mode as u32,
            has_h0: u32::from(args.has_h0),
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch(&plan, stream, workspace, params) }
    }

    /// Checks the arrays and decides the launch.
    fn plan(
        &self,
        operation: Operation,
        dtype: Dtype,
        dims: &Dims,
        arrays: Arrays<'_>,
        states: States<'_>,
    ) -> Result<Plan, CudaError> {
        let ScanShape { batch, seqlen, channels, .. } = dims.shape;
        let shape = ScanShape::new(batch, seqlen, channels)?;
        for &(operand, array, size) in arrays {
            check_bytes(operand, array.ptr, size)?;
        }
        check_states(states, operation.state(dtype))?;
        let aligned = arrays.iter().all(|&(_, array, size)| array.is_aligned(size))
            && (channels * dtype.bytes()).is_multiple_of(16);
        Plan::new(operation, dtype, shape, aligned, &self.limits())
    }
}

/// Bytes of an element and of a gate of a fused operator.
fn gate_sizes(
    operation: Operation,
    complex: Operation,
    real: Operation,
    dtype: Dtype,
) -> Result<(usize, usize), CudaError> {
    if operation == complex {
        Ok((dtype.bytes(), 2 * dtype.bytes()))
    } else if operation == real {
        Ok((dtype.bytes(), dtype.bytes()))
    } else {
        let problem = format!("{} is no fused operator of this direction", operation.name());
        Err(CudaError::Operand { operand: "operation", problem })
    }
}

/// Refuses a state that is not aligned to its numbers: the kernel would fault, and take the context
/// with it.
fn check_states(states: States<'_>, state: Dtype) -> Result<(), CudaError> {
    let size = state.bytes() as u64;
    for &(operand, address) in states {
        if !address.is_multiple_of(size) {
            let problem = format!(
                "its address {address:#x} is not a multiple of {size}, the bytes of a state of \
                 type {}: copy it to fresh memory",
                state.name()
            );
            return Err(CudaError::Operand { operand, problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn states_are_aligned_to_their_own_numbers() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                let state = operation.state(dtype);
                let size = state.bytes() as u64;
                // None at all, and the smallest step that keeps the alignment.
                check_states(&[("h0", 0), ("h_last", 4096 + size)], state).unwrap();
                let refused = check_states(&[("h0", 0), ("dh0", 4096 + size / 2)], state);
                let Err(CudaError::Operand { operand: "dh0", problem }) = refused else {
                    panic!("{operation:?} {dtype:?}: {refused:?}");
                };
                assert!(problem.contains(state.name()), "{problem}");
            }
        }
    }
}
