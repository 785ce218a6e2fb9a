//! Causal attention, to everything or to a window, the mixer that GateLoop is compared and combined with.
//!
//! `y[i] = sum_{j<=i} w[i,j] v[j]`, where the weights are the softmax of the scores `q[i].k[j] / sqrt(d)`
//! or the scores themselves; with rotary positions, with positions that depend on the data
//! ([`RelPos`]), or without.

mod layer;
mod rel_pos;
mod rotary;
mod state;
mod weights;
mod window;

pub use layer::{Attention, AttentionConfig};
pub use rel_pos::RelPos;
pub(crate) use rotary::Rotary;
pub use state::AttentionState;
