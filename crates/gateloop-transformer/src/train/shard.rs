//! The division of all parameters among ranks that keep a share of the optimiser's moments each (ZeRO, arXiv 1910.02054,
//! stage 1).

use gateloop_dist::{DistError, Group};
use std::ops::Range;
use tch::{TchError, Tensor};

/// All elements of all parameters, one parameter after the other, cut into as many stretches as there are ranks. They are
/// of one length, but for the last.
#[derive(Debug)]
pub(super) struct Shard {
    group: Group,
    /// Elements in all.
    total: i64,
    /// Elements of a stretch.
    len: i64,
}

impl Shard {
    /// `total` elements among the ranks of a group.
    pub(super) fn new(group: Group, total: i64) -> Self {
        let ranks = group.size() as i64;
        let len = total.div_euclid(ranks) + i64::from(total % ranks != 0);
        Self { group, total, len }
    }

    /// Which elements of a parameter are this rank's, if it begins after `before` elements and has `numel`.
    pub(super) fn piece(&self, before: i64, numel: i64) -> Range<i64> {
        let start = self.len * self.group.rank() as i64;
        let place = |at: i64| (at - before).clamp(0, numel);
        place(start)..place(start + self.len)
    }

    /// Every element, [`total`], of tensors of which each rank has its own pieces, in the order of the parameters.
    /// Collective.
    pub(super) fn gather(&self, own: &[Tensor]) -> Result<Tensor, DistError> {
        let padded = tch::no_grad(|| -> Result<Tensor, TchError> {
            let own = Tensor::f_cat(own, 0)?;
            let padding = self.len - own.size()[0];
            if padding == 0 { Ok(own) } else { own.f_constant_pad_nd([0, padding]) }
        })?;
        Ok(self.group.all_gather(&padded)?.f_flatten(0, 1)?.f_narrow(0, 0, self.total)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use tch::{Device, Kind};

    /// As it would be on rank `rank` of `ranks`.
    fn piece(rank: i64, ranks: i64, total: i64, (before, numel): (i64, i64)) -> Range<i64> {
        let len = (total + ranks - 1) / ranks;
        let shard = Shard { group: Group::single(), total, len };
        // A group of one has rank 0; moving the parameter is moving the rank.
        shard.piece(before - rank * len, numel)
    }

    #[test]
    fn every_element_is_in_one_piece() {
        let parameters = [(0, 5), (5, 1), (6, 0), (6, 8), (14, 3)];
        for ranks in 1..=20 {
            for parameter in parameters {
                let pieces = (0..ranks).map(|rank| piece(rank, ranks, 17, parameter));
                let elements: Vec<i64> = pieces.flatten().collect();
                assert_eq!(elements, (0..parameter.1).collect::<Vec<_>>(), "{ranks} {parameter:?}");
            }
        }
    }

    #[test]
    fn one_rank_has_everything() {
        let shard = Shard::new(Group::single(), 5);
        assert_eq!((shard.piece(0, 2), shard.piece(2, 3)), (0..2, 0..3));
        let options = (Kind::Float, Device::Cpu);
        let parts = [Tensor::ones([2], options), Tensor::zeros([3], options)];
        assert_eq!(shard.gather(&parts).unwrap(), Tensor::cat(&parts, 0));
    }
}
