//! Sequences that the chunked scan cuts in time.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Decays, Inputs, Problem, Spec, adjoint, nan, run, tolerance, widened};
use gateloop_scan::{Algorithm, Complex, OwnedGrads, Scan, ScanElement, ScanShape};

fn spec(shape: (usize, usize, usize), decays: Decays) -> Spec {
    Spec {
        shape,
        decays,
        inputs: Inputs::Dense,
        has_h0: true,
        has_starts: false,
        reversed: false,
        seed: 5,
    }
}

/// Results on a pool of this many threads.
fn on<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

fn check_against_the_oracle<E: ScanElement>(spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let dh: Vec<E> = problem.random.numbers(problem.shape.len());
    let scan = problem.scan();
    let wide = problem.widened();
    let oracle = run(&wide.scan(), Algorithm::Naive);
    let oracle_grads = adjoint(&wide.scan(), Algorithm::Naive, &oracle, &widened(&dh), None);
    let scale = scan.adjoint_magnitude(&dh, None).unwrap();
    let (h_scale, seqlen) = (problem.scale(), problem.shape.seqlen);

    let tolerance = tolerance::<E>(seqlen);
    let results = [1, 2, 3, 16].map(|threads| {
        on(threads, || {
            let h = run(&scan, Algorithm::Chunked);
            let grads = adjoint(&scan, Algorithm::Chunked, &h, &dh, None);
            (h, grads)
        })
    });
    let (h, grads) = &results[0];
    tolerance.check(h, &oracle, &h_scale).unwrap();
    let tolerance = tolerance.times(2.0);
    tolerance.check(&grads.da, &oracle_grads.da, &scale.da).unwrap();
    tolerance.check(&grads.db, &oracle_grads.db, &scale.db).unwrap();
    let dh0 = |grads: &OwnedGrads<_>| grads.dh0.clone().unwrap();
    tolerance.check(&dh0(grads), &oracle_grads.dh0.unwrap(), &scale.dh0).unwrap();
    for result in &results[1..] {
        assert_eq!(result, &results[0], "the thread count shows in the result");
    }
}

#[test]
fn a_decay_near_one_over_131072_tokens() {
    check_against_the_oracle::<f32>(spec((1, 131_072, 8), Decays::NearOne));
}

#[test]
fn sequences_too_short_to_be_split() {
    for shape in [(1, 7, 160_000), (3, 40, 10_007), (1, 513, 2100), (1, 600, 2048)] {
        check_against_the_oracle::<f32>(spec(shape, Decays::Gate));
    }
    check_against_the_oracle::<Complex<f32>>(spec((1, 63, 9000), Decays::Gate));
}

#[test]
fn phases_over_131072_tokens() {
    let mut problem: Problem<Complex<f32>> = spec((1, 131_072, 3), Decays::One).draw();
    for a in &mut problem.a {
        *a = Complex::from_polar(0.9999, 0.3);
    }
    let oracle = run(&problem.widened().scan(), Algorithm::Naive);
    for algorithm in Algorithm::CONCRETE {
        let h = run(&problem.scan(), algorithm);
        tolerance::<Complex<f32>>(problem.shape.seqlen)
            .check(&h, &oracle, &problem.scale())
            .unwrap();
    }
}

#[test]
fn every_type_direction_and_segments_in_chunks() {
    for (reversed, has_starts, has_h0) in
        [(false, false, true), (true, false, true), (false, true, true), (true, true, false)]
    {
        for decays in [Decays::Turned, Decays::Mixed, Decays::One] {
            let spec = Spec { has_h0, has_starts, reversed, ..spec((2, 4500, 67), decays) };
            check_against_the_oracle::<f32>(spec);
            let spec = Spec { shape: (1, 5121, 5), ..spec };
            check_against_the_oracle::<f64>(spec);
            check_against_the_oracle::<Complex<f32>>(spec);
            check_against_the_oracle::<Complex<f64>>(spec);
        }
    }
}

