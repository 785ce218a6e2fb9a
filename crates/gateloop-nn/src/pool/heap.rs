//! Which bytes of a range are taken: first fit, neighbours that are free joined at once.

use std::collections::{BTreeMap, HashMap};

/// A range of `len` bytes from which pieces are taken and given back. It knows places, not memory.
#[derive(Debug)]
pub(super) struct Heap {
    /// Length of each free piece by its start.
    free: BTreeMap<usize, usize>,
    /// Length of each taken piece by its start.
    taken: HashMap<usize, usize>,
    usage: Usage,
}

/// How much of a pool is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes that tensors hold now.
    pub live: usize,
    /// The most they ever held.
    pub peak: usize,
    /// Bytes from the beginning of the pool to the last byte that was ever taken: what the pool may keep
    /// from the rest of the machine.
    pub reach: usize,
}

impl Heap {
    /// Pieces begin at multiples of this, and are as long: a page.
    pub(super) const GRANULE: usize = 4096;

    pub(super) fn new(len: usize) -> Self {
        let mut heap =
            Self { free: BTreeMap::new(), taken: HashMap::new(), usage: Usage::default() };
        heap.insert(0, len / Self::GRANULE * Self::GRANULE);
        heap
    }

    /// The start of a piece of at least `len` bytes; `None` if no free piece is so long.
    ///
    /// It is the one nearest to the beginning. The tightest one would leave more holes behind, too small for what
    /// comes next (docs/log.md).
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.max(1).checked_next_multiple_of(Self::GRANULE)?;
        let (&start, &found) = self.free.iter().find(|&(_, &free)| free >= len)?;
        self.free.remove(&start);
        if found > len {
            self.insert(start + len, found - len);
        }
        self.taken.insert(start, len);
        self.usage.live += len;
        self.usage.peak = self.usage.peak.max(self.usage.live);
        self.usage.reach = self.usage.reach.max(start + len);
        Some(start)
    }

    /// Gives a piece back; false if none begins there.
    pub(super) fn give_back(&mut self, start: usize) -> bool {
        let Some(len) = self.taken.remove(&start) else { return false };
        self.usage.live -= len;
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
        true
    }

    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// The free pieces, [start, length], up to the last byte that was ever taken.
    pub(super) fn holes(&self) -> impl Iterator<Item = (usize, usize)> {
        let reach = self.usage.reach;
        let within = self.free.range(..reach);
        within.map(move |(&start, &len)| (start, len.min(reach - start)))
    }

    /// Says that memory beyond the last taken piece was given back to the system.
    pub(super) fn forget_reach(&mut self) {
        self.usage.reach = self.taken.iter().map(|(start, len)| start + len).max().unwrap_or(0);
    }

    fn insert(&mut self, start: usize, len: usize) {
        if len > 0 {
            self.free.insert(start, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;
    use proptest::prelude::*;

    const PAGE: usize = Heap::GRANULE;

    #[test]
    fn the_first_hole_that_is_long_enough_is_taken() {
        let mut heap = Heap::new(100 * PAGE);
        let starts: Vec<usize> = [1, 1, 5, 1, 2, 1].map(|n| heap.take(n * PAGE).unwrap()).into();
        assert!([0, 2, 4].iter().all(|&i| heap.give_back(starts[i])));
        assert_eq!(heap.take(2 * PAGE - 1), Some(starts[2]));
        assert_eq!(heap.take(PAGE), Some(starts[0]));
        assert_eq!(heap.take(3 * PAGE), Some(starts[2] + 2 * PAGE));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut heap = Heap::new(4 * PAGE + 1);
        assert_eq!(heap.take(4 * PAGE + 1), None);
        assert_eq!(heap.take(usize::MAX), None);
        let whole = heap.take(4 * PAGE).unwrap();
        assert_eq!(heap.take(0), None);
        assert!(heap.give_back(whole) && !heap.give_back(whole) && !heap.give_back(PAGE));
        assert_eq!(heap.take(4 * PAGE), Some(0));
    }

    proptest! {
        #[test]
        fn pieces_never_overlap_and_all_come_back(
            steps in prop::collection::vec((any::<bool>(), 0usize..20 * PAGE, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut heap = Heap::new(256 * PAGE);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (take, len, which) in steps {
                if take || taken.is_empty() {
                    let Some(start) = heap.take(len) else { continue };
                    prop_assert!(start % PAGE == 0 && start + len <= 256 * PAGE);
                    let apart = |&(other, its): &(usize, usize)| start + len.max(1) <= other || other + its.max(1) <= start;
                    prop_assert!(taken.iter().all(apart));
                    taken.push((start, len));
                } else {
                    let (start, _) = taken.swap_remove(which.index(taken.len()));
                    prop_assert!(heap.give_back(start));
                }
                let live: usize = taken.iter().map(|&(_, len)| len.max(1).next_multiple_of(PAGE)).sum();
                prop_assert_eq!(heap.usage().live, live);
                let holes: usize = heap.holes().map(|(_, len)| len).sum();
                prop_assert_eq!(holes + live, heap.usage().reach);
            }
            for (start, _) in taken {
                prop_assert!(heap.give_back(start));
            }
            heap.forget_reach();
            prop_assert_eq!((heap.usage().live, heap.usage().reach), (0, 0));
            prop_assert_eq!(heap.take(256 * PAGE), Some(0));
        }
    }
}
