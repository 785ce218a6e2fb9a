//! The safe layer: operands that own their memory, every length checked.

use super::args::{Array, Dims, ScanAdjointArgs, ScanArgs, Stream};
use super::error::CudaError;
use super::memory::{DeviceElement, DeviceVec, dtype_of};
use super::{Cuda, Operation};
use crate::error::check_len;
use crate::{ScanElement, ScanShape};

/// The device and the stream of a call, to which every operand must belong.
#[derive(Clone, Copy)]
pub(super) struct Home<'a> {
    pub(super) cuda: &'a Cuda,
    pub(super) stream: Stream,
}

impl Home<'_> {
    pub(super) fn check<E: DeviceElement>(
        self,
        operand: &'static str,
        layout: &'static str,
        vec: &DeviceVec<E>,
        expected: usize,
    ) -> Result<(), CudaError> {
        check_len(operand, layout, vec.len(), expected)?;
        vec.check_home(operand, self.cuda, self.stream)
    }

    pub(super) fn dims(
        self,
        shape: ScanShape,
        starts: Option<&DeviceVec<u8>>,
        reversed: bool,
    ) -> Result<Dims, CudaError> {
        let shape = ScanShape::new(shape.batch, shape.seqlen, shape.channels)?;
        if let Some(starts) = starts {
            self.check("starts", "[B, T]", starts, shape.token_count())?;
        }
        Ok(Dims { shape, reversed, starts: ptr_of(starts) })
    }
}

/// The address of an operand, 0 for none.
pub(super) fn ptr_of<E: DeviceElement>(vec: Option<&DeviceVec<E>>) -> u64 {
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
        let home = Home { cuda: self, stream };
        let dims = home.dims(shape, starts, reversed)?;
        home.check("a", "[B, T, C]", a, shape.len())?;
        home.check("b", "[B, T, C]", b, shape.len())?;
        if let Some(h0) = h0 {
            home.check("h0", "[B, C]", h0, shape.state_len())?;
        }
        let h = DeviceVec::uninit(self, stream, shape.len())?;
        let h_last = DeviceVec::uninit(self, stream, shape.state_len())?;
        let dtype = dtype_of::<E>();
        let bytes = self.workspace_bytes(Operation::Scan, dtype, shape)?;
        let args = ScanArgs {
            dims,
            dtype,
            a: Array::contiguous(a.ptr(), shape),
            b: Array::contiguous(b.ptr(), shape),
            h: Array::contiguous(h.ptr(), shape),
            h0: ptr_of(h0),
            h_last: h_last.ptr(),
        };
        self.with_workspace(stream, bytes, |workspace| {
            // SAFETY: lengths, device and stream are checked, the outputs are ours, and all of it is
            // freed in the order of this stream.
            unsafe { self.scan(stream, workspace, &args) }
        })?;
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
        let home = Home { cuda: self, stream };
        let dims = home.dims(shape, starts, reversed)?;
        for (operand, vec) in [("a", a), ("h", h), ("dh", dh)] {
            home.check(operand, "[B, T, C]", vec, shape.len())?;
        }
        for (operand, vec) in [("h0", h0), ("dh_last", dh_last)] {
            if let Some(vec) = vec {
                home.check(operand, "[B, C]", vec, shape.state_len())?;
            }
        }
        let da = DeviceVec::uninit(self, stream, shape.len())?;
        let db = DeviceVec::uninit(self, stream, shape.len())?;
        let dh0 = DeviceVec::uninit(self, stream, shape.state_len())?;
        let dtype = dtype_of::<E>();
        let bytes = self.workspace_bytes(Operation::ScanAdjoint, dtype, shape)?;
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
        self.with_workspace(stream, bytes, |workspace| {
            // SAFETY: lengths, device and stream are checked, the outputs are ours, and all of it is
            // freed in the order of this stream.
            unsafe { self.scan_adjoint(stream, workspace, &args) }
        })?;
        Ok((da, db, dh0))
    }
}
