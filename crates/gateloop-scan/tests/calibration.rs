//! How much of the tolerance the algorithms use, over many random problems.
//!
//! `cargo test -p gateloop-scan --test calibration -- --nocapture` prints the table of
//! docs/numerics.md.

mod common;

use common::{Decays, Inputs, Problem, Random, Spec, adjoint, run, widened};
use gateloop_scan::{Algorithm, Complex, ScanElement, Tolerance};

const PROBLEMS: u64 = 400;

fn spec(seed: u64) -> Spec {
    let mut random = Random(seed);
    let lengths = [1, 2, 3, 5, 31, 64, 97, 129, 1000, 1025];
    Spec {
        shape: (1, lengths[random.below(lengths.len())], [1, 3, 8][random.below(3)]),
        decays: Decays::ALL[random.below(Decays::ALL.len())],
        inputs: [Inputs::Dense, Inputs::Sparse][random.below(2)],
        has_h0: random.below(2) == 0,
        has_starts: random.below(2) == 0,
        reversed: false,
        seed,
    }
}

/// The largest error of a state and of a gradient, in units of what is allowed for a state.
fn worst<E: ScanElement>(algorithm: Algorithm) -> [f64; 2] {
    let mut worst = [0.0_f64; 2];
    for seed in 0..PROBLEMS {
        let mut problem: Problem<E> = spec(seed).draw();
        let dh: Vec<E> = problem.random.numbers(problem.shape.len());
        let (scan, wide) = (problem.scan(), problem.widened());
        let (h, exact) = (run(&scan, algorithm), run(&wide.scan(), Algorithm::Naive));
        let grads = adjoint(&scan, algorithm, &h, &dh, None);
        let oracle = adjoint(&wide.scan(), Algorithm::Naive, &exact, &widened(&dh), None);
        let scale = scan.adjoint_magnitude(&dh, None).expect("the lengths are right");

        let tolerance = Tolerance::of::<E>(problem.shape.seqlen);
        let [state, gradient] = &mut worst;
        *state = state.max(tolerance.worst_ratio(&h, &exact, &problem.scale()));
        *gradient = gradient
            .max(tolerance.worst_ratio(&grads.da, &oracle.da, &scale.da))
            .max(tolerance.worst_ratio(&grads.db, &oracle.db, &scale.db));
    }
    worst
}

fn row<E: ScanElement>() {
    for algorithm in Algorithm::CONCRETE {
        let [state, gradient] = worst::<E>(algorithm);
        println!("| {} | {algorithm} | {state:.2} | {gradient:.2} |", E::NAME);
        assert!(state <= 1.0 && gradient <= 2.0, "{} by {algorithm}", E::NAME);
    }
}

#[test]
fn the_tolerance_leaves_room() {
    println!("| element | algorithm | state | gradient |\n| --- | --- | --- | --- |");
    row::<f32>();
    row::<f64>();
    row::<Complex<f32>>();
    row::<Complex<f64>>();
}
