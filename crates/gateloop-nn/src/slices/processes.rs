//! Ranks that are processes.

use super::SequenceRanks;
use crate::error::{NnError, Result};
use gateloop_dist::Group;
use tch::Tensor;

impl SequenceRanks for Group {
    fn rank(&self) -> usize {
        Group::rank(self)
    }

    fn size(&self) -> usize {
        Group::size(self)
    }

    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor> {
        Group::all_gather(self, tensor).map_err(|error| NnError::Gather {
            what: "tensor",
            rank: Group::rank(self),
            source: Box::new(error),
        })
    }
}
