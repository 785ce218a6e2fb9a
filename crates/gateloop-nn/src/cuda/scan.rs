//! The scan of CUDA tensors.

use super::memory::{Place, address, address_of, array, dtype, kind, starts};
use crate::error::Result;
use crate::scan::ScanOptions;
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{Dims, Operation, ScanAdjointArgs, ScanArgs};
use tch::Tensor;

/// `h` and `h_last` from a, b and perhaps h0.
pub(crate) fn run(
    shape: ScanShape,
    options: &ScanOptions,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>> {
    let place = Place::of("a", &inputs[0])?;
    let elements = inputs[0].kind();
    let dtype = dtype("a", elements)?;
    let a = place.plain("a", &inputs[0], elements)?;
    let b = place.plain("b", &inputs[1], elements)?;
    let state = kind(Operation::Scan.state(dtype));
    let h0 = initial(&place, inputs.get(2), state)?;
    let starts = starts(options.segment_starts.as_deref(), shape, place.device)?;
    let h = place.empty(&a.size(), elements)?;
    let h_last = place.empty(&[shape.batch as i64, shape.channels as i64], state)?;
    let dims = Dims { shape, reversed: options.reverse, starts: address_of(starts.as_ref()) };
    let args = ScanArgs {
        dims,
        dtype,
        a: array(&a),
        b: array(&b),
        h: array(&h),
        h0: address_of(h0.as_ref()),
        h_last: address(&h_last),
    };
    place.with_workspace(Operation::Scan, dtype, shape, |workspace| {
        // SAFETY: the tensors have the shapes that `scan_with` checked and are alive until the launch
        // is in the stream; torch reuses their memory in stream order only.
        unsafe { place.cuda.scan(place.stream, workspace, &args) }
    })?;
    Ok(vec![h, h_last])
}

/// The gradients of a, b and, if there is one, h0; `saved` is a, h and perhaps h0.
pub(crate) fn adjoint(
    shape: ScanShape,
    options: &ScanOptions,
    saved: &[Tensor],
    dh: Option<&Tensor>,
    dh_last: Option<&Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    let place = Place::of("a", &saved[0])?;
    let elements = saved[0].kind();
    let dtype = dtype("a", elements)?;
    let a = place.plain("a", &saved[0], elements)?;
    let h = place.plain("h", &saved[1], elements)?;
    let state = kind(Operation::Scan.state(dtype));
    let h0 = initial(&place, saved.get(2), state)?;
    let dh = match dh {
        Some(dh) => place.plain("dh", dh, elements)?,
        None => h.f_zeros_like()?,
    };
    let dh_last = initial(&place, dh_last, state)?;
    let starts = starts(options.segment_starts.as_deref(), shape, place.device)?;
    let da = place.empty(&a.size(), elements)?;
    let db = place.empty(&a.size(), elements)?;
    let dh0 = h0.as_ref().map(|h0| place.empty(&h0.size(), state)).transpose()?;
    let dims = Dims { shape, reversed: options.reverse, starts: address_of(starts.as_ref()) };
    let args = ScanAdjointArgs {
        dims,
        dtype,
        a: array(&a),
        h: array(&h),
        dh: array(&dh),
        da: array(&da),
        db: array(&db),
        h0: address_of(h0.as_ref()),
        dh_last: address_of(dh_last.as_ref()),
        dh0: address_of(dh0.as_ref()),
    };
    place.with_workspace(Operation::ScanAdjoint, dtype, shape, |workspace| {
        // SAFETY: as in `run`.
        unsafe { place.cuda.scan_adjoint(place.stream, workspace, &args) }
    })?;
    let mut grads = vec![Some(da), Some(db)];
    grads.extend(dh0.map(Some));
    Ok(grads)
}

/// A state, contiguous and of the state's kind.
fn initial(place: &Place, state: Option<&Tensor>, kind: tch::Kind) -> Result<Option<Tensor>> {
    state.map(|state| Ok(place.plain("h0", state, kind)?.f_contiguous()?)).transpose()
}
