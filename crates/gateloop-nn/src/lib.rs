//! Differentiable GateLoop operators and layers on libtorch.
//!
//! | what | where |
//! | --- | --- |
//! | custom gradients for tch | [`autograd`] |
//! | the differentiable scan | [`scan()`], [`scan_with`] |
//! | the GateLoop operator, any number of heads | [`gate_loop::gate_loop`] |
//! | layers, each with `forward`, `prefill` and `step` | [`GateLoop`], [`SimpleGateLoop`], [`Attention`], [`FeedForward`], [`Residual`] |
//! | less memory for more time | [`recompute()`] |
//! | one sequence over several processes | [`SequenceRanks`], [`scan_over_ranks`], [`LayerInput::with_ranks`] |
//! | operations on lists of tensors | [`foreach`] |
//! | memory kept between steps | [`pool`] |
//! | CUDA at run time, autocast | [`cuda`] |
//! | norms, affine map | [`RmsNorm`], [`LayerNorm`], [`Linear`] |
//!
//! Tensors are [B, T, ..]: batch, time, features. Layers read and write [`tch::nn::VarStore`]s under
//! the parameter names of the PyTorch reference.
//!
//! ```
//! use gateloop_nn::{GateLoopConfig, SequenceLayer};
//! use tch::{Device, Kind, Tensor, nn};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let layer = GateLoopConfig { heads: Some(2), ..GateLoopConfig::new(8) }.init(&vs.root())?;
//!
//! let x = Tensor::randn([1, 10, 8], (Kind::Float, Device::Cpu));
//! let y = layer.forward(&x)?; // the sequence at once
//!
//! let mut state = layer.initial_state(1); // the same, token by token
//! for t in 0..10 {
//!     let y_t = layer.step(&x.select(1, t), &mut state)?;
//!     assert!(y_t.allclose(&y.select(1, t), 1e-4, 1e-5, false));
//! }
//! # Ok::<(), gateloop_nn::NnError>(())
//! ```

// Tests of the crate's own that are also those of a user say `gateloop_nn`.
#[cfg(test)]
extern crate self as gateloop_nn;

mod attention;
mod autocast;
pub mod autograd;
pub mod cuda;
mod device;
mod elements;
mod error;
mod feed_forward;
mod ffi_error;
pub mod foreach;
mod fused;
pub mod gate_loop;
mod layer;
mod lean;
mod linear;
mod matvec;
mod norm;
mod pointwise;
pub mod pool;
mod precision;
mod recompute;
mod residual;
mod scan;
mod segments;
mod shared;
mod simple_gate_loop;
mod slices;
mod threads;

pub use attention::{Attention, AttentionConfig, AttentionState, RelPos};
pub use autocast::Autocast;
pub use error::{NnError, Result};
pub use feed_forward::{FeedForward, FeedForwardConfig, Gelu};
pub use gate_loop::{GateLoop, GateLoopConfig, GateLoopState};
pub use layer::{LayerInput, SequenceLayer};
pub use linear::{Bias, HasLinears, Linear, WeightKind, forward_all};
pub use norm::{LayerNorm, RmsNorm, RmsNormKind};
pub use recompute::{recompute, recompute_with};
pub use residual::{NormPlacement, Residual};
pub use scan::{ScanOptions, ScannedSlice, scan, scan_over_ranks, scan_with};
pub use segments::Segments;
pub use simple_gate_loop::{Engine, SimpleGateLoop, SimpleGateLoopConfig, SimpleGateLoopState};
pub use slices::SequenceRanks;
