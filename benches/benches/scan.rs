//! The scan, forward and adjoint, beside the limit: a copy of as many bytes in the same run.
//!
//! `cargo bench -p gateloop-benches --bench scan`; a filter selects workloads, as in `-- 1x65536`.
//! An answer that differs from the naive scan's is reported as FAILED and not timed.

// Criterion's macros make public functions without documentation.
#![allow(missing_docs)]

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use gateloop_benches::{Sample, Workload, is_right, operands};
use gateloop_scan::{Algorithm, Complex, Scan, ScanError, ScanGrads};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Naive, Algorithm::Tree, Algorithm::Heinsen, Algorithm::Chunked];

/// Log space is some hundred times slower; a long run would show the same in minutes.
const LONGEST_HEINSEN: usize = 1 << 20;

fn scan<E: Sample>(criterion: &mut Criterion, element: &str) {
    for workload in Workload::SCAN {
        let mut group = criterion.benchmark_group(format!("scan-{element}/{workload}"));
        group.sample_size(10).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_secs(1));
        if let Err(error) = measure::<E>(&mut group, &workload) {
            println!("FAILED {element} {workload}: {error}");
        }
        group.finish();
    }
}

fn measure<E: Sample>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    workload: &Workload,
) -> Result<(), ScanError> {
    let shape = workload.shape()?;
    let (a, b) = operands::<E>(shape);
    let scan = Scan::new(shape, &a, &b)?;
    let mut h = vec![E::ZERO; shape.len()];
    let (mut da, mut db) = (h.clone(), h.clone());
    let bytes = (shape.len() * size_of::<E>()) as u64;

    // Each input read once, each output written once.
    group.throughput(Throughput::Bytes(3 * bytes));
    let half = shape.len() * 3 / 2;
    // Not zeros: untouched zero pages are all one page, and reading it costs nothing.
    let source = vec![E::of_parts(1.0, 1.0); half];
    let mut target = source.clone();
    group.bench_function("copy of as many bytes", |bencher| {
        bencher.iter(|| copy(&source, black_box(&mut target)));
    });
    for algorithm in ALGORITHMS {
        if algorithm == Algorithm::Heinsen && shape.len() > LONGEST_HEINSEN {
            continue;
        }
        scan.run_into(algorithm, &mut h)?;
        if let Err(mismatch) = is_right(&scan, &h) {
            println!("FAILED {algorithm} {workload}: {mismatch}");
            continue;
        }
        group.throughput(Throughput::Bytes(3 * bytes));
        group.bench_function(BenchmarkId::new("forward", algorithm), |bencher| {
            bencher.iter(|| scan.run_into(algorithm, black_box(&mut h)));
        });
        group.throughput(Throughput::Bytes(5 * bytes));
        group.bench_function(BenchmarkId::new("adjoint", algorithm), |bencher| {
            bencher.iter(|| {
                let grads = ScanGrads { da: &mut da, db: &mut db, dh0: None };
                scan.adjoint_into(algorithm, &h, &b, None, grads)
            });
        });
    }
    Ok(())
}

/// Copies on all threads, as the scan may use all.
fn copy<E: Sample>(source: &[E], target: &mut [E]) {
    const SERIAL: usize = 1 << 16;
    if source.len() < SERIAL {
        target.copy_from_slice(source);
        return;
    }
    let part = source.len().div_ceil(rayon::current_num_threads());
    target
        .par_chunks_mut(part)
        .zip(source.par_chunks(part))
        .for_each(|(target, source)| target.copy_from_slice(source));
}

fn real(criterion: &mut Criterion) {
    scan::<f32>(criterion, "f32");
}

fn complex(criterion: &mut Criterion) {
    scan::<Complex<f32>>(criterion, "c32");
}

criterion_group!(benches, real, complex);
criterion_main!(benches);
