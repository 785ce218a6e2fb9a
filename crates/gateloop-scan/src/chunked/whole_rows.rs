//! Tests: segments and turns give the bits of one walk through all of time.

use num_complex::Complex;

use super::backward::Backward;
use super::dispatch::Level;
use super::forward::Forward;
use super::output::Output;
use super::plan::Plan;
use super::request::Request;
use super::small::{SmallBackward, SmallForward};
use super::{drive, relay, segments};
use crate::adjoint::Upstream;
use crate::{ParallelFor, Rayon, Scan, ScanElement, ScanGrads, ScanShape};

/// Three threads, of which one does everything, last task first.
#[derive(Debug)]
struct LastFirst;

impl ParallelFor for LastFirst {
    fn threads(&self) -> usize {
        3
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).rev().for_each(task);
    }
}

/// More threads than the machine is likely to have.
#[derive(Debug)]
struct Many;

impl ParallelFor for Many {
    fn threads(&self) -> usize {
        5
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in 0..tasks {
                scope.spawn(move || task(i));
            }
        });
    }
}

/// Threads that come late, each a little later than the one before: those that are there have begun with their work.
#[derive(Debug)]
struct Late;

impl ParallelFor for Late {
    fn threads(&self) -> usize {
        4
    }

    fn for_each(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in (0..tasks).rev() {
                scope.spawn(move || task(i));
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        });
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Through,
    Segments,
    Relay,
}

/// Whether numbers have the same bits, or are both NaN: which NaN an operation gives is nowhere defined.
fn same<E: ScanElement>(x: &[E], y: &[E]) -> bool {
    let is_same = |x: f64, y: f64| x.to_bits() == y.to_bits() || (x.is_nan() && y.is_nan());
    let numbers = x.iter().zip(y).map(|(x, y)| (x.widen(), y.widen()));
    x.len() == y.len()
        && numbers.into_iter().all(|(x, y)| is_same(x.re, y.re) && is_same(x.im, y.im))
}

/// What came of it; `None` if segments did not want to.
type Results<E> = Option<[Vec<E>; 4]>;

fn run<E: ScanElement>(scan: &Scan<'_, E>, how: How, threads: &dyn ParallelFor) -> Results<E> {
    let shape = scan.shape();
    let count = if how == How::Through { 1 } else { threads.threads() };
    let state_len = shape.batch * shape.channels;
    let [mut h, mut da, mut db] = [0; 3].map(|_| vec![E::ONE; shape.len()]);
    let (mut dh0, dh_last) = (vec![E::ONE; state_len], vec![E::narrow(0.5.into()); state_len]);
    let plan = |misalignment| {
        let request = Request { streamed: true, ..Request::scan::<E>(shape, count, misalignment) };
        if how == How::Through { Plan::new(&request) } else { Plan::of_whole_rows(&request) }
    };
    let out = Output::new(&mut h, true);
    let plan_of_h = plan(out.misalignment());
    let forward = Forward { scan, h: out };
    match how {
        How::Through => drive::run(&forward, &plan_of_h, &Rayon),
        How::Segments if !segments::run(&forward, &plan_of_h, threads) => return None,
        How::Segments => (),
        How::Relay => relay::run(&forward, &plan_of_h, threads),
    }
    let upstream = Upstream { h: &h, dh: scan.b(), dh_last: Some(&dh_last) };
    let (da_out, db_out) = (Output::new(&mut da, true), Output::new(&mut db, true));
    let plan_of_db = plan(db_out.misalignment());
    let backward = Backward {
        scan,
        upstream,
        da: da_out,
        db: db_out,
        dh0: Some(Output::new(&mut dh0, false)),
    };
    match how {
        How::Through => drive::run(&backward, &plan_of_db, &Rayon),
        How::Segments if !segments::run(&backward, &plan_of_db, threads) => return None,
        How::Segments => (),
        How::Relay => relay::run(&backward, &plan_of_db, threads),
    }
    Some([h, da, db, dh0])
}

/// Whether segments wanted to.
fn check<E: ScanElement>(what: &str, scan: &Scan<'_, E>) -> bool {
    let expected = run(scan, How::Through, &Rayon).unwrap();
    let mut wanted = true;
    for threads in [&LastFirst as &dyn ParallelFor, &Many, &Late] {
        for how in [How::Segments, How::Relay] {
            let Some(results) = run(scan, how, threads) else {
                wanted = false;
                continue;
            };
            for (i, (actual, expected)) in results.iter().zip(&expected).enumerate() {
                let name = ["h", "da", "db", "dh0"][i];
                assert!(same(actual, expected), "{what}: {name}, {how:?}, {threads:?}");
            }
        }
    }
    wanted
}

/// A number between 0 and 1 that is the same for equal arguments.
fn noise(i: usize) -> f64 {
    (i.wrapping_mul(2_654_435_761) >> 7) as f64 % 1024.0 / 1024.0
}

/// Long enough for segments of five threads; enough channels not to be cut in time; a ragged end.
const SEQLEN: usize = 10_303;

fn numbers<E: ScanElement>(
    shape: ScanShape,
    decay: impl Fn(usize, usize) -> f64,
) -> (Vec<E>, Vec<E>) {
    let (seqlen, channels) = (shape.seqlen, shape.channels);
    let a = (0..shape.len()).map(|i| {
        let size = decay(i / channels % seqlen, i % channels);
        E::narrow(Complex::from_polar(size, 6.0 * noise(i + 3)))
    });
    let b = (0..shape.len()).map(|i| E::narrow(Complex::new(noise(i) - 0.5, noise(i + 1))));
    (a.collect(), b.collect())
}

