//! CUDA tensors: the kernels of gateloop-scan on torch's stream and in torch's memory.

mod gate;
mod gate_loop;
pub(crate) mod heads;
mod memory;
mod norm;
mod scan;
#[cfg(test)]
pub(crate) mod stand_in;
mod torch;

pub(crate) use gate::silu_gated;
pub(crate) use gate_loop::{Fused, fused, fused_side_by_side};
pub(crate) use norm::{Normed, rms_norm};
pub(crate) use scan::{adjoint, run};
pub use torch::open;
