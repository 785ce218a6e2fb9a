//! What the raw layer is told: device pointers and how they are laid out.

use super::Dtype;
use super::error::CudaError;
use super::params::{Starts, View};
use crate::ScanShape;
use crate::gate_loop::GateMode;
use cudarc::driver::sys::CUstream;

/// Where launches queue up: a stream of a device's primary context. The default is the default stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stream(CUstream);

// SAFETY: a stream may be used from every thread that has its context current; the driver serialises.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Default for Stream {
    fn default() -> Self {
        Self(std::ptr::null_mut())
    }
}

impl Stream {
    /// Adopts a stream of another library.
    ///
    /// # Safety
    /// `raw` is null or a live stream of the primary context of the device that it is used with, and
    /// stays alive as long as this is used. `CU_STREAM_PER_THREAD` is no such stream: it names
    /// another one in each thread, and launches of two streams must not share a workspace.
    pub const unsafe fn from_raw(raw: CUstream) -> Self {
        Self(raw)
    }

    pub(super) const fn raw(self) -> CUstream {
        self.0
    }
}

/// An array `[B, T, C]` in device memory, its channels side by side.
#[derive(Debug, Clone, Copy, Default)]
pub struct Array {
    /// Device address of the first element.
    pub ptr: u64,
    /// Elements from one batch entry to the next.
    pub batch_stride: i64,
    /// Elements from one token to the next.
    pub row_stride: i64,
}

impl Array {
    /// A contiguous array of this shape.
    pub const fn contiguous(ptr: u64, shape: ScanShape) -> Self {
        let row = shape.channels as i64;
        Self { ptr, batch_stride: row * shape.seqlen as i64, row_stride: row }
    }

    /// The array in the order of the pass.
    pub(super) fn view(self, dims: &Dims, bytes: usize) -> View {
        if !dims.reversed {
            return View { at: self.ptr, batch: self.batch_stride, row: self.row_stride };
        }
        let last = (dims.shape.seqlen as i64 - 1) * self.row_stride * bytes as i64;
        View {
            at: self.ptr.wrapping_add_signed(last),
            batch: self.batch_stride,
            row: -self.row_stride,
        }
    }

    /// Whether every row allows accesses of 16 bytes.
    pub(super) fn is_aligned(self, bytes: usize) -> bool {
        let bytes = bytes as i64;
        self.ptr.is_multiple_of(16)
            && (self.batch_stride * bytes) % 16 == 0
            && (self.row_stride * bytes) % 16 == 0
    }
}

/// The problem's dimensions, direction and segments.
#[derive(Debug, Clone, Copy)]
pub struct Dims {
    /// `[B, T, C]`.
    pub shape: ScanShape,
    /// Whether the pass runs from the last token to the first.
    pub reversed: bool,
    /// Device address of `[B, T]` bytes, not zero where a segment begins; 0 for none.
    pub starts: u64,
}

impl Dims {
    /// A forward pass without segments.
    pub const fn new(shape: ScanShape) -> Self {
        Self { shape, reversed: false, starts: 0 }
    }

    /// The starts by position of the pass. A reversed pass crosses the start of a token on the way
    /// to the one before, so that position s is cut where token T - s begins a segment.
    pub(super) fn starts(&self) -> Starts {
        let seqlen = self.shape.seqlen as i64;
        if self.starts == 0 {
            return Starts::default();
        }
        if self.reversed {
            let at = self.starts + seqlen as u64;
            Starts { at, batch: seqlen, row: -1, first: 1, last: seqlen - 1 }
        } else {
            Starts { at: self.starts, batch: seqlen, row: 1, first: 0, last: seqlen - 1 }
        }
    }
}

/// The operands of a scan; see [`crate::Scan`].
#[derive(Debug, Clone, Copy)]
pub struct ScanArgs {
    /// Dimensions.
    pub dims: Dims,
    /// Type of `a`, `b` and `h`.
    pub dtype: Dtype,
    /// Decays.
    pub a: Array,
    /// Inputs.
    pub b: Array,
    /// States, written.
    pub h: Array,
    /// Initial state `[B, C]` in the state's type; 0 for none.
    pub h0: u64,
    /// Where the last state goes, `[B, C]`; 0 for nowhere. Not `h0`: it may be written before that is
    /// read.
    pub h_last: u64,
}

/// The operands of a scan's adjoint; see [`crate::Scan::adjoint`].
#[derive(Debug, Clone, Copy)]
pub struct ScanAdjointArgs {
    /// Dimensions, as in the forward pass.
    pub dims: Dims,
    /// Type of the arrays.
    pub dtype: Dtype,
    /// Decays.
    pub a: Array,
    /// States.
    pub h: Array,
    /// Gradient of the states.
    pub dh: Array,
    /// Gradient of the decays, written.
    pub da: Array,
    /// Gradient of the inputs, written.
    pub db: Array,
    /// Initial state; 0 for none.
    pub h0: u64,
    /// Gradient of the last state; 0 for none.
    pub dh_last: u64,
    /// Where the gradient of the initial state goes; 0 for nowhere.
    pub dh0: u64,
}

