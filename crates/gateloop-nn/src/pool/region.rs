//! Which bytes of a range are taken: first fit, neighbours that are free joined at once.

use std::collections::{BTreeMap, HashMap};

/// A range of bytes from which pieces are taken and given back. It knows places, not memory.
#[derive(Debug)]
pub(super) struct Region {
    /// Length of each free piece by its start.
    free: BTreeMap<usize, usize>,
    /// Length of each taken piece by its start.
    taken: HashMap<usize, usize>,
    start: usize,
    reach: usize,
}

impl Region {
    /// The bytes from `start` on, both multiples of the [`GRANULE`].
    pub(super) fn new(start: usize, len: usize) -> Self {
        let (free, taken) = (BTreeMap::new(), HashMap::new());
        let mut region = Self { free, taken, start, reach: start };
        region.insert(start, len);
        region
    }

    /// The start of a piece of `len` bytes, some of the [`GRANULE`]s; `None` if no free piece is so long.
    ///
    /// It is the one nearest to the beginning. The tightest one would leave more holes behind, too small for what
    /// comes next (docs/log.md).
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let (&start, &found) = self.free.iter().find(|&(_, &free)| free >= len)?;
        self.free.remove(&start);
        if found > len {
            self.insert(start + len, found - len);
        }
        self.taken.insert(start, len);
        self.reach = self.reach.max(start + len);
        Some(start)
    }

    /// Gives a piece back; its length, or `None` if none begins there.
    pub(super) fn give_back(&mut self, start: usize) -> Option<usize> {
        let len = self.taken.remove(&start)?;
        let (mut from, mut to) = (start, start + len);
        if let Some((&before, &len)) = self.free.range(..start).next_back()
            && before + len == start
        {
            self.free.remove(&before);
            from = before;
        }
        if let Some(len) = self.free.remove(&to) {
            to += len;
        }
        self.insert(from, to - from);
        Some(len)
    }

    /// Bytes from the beginning to the last one that was ever taken.
    pub(super) fn reach(&self) -> usize {
        self.reach - self.start
    }

    /// The free pieces, [start, length], up to the last byte that was ever taken.
    pub(super) fn holes(&self) -> impl Iterator<Item = (usize, usize)> {
        let reach = self.reach;
        let within = self.free.range(..reach);
        within.map(move |(&start, &len)| (start, len.min(reach - start)))
    }

    /// Says that memory beyond the last taken piece was given back to the system.
    pub(super) fn forget_reach(&mut self) {
        let ends = self.taken.iter().map(|(start, len)| start + len);
        self.reach = ends.max().unwrap_or(self.start);
    }

    fn insert(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.free.insert(start, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Region;

    #[test]
    fn the_first_hole_that_is_long_enough_is_taken() {
        let mut region = Region::new(7, 100);
        let starts: Vec<usize> = [1, 1, 5, 1, 2, 1].map(|n| region.take(n).unwrap()).into();
        assert_eq!(region.reach(), 11);
        assert!([0, 2, 4].iter().all(|&i| region.give_back(starts[i]).is_some()));
        assert_eq!(region.take(2), Some(starts[2]));
        assert_eq!(region.take(1), Some(7));
        assert_eq!(region.take(3), Some(starts[2] + 2));
        assert_eq!(region.give_back(8), Some(1));
        assert_eq!(region.give_back(8), None);
    }
}
