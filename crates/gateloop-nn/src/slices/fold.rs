//! What the slices before, or after, amount to: the affine maps of slices, one after the other.

use crate::error::Result;
use tch::Tensor;

/// `product x + added`, and `added` where the product is zero: nothing goes through, not even NaN.
fn through(product: &Tensor, x: &Tensor, added: &Tensor) -> Result<Tensor> {
    let moved = product.f_mul(x)?.f_masked_fill(&product.f_eq(0.0)?, 0.0)?;
    Ok(moved.f_add(added)?)
}

/// The state after some slices, in the order of the pass, of which the first one begins with the sequence; `None` after
/// none.
///
/// # Shapes
/// Each: its product [B, C] or [B, 1], and its last state [B, C].
pub(super) fn carry(slices: &[[Tensor; 2]]) -> Result<Option<Tensor>> {
    let Some(([_, first], later)) = slices.split_first() else { return Ok(None) };
    let mut state = first.shallow_clone();
    for [product, last] in later {
        state = through(product, &state, last)?;
    }
    Ok(Some(state))
}

/// The gradient of the state before some slices, in the order of the pass, of which the last one ends the sequence; `None`
/// before none.
///
/// # Shapes
/// - `gradients`: for each slice that of the state that enters it by what happens within it, [B, C]
/// - `products`: of all slices but the last, [B, C] or [B, 1]
pub(super) fn arriving(products: &[Tensor], gradients: &[Tensor]) -> Result<Option<Tensor>> {
    let Some((last, earlier)) = gradients.split_last() else { return Ok(None) };
    let mut gradient = last.shallow_clone();
    for (product, own) in products.iter().zip(earlier).rev() {
        gradient = through(&product.f_conj()?, &gradient, own)?;
    }
    Ok(Some(gradient))
}