/// The operands of a fused operator, either of them.
///
/// For [`Operation::SimpleGateLoop`](super::Operation::SimpleGateLoop) `k` is kv, `v` is not read, `z` and the states are real.
#[derive(Debug, Clone, Copy)]
pub struct GateLoopArgs {
    /// Dimensions.
    pub dims: Dims,
    /// Type of `q`, `k`, `v`, `y` and of the parts of `z`.
    pub dtype: Dtype,
    /// Queries.
    pub q: Array,
    /// Keys.
    pub k: Array,
    /// Values.
    pub v: Array,
    /// Pre-activations of the decays; strides count its own (complex) elements.
    pub z: Array,
    /// Outputs, written.
    pub y: Array,
    /// Initial state `[B, C]` in the state's type; 0 for none.
    pub h0: u64,
    /// Where the last state goes; 0 for nowhere.
    pub h_last: u64,
    /// Where states go for the adjoint, `[B, ceil(T / n), C]` with n from [`Cuda::checkpoint_len`](super::Cuda::checkpoint_len);
    /// 0 for nowhere.
    pub checkpoints: u64,
    /// How the decay comes from `z`; not read for [`Operation::SimpleGateLoop`](super::Operation::SimpleGateLoop).
    pub mode: GateMode,
}

/// The operands of a fused operator's adjoint.
#[derive(Debug, Clone, Copy)]
pub struct GateLoopAdjointArgs {
    /// Dimensions, as in the forward pass.
    pub dims: Dims,
    /// Type, as in the forward pass.
    pub dtype: Dtype,
    /// Queries.
    pub q: Array,
    /// Keys.
    pub k: Array,
    /// Values.
    pub v: Array,
    /// Pre-activations.
    pub z: Array,
    /// Gradient of the outputs.
    pub dy: Array,
    /// Gradient of the queries, written.
    pub dq: Array,
    /// Gradient of the keys, written.
    pub dk: Array,
    /// Gradient of the values, written.
    pub dv: Array,
    /// Gradient of the pre-activations, written.
    pub dz: Array,
    /// What the forward pass left.
    pub checkpoints: u64,
    /// Whether the forward pass had an initial state.
    pub has_h0: bool,
    /// Gradient of the last state; 0 for none.
    pub dh_last: u64,
    /// Where the gradient of the initial state goes; 0 for nowhere.
    pub dh0: u64,
    /// As in the forward pass.
    pub mode: GateMode,
}

/// Memory in which the blocks of a launch meet. Zero it once, when it is allocated; use it for one
/// launch at a time (one stream), of whatever operation.
#[derive(Debug, Clone, Copy)]
pub struct RawWorkspace {
    /// Device address, aligned to 16.
    pub ptr: u64,
    /// Bytes, at least [`super::Cuda::workspace_bytes`] of the launch.
    pub bytes: usize,
}

/// Refuses what a kernel would fault at, and take the context with it.
pub(super) fn check_address(
    operand: &'static str,
    address: u64,
    dtype: Dtype,
) -> Result<(), CudaError> {
    check_bytes(operand, address, dtype.bytes())
}

/// The same of elements of so many bytes.
pub(super) fn check_bytes(
    operand: &'static str,
    address: u64,
    size: usize,
) -> Result<(), CudaError> {
    if address == 0 || !address.is_multiple_of(size as u64) {
        let problem = format!(
            "its address {address:#x} is null or not a multiple of the element's {size} bytes"
        );
        return Err(CudaError::Operand { operand, problem });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    fn dims(reversed: bool, starts: u64) -> Dims {
        Dims { shape: ScanShape::new(2, 5, 3).unwrap(), reversed, starts }
    }

    #[test]
    fn a_reversed_view_begins_with_the_last_row() {
        let array = Array { ptr: 4096, batch_stride: 100, row_stride: 20 };
        let forward = array.view(&dims(false, 0), 8);
        assert_eq!(forward, View { at: 4096, batch: 100, row: 20 });
        let backward = array.view(&dims(true, 0), 8);
        assert_eq!(backward, View { at: 4096 + 4 * 20 * 8, batch: 100, row: -20 });
    }

    #[test]
    fn positions_of_starts_are_those_of_the_naive_scan() {
        assert_eq!(dims(true, 0).starts(), Starts::default());
        let flags = [1_u8, 0, 1, 0, 1, 0, 1, 0, 0, 1];
        for reversed in [false, true] {
            let dims = dims(reversed, 1 << 20);
            let starts = dims.starts();
            for batch in 0..2_usize {
                for position in 0..5_i64 {
                    let at = starts.at.cast_signed() - (1 << 20);
                    let index = at + starts.batch * batch as i64 + starts.row * position;
                    let there = (starts.first..=starts.last).contains(&position);
                    let got = there && flags[usize::try_from(index).unwrap()] != 0;
                    // A reversed pass has no cut before its first position.
                    let token = if reversed { 5 - position } else { position };
                    let want = token < 5 && flags[batch * 5 + token as usize] != 0;
                    assert_eq!(got, want, "reversed {reversed} batch {batch} position {position}");
                }
            }
        }
    }

    #[test]
    fn alignment_is_of_the_address_and_of_every_stride() {
        let shape = ScanShape::new(2, 5, 8).unwrap();
        assert!(Array::contiguous(4096, shape).is_aligned(4));
        assert!(!Array::contiguous(4100, shape).is_aligned(4));
        assert!(!Array { row_stride: 9, ..Array::contiguous(4096, shape) }.is_aligned(4));
        assert!(!Array { batch_stride: 42, ..Array::contiguous(4096, shape) }.is_aligned(4));
        assert!(!Array::contiguous(4096, ScanShape::new(2, 5, 3).unwrap()).is_aligned(2));
    }
}
