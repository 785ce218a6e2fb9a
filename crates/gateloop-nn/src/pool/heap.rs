//! Which bytes of the pool are taken. Small pieces lie apart from large ones: one of them that stays, as the gradient of a
//! small weight does, would else lie at the beginning of a hole that the next large piece just fits. That cost a step on one long
//! sequence a tenth of its memory (docs/log.md).

use super::region::Region;

/// Two ranges, for large and for small pieces. It knows places, not memory.
#[derive(Debug)]
pub(super) struct Heap {
    large: Region,
    small: Region,
    /// Where those for small pieces begin.
    boundary: usize,
    live: usize,
    peak: usize,
}

/// How much of a pool is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Bytes that tensors hold now.
    pub live: usize,
    /// The most they ever held.
    pub peak: usize,
    /// Bytes from the beginning of each of the pool's two parts, that of large and that of small tensors, to the last byte that was
    /// ever taken of it: what the pool may keep from the rest of the machine.
    pub reach: usize,
}

impl Heap {
    /// Pieces begin at multiples of this, and are as long: a page.
    pub(super) const GRANULE: usize = 4096;
    /// From this length on, pieces are large.
    const LARGE: usize = 1 << 20;
    /// The part of the range that is for small ones.
    const SMALL_SHARE: usize = 8;

    pub(super) fn new(len: usize) -> Self {
        let granules = len / Self::GRANULE;
        let boundary = (granules - granules / Self::SMALL_SHARE) * Self::GRANULE;
        Self {
            large: Region::new(0, boundary),
            small: Region::new(boundary, granules * Self::GRANULE - boundary),
            boundary,
            live: 0,
            peak: 0,
        }
    }

    /// The start of a piece of at least `len` bytes; `None` if there is none. Where small ones have no more room of their
    /// own they lie among the large ones.
    pub(super) fn take(&mut self, len: usize) -> Option<usize> {
        let len = len.max(1).checked_next_multiple_of(Self::GRANULE)?;
        let small = if len < Self::LARGE { self.small.take(len) } else { None };
        let start = small.or_else(|| self.large.take(len))?;
        self.live += len;
        self.peak = self.peak.max(self.live);
        Some(start)
    }

    /// Gives a piece back; false if none begins there.
    pub(super) fn give_back(&mut self, start: usize) -> bool {
        let region = if start < self.boundary { &mut self.large } else { &mut self.small };
        let len = region.give_back(start);
        self.live -= len.unwrap_or(0);
        len.is_some()
    }

    pub(super) fn usage(&self) -> Usage {
        let reach = self.large.reach() + self.small.reach();
        Usage { live: self.live, peak: self.peak, reach }
    }

    /// The free pieces, [start, length], up to the last byte of each part that was ever taken.
    pub(super) fn holes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.large.holes().chain(self.small.holes())
    }

    /// Says that memory beyond the last taken pieces was given back to the system.
    pub(super) fn forget_reach(&mut self) {
        self.large.forget_reach();
        self.small.forget_reach();
    }
}

#[cfg(test)]
mod tests {
    use super::Heap;
    use proptest::prelude::*;

    const PAGE: usize = Heap::GRANULE;

    #[test]
    fn small_pieces_do_not_lie_among_large_ones() {
        let mut heap = Heap::new(80 * Heap::LARGE);
        let large = heap.take(Heap::LARGE).unwrap();
        let small = heap.take(Heap::LARGE - PAGE).unwrap();
        assert_eq!((large, small), (0, 70 * Heap::LARGE));
        assert!(heap.give_back(large));
        assert_eq!(heap.take(PAGE), Some(small + Heap::LARGE - PAGE));
        assert_eq!(heap.take(Heap::LARGE), Some(0));
        assert_eq!(heap.usage().reach, 2 * Heap::LARGE);
        // Ten of them have room, and the others go on among the large ones.
        let starts: Vec<usize> = (0..12).map(|_| heap.take(Heap::LARGE - PAGE).unwrap()).collect();
        assert!(starts[8] > small && starts[11] < small && heap.give_back(starts[11]));
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

    /// So few that either part is full now and then.
    const PAGES: usize = 8192;

    proptest! {
        #[test]
        fn pieces_never_overlap_and_all_come_back(
            steps in prop::collection::vec((any::<bool>(), 0usize..600 * PAGE, any::<prop::sample::Index>()), 1..200)
        ) {
            let mut heap = Heap::new(PAGES * PAGE);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            for (take, len, which) in steps {
                if take || taken.is_empty() {
                    let Some(start) = heap.take(len) else { continue };
                    prop_assert!(start % PAGE == 0 && start + len <= PAGES * PAGE);
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
            prop_assert_eq!(heap.take(PAGES / 8 * 7 * PAGE), Some(0));
            prop_assert_eq!(heap.take(PAGE), Some(PAGES / 8 * 7 * PAGE));
        }
    }
}
