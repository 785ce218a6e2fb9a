//! The functions of `csrc/`, and their way of failing: null, or a message that is ours to free.

use std::ffi::{CStr, c_char, c_int, c_void};
use torch_sys::C_tensor;

/// A c10d store.
#[repr(C)]
pub(crate) struct RawStore {
    _private: [u8; 0],
}

/// A c10d backend among some ranks.
#[repr(C)]
pub(crate) struct RawGroup {
    _private: [u8; 0],
}

/// A c10d operation that has been begun.
#[repr(C)]
pub(crate) struct RawWork {
    _private: [u8; 0],
}

/// What every fallible function returns.
pub(crate) type Message = *mut c_char;

unsafe extern "C" {
    pub(crate) fn gateloop_store_new(
        host: *const c_char,
        port: u16,
        is_server: bool,
        timeout_ms: i64,
        out: *mut *mut RawStore,
    ) -> Message;
    pub(crate) fn gateloop_store_free(store: *mut RawStore);
    pub(crate) fn gateloop_store_set(
        store: *mut RawStore,
        key: *const c_char,
        data: *const u8,
        len: usize,
    ) -> Message;
    pub(crate) fn gateloop_store_claim(
        store: *mut RawStore,
        key: *const c_char,
        data: *const u8,
        len: usize,
        was_set: *mut bool,
    ) -> Message;
    pub(crate) fn gateloop_store_get(
        store: *mut RawStore,
        key: *const c_char,
        place: *mut c_void,
        take: extern "C" fn(*mut c_void, *const u8, usize),
    ) -> Message;

    pub(crate) fn gateloop_has_nccl() -> bool;
    pub(crate) fn gateloop_group_new(
        store: *mut RawStore,
        prefix: *const c_char,
        rank: c_int,
        size: c_int,
        timeout_ms: i64,
        is_nccl: bool,
        device: c_int,
        out: *mut *mut RawGroup,
    ) -> Message;
    pub(crate) fn gateloop_group_free(group: *mut RawGroup);
    pub(crate) fn gateloop_group_all_reduce(
        group: *mut RawGroup,
        tensor: *const C_tensor,
        operation: c_int,
        out: *mut *mut RawWork,
    ) -> Message;
    pub(crate) fn gateloop_group_broadcast(
        group: *mut RawGroup,
        tensor: *const C_tensor,
        root: c_int,
        out: *mut *mut RawWork,
    ) -> Message;
    pub(crate) fn gateloop_group_all_gather(
        group: *mut RawGroup,
        gathered: *const C_tensor,
        tensor: *const C_tensor,
        out: *mut *mut RawWork,
    ) -> Message;
    pub(crate) fn gateloop_group_barrier(group: *mut RawGroup, out: *mut *mut RawWork) -> Message;
    pub(crate) fn gateloop_work_wait(work: *mut RawWork) -> Message;
    pub(crate) fn gateloop_work_free(work: *mut RawWork);

    pub(crate) fn gateloop_reduce_sum() -> c_int;
    pub(crate) fn gateloop_reduce_max() -> c_int;
    pub(crate) fn gateloop_reduce_min() -> c_int;

    fn free(pointer: *mut c_void);
}

/// The message as an error, without libtorch's backtrace.
///
/// # Safety
/// `message` must be what one of the functions above returned, not looked at before.
pub(crate) unsafe fn checked(message: Message) -> Result<(), String> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: a string of `strdup`, which is freed once, here.
    let text = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        free(message.cast());
        text
    };
    Err(text.lines().next().unwrap_or_default().trim().to_owned())
}
