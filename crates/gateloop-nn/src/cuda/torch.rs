//! libtorch's CUDA half: opened at run time, and its stream.

use crate::device::pretended;
use crate::error::{NnError, Result};
use crate::ffi_error::{ErrorSlot, ErrorText};
use gateloop_scan::cuda::Stream;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

unsafe extern "C" {
    fn gateloop_cuda_open(error: *mut ErrorText) -> c_int;
    fn gateloop_cuda_stream(
        device: c_int,
        stream: *mut *mut c_void,
        error: *mut ErrorText,
    ) -> c_int;
}

/// Opens libtorch's CUDA library, if this libtorch has one; returns whether it is open.
///
/// To be called at the start of a program, before anything asks tch whether CUDA is there: libtorch
/// keeps the first answer. Calling it again costs nothing.
///
/// # Errors
/// [`NnError::Function`] with the loader's reason: a library is there, but cannot be opened.
pub fn open() -> Result<bool> {
    static OPENED: OnceLock<std::result::Result<bool, String>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| {
        let error = ErrorSlot::new();
        // SAFETY: opens a library; the error slot is alive.
        match unsafe { gateloop_cuda_open(error.as_ptr()) } {
            1 => Ok(true),
            0 => Ok(false),
            _ => Err(error.message()),
        }
    });
    opened.clone().map_err(|reason| NnError::Function {
        message: format!("libtorch_cuda.so cannot be opened: {reason}"),
    })
}

/// torch's current stream on a device.
pub(super) fn current_stream(device: usize) -> Result<Stream> {
    if pretended() {
        return Ok(Stream::default());
    }
    let (mut stream, error) = (ptr::null_mut(), ErrorSlot::new());
    let ordinal = c_int::try_from(device).unwrap_or(c_int::MAX);
    // SAFETY: one pointer is written through a pointer to one.
    if unsafe { gateloop_cuda_stream(ordinal, &raw mut stream, error.as_ptr()) } != 0 {
        return Err(NnError::Function { message: error.message() });
    }
    // SAFETY: the stream is torch's own, of the primary context, and lives as long as the process.
    Ok(unsafe { Stream::from_raw(stream.cast()) })
}
