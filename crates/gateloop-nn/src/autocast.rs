//! Mixed precision: matrix products in bfloat16 beside parameters in f32.

use std::ffi::c_int;
use std::marker::PhantomData;

unsafe extern "C" {
    fn gateloop_autocast(enabled: c_int) -> c_int;
    fn gateloop_autocast_enter();
    fn gateloop_autocast_leave();
}

/// Sets autocast for this thread; what it was before comes back when this is dropped.
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

/// Within its life, matrix products in this thread are in bfloat16, on CUDA and on the CPU; parameters stay as they are.
///
/// The arithmetic of decays and states stays in f32. A backward pass runs in the precisions of its forward pass.
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
#[derive(Debug)]
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
