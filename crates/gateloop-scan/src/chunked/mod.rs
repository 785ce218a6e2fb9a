//! The fast path on a CPU.
//!
//! Channels are the vector: one step of time is one pass over a row, which the compiler
//! vectorises. A tile of channels keeps its state in the first-level cache and streams through
//! time, so each input is read once and each output written once. Tiles go to threads; how
//! channels are tiled cannot change a result, because channels do not meet.
//!
//! Rows that no cache holds are walked through by cache lines ([`mod@line`]), always in one direction of memory.
//!
//! When sequences are too few to give each thread its own, each takes a stretch of time, if decays forget
//! ([`segments`]). If they do not, threads take turns over whole rows ([`relay`]), share rows, or, where there
//! are too few channels for that, time is cut into chunks:
//!
//! 1. each chunk but the last is reduced to the affine map that it applies to the state;
//! 2. the maps are applied one after the other to find the state that enters each chunk;
//! 3. each chunk is scanned from that state.
//!
//! Whether there are chunks, and where, depends on the shape and the decays alone. With few threads the same
//! arithmetic is done in one pass over the data, so a result has the same bits for any number of threads and
//! any instruction set. And since a token's state depends only on its chunk's start and the tokens
//! between, perturbing a token leaves all states before it as they were, bit for bit.

// A kernel is compiled for the instruction set of the function that it is inlined into.
#![allow(clippy::inline_always)]

#[cfg(target_arch = "x86_64")]
mod avx2;
mod backward;
mod columns;
pub(crate) mod dispatch;
pub(crate) mod drive;
mod forward;
pub(crate) mod line;
pub(crate) mod output;
pub(crate) mod plan;
mod relay;
pub(crate) mod request;
pub(crate) mod rows;
mod segments;
mod small;
mod stretches;
pub(crate) mod summary;
mod tasks;
pub(crate) mod tile;
#[cfg(test)]
mod whole_rows;

use num_complex::Complex;

use crate::adjoint::{ScanGrads, Upstream};
use crate::element::sealed::Chunked;
use crate::{ParallelFor, Scan, ScanElement};

use self::backward::Backward;
use self::dispatch::Level;
use self::forward::Forward;
use self::output::Output;
use self::plan::Plan;
use self::relay::Relayed;
use self::request::{Request, is_small, is_streamed};
use self::small::{SmallBackward, SmallForward};

macro_rules! compiled_here {
    ($($element:ty),*) => {$(
        impl Chunked for $element {
            fn scan(scan: &Scan<'_, Self>, h: &mut [Self]) {
                self::scan(scan, h);
            }

            fn adjoint(
                scan: &Scan<'_, Self>,
                upstream: Upstream<'_, Self>,
                grads: ScanGrads<'_, Self>,
            ) {
                self::adjoint(scan, upstream, grads);
            }

            fn reduce(scan: &Scan<'_, Self>, maps: [&mut [Self]; 2]) {
                self::reduce(scan, maps);
            }

            fn reduce_adjoint(scan: &Scan<'_, Self>, dh: &[Self], maps: [&mut [Self]; 2]) {
                self::reduce_adjoint(scan, dh, maps);
            }
        }
    )*};
}

compiled_here!(f32, f64, Complex<f32>, Complex<f64>);

/// Writes every state of `scan` to `h`.
fn scan<E: ScanElement>(scan: &Scan<'_, E>, h: &mut [E]) {
    let shape = scan.shape();
    if is_small::<E>(shape) {
        return Level::best().dispatch(SmallForward { scan, h });
    }
    let h = Output::new(h, is_streamed::<E>(shape));
    let threads = scan.threads();
    let request = Request::scan::<E>(shape, threads.threads(), h.misalignment());
    run(&Forward { scan, h }, &request, threads);
}

/// Writes the gradients of `scan` to `grads`.
fn adjoint<E: ScanElement>(scan: &Scan<'_, E>, upstream: Upstream<'_, E>, grads: ScanGrads<'_, E>) {
    let shape = scan.shape();
    if is_small::<E>(shape) {
        return Level::best().dispatch(SmallBackward { scan, upstream, grads });
    }
    let streamed = is_streamed::<E>(shape);
    let da = Output::new(grads.da, streamed);
    let db = Output::new(grads.db, streamed);
    let dh0 = grads.dh0.map(|dh0| Output::new(dh0, false));
    let threads = scan.threads();
    let request = Request::scan::<E>(shape, threads.threads(), db.misalignment());
    run(&Backward { scan, upstream, da, db, dh0 }, &request, threads);
}

