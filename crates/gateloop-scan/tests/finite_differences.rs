//! Gradients against differences of the loss, in double precision.
//!
//! The loss is `sum Re(conj(w) h)`. It is of degree one in each single number of the problem, so
//! a central difference has no truncation error whatever its step, and the step can be 1.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Decays, Inputs, Problem, Spec, adjoint, run};
use gateloop_scan::{Algorithm, Complex, ScanElement, Tolerance};

fn loss<E: ScanElement>(problem: &Problem<E>, w: &[E]) -> f64 {
    let h = run(&problem.scan(), Algorithm::Naive);
    h.iter().zip(w).map(|(h, w)| (w.widen().conj() * h.widen()).re).sum()
}

/// The size of the loss without cancellation: the scale of its rounding error.
fn size<E: ScanElement>(problem: &Problem<E>, w: &[E]) -> f64 {
    problem.scale().iter().zip(w).map(|(scale, w)| scale * w.modulus()).sum()
}

/// One of the arrays of a problem.
type Array<E> = fn(&mut Problem<E>) -> &mut Vec<E>;

fn check<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let w: Vec<E> = problem.random.numbers(problem.shape.len());
    let h = run(&problem.scan(), algorithm);
    let grads = adjoint(&problem.scan(), algorithm, &h, &w, None);
    let directions: Vec<E> =
        [Complex::ONE, Complex::I].map(E::narrow).into_iter().filter(|d| *d != E::ZERO).collect();

    let arrays: [(Array<E>, &[E]); 3] = [
        (|p| &mut p.a, &grads.da),
        (|p| &mut p.b, &grads.db),
        (|p| p.h0.as_mut().unwrap(), grads.dh0.as_deref().unwrap()),
    ];
    // Sums of all outputs, each of which gathered as many errors as there are tokens.
    let tolerance = Tolerance::of::<E>(problem.shape.len());
    for (array, gradient) in arrays {
        for (i, gradient) in gradient.iter().enumerate() {
            for &direction in &directions {
                let mut moved = problem.clone();
                let here = array(&mut moved)[i];
                array(&mut moved)[i] = here + direction;
                let (up, up_size) = (loss(&moved, &w), size(&moved, &w));
                array(&mut moved)[i] = here - direction;
                let (down, down_size) = (loss(&moved, &w), size(&moved, &w));
                let along = (gradient.widen().conj() * direction.widen()).re;
                tolerance.check(&[along], &[(up - down) / 2.0], &[up_size + down_size]).unwrap();
            }
        }
    }
}

fn all<E: ScanElement>(algorithm: Algorithm) {
    for decays in Decays::ALL {
        for flags in 0..4_u64 {
            let spec = Spec {
                shape: (2, 9, 3),
                decays,
                inputs: if flags == 1 { Inputs::Sparse } else { Inputs::Dense },
                has_h0: true,
                has_starts: flags & 1 == 1,
                reversed: flags & 2 == 2,
                seed: flags,
            };
            check::<E>(algorithm, spec);
        }
    }
}

macro_rules! finite_differences {
    ($($name:ident $algorithm:ident $type:ty;)*) => { $(
        #[test]
        fn $name() {
            all::<$type>(Algorithm::$algorithm);
        }
    )* };
}

finite_differences! {
    naive_real Naive f64;
    tree_real Tree f64;
    heinsen_real Heinsen f64;
    chunked_real Chunked f64;
    naive_complex Naive Complex<f64>;
    tree_complex Tree Complex<f64>;
    heinsen_complex Heinsen Complex<f64>;
    chunked_complex Chunked Complex<f64>;
}
