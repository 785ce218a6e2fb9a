//! GateLoop with heads of any width, chunkwise: matrix products within chunks of a sequence, and the recurrence over
//! the states at their ends.
//!
//! With `D[i,j] = a[j+1] .. a[i]`, S the state that enters a chunk, u and w the products of the decays from the chunk's
//! start to a token and from there to its end (GateLoop, arXiv 2311.01927; derivation: docs/math.md):
//!
//! ```text
//! y[i] = sum_{j<=i} Re(D[i,j]) (q[i].k[j]) v[j] + q[i] Re(u[i] S)
//! S'   = (a[0] .. a[C-1]) S + sum_j w[j] k[j]^T v[j]
//! ```
//!
//! Products of decays are products of numbers, never differences of logarithms or of angles: a decay may be zero, and
//! phases keep their digits. One product serves all pairs of a row, as each row of D is the one before times a decay.

mod adjoint;
mod compiled;
mod decays;
mod forward;
mod operator;
mod product;
mod site;
mod states;
#[cfg(test)]
mod tests;
pub(crate) mod vector;

pub(super) use compiled::Heads;
pub use operator::{WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates};
