//! Which bytes of a range are taken: best fit, neighbours that are free joined at once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A range of `len` bytes from which pieces are taken and given back. It knows places, not memory.
#[derive(Debug)]
pub(super) struct Heap {
    /// Length of each free piece by its start.
    free: BTreeMap<usize, usize>,
    /// The same pieces as (length, start): the first that is long enough is the tightest, and of those the
    /// one nearest to the beginning, so that the end of the range stays untouched.
    by_len: BTreeSet<(usize, usize)>,
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
        let mut heap = Self {
            free: BTreeMap::new(),
            by_len: BTreeSet::new(),
            taken: HashMap::new(),
            usage: Usage::default(),
        };
        heap.insert(0, len / Self::GRANULE * Self::GRANULE);
        heap
    }

    /// The start of a piece of at least `len` bytes; `None` if no free piece is so long.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.max(1).checked_next_multiple_of(Self::GRANULE)?;
        let &(found, start) = self.by_len.range((len, 0)..).next()?;
        self.remove(start, found);
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
            self.remove(before, len);
            from = before;
        }
        if let Some(&len) = self.free.get(&to) {
            self.remove(to, len);
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
            self.by_len.insert((len, start));
        }
    }

    fn remove(&mut self, start: usize, len: usize) {
        self.free.remove(&start);
        self.by_len.remove(&(len, start));
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;
    use proptest::prelude::*;

    const PAGE: usize = Heap::GRANULE;

    #[test]
    fn the_tightest_hole_is_taken() {
        let mut heap = Heap::new(100 * PAGE);
        let starts: Vec<usize> = [5, 1, 2, 1, 90].map(|n| heap.take(n * PAGE).unwrap()).into();
        assert!(heap.give_back(starts[0]) && heap.give_back(starts[2]));
        assert_eq!(heap.take(2 * PAGE - 1), Some(starts[2]));
        assert_eq!(heap.take(2 * PAGE), Some(starts[0]));
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
