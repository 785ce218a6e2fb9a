//! libtorch's CUDA half: opened at run time, its stream, its autocast.

use crate::error::{NnError, Result};
use crate::ffi_error::{ErrorSlot, ErrorText};
use gateloop_scan::cuda::Stream;
use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;
use std::sync::OnceLock;

unsafe extern "C" {
    fn gateloop_cuda_open(error: *mut ErrorText) -> c_int;
    fn gateloop_cuda_stream(
        device: c_int,
        stream: *mut *mut c_void,
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_autocast(enabled: c_int) -> c_int;
    fn gateloop_autocast_enter();
    fn gateloop_autocast_leave();
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
    let (mut stream, error) = (ptr::null_mut(), ErrorSlot::new());
    let ordinal = c_int::try_from(device).unwrap_or(c_int::MAX);
    // SAFETY: one pointer is written through a pointer to one.
    if unsafe { gateloop_cuda_stream(ordinal, &raw mut stream, error.as_ptr()) } != 0 {
        return Err(NnError::Function { message: error.message() });
    }
    // SAFETY: the stream is torch's own, of the primary context, and lives as long as the process.
    Ok(unsafe { Stream::from_raw(stream.cast()) })
}

/// Sets autocast on CUDA for this thread; what it was before comes back when this is dropped.
#[derive(Debug)]
struct Switched {
    was: c_int,
    /// Autocast belongs to a thread.
    thread: PhantomData<*const ()>,
}

impl Switched {
    fn to(enabled: bool) -> Self {
        // SAFETY: sets a flag of this thread.
        Self { was: unsafe { gateloop_autocast(c_int::from(enabled)) }, thread: PhantomData }
    }
}

impl Drop for Switched {
    fn drop(&mut self) {
        // SAFETY: sets a flag of this thread.
        unsafe { gateloop_autocast(self.was) };
    }
}

/// Within its life, matrix products on CUDA in this thread are in bfloat16, parameters stay as they are.
#[derive(Debug)]
pub struct Autocast {
    _on: Switched,
}

impl Autocast {
    /// Whether it is on in this thread.
    pub fn is_on() -> bool {
        Switched::to(false).was != 0
    }

    /// Turns it on.
    #[must_use = "autocast ends when this is dropped"]
    pub fn bf16() -> Self {
        // SAFETY: counts regions of this thread; `drop` counts back.
        unsafe { gateloop_autocast_enter() };
        Self { _on: Switched::to(true) }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        // SAFETY: `bf16` has counted this region.
        unsafe { gateloop_autocast_leave() };
    }
}

/// Within its life autocast is off in this thread, for arithmetic that must stay in f32.
pub(crate) struct FullPrecision {
    _off: Switched,
}

impl FullPrecision {
    pub(crate) fn new() -> Self {
        Self { _off: Switched::to(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn autocast_comes_back_to_what_it_was() {
        assert!(!Autocast::is_on());
        {
            let _outer = Autocast::bf16();
            assert!(Autocast::is_on());
            {
                let _inner = Autocast::bf16();
                let _full = FullPrecision::new();
                assert!(!Autocast::is_on());
            }
            assert!(Autocast::is_on());
        }
        assert!(!Autocast::is_on());
    }
}
