//! Lesson 3: the algorithms side by side, in error and in speed.
//!
//! `cargo run --release -p gateloop-scan --example 03-compare-algorithms [SEQLEN [CHANNELS]]`
//!
//! The error is the largest one against the naive scan in double precision, relative to the
//! running magnitude, in units of the spacing of `f32`. The speed counts the bytes that have to
//! move (each input read once, each output written once) and is compared with a copy of as many
//! bytes, on as many threads, in the same run.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use gateloop_scan::{Algorithm, Scan, ScanElement, ScanGrads, ScanShape};
use rayon::prelude::*;

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = std::env::args().skip(1).map(|arg| arg.parse::<usize>());
    let seqlen = sizes.next().transpose()?.unwrap_or(16_384);
    let channels = sizes.next().transpose()?.unwrap_or(512);
    let shape = ScanShape::new(1, seqlen, channels)?;

    let a: Vec<f32> = noise(1, shape.len()).map(|x| 0.9 + 0.1 * x).collect();
    let b: Vec<f32> = noise(2, shape.len()).map(|x| 2.0 * x - 1.0).collect();
    let scan = Scan::new(shape, &a, &b)?;

    let (wide_a, wide_b): (Vec<_>, Vec<_>) =
        a.iter().zip(&b).map(|(&a, &b)| (f64::from(a), f64::from(b))).unzip();
    let oracle = Scan::new(shape, &wide_a, &wide_b)?.run(Algorithm::Naive)?;
    let scale = scan.magnitude()?;

    let bytes = 3.0 * (shape.len() * size_of::<f32>()) as f64;
    let copy = copy_rate(shape.len() * 3 / 2);
    println!("(1, {seqlen}, {channels}) f32; a copy moves {copy:.1} GB/s");
    println!(
        "{:>9} {:>12} {:>11} {:>11} {:>15}",
        "", "error / eps", "forward s", "% of copy", "adjoint s"
    );

    let mut h = vec![0.0; shape.len()];
    let (mut da, mut db) = (h.clone(), h.clone());
    for algorithm in Algorithm::CONCRETE {
        let forward = fastest(|| scan.run_into(algorithm, &mut h))?;
        let adjoint = fastest(|| {
            let grads = ScanGrads { da: &mut da, db: &mut db, dh0: None };
            scan.adjoint_into(algorithm, &h, &b, None, grads)
        })?;
        let error = h
            .iter()
            .zip(&oracle)
            .zip(&scale)
            .map(|((&h, exact), scale)| (f64::from(h) - exact).abs() / scale)
            .fold(0.0, f64::max);
        let share = 100.0 * bytes / forward / 1e9 / copy;
        let error = error / <f32 as ScanElement>::EPSILON;
        println!("{algorithm:>9} {error:>12.2} {forward:>11.5} {share:>11.1} {adjoint:>15.5}");
    }
    Ok(())
}

/// The shortest of a few runs, in seconds.
fn fastest<T>(
    mut work: impl FnMut() -> Result<T, gateloop_scan::ScanError>,
) -> Result<f64, Box<dyn Error>> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        black_box(work()?);
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

/// GB/s of copying `len` numbers on all threads, reads and writes counted.
fn copy_rate(len: usize) -> f64 {
    let source = vec![1.0_f32; len];
    let mut target = vec![0.0_f32; len];
    let part = len.div_ceil(rayon::current_num_threads());
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let start = Instant::now();
        target
            .par_chunks_mut(part)
            .zip(source.par_chunks(part))
            .for_each(|(target, source)| target.copy_from_slice(source));
        black_box(&mut target);
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (len * size_of::<f32>()) as f64 / best / 1e9
}

/// Numbers in [0, 1) from a linear congruential generator.
fn noise(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    let mut state = seed;
    (0..len).map(move |_| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1_u32 << 24) as f32
    })
}