/// Writes the map from the state that enters to that which leaves; `scan` has an initial state.
fn reduce<E: ScanElement>(scan: &Scan<'_, E>, maps: [&mut [E]; 2]) {
    let threads = scan.threads();
    let request = Request::scan::<E>(scan.shape(), threads.threads(), 0);
    // Nothing is written to the states.
    let pass = Forward { scan, h: Output::new(&mut [], false) };
    summary::summarize(&pass, &Plan::new(&request), threads, maps);
}

/// Writes the map from the gradient of the state that leaves to that of the one that enters.
fn reduce_adjoint<E: ScanElement>(scan: &Scan<'_, E>, dh: &[E], maps: [&mut [E]; 2]) {
    let threads = scan.threads();
    let request = Request::scan::<E>(scan.shape(), threads.threads(), 0);
    let [da, db] = [0, 1].map(|_| Output::new(&mut [], false));
    // States are read for the gradients of decays only, and those are not wanted.
    let upstream = Upstream { h: dh, dh, dh_last: None };
    let pass = Backward { scan, upstream, da, db, dh0: None };
    summary::summarize(&pass, &Plan::new(&request), threads, maps);
}

fn run<P: Relayed<IN, OUT>, const IN: usize, const OUT: usize>(
    pass: &P,
    request: &Request,
    threads: &dyn ParallelFor,
) {
    let of_whole_rows = || Plan::of_whole_rows(request);
    if request.wants_segments() && segments::run(pass, &of_whole_rows(), threads) {
        return;
    }
    if request.wants_turns() {
        return relay::run(pass, &of_whole_rows(), threads);
    }
    drive::run(pass, &Plan::new(request), threads);
}

#[cfg(test)]
mod tests {
    use num_complex::Complex;

    use super::dispatch::Level;
    use super::forward::Forward;
    use super::output::Output;
    use super::plan::Plan;
    use super::request::Request;
    use super::{Backward, Upstream, drive};
    use crate::{Algorithm, Rayon, Scan, ScanElement, ScanShape};

    /// Forward and adjoint by one instruction set, streamed or not.
    fn by<E: ScanElement>(scan: &Scan<'_, E>, level: Level, streamed: bool) -> [Vec<E>; 3] {
        let shape = scan.shape();
        let mut results = [0, 1, 2].map(|_| vec![E::ZERO; shape.len()]);
        let [h, da, db] = &mut results;
        let out = Output::new(h, streamed);
        let plan = Plan::new(&Request::scan::<E>(shape, 1, out.misalignment())).at(level);
        drive::run(&Forward { scan, h: out }, &plan, &Rayon);
        let upstream = Upstream { h, dh: scan.b(), dh_last: None };
        let (da, db) = (Output::new(da, streamed), Output::new(db, streamed));
        let plan = Plan::new(&Request::scan::<E>(shape, 1, db.misalignment())).at(level);
        drive::run(&Backward { scan, upstream, da, db, dh0: None }, &plan, &Rayon);
        results
    }

    fn check<E: ScanElement>() {
        let shape = ScanShape::new(2, 19, 517).unwrap();
        let number = |i: usize| {
            let x = (i * 2_654_435_761 % 1024) as f64 / 1024.0;
            E::narrow(Complex::from_polar(x, 6.0 * x))
        };
        let a: Vec<E> = (0..shape.len()).map(number).collect();
        let b: Vec<E> = (7..shape.len() + 7).map(number).collect();
        let scan = Scan::new(shape, &a, &b).unwrap();
        let naive = scan.run(Algorithm::Naive).unwrap();
        let levels: Vec<_> = Level::available().collect();
        let expected = by(&scan, levels[0], false);
        // Nothing is cut in time here, so it is the arithmetic of the naive scan.
        assert_eq!(expected[0], naive);
        for level in levels {
            for streamed in [false, true] {
                assert_eq!(by(&scan, level, streamed), expected, "{level:?}, {streamed}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_bits() {
        check::<f32>();
        check::<f64>();
        check::<Complex<f32>>();
        check::<Complex<f64>>();
    }
}
