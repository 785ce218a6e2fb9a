//! The devices of the tests, if there are any.

use gateloop_scan::cuda::Cuda;
use std::sync::Arc;

/// The first device; without one `None`, after a word about it.
pub(crate) fn device() -> Option<Arc<Cuda>> {
    devices().into_iter().next()
}

/// All devices; without one none, after a word about it.
pub(crate) fn devices() -> Vec<Arc<Cuda>> {
    if !Cuda::is_available() {
        println!("skipped: no CUDA driver");
        return Vec::new();
    }
    (0..Cuda::count().unwrap()).map(|ordinal| Cuda::device(ordinal).unwrap()).collect()
}

/// The first two devices; with fewer `None`, after a word about it.
pub(crate) fn two_devices() -> Option<[Arc<Cuda>; 2]> {
    let devices = devices();
    if devices.len() == 1 {
        println!("skipped: one CUDA device");
    }
    devices.into_iter().take(2).collect::<Vec<_>>().try_into().ok()
}

/// Whether it is `kernels/host`, which computes some thousand times more slowly and gives out poisoned memory.
pub(crate) fn is_stand_in(cuda: &Cuda) -> bool {
    cuda.name().starts_with("stand-in")
}
