//! The GPU of the tests, if there is one.

use gateloop_nn::cuda::open;
use tch::{Cuda, Device};

/// A GPU with a libtorch that works on it.
#[derive(Debug)]
pub(crate) struct Gpu {
    /// Where its tensors lie.
    pub(crate) device: Device,
    /// What is to be done that many times less often than it would be worth on a GPU.
    pub(crate) slowness: usize,
}

/// Without one `None`, after a word about it.
pub(crate) fn gpu() -> Option<Gpu> {
    match open() {
        Ok(true) if Cuda::is_available() => Some(Gpu { device: Device::Cuda(0), slowness: 1 }),
        Ok(_) => {
            println!("skipped: no CUDA driver, or a libtorch without CUDA");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Runs what works with a GPU's tensors.
pub(crate) fn work_on_gpu<R>(work: impl FnOnce() -> R) -> R {
    work()
}
