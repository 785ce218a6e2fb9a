//! Whose code works with a tensor: plain Rust with one on the CPU, the kernels of gateloop-scan with one on a GPU.

use tch::{Device, Tensor};

/// Whether plain Rust works with it.
pub(crate) fn on_cpu(tensor: &Tensor) -> bool {
    tensor.device() == Device::Cpu && !pretended()
}

/// The GPU whose kernels work with it, if any do.
pub(crate) fn gpu_of(tensor: &Tensor) -> Option<usize> {
    match tensor.device() {
        Device::Cuda(ordinal) => Some(ordinal),
        Device::Cpu if pretended() => Some(0),
        _ => None,
    }
}

/// Whether a GPU's kernels work with it.
pub(crate) fn on_gpu(tensor: &Tensor) -> bool {
    gpu_of(tensor).is_some()
}

/// Whether this thread works with tensors on the CPU as if they were on a GPU, for which something stands in.
#[cfg(not(test))]
pub(crate) const fn pretended() -> bool {
    false
}

#[cfg(test)]
pub(crate) use crate::cuda::stand_in::pretended;
