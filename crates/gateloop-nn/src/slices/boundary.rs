//! Where a rank stands in a pass, and which of its rows are cut.

use super::SequenceRanks;
use super::recurrence::Pass;
use crate::error::{NnError, Result};
use tch::Tensor;

/// The place of a rank in a pass, which runs through the ranks forward or backward.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// How many slices the pass visits before this one.
    pub(super) position: usize,
    size: usize,
    reverse: bool,
}

impl Turn {
    pub(super) fn of(ranks: &dyn SequenceRanks, reverse: bool) -> Result<Self> {
        let (rank, size) = (ranks.rank(), ranks.size());
        if rank >= size {
            let problem = format!("rank {rank} is not one of {size}");
            return Err(NnError::Config { key: "ranks", problem });
        }
        let position = if reverse { size - 1 - rank } else { rank };
        Ok(Self { position, size, reverse })
    }

    pub(super) fn is_first(self) -> bool {
        self.position == 0
    }

    pub(super) fn is_last(self) -> bool {
        self.position + 1 == self.size
    }

    /// From the order of ranks to that of the pass.
    pub(super) fn in_order<T>(self, mut by_rank: Vec<T>) -> Vec<T> {
        if self.reverse {
            by_rank.reverse();
        }
        by_rank
    }
}

/// The tensor [B, ..] with zeros in the rows in which a sequence begins anywhere: their product of decays.
pub(super) fn without_begun(tensor: Tensor, pass: Pass<'_>) -> Result<Tensor> {
    match pass.starts {
        Some(starts) => cleared(&tensor, starts, |row| row.contains(&true)),
        None => Ok(tensor),
    }
}

/// The tensor [B, ..], a state or its gradient, with zeros in the rows from which nothing leaves the slice: of a reversed
/// pass those in which a sequence begins with the slice's first token. That of a forward pass is for the next slice to
/// know.
pub(super) fn leaving(tensor: Tensor, pass: Pass<'_>) -> Result<Tensor> {
    match pass.starts {
        Some(starts) if pass.reverse => cleared(&tensor, starts, |row| row.first() == Some(&true)),
        _ => Ok(tensor),
    }
}

fn cleared(tensor: &Tensor, starts: &[bool], is_cut: impl Fn(&[bool]) -> bool) -> Result<Tensor> {
    let batch = tensor.size()[0] as usize;
    let rows = starts.chunks_exact((starts.len() / batch.max(1)).max(1));
    let cut: Vec<bool> = rows.map(is_cut).collect();
    let mask = Tensor::f_from_slice(&cut)?.f_to_device(tensor.device())?.f_unsqueeze(-1)?;
    Ok(tensor.f_masked_fill(&mask, 0.0)?)
}
