//! The device of the tests, if there is one.

use gateloop_scan::cuda::Cuda;
use std::sync::Arc;

/// The first device; without one `None`, after a word about it.
pub(crate) fn device() -> Option<Arc<Cuda>> {
    if !Cuda::is_available() {
        println!("skipped: no CUDA driver");
        return None;
    }
    Some(Cuda::device(0).unwrap())
}
