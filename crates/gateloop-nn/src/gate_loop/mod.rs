//! GateLoop: linear recurrence with a decay that is computed from the data.
//!
//! For every head, with a state S of head_dim x head_dim complex numbers,
//!
//! ```text
//! S[t] = a[t] S[t-1] + k[t]^T v[t],   y[t] = q[t] Re(S[t])
//! ```
//!
//! (GateLoop, arXiv 2311.01927, section 3). [`gate_loop`] is the operator in each of its equivalent
//! [`Form`]s; [`GateLoop`] is the layer with its projections, gates and decoding state.

pub(crate) mod between;
mod chunkwise;
mod heads;
mod layer;
mod operator;
mod polar;
mod recurrent;
mod scan_form;
mod transition;
mod within;

pub use layer::{GateLoop, GateLoopConfig, GateLoopState};
pub use operator::{Form, Operands, gate_loop, gate_loop_over_ranks};
pub use transition::{StateTransition, TransitionMode};
pub(crate) use transition::{check_fraction, pre_activation_product, scale_gradient};
