//! Several tensors in one gather.

use super::SequenceRanks;
use crate::error::{NnError, Result};
use tch::Tensor;

/// The `parts` of every rank, in the order of ranks; `what` they are, for errors.
///
/// Parts are of any shapes, and real or complex numbers of one precision. They travel as one flat real tensor, since
/// not every transport knows complex numbers and each message costs a round.
pub(super) fn all_gather<const N: usize>(
    ranks: &dyn SequenceRanks,
    what: &'static str,
    parts: [&Tensor; N],
) -> Result<Vec<[Tensor; N]>> {
    let flat = parts.iter().map(|part| as_real(part)?.f_reshape([-1]).map_err(NnError::from));
    let flat = Tensor::f_cat(&flat.collect::<Result<Vec<_>>>()?, 0)?;
    let gathered = ranks.all_gather(&flat).map_err(|error| failed(ranks, what, error))?;
    let expected = [ranks.size() as i64, flat.size()[0]];
    if gathered.size() != expected || gathered.kind() != flat.kind() {
        let (expected, actual) =
            ((expected.into(), flat.kind()), (gathered.size(), gathered.kind()));
        return Err(NnError::Gathered { what, expected, actual });
    }
    (0..expected[0]).map(|rank| split(&gathered.f_select(0, rank)?, parts)).collect()
}

fn failed(ranks: &dyn SequenceRanks, what: &'static str, error: NnError) -> NnError {
    let source = match error {
        NnError::Gather { source, .. } => source,
        other => Box::new(other),
    };
    NnError::Gather { what, rank: ranks.rank(), source }
}

/// [.., 2] of a complex tensor.
fn as_real(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.f_resolve_conj()?.f_resolve_neg()?;
    if tensor.is_complex() { Ok(tensor.f_contiguous()?.f_view_as_real()?) } else { Ok(tensor) }
}

/// One rank's parts of what it sent, of the shapes of `parts`.
fn split<const N: usize>(flat: &Tensor, parts: [&Tensor; N]) -> Result<[Tensor; N]> {
    let mut at = 0;
    let mut shaped = parts.map(Tensor::shallow_clone);
    for part in &mut shaped {
        let mut dims = part.size();
        if part.is_complex() {
            dims.push(2);
        }
        let len = dims.iter().product();
        // A copy, so that nothing keeps what all ranks sent alive.
        let own = flat.f_narrow(0, at, len)?.f_detach_copy()?.f_view(dims.as_slice())?;
        *part = if part.is_complex() { own.f_view_as_complex()? } else { own };
        at += len;
    }
    Ok(shaped)
}
