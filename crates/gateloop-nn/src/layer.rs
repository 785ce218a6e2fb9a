//! What every layer that mixes over time can do, and the three ways to run it.

use crate::error::{NnError, Result};
use tch::Tensor;

/// A layer over a sequence, with the state that lets it go on after any token.
///
/// The three ways of running it agree: a sequence at once, a sequence in pieces with the state
/// handed over, and token by token.
pub trait SequenceLayer {
    /// What the layer remembers of the tokens so far. Its size does not depend on their number, except
    /// for full attention.
    type State;

    /// The state before the first token of `batch` sequences.
    fn initial_state(&self, batch: i64) -> Self::State;

    /// A whole sequence from the initial state.
    ///
    /// # Shapes
    /// - `x`: [B, T, D], T >= 1; returns [B, T, D]
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// A piece of a sequence, from `state`, which is moved to the end of the piece.
    ///
    /// # Shapes
    /// - `x`: [B, T, D], T >= 1; returns [B, T, D]
    fn prefill(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor>;

    /// One token.
    ///
    /// # Shapes
    /// - `x`: [B, D]; returns [B, D]
    fn step(&self, x: &Tensor, state: &mut Self::State) -> Result<Tensor>;
}

/// Checks that `x` is [B, T, D] with T >= 1, and returns B and T.
pub(crate) fn sequence_dims(x: &Tensor, dim: i64) -> Result<(i64, i64)> {
    match x.size()[..] {
        [batch, seqlen, d] if d == dim && batch >= 1 && seqlen >= 1 => Ok((batch, seqlen)),
        _ => Err(NnError::Shape {
            operand: "x",
            expected: format!("[B, T, {dim}] with B and T at least 1"),
            actual: x.size(),
        }),
    }
}

/// Checks that `x` is [B, D], and returns B.
pub(crate) fn token_dims(x: &Tensor, dim: i64) -> Result<i64> {
    match x.size()[..] {
        [batch, d] if d == dim && batch >= 1 => Ok(batch),
        _ => Err(NnError::Shape {
            operand: "x",
            expected: format!("[B, {dim}] with B at least 1"),
            actual: x.size(),
        }),
    }
}
