//! The operator for concrete numbers.

use crate::{Complex, ScanError};

use super::super::rows::{Rows, RowsMut};
use super::operator::{WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates};

/// The passes over concrete numbers. They are compiled with this crate, once, and not again by every crate that has heads.
pub trait Heads: Sized {
    /// [`WideHeads::forward_into`]
    fn forward(
        operator: &WideHeads<'_, Self>,
        y: RowsMut<'_, Self>,
        states: WideStates<'_, Self>,
    ) -> Result<(), ScanError>;
    /// [`WideHeads::map_into`]
    fn map(
        operator: &WideHeads<'_, Self>,
        product: &mut [Complex<Self>],
        last: &mut [Complex<Self>],
    ) -> Result<(), ScanError>;
    /// [`WideHeads::adjoint_into`]
    fn adjoint(
        operator: &WideHeads<'_, Self>,
        upstream: WideHeadsUpstream<'_, Self>,
        grads: WideHeadsGrads<'_, Self>,
    ) -> Result<(), ScanError>;
    /// [`WideHeads::entry_gradient_into`]
    fn entry_gradient(
        operator: &WideHeads<'_, Self>,
        dy: Rows<'_, Self>,
        dh_last: Option<&[Complex<Self>]>,
        dh0: &mut [Complex<Self>],
    ) -> Result<(), ScanError>;
}

macro_rules! compiled_here {
    ($($real:ident),*) => {$(
        impl Heads for $real {
            fn forward(
                operator: &WideHeads<'_, Self>,
                y: RowsMut<'_, Self>,
                states: WideStates<'_, Self>,
            ) -> Result<(), ScanError> {
                operator.run(y, states)
            }

            fn map(
                operator: &WideHeads<'_, Self>,
                product: &mut [Complex<Self>],
                last: &mut [Complex<Self>],
            ) -> Result<(), ScanError> {
                operator.run_map(product, last)
            }

            fn adjoint(
                operator: &WideHeads<'_, Self>,
                upstream: WideHeadsUpstream<'_, Self>,
                grads: WideHeadsGrads<'_, Self>,
            ) -> Result<(), ScanError> {
                operator.run_back(upstream, grads)
            }

            fn entry_gradient(
                operator: &WideHeads<'_, Self>,
                dy: Rows<'_, Self>,
                dh_last: Option<&[Complex<Self>]>,
                dh0: &mut [Complex<Self>],
            ) -> Result<(), ScanError> {
                operator.run_entry(dy, dh_last, dh0)
            }
        }
    )*};
}

compiled_here!(f32, f64);
