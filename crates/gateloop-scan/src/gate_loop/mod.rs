//! The operators of GateLoop layers. With one channel a head they are fused: the activation of the gate, the
//! scan and the readout in one pass over what the projections wrote. [`WideHeads`] has heads of any width.
//!
//! ```text
//! GateLoop:        h[t] = a[t] h[t-1] + k[t] v[t],  a = sigmoid(|z|) e^{i arg z},  y = q Re(h)
//! SimpleGateLoop:  h[t] = sigmoid(z[t]) h[t-1] + kv[t],                            y = q h
//! ```
//!
//! Each operand is read once and `y` is written once, where the operations one by one make about ten
//! passes over complex arrays. The adjoint computes the states again from one in [`CHECKPOINT_LEN`], so
//! that training keeps the projections and little else. [`Rows`] may lie inside a larger array.
//!
//! ```
//! use gateloop_scan::ScanShape;
//! use gateloop_scan::gate_loop::{Rows, RowsMut, SimpleGateLoop, States};
//!
//! // One sequence of three tokens with one channel; q, kv and z packed as a projection has them.
//! let packed = [1.0_f32, 2.0, 0.0, 1.0, 4.0, 0.0, 2.0, 0.0, 0.0];
//! let rows = Rows::contiguous("packed", &packed, ScanShape::new(1, 3, 3)?)?;
//! let [q, kv, z] = rows.split("packed")?;
//!
//! let mut y = [0.0; 3];
//! let operator = SimpleGateLoop::new(q, kv, z)?;
//! operator.forward_into(RowsMut::contiguous("y", &mut y, operator.shape())?, States::default())?;
//! // sigmoid(0) = 1/2: h is 2, 5, 2.5.
//! assert_eq!(y, [2.0, 5.0, 5.0]);
//! # Ok::<(), gateloop_scan::ScanError>(())
//! ```

// Loops over the channels of a row index several arrays at once: as iterators they would be chains of
// zips, and hide the formula. A kernel is compiled for the instruction set of its caller.
#![allow(clippy::needless_range_loop, clippy::inline_always)]

mod adjoint;
mod forward;
mod heads;
mod kind;
mod max_heads;
mod operator;
mod planes;
mod real;
mod rows;
mod simple;
mod slice;
mod summary;

pub(crate) use heads::vector;
pub use heads::{WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates};
pub use kind::Kind;
pub use max_heads::MaxHeads;
pub use operator::{
    GateLoop, GateLoopGrads, Operator, SimpleGateLoop, SimpleGateLoopGrads, States, Upstream,
};
pub use real::Real;
pub use rows::{Rows, RowsMut};
pub use simple::Simple;

/// Tokens from one state that the forward pass keeps to the next.
pub const CHECKPOINT_LEN: usize = 32;

/// Tokens that some channels walk through before the next channels of a row have their turn: a multiple of
/// [`CHECKPOINT_LEN`], and long enough that beginning anew costs nothing.
const BLOCK_LEN: usize = 2 * CHECKPOINT_LEN;

/// How the decay of a [`GateLoop`] comes from z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum GateMode {
    /// `a = sigmoid(|z|) e^{i arg z}`
    #[default]
    Complex = 0,
    /// `a = sigmoid(|Re z|) sign(Re z)`: the reference's `ablate_complex`
    Real = 1,
    /// `a = 1`: the reference's `ablate_state_transition`
    Identity = 2,
}
