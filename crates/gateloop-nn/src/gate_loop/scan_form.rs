//! The scan form, for heads of width 1: the state of a head is one complex number, and the whole
//! recurrence is a diagonal scan with the heads as channels.

use super::operator::{Before, Dims, Operands};
use crate::error::Result;
use crate::scan::{ScanOptions, scan, scan_over_ranks};
use tch::Tensor;

pub(super) fn run(
    operands: &Operands<'_>,
    before: Before<'_>,
    dims: &Dims,
) -> Result<(Tensor, Tensor)> {
    let kv = operands.k.f_mul(operands.v)?;
    let kv = Tensor::f_complex(&kv, &kv.f_zeros_like()?)?;
    let decay = operands.transition.decay()?;
    let (h, h_last) = match before {
        Before::State(state) => {
            let h0 = state.map(|s| s.f_reshape([dims.batch, dims.heads])).transpose()?;
            scan(&decay, &kv, h0.as_ref())?
        }
        Before::Ranks(ranks) => {
            let slice = scan_over_ranks(&decay, &kv, None, &ScanOptions::default(), ranks)?;
            (slice.h, slice.h_last)
        }
    };
    let y = operands.q.f_mul(&h.f_real()?)?;
    Ok((y, h_last.f_view(dims.state())?))
}
