//! Streams over memory with chosen stores: what a scan must move, without its arithmetic.
//!
//! Stores that bypass the caches save reading the target first; a limit is fair only beside work whose
//! stores are of the same kind, so both are measured.

#![expect(
    clippy::inline_always,
    reason = "inlined, the portable code is compiled for AVX where it is used"
)]

/// As much as a cache line holds, aligned as non-temporal stores want it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [f32; 16]);

impl Line {
    /// Not zeros: untouched zero pages are all one page, and reading it costs nothing.
    pub(crate) const ONES: Self = Self([1.0; 16]);
}

/// How a line is written.
pub(crate) trait Store {
    fn put(to: &mut Line, line: Line);
}

/// Through the caches.
pub(crate) struct Ordinary;

impl Store for Ordinary {
    #[inline(always)]
    fn put(to: &mut Line, line: Line) {
        *to = line;
    }
}

/// One pass over arrays of the same length.
pub(crate) trait Stream {
    fn pass<S: Store>(sources: &[&[Line]], targets: &mut [&mut [Line]]);
}

/// h = a
pub(crate) struct Copy;
/// h = a s + b
pub(crate) struct Triad;
/// Three arrays are read, and two written: as the adjoint of a scan does.
pub(crate) struct Adjoint;

impl Stream for Copy {
    #[inline(always)]
    fn pass<S: Store>(sources: &[&[Line]], targets: &mut [&mut [Line]]) {
        let ([a, ..], [h, ..]) = (sources, targets) else { return };
        for (h, a) in h.iter_mut().zip(*a) {
            S::put(h, *a);
        }
    }
}

impl Stream for Triad {
    #[inline(always)]
    fn pass<S: Store>(sources: &[&[Line]], targets: &mut [&mut [Line]]) {
        let ([a, b, ..], [h, ..]) = (sources, targets) else { return };
        for ((h, a), b) in h.iter_mut().zip(*a).zip(*b) {
            S::put(h, Line(std::array::from_fn(|lane| a.0[lane] * 0.5 + b.0[lane])));
        }
    }
}

impl Stream for Adjoint {
    #[inline(always)]
    fn pass<S: Store>(sources: &[&[Line]], targets: &mut [&mut [Line]]) {
        let ([a, h, dh, ..], [da, db, ..]) = (sources, targets) else { return };
        let targets = da.iter_mut().zip(db.iter_mut());
        for ((((da, db), a), h), dh) in targets.zip(*a).zip(*h).zip(*dh) {
            S::put(db, Line(std::array::from_fn(|lane| a.0[lane] * 0.5 + dh.0[lane])));
            S::put(da, Line(std::array::from_fn(|lane| h.0[lane] * dh.0[lane])));
        }
    }
}

/// The sum of all numbers.
#[inline(always)]
pub(crate) fn sum(lines: &[Line]) -> f32 {
    // Four chains, for one addition waits for the last of its own.
    let mut sums = [[0.0_f32; 16]; 4];
    for four in lines.chunks(4) {
        for (sum, line) in sums.iter_mut().zip(four) {
            for (sum, value) in sum.iter_mut().zip(line.0) {
                *sum += value;
            }
        }
    }
    sums.iter().flatten().sum()
}

/// Compiled for AVX, where a machine has it: the portable code is for SSE2, which needs twice as many
/// instructions.
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx {
    use super::{Line, Ordinary, Store, Stream};
    use std::arch::x86_64::{_mm_sfence, _mm256_loadu_ps, _mm256_stream_ps};

    pub(crate) fn is_available() -> bool {
        std::arch::is_x86_feature_detected!("avx")
    }

    /// Past the caches; only [`non_temporal`] may use it.
    struct NonTemporal;

    impl Store for NonTemporal {
        #[inline(always)]
        fn put(to: &mut Line, line: Line) {
            let to = (&raw mut to.0).cast::<f32>();
            // SAFETY: `to` is a line of sixteen numbers, aligned to 64 bytes, and AVX is there.
            unsafe {
                _mm256_stream_ps(to, _mm256_loadu_ps(line.0.as_ptr()));
                _mm256_stream_ps(to.add(8), _mm256_loadu_ps(line.0.as_ptr().add(8)));
            }
        }
    }

    /// One pass with stores that bypass the caches.
    #[target_feature(enable = "avx")]
    pub(crate) fn non_temporal<S: Stream>(sources: &[&[Line]], targets: &mut [&mut [Line]]) {
        S::pass::<NonTemporal>(sources, targets);
        // Such stores are ordered with nothing else until here.
        _mm_sfence();
    }

    #[target_feature(enable = "avx")]
    pub(crate) fn ordinary<S: Stream>(sources: &[&[Line]], targets: &mut [&mut [Line]]) {
        S::pass::<Ordinary>(sources, targets);
    }

    #[target_feature(enable = "avx")]
    pub(crate) fn sum(lines: &[Line]) -> f32 {
        super::sum(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(factor: f32) -> Vec<Line> {
        (0..7).map(|i| Line(std::array::from_fn(|lane| factor * (i * 16 + lane) as f32))).collect()
    }

    #[test]
    fn both_kinds_of_stores_write_the_same() {
        let (a, h, dh) = (numbered(1.0), numbered(2.0), numbered(3.0));
        let (mut da, mut db) = (vec![Line::ONES; 7], vec![Line::ONES; 7]);
        Adjoint::pass::<Ordinary>(&[&a, &h, &dh], &mut [&mut da, &mut db]);
        assert_eq!(db[1].0[2], 18.0 * 0.5 + 54.0);
        assert_eq!(da[1].0[2], 36.0 * 54.0);
        #[cfg(target_arch = "x86_64")]
        if avx::is_available() {
            let (mut da2, mut db2) = (vec![Line::ONES; 7], vec![Line::ONES; 7]);
            // SAFETY: AVX is there.
            unsafe { avx::non_temporal::<Adjoint>(&[&a, &h, &dh], &mut [&mut da2, &mut db2]) };
            let same = |x: &[Line], y: &[Line]| x.iter().zip(y).all(|(x, y)| x.0 == y.0);
            assert!(same(&da, &da2) && same(&db, &db2));
        }
    }

    #[test]
    fn the_sum_reads_every_line() {
        assert_eq!(sum(&numbered(1.0)), (0..112).map(|i| i as f32).sum::<f32>());
    }
}
