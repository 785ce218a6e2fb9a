//! Memory for libtorch's tensors on the CPU that is kept between the steps of a training.
//!
//! The allocator of the C library gives large tensors back to the system when they go, and asks for them
//! anew in the next step: the kernel then clears every page again, which takes a fifth of a long step.
//! The pool keeps what tensors give back, joins it, and hands out the first piece that fits; it lies in
//! large pages where the kernel has them.
//!
//! ```no_run
//! gateloop_nn::pool::install()?; // at the start of a program that trains
//! # Ok::<(), gateloop_nn::NnError>(())
//! ```

mod heap;
mod region;

pub use heap::Usage;

use crate::error::{NnError, Result};
use crate::ffi_error::{ErrorSlot, ErrorText};
use heap::Heap;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

unsafe extern "C" {
    fn gateloop_pool_reserve(len: *mut usize) -> *mut c_void;
    fn gateloop_pool_install(
        base: *mut c_void,
        len: usize,
        take: extern "C" fn(usize) -> *mut c_void,
        give_back: extern "C" fn(*mut c_void),
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_pool_decommit(start: *mut c_void, len: usize);
}

/// Smaller tensors come from the C library, which keeps those itself.
const MIN_BYTES: usize = 64 << 10;

struct Pool {
    base: usize,
    heap: Mutex<Heap>,
}

static POOL: OnceLock<Option<Pool>> = OnceLock::new();

/// From now on, tensors on the CPU of 64 KB and more lie in the pool; those that there are stay where they
/// are. Whoever calls it again changes nothing.
///
/// The pool reserves as many addresses as the machine has memory, but takes memory only for what tensors
/// touch. A tensor that does not fit is allocated as before.
///
/// # Errors
/// [`NnError::Function`] if the system has no such addresses to give (a limit on virtual memory); tensors
/// are then allocated as before.
pub fn install() -> Result<()> {
    let mut problem = None;
    let pool = POOL.get_or_init(|| match reserve() {
        Ok(pool) => Some(pool),
        Err(error) => {
            problem = Some(error);
            None
        }
    });
    match (pool, problem) {
        (Some(_), _) => Ok(()),
        (None, Some(error)) => Err(error),
        (None, None) => Err(unavailable("an earlier attempt failed")),
    }
}

fn reserve() -> Result<Pool> {
    let mut len = 0;
    // SAFETY: reserves addresses that nobody else uses.
    let base = unsafe { gateloop_pool_reserve(&raw mut len) };
    if base.is_null() {
        return Err(unavailable("the system refuses to reserve addresses; see `ulimit -v`"));
    }
    let error = ErrorSlot::new();
    // SAFETY: the range is ours for ever, and both functions may be called from any thread.
    let status = unsafe { gateloop_pool_install(base, len, take, give_back, error.as_ptr()) };
    if status != 0 {
        return Err(unavailable(&error.message()));
    }
    Ok(Pool { base: base as usize, heap: Mutex::new(Heap::new(len)) })
}

fn unavailable(why: &str) -> NnError {
    NnError::Function { message: format!("no memory is kept between steps: {why}") }
}

/// What of the pool is in use; `None` if it is not installed.
pub fn usage() -> Option<Usage> {
    Some(installed()?.heap().usage())
}

/// Gives the memory that no tensor holds back to the system, after a part of a program that took much more
/// than what follows. Without a pool it does nothing.
pub fn release_unused() {
    let Some(pool) = installed() else { return };
    let mut heap = pool.heap();
    for (start, len) in heap.holes() {
        // SAFETY: no tensor lies there, and none will before the lock is given back.
        unsafe { gateloop_pool_decommit(ptr::without_provenance_mut(pool.base + start), len) };
    }
    heap.forget_reach();
}

fn installed() -> Option<&'static Pool> {
    POOL.get()?.as_ref()
}

impl Pool {
    /// No operation on a heap can leave it half done.
    fn heap(&self) -> MutexGuard<'_, Heap> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Null if the pool has no such piece, or is not there yet.
extern "C" fn take(len: usize) -> *mut c_void {
    let Some(pool) = installed().filter(|_| len >= MIN_BYTES) else { return ptr::null_mut() };
    let start = pool.heap().take(len);
    start.map_or(ptr::null_mut(), |start| ptr::with_exposed_provenance_mut(pool.base + start))
}

extern "C" fn give_back(piece: *mut c_void) {
    if let Some(pool) = installed() {
        let known = pool.heap().give_back(piece.addr() - pool.base);
        debug_assert!(known, "libtorch gives back what it took");
    }
}