#[test]
fn a_nan_stays_in_its_segment_across_chunks() {
    let mut problem: Problem<f32> = spec((1, 6000, 4), Decays::One).draw();
    let mut starts = vec![false; 6000];
    (starts[500], starts[4000]) = (true, true);
    problem.starts = Some(starts);
    let dh: Vec<f32> = problem.random.numbers(problem.shape.len());
    let results = [1, 16].map(|threads| {
        let mut sick = problem.clone();
        on(threads, || {
            let h = run(&problem.scan(), Algorithm::Chunked);
            let grads = adjoint(&problem.scan(), Algorithm::Chunked, &h, &dh, None);
            sick.b[600 * 4..601 * 4].fill(nan());
            sick.a[3000 * 4..3001 * 4].fill(f32::INFINITY);
            let mut dh = dh.clone();
            dh[3500 * 4] = nan();
            let sick_h = run(&sick.scan(), Algorithm::Chunked);
            let sick_grads = adjoint(&sick.scan(), Algorithm::Chunked, &sick_h, &dh, None);
            for outside in [0..500 * 4, 4000 * 4..6000 * 4] {
                assert_eq!(sick_h[outside.clone()], h[outside.clone()]);
                assert_eq!(sick_grads.da[outside.clone()], grads.da[outside.clone()]);
                assert_eq!(sick_grads.db[outside.clone()], grads.db[outside]);
            }
            assert!(sick_h[600 * 4..4000 * 4].iter().all(|h| h.is_nan()));
            h
        })
    });
    assert_eq!(results[0], results[1]);
}

#[test]
fn causality_holds_across_chunks() {
    let mut problem: Problem<f32> = spec((1, 5000, 8), Decays::Gate).draw();
    for threads in [1, 16] {
        for t in [0, 1023, 1024, 2500, 4999] {
            let before = on(threads, || run(&problem.scan(), Algorithm::Chunked));
            problem.b[t * 8] += 1.0;
            problem.a[t * 8 + 1] *= 0.5;
            let after = on(threads, || run(&problem.scan(), Algorithm::Chunked));
            assert_eq!(before[..t * 8], after[..t * 8]);
            assert_ne!(before[t * 8..], after[t * 8..]);
        }
    }
}

#[test]
fn a_product_of_decays_that_overflows_is_not_used() {
    // Over one chunk 2^1024 leaves f32, while the state itself stays at zero, then at one.
    let shape = ScanShape::new(1, 8192, 2).unwrap();
    let mut a = vec![2.0_f32; shape.len()];
    let mut b = vec![0.0_f32; shape.len()];
    (a[16_000], a[16_001], b[16_000], b[16_001]) = (0.0, 0.0, 1.0, 1.0);
    a[16_002..].fill(1.0);
    let h0 = [0.0; 2];
    let scan = Scan::new(shape, &a, &b).unwrap().with_initial_state(&h0).unwrap();
    let naive = run(&scan, Algorithm::Naive);
    for threads in [1, 16] {
        assert_eq!(on(threads, || run(&scan, Algorithm::Chunked)), naive);
    }
}

#[test]
fn large_outputs_are_streamed_correctly() {
    // Beyond the size from which outputs bypass the caches, with rows that are whole cache lines
    // and rows that are not, in buffers at every alignment.
    for (seqlen, channels) in [(2048, 2048), (4300, 1001)] {
        let problem: Problem<f32> =
            Spec { has_h0: false, ..spec((1, seqlen, channels), Decays::Gate) }.draw();
        let scan = problem.scan();
        let naive = run(&scan, Algorithm::Naive);
        let dh = &problem.b;
        let grads = adjoint(&scan, Algorithm::Naive, &naive, dh, None);
        for offset in [0, 1, 4, 15] {
            let mut h = vec![f32::NAN; problem.shape.len() + offset];
            scan.run_into(Algorithm::Chunked, &mut h[offset..]).unwrap();
            assert!(h[offset..] == naive, "{channels} channels at offset {offset}");
        }
        let chunked = adjoint(&scan, Algorithm::Chunked, &naive, dh, None);
        let scale = scan.adjoint_magnitude(dh, None).unwrap();
        let tolerance = tolerance::<f32>(seqlen).times(2.0);
        tolerance.check(&chunked.da, &grads.da, &scale.da).unwrap();
        tolerance.check(&chunked.db, &grads.db, &scale.db).unwrap();
    }
}
