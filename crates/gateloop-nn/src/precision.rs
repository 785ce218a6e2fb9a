//! What is never computed in fewer bits than f32.

use crate::error::Result;
use tch::{Kind, Tensor};

/// The tensor in f32 if its kind has fewer bits, else as it is: decays and states are summed up and
/// multiplied over many tokens, and 8 bits cannot hold that.
pub(crate) fn widen(x: &Tensor) -> Result<Tensor> {
    Ok(match x.kind() {
        Kind::BFloat16 | Kind::Half => x.f_to_kind(Kind::Float)?,
        _ => x.shallow_clone(),
    })
}
