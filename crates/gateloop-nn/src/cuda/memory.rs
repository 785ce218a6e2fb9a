//! Tensors as the kernels see them.

use super::torch::current_stream;
use crate::device::gpu_of;
use crate::error::{NnError, Result};
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{Array, Cuda, Dtype, Operation, RawWorkspace, Stream};
use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// The device of a launch, torch's stream on it, and the workspace of that stream.
pub(super) struct Place {
    pub(super) cuda: Arc<Cuda>,
    pub(super) stream: Stream,
    pub(super) device: Device,
    ordinal: usize,
}

/// Workspaces by device and stream, in torch's memory. One that has become too small is dropped: torch
/// gives its memory out again in the order of the stream.
static WORKSPACES: LazyLock<Mutex<HashMap<(usize, Stream), Tensor>>> =
    LazyLock::new(Mutex::default);

impl Place {
    pub(super) fn of(operand: &'static str, tensor: &Tensor) -> Result<Self> {
        let device = tensor.device();
        let ordinal = gpu_of(tensor).ok_or(NnError::Device { operand, actual: device })?;
        let stream = current_stream(ordinal)?;
        Ok(Self { cuda: Cuda::device(ordinal)?, stream, device, ordinal })
    }

    /// Runs `launch` with a workspace that is large enough for the operation.
    pub(super) fn with_workspace(
        &self,
        operation: Operation,
        dtype: Dtype,
        shape: ScanShape,
        launch: impl FnOnce(&RawWorkspace) -> std::result::Result<(), gateloop_scan::cuda::CudaError>,
    ) -> Result<()> {
        let needed = self.cuda.workspace_bytes(operation, dtype, shape)?;
        // Held until the launch is in the stream: two threads may share a stream.
        let mut workspaces = WORKSPACES.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (self.ordinal, self.stream);
        if workspaces.get(&key).is_none_or(|known| known.numel() < needed) {
            let len = needed.next_power_of_two() as i64;
            workspaces.insert(key, Tensor::f_zeros([len], (Kind::Uint8, self.device))?);
        }
        let workspace = &workspaces[&key];
        let raw = RawWorkspace { ptr: address(workspace), bytes: workspace.numel() };
        Ok(launch(&raw)?)
    }

    /// A new tensor on the device.
    pub(super) fn empty(&self, shape: &[i64], kind: Kind) -> Result<Tensor> {
        Ok(Tensor::f_empty(shape, (kind, self.device))?)
    }

    /// Checks that an operand is here and plain: no conjugated or negated view, channels side by side.
    pub(super) fn plain(
        &self,
        operand: &'static str,
        tensor: &Tensor,
        kind: Kind,
    ) -> Result<Tensor> {
        if tensor.device() != self.device {
            return Err(NnError::Device { operand, actual: tensor.device() });
        }
        if tensor.kind() != kind {
            let expected = "the kind of the other operands";
            return Err(NnError::Kind { operand, expected, actual: tensor.kind() });
        }
        let tensor = tensor.f_resolve_conj()?.f_resolve_neg()?;
        let stride = tensor.stride();
        // Rows may lie apart, as those of a chunk of a projection do.
        let side_by_side = stride.last().is_none_or(|&stride| stride == 1);
        Ok(if side_by_side && stride.iter().all(|&s| s > 0) {
            tensor
        } else {
            tensor.f_contiguous()?
        })
    }
}

/// The device address of a tensor's first element.
pub(super) fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

/// An optional tensor's address, 0 for none.
pub(super) fn address_of(tensor: Option<&Tensor>) -> u64 {
    tensor.map_or(0, address)
}

/// A `[B, T, C]` tensor's rows.
pub(super) fn array(tensor: &Tensor) -> Array {
    let stride = tensor.stride();
    Array { ptr: address(tensor), batch_stride: stride[0], row_stride: stride[1] }
}

/// The kernels' name for a kind.
pub(super) fn dtype(operand: &'static str, kind: Kind) -> Result<Dtype> {
    Ok(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::ComplexFloat => Dtype::C64,
        Kind::ComplexDouble => Dtype::C128,
        Kind::BFloat16 => Dtype::Bf16,
        Kind::Half => Dtype::F16,
        actual => {
            let expected = "Float, Double, ComplexFloat, ComplexDouble, BFloat16 or Half";
            return Err(NnError::Kind { operand, expected, actual });
        }
    })
}

/// torch's name for a dtype of a state.
pub(super) fn kind(dtype: Dtype) -> Kind {
    match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::C64 => Kind::ComplexFloat,
        Dtype::C128 => Kind::ComplexDouble,
        Dtype::Bf16 => Kind::BFloat16,
        Dtype::F16 => Kind::Half,
    }
}

/// The segment starts as bytes on a device.
pub(super) fn starts(
    starts: Option<&[bool]>,
    shape: ScanShape,
    device: Device,
) -> Result<Option<Tensor>> {
    let Some(starts) = starts else { return Ok(None) };
    if starts.len() != shape.token_count() {
        return Err(NnError::Scan(gateloop_scan::ScanError::Length {
            operand: "starts",
            layout: "[B, T]",
            expected: shape.token_count(),
            actual: starts.len(),
        }));
    }
    let bytes: Vec<u8> = starts.iter().map(|&start| u8::from(start)).collect();
    Ok(Some(Tensor::f_from_slice(&bytes)?.f_to_device(device)?))
}