fn every_decay<E: ScanElement>(channels: usize) {
    let shape = ScanShape::new(1, SEQLEN, channels).unwrap();
    let state: Vec<E> = (0..channels).map(|i| E::narrow(Complex::new(noise(i), 1.0))).collect();
    let starts: Vec<bool> = (0..SEQLEN).map(|t| t == 17 || t == 5000 || t == SEQLEN - 1).collect();
    let short = |t: usize, c: usize| noise(t * 31 + c);
    // A decay of one at a boundary that the trial does not look at, but with other decays before and after
    // it: a guess that is wrong and is mended on the way.
    let late = |t: usize, c: usize| {
        if c == 3 && (6000..6900).contains(&t) { 1.0 } else { short(t, c) }
    };
    // The same to the end and to the beginning: it is never mended.
    let never = |t: usize, c: usize| {
        if c == 3 && (600..SEQLEN - 600).contains(&t) { 1.0 } else { short(t, c) }
    };
    for (what, has_segments, decay) in [
        ("short memory", true, &short as &dyn Fn(usize, usize) -> f64),
        ("long memory in between", true, &late),
        ("long memory", false, &|_, _| 1.0),
        ("long memory in most places", false, &never),
    ] {
        let (a, b) = numbers::<E>(shape, decay);
        let scan = Scan::new(shape, &a, &b).unwrap();
        let wanted = check(what, &scan.with_initial_state(&state).unwrap());
        assert!(wanted || !has_segments, "{what}");
        check(what, &scan.with_segment_starts(&starts).unwrap().reversed());
    }
    let (mut a, mut b) = numbers::<E>(shape, short);
    b[4000 * channels + 1] = E::narrow(f64::NAN.into());
    b[7000 * channels + 2] = E::narrow(f64::INFINITY.into());
    a[9000 * channels] = E::narrow(f64::NAN.into());
    check("not finite", &Scan::new(shape, &a, &b).unwrap().reversed());
}

#[test]
fn whole_rows_give_the_same_bits() {
    every_decay::<f32>(453);
    every_decay::<Complex<f64>>(113);
}

#[test]
fn a_guess_that_is_never_right_is_mended() {
    // The trial looks at the first tokens, where memory is short; elsewhere nothing is forgotten.
    let shape = ScanShape::new(1, SEQLEN, 512).unwrap();
    let decay = |t: usize, c: usize| match t {
        _ if !(300..SEQLEN - 300).contains(&t) => 0.3,
        _ if c.is_multiple_of(2) => 1.0,
        _ => 0.5,
    };
    let (a, b) = numbers::<f32>(shape, decay);
    let scan = Scan::new(shape, &a, &b).unwrap();
    let expected = run(&scan, How::Through, &Rayon).unwrap();
    let mut h = vec![0.0; shape.len()];
    let out = Output::new(&mut h, true);
    let request = Request { streamed: true, ..Request::scan::<f32>(shape, 5, out.misalignment()) };
    let plan = Plan::of_whole_rows(&request);
    assert!(segments::run(&Forward { scan: &scan, h: out }, &plan, &Many));
    assert!(h == expected[0]);
}

/// The small scan beside the one in tiles.
fn check_small<E: ScanElement>(scan: &Scan<'_, E>) {
    let [h, da, db, dh0] = run(scan, How::Through, &Rayon).unwrap();
    let [mut small_h, mut small_da, mut small_db] = [0; 3].map(|_| vec![E::ONE; h.len()]);
    let mut small_dh0 = dh0.clone();
    let dh_last = vec![E::narrow(0.5.into()); dh0.len()];
    Level::best().dispatch(SmallForward { scan, h: &mut small_h });
    let upstream = Upstream { h: &h, dh: scan.b(), dh_last: Some(&dh_last) };
    let (da_out, db_out) = (&mut small_da[..], &mut small_db[..]);
    let grads = ScanGrads { da: da_out, db: db_out, dh0: Some(&mut small_dh0) };
    Level::best().dispatch(SmallBackward { scan, upstream, grads });
    for (small, tiled) in [(small_h, h), (small_da, da), (small_db, db), (small_dh0, dh0)] {
        assert!(same(&small, &tiled));
    }
}

#[test]
fn small_scans_give_the_same_bits() {
    for (batch, seqlen, channels) in [(1, 1, 512), (3, 19, 67), (2, 2, 1), (1, 300, 8), (2, 70, 16)]
    {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        let (a, b) = numbers::<Complex<f32>>(shape, |t, c| noise(t * 31 + c));
        let state: Vec<_> =
            (0..batch * channels).map(|i| Complex::new(noise(i) as f32, 1.0)).collect();
        let starts: Vec<bool> = (0..batch * seqlen).map(|t| t % 7 == 3).collect();
        let scan = Scan::new(shape, &a, &b).unwrap();
        for scan in [scan, scan.with_initial_state(&state).unwrap()] {
            for scan in [scan, scan.with_segment_starts(&starts).unwrap()] {
                check_small(&scan);
                check_small(&scan.reversed());
            }
        }
    }
}

#[test]
fn several_sequences_take_turns() {
    let shape = ScanShape::new(7, 211, 600).unwrap();
    let (a, b) = numbers::<f32>(shape, |t, c| noise(t + c));
    assert!(!check("seven sequences", &Scan::new(shape, &a, &b).unwrap()));
}
