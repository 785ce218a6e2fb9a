//! Nothing outside the operands is read or written: each lies between guards, at every alignment that an
//! element may have. Where a guard is read, NaN comes into the results; where one is written, it changes.

#![allow(clippy::unwrap_used)] // A test ends by panicking.

use gateloop_scan::{Algorithm, Complex, Scan, ScanElement, ScanGrads, ScanShape};
use proptest::prelude::*;

/// Elements before and after.
const GUARD: usize = 37;

/// A slice between guards.
struct Guarded<E> {
    data: Vec<E>,
    start: usize,
    len: usize,
}

impl<E: ScanElement> Guarded<E> {
    /// `offset` moves the slice against the cache lines.
    fn new(values: impl ExactSizeIterator<Item = E>, offset: usize) -> Self {
        let (start, len) = (GUARD + offset, values.len());
        let mut data = vec![E::narrow(f64::NAN.into()); start];
        data.extend(values);
        data.resize(start + len + GUARD, E::narrow(f64::NAN.into()));
        Self { data, start, len }
    }

    /// What a result is before it is written; the guards are the same.
    fn unwritten(len: usize, offset: usize) -> Self {
        Self::new((0..len).map(|_| E::narrow(f64::NAN.into())), offset)
    }

    fn get(&self) -> &[E] {
        &self.data[self.start..self.start + self.len]
    }

    fn get_mut(&mut self) -> &mut [E] {
        &mut self.data[self.start..self.start + self.len]
    }

    #[track_caller]
    fn check(&self, what: &str) {
        let end = self.start + self.len;
        let guards = self.data[..self.start].iter().chain(&self.data[end..]);
        assert!(guards.into_iter().all(|x| x.widen().re.is_nan()), "{what}: a guard was written");
        let is_number = |x: &E| x.widen().re.is_finite() && x.widen().im.is_finite();
        assert!(self.get().iter().all(is_number), "{what}: a guard was read, or nothing written");
    }
}

fn number<E: ScanElement>(i: usize, scale: f64) -> E {
    let x = (i.wrapping_mul(2_654_435_761) >> 9) as f64 % 512.0 / 512.0;
    E::narrow(Complex::from_polar(scale * x, 7.0 * x))
}

#[track_caller]
fn check<E: ScanElement>(shape: ScanShape, offsets: [usize; 3], reversed: bool) {
    let (len, states) = (shape.batch * shape.seqlen * shape.channels, shape.batch * shape.channels);
    let array =
        |offset, scale| Guarded::<E>::new((0..len).map(|i| number(i + offset, scale)), offset);
    let state = |offset| Guarded::<E>::new((0..states).map(|i| number(i, 1.0)), offset);
    let (a, b, dh) = (array(offsets[0], 0.95), array(offsets[1], 1.0), array(offsets[2], 1.0));
    let (h0, dh_last) = (state(offsets[1]), state(offsets[0]));
    let scan = Scan::new(shape, a.get(), b.get()).unwrap().with_initial_state(h0.get()).unwrap();
    let scan = if reversed { scan.reversed() } else { scan };
    for algorithm in [Algorithm::Chunked, Algorithm::Naive, Algorithm::Tree] {
        let mut h = Guarded::unwritten(len, offsets[2]);
        scan.run_into(algorithm, h.get_mut()).unwrap();
        h.check(&format!("{algorithm:?}: h"));
        let mut da = Guarded::unwritten(len, offsets[0]);
        let mut db = Guarded::unwritten(len, offsets[1]);
        let mut dh0 = Guarded::unwritten(states, offsets[2]);
        let grads = ScanGrads { da: da.get_mut(), db: db.get_mut(), dh0: Some(dh0.get_mut()) };
        scan.adjoint_into(algorithm, h.get(), dh.get(), Some(dh_last.get()), grads).unwrap();
        for (name, grad) in [("da", &da), ("db", &db), ("dh0", &dh0)] {
            grad.check(&format!("{algorithm:?}: {name}"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn operands_are_all_that_is_touched(
        (batch, seqlen, channels) in (1_usize..4, 1_usize..80, 1_usize..150),
        offsets in prop::array::uniform3(0_usize..17),
        reversed: bool,
    ) {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        check::<f32>(shape, offsets, reversed);
        check::<f64>(shape, offsets, reversed);
        check::<Complex<f32>>(shape, offsets, reversed);
        check::<Complex<f64>>(shape, offsets, reversed);
    }
}

#[test]
fn nor_where_results_are_written_past_the_caches() {
    // Each is long enough to be cut: by time, by turns, by channels.
    for (batch, seqlen, channels) in [(1, 8209, 517), (3, 1501, 1033), (2, 70_001, 65)] {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        for offsets in [[0, 0, 0], [3, 5, 16]] {
            check::<f32>(shape, offsets, batch == 2);
        }
    }
}
