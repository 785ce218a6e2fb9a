//! The division of all parameters among ranks that keep a share of the optimiser's moments each (ZeRO, arXiv 1910.02054,
//! stage 1).

use crate::ranks::RanksError;
use gateloop_dist::{DistError, Group};
use std::ops::Range;
use tch::{TchError, Tensor};

/// Elements that are gathered at once, of all ranks together.
const AT_ONCE: i64 = 8 << 20;

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

    /// Whether this rank is the one that writes what all have together.
    pub(super) fn is_first(&self) -> bool {
        self.group.rank() == 0
    }

    /// Gives `take` every element, of tensors of which each rank has its own pieces, in the order of the parameters: a
    /// stretch of them, one-dimensional, and the number of elements before it. No more than [`AT_ONCE`] are in memory at a
    /// time. Collective.
    pub(super) fn gather(
        &self,
        own: &[Tensor],
        mut take: impl FnMut(i64, &Tensor) -> Result<(), TchError>,
    ) -> Result<(), RanksError> {
        let ranks = self.group.size() as i64;
        let own = tch::no_grad(|| {
            let own = Tensor::f_cat(own, 0)?;
            let padding = self.len - own.size()[0];
            if padding == 0 { Ok(own) } else { own.f_constant_pad_nd([0, padding]) }
        });
        let own = own.map_err(DistError::from)?;
        let step = (AT_ONCE / ranks).max(1);
        for at in (0..self.len).step_by(step as usize) {
            let len = step.min(self.len - at);
            let part = own.f_narrow(0, at, len).map_err(DistError::from)?;
            let gathered = self.group.all_gather(&part)?;
            let taken = (0..ranks).try_for_each(|rank| {
                let before = rank * self.len + at;
                // Behind the last element is padding.
                let len = len.min(self.total - before);
                if len > 0 {
                    take(before, &gathered.f_get(rank)?.f_narrow(0, 0, len)?)
                } else {
                    Ok(())
                }
            });
            taken.map_err(DistError::from)?;
        }
        Ok(())
    }
}

/// Copies a stretch of elements, of which so many are before it, to where they are in tensors that follow one another.
pub(super) fn place(before: i64, elements: &Tensor, tensors: &[Tensor]) -> Result<(), TchError> {
    let (start, end) = (before, before + elements.size()[0]);
    let mut at = 0;
    for tensor in tensors {
        let numel = tensor.numel() as i64;
        let (from, to) = (start.max(at), end.min(at + numel));
        if from < to {
            let mut target = tensor.f_view([-1])?.f_narrow(0, from - at, to - from)?;
            target.f_copy_(&elements.f_narrow(0, from - start, to - from)?)?;
        }
        at += numel;
    }
    Ok(())
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
        let own = [Tensor::arange(2, options), Tensor::arange(3, options)];
        let all = [Tensor::zeros([1, 2], options), Tensor::zeros([3], options)];
        shard.gather(&own, |before, elements| place(before, elements, &all)).unwrap();
        assert_eq!((all[0].squeeze(), &all[1]), (own[0].shallow_clone(), &own[1]));
    }

    #[test]
    fn stretches_find_their_places() {
        let options = (Kind::Float, Device::Cpu);
        let flat = Tensor::arange(11, options);
        for len in 1..=11 {
            let parts = [[2, 3].as_slice(), &[0], &[1], &[2, 2]];
            let tensors = parts.map(|dims| Tensor::zeros(dims, options));
            for start in (0..11).step_by(len) {
                let stretch = flat.narrow(0, start, (len as i64).min(11 - start));
                place(start, &stretch, &tensors).unwrap();
            }
            let all: Vec<Tensor> = tensors.iter().map(|tensor| tensor.flatten(0, -1)).collect();
            assert_eq!(Tensor::cat(&all, 0), flat, "{len}");
        }
    }
}
