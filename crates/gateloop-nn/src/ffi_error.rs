//! The error text that the C++ side writes.

use std::ffi::c_char;
use std::slice;

/// A `std::string` of the other side.
#[repr(C)]
pub(crate) struct ErrorText {
    _private: [u8; 0],
}

unsafe extern "C" {
    fn gateloop_error_new() -> *mut ErrorText;
    fn gateloop_error_data(error: *const ErrorText, len: *mut usize) -> *const c_char;
    fn gateloop_error_set(error: *mut ErrorText, message: *const c_char, len: usize);
    fn gateloop_error_free(error: *mut ErrorText);
}

/// An owned `std::string`, to be passed where the other side reports a failure.
pub(crate) struct ErrorSlot(*mut ErrorText);

impl ErrorSlot {
    pub(crate) fn new() -> Self {
        // SAFETY: allocates an empty string; `drop` frees it.
        Self(unsafe { gateloop_error_new() })
    }

    pub(crate) fn as_ptr(&self) -> *mut ErrorText {
        self.0
    }

    pub(crate) fn message(&self) -> String {
        let mut len = 0;
        // SAFETY: the string lives as long as self, and its data is valid for `len` bytes.
        let bytes = unsafe {
            let data = gateloop_error_data(self.0, &raw mut len);
            slice::from_raw_parts(data.cast::<u8>(), len)
        };
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Drop for ErrorSlot {
    fn drop(&mut self) {
        // SAFETY: made in `new`, freed once.
        unsafe { gateloop_error_free(self.0) }
    }
}

/// Copies a message into a string of the other side.
///
/// # Safety
/// `error` must be a live string of the other side.
pub(crate) unsafe fn set_error(error: *mut ErrorText, message: &str) {
    // SAFETY: the caller vouches for `error`; the message is copied.
    unsafe { gateloop_error_set(error, message.as_ptr().cast(), message.len()) }
}
