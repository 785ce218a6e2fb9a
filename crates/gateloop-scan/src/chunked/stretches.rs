//! What of time is left to whom: a thread that has nothing left takes from the one that has most.
//!
//! Threads are not equally fast: cores differ, and other programs or other guests of a machine run on some of them.
//! If each had a fixed half of the work, two would take as long as the slower one.

use core::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Some tokens of one sequence, counted in the order of the pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) batch: usize,
    pub(super) positions: Range<usize>,
}

/// What a thread has before it.
#[derive(Debug)]
struct Share {
    left: Stretch,
    is_begun: bool,
}

/// The shares of all threads.
#[derive(Debug)]
pub(super) struct Stretches {
    shares: Vec<Mutex<Share>>,
    /// Tokens that are walked through in addition where a stretch is cut.
    lead: usize,
    /// A stretch of fewer tokens is not cut.
    min_cut: usize,
}

/// What anyone may take of a share.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Offer {
    Nothing,
    /// The end of what is left, if that is so much.
    Part(usize),
    /// All of it: nobody has begun.
    Whole(usize),
}

impl Stretches {
    /// One share for each of `stretches`.
    pub(super) fn new(
        stretches: impl Iterator<Item = Stretch>,
        lead: usize,
        min_cut: usize,
    ) -> Self {
        let shares = stretches.map(|left| Mutex::new(Share { left, is_begun: false }));
        Self { shares: shares.collect(), lead, min_cut }
    }

    /// How many shares there are.
    pub(super) fn count(&self) -> usize {
        self.shares.len()
    }

    /// The next stretch for the owner of share `own`, which has nothing left: its own if nobody took that, or of
    /// another one, which from now on is its own. `None` if no share is worth being cut.
    pub(super) fn take(&self, own: usize) -> Option<Stretch> {
        let mut share = self.lock(own);
        if !share.is_begun {
            share.is_begun = true;
            if !share.left.positions.is_empty() {
                return Some(share.left.clone());
            }
        }
        drop(share);
        // Between the look and the cut the owner goes on, so that another one may have more by then.
        loop {
            let offers = (0..self.count()).map(|i| (self.offer(&self.lock(i)), i));
            let (Offer::Part(_) | Offer::Whole(_), from) = offers.max()? else { return None };
            let Some(stretch) = self.cut(&mut self.lock(from)) else { continue };
            self.lock(own).left = stretch.clone();
            return Some(stretch);
        }
    }

    /// The next tokens, `len` at most, of what the owner of share `own` has left.
    pub(super) fn advance(&self, own: usize, len: usize) -> Option<Range<usize>> {
        let left = &mut self.lock(own).left.positions;
        let end = left.end.min(left.start + len);
        let next = left.start..end;
        left.start = end;
        (!next.is_empty()).then_some(next)
    }

    fn offer(&self, share: &Share) -> Offer {
        match share.left.positions.len() {
            0 => Offer::Nothing,
            len if !share.is_begun => Offer::Whole(len),
            len if len >= self.min_cut => Offer::Part(len),
            _ => Offer::Nothing,
        }
    }

    /// Takes what is on offer.
    fn cut(&self, share: &mut Share) -> Option<Stretch> {
        let Range { start, end } = share.left.positions;
        let at = match self.offer(share) {
            Offer::Nothing => return None,
            Offer::Whole(_) => start,
            // Whoever takes it has the lead to walk, too.
            Offer::Part(len) => end - len.saturating_sub(self.lead) / 2,
        };
        share.left.positions.end = at;
        Some(Stretch { batch: share.left.batch, positions: at..end })
    }

    fn lock(&self, index: usize) -> MutexGuard<'_, Share> {
        // A share is whole at any time: what a thread that panicked has left can be walked through by another.
        self.shares[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Stretch, Stretches};

    fn halves() -> Stretches {
        let stretch = |positions| Stretch { batch: 0, positions };
        Stretches::new([0..500, 500..1000].into_iter().map(stretch), 10, 30)
    }

    /// Walks by threads that need so many ticks for ten tokens; the tokens of each, and the ticks of the last.
    fn race(stretches: &Stretches, ticks: [usize; 2]) -> (Vec<usize>, usize) {
        let mut walked = vec![0; 1000];
        let mut is_walking = [0, 1].map(|own| stretches.take(own).is_some());
        let mut now = 0;
        while is_walking.contains(&true) {
            now += 1;
            for own in [0, 1] {
                if !is_walking[own] || now % ticks[own] != 0 {
                    continue;
                }
                match stretches.advance(own, 10) {
                    Some(positions) => positions.for_each(|position| walked[position] += 1),
                    None => is_walking[own] = stretches.take(own).is_some(),
                }
            }
        }
        (walked, now)
    }

    #[test]
    fn every_token_is_walked_through_once_however_fast_threads_are() {
        for ticks in [[1, 1], [1, 2], [2, 1], [1, 7], [50, 1]] {
            let (walked, now) = race(&halves(), ticks);
            assert!(walked.iter().all(|&times| times == 1), "{ticks:?}");
            // 100 turns of ten tokens, shared out by speed, and what is too little to be cut.
            let [first, second] = ticks;
            let ideal = 100 * first * second / (first + second);
            assert!(now <= ideal + 8 * first.max(second), "{ticks:?}: {now}, {ideal}");
        }
    }

    #[test]
    fn a_share_that_nobody_has_begun_is_taken_whole() {
        let stretches = halves();
        assert_eq!(stretches.take(1).unwrap().positions, 500..1000);
        while stretches.advance(1, 64).is_some() {}
        assert_eq!(stretches.take(1), Some(Stretch { batch: 0, positions: 0..500 }));
        // Its owner comes late, and takes back the half that has not been walked through.
        assert_eq!(stretches.advance(1, 100), Some(0..100));
        assert_eq!(stretches.take(0).unwrap().positions, 305..500);
        assert_eq!(stretches.advance(1, 1000), Some(100..305));
        assert_eq!(stretches.advance(1, 1000), None);
    }

    #[test]
    fn little_is_not_cut() {
        let stretches = halves();
        stretches.take(0);
        stretches.take(1);
        while stretches.advance(0, 471).is_some() {}
        assert_eq!(stretches.advance(1, 471), Some(500..971));
        assert_eq!(stretches.take(0), None);
        assert_eq!(stretches.advance(1, 471), Some(971..1000));
    }
}
