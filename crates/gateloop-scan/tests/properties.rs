//! What every algorithm must do, written once and run for every algorithm and element type.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Decays, Inputs, Problem, Spec, Wide, adjoint, nan, rows, run, specs, tolerance, widened,
};
use gateloop_scan::{Algorithm, ScanElement, ScanShape, step};
use proptest::prelude::*;

fn equals_the_oracle<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let problem: Problem<E> = spec.draw();
    let wide = problem.widened();
    let h = run(&problem.scan(), algorithm);
    let oracle = run(&wide.scan(), Algorithm::Naive);
    let tolerance = tolerance::<E>(problem.shape.seqlen);
    tolerance.check(&h, &oracle, &problem.scale()).unwrap();
    let naive = run(&problem.scan(), Algorithm::Naive);
    tolerance.check(&h, &naive, &problem.scale()).unwrap();
}

fn any_split_agrees<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let ScanShape { seqlen, channels, .. } = problem.shape;
    let at = problem.random.below(seqlen);
    if at == 0 {
        return;
    }
    let whole = run(&problem.scan(), algorithm);
    let (mut early, mut late) = (problem.piece(0, at), problem.piece(at, seqlen));
    // The reversed pass begins with the late piece, and a cut between the pieces is a start of the
    // late one: a reversed hand-over has to look at it.
    let (h_early, h_late);
    if problem.reversed {
        late.h0.clone_from(&problem.h0);
        h_late = run(&late.scan(), algorithm);
        let mut handed = late.scan().last_state(&h_late).unwrap();
        if let Some(starts) = &late.starts {
            for (batch, state) in handed.chunks_exact_mut(channels).enumerate() {
                if starts[batch * (seqlen - at)] {
                    state.fill(E::ZERO);
                }
            }
        }
        early.h0 = Some(handed);
        h_early = run(&early.scan(), algorithm);
    } else {
        early.h0.clone_from(&problem.h0);
        h_early = run(&early.scan(), algorithm);
        late.h0 = Some(early.scan().last_state(&h_early).unwrap());
        h_late = run(&late.scan(), algorithm);
    }
    let tolerance = tolerance::<E>(seqlen);
    let scale = problem.scale();
    let part = |from, to| rows(&whole, seqlen, channels, from, to);
    let part_scale = |from, to| rows(&scale, seqlen, channels, from, to);
    tolerance.check(&h_early, &part(0, at), &part_scale(0, at)).unwrap();
    tolerance.check(&h_late, &part(at, seqlen), &part_scale(at, seqlen)).unwrap();
}

fn steps_equal_the_sequence<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let problem: Problem<E> = Spec { has_starts: false, reversed: false, ..spec }.draw();
    let ScanShape { batch, seqlen, channels } = problem.shape;
    let h = run(&problem.scan(), algorithm);
    let scale = problem.scale();
    let tolerance = tolerance::<E>(seqlen);
    let mut state = problem.h0.clone().unwrap_or_else(|| vec![E::ZERO; problem.shape.state_len()]);
    for t in 0..seqlen {
        let token = |xs: &[E]| rows(xs, seqlen, channels, t, t + 1);
        step(&token(&problem.a), &token(&problem.b), &mut state).unwrap();
        tolerance.check(&token(&h), &state, &rows(&scale, seqlen, channels, t, t + 1)).unwrap();
    }
    assert_eq!(problem.scan().last_state(&h).unwrap().len(), batch * channels);
    assert_eq!(
        problem.scan().last_state(&h).unwrap(),
        rows(&h, seqlen, channels, seqlen - 1, seqlen)
    );
}

fn reversed_is_flip_scan_flip<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = Spec { has_starts: false, reversed: true, ..spec }.draw();
    let shape = problem.shape;
    let backwards = run(&problem.scan(), algorithm);
    let last = problem.scan().last_state(&backwards).unwrap();
    let flip = |xs: &[E]| -> Vec<E> {
        xs.chunks_exact(shape.seqlen * shape.channels)
            .flat_map(|sequence| sequence.chunks_exact(shape.channels).rev().flatten().copied())
            .collect()
    };
    (problem.a, problem.b, problem.reversed) = (flip(&problem.a), flip(&problem.b), false);
    let forwards = run(&problem.scan(), algorithm);
    assert_eq!(flip(&backwards), forwards, "the same arithmetic in the same order");
    assert_eq!(last, problem.scan().last_state(&forwards).unwrap());
}

fn segments_equal_a_loop<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let problem: Problem<E> =
        Spec { shape: (1, spec.shape.1, spec.shape.2), has_starts: true, ..spec }.draw();
    let seqlen = problem.shape.seqlen;
    let whole = run(&problem.scan(), algorithm);
    let starts = problem.starts.clone().unwrap();
    let mut begin = 0;
    for end in 1..=seqlen {
        if end < seqlen && !starts[end] {
            continue;
        }
        let mut segment = problem.piece(begin, end);
        segment.starts = None;
        let gets_h0 = if problem.reversed { end == seqlen } else { begin == 0 && !starts[0] };
        segment.h0 = problem.h0.clone().filter(|_| gets_h0);
        let alone = run(&segment.scan(), algorithm);
        let within = rows(&whole, seqlen, problem.shape.channels, begin, end);
        tolerance::<E>(end - begin).check(&within, &alone, &segment.scale()).unwrap();
        begin = end;
    }
}

fn a_nan_stays_in_its_segment<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = Spec { has_starts: true, ..spec }.draw();
    let ScanShape { batch, seqlen, channels } = problem.shape;
    let starts = problem.starts.clone().unwrap();
    let dh: Vec<E> = problem.random.numbers(problem.shape.len());
    let clean_h = run(&problem.scan(), algorithm);
    let clean = adjoint(&problem.scan(), algorithm, &clean_h, &dh, None);

    let sick = problem.random.below(seqlen);
    let first = (0..=sick).rev().find(|&t| t == 0 || starts[t]).unwrap();
    let end = (sick + 1..seqlen).find(|&t| starts[t]).unwrap_or(seqlen);
    let at = sick * channels;
    problem.a[at..at + channels].fill(nan());
    problem.b[at..at + channels].fill(nan());
    let mut dh_sick = dh;
    dh_sick[at..at + channels].fill(nan());
    let h = run(&problem.scan(), algorithm);
    let grads = adjoint(&problem.scan(), algorithm, &h, &dh_sick, None);

    for t in (0..batch * seqlen).filter(|t| !(first..end).contains(t)) {
        let row = t * channels..(t + 1) * channels;
        assert_eq!(h[row.clone()], clean_h[row.clone()], "h of token {t}");
        assert_eq!(grads.da[row.clone()], clean.da[row.clone()], "da of token {t}");
        assert_eq!(grads.db[row.clone()], clean.db[row], "db of token {t}");
    }
}

fn later_tokens_change_nothing<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let ScanShape { seqlen, channels, .. } = problem.shape;
    let before = run(&problem.scan(), algorithm);
    let t = problem.random.below(seqlen);
    let at = t * channels;
    for c in at..at + channels {
        problem.a[c] = E::narrow(problem.a[c].widen() + 0.5);
        problem.b[c] = E::narrow(problem.b[c].widen() - 2.0);
    }
    let after = run(&problem.scan(), algorithm);
    let earlier = if problem.reversed { t + 1..seqlen } else { 0..t };
    let row = earlier.start * channels..earlier.end * channels;
    assert_eq!(before[row.clone()], after[row]);
    let other_sequences = seqlen * channels..;
    assert_eq!(before[other_sequences.clone()], after[other_sequences]);
}

fn adjoint_equals_the_oracle<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let dh: Vec<E> = problem.random.numbers(problem.shape.len());
    let dh_last: Vec<E> = problem.random.numbers(problem.shape.state_len());
    let (scan, wide) = (problem.scan(), problem.widened());
    let grads = adjoint(&scan, algorithm, &run(&scan, algorithm), &dh, Some(&dh_last));

    let wide_h = run(&wide.scan(), Algorithm::Naive);
    let (dh_wide, last_wide) = (widened(&dh), widened(&dh_last));
    let oracle = adjoint(&wide.scan(), Algorithm::Naive, &wide_h, &dh_wide, Some(&last_wide));
    let scale = scan.adjoint_magnitude(&dh, Some(&dh_last)).unwrap();
    let tolerance = tolerance::<E>(problem.shape.seqlen).times(2.0);
    tolerance.check(&grads.da, &oracle.da, &scale.da).unwrap();
    tolerance.check(&grads.db, &oracle.db, &scale.db).unwrap();
    tolerance.check(&grads.dh0.unwrap(), &oracle.dh0.unwrap(), &scale.dh0).unwrap();
}

/// `<dh, J(xa, xb, x0)> = <da, xa> + <db, xb> + <dh0, x0>` for random directions `x`.
fn adjoint_is_the_transpose<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let shape = problem.shape;
    let dh: Vec<E> = problem.random.numbers(shape.len());
    let [xa, xb]: [Vec<E>; 2] = [0, 1].map(|_| problem.random.numbers(shape.len()));
    let x0: Vec<E> = problem.random.numbers(shape.state_len());
    let scan = problem.scan();
    let grads = adjoint(&scan, algorithm, &run(&scan, algorithm), &dh, None);

    // J x, by running a scan of dual numbers: (h, dh) obeys dh[t] = a dh[t-1] + (xa h[t-1] + xb).
    let mut wide = problem.widened();
    if wide.h0.is_none() {
        wide.h0 = Some(vec![Wide::ZERO; shape.state_len()]);
    }
    let h = run(&wide.scan(), Algorithm::Naive);
    let mut tangent = wide.clone();
    tangent.h0 = Some(widened(&x0));
    tangent.b = tangent_inputs(&wide, &h, &widened(&xa), &widened(&xb));
    let jx = run(&tangent.scan(), Algorithm::Naive);

    let inner =
        |x: &[Wide], y: &[Wide]| -> f64 { x.iter().zip(y).map(|(x, y)| (x.conj() * y).re).sum() };
    let wide_sum = inner(&widened(&dh), &jx);
    let sum = inner(&widened(&grads.da), &widened(&xa))
        + inner(&widened(&grads.db), &widened(&xb))
        + inner(&widened(&grads.dh0.unwrap()), &widened(&x0));
    let scale = scan.adjoint_magnitude(&dh, None).unwrap();
    let weighted = |scale: &[f64], x: &[E]| -> f64 {
        scale.iter().zip(x).map(|(scale, x)| scale * x.modulus()).sum()
    };
    let size = weighted(&scale.da, &xa) + weighted(&scale.db, &xb) + weighted(&scale.dh0, &x0);
    let tolerance = tolerance::<E>(shape.seqlen).times(2.0);
    tolerance.check(&[sum], &[wide_sum], &[size]).unwrap();
}

fn tangent_inputs(wide: &Problem<Wide>, h: &[Wide], xa: &[Wide], xb: &[Wide]) -> Vec<Wide> {
    let ScanShape { batch, seqlen, channels } = wide.shape;
    let starts = wide.starts.clone().unwrap_or_else(|| vec![false; batch * seqlen]);
    let mut inputs = xb.to_vec();
    for row in 0..batch * seqlen {
        let (b, t) = (row / seqlen, row % seqlen);
        let cut = if wide.reversed { t + 1 < seqlen && starts[row + 1] } else { starts[row] };
        let first = if wide.reversed { t + 1 == seqlen } else { t == 0 };
        for c in 0..channels {
            let before = match (cut, first) {
                (true, _) => Wide::ZERO,
                (false, true) => wide.h0.as_ref().unwrap()[b * channels + c],
                (false, false) if wide.reversed => h[(row + 1) * channels + c],
                (false, false) => h[(row - 1) * channels + c],
            };
            inputs[row * channels + c] += xa[row * channels + c] * before;
        }
    }
    inputs
}

fn last_gradient_adds_to_the_last_token<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = spec.draw();
    let ScanShape { seqlen, channels, .. } = problem.shape;
    let dh: Vec<E> = problem.random.numbers(problem.shape.len());
    let dh_last: Vec<E> = problem.random.numbers(problem.shape.state_len());
    let h = run(&problem.scan(), algorithm);
    let apart = adjoint(&problem.scan(), algorithm, &h, &dh, Some(&dh_last));

    let mut sum = dh;
    let last = if problem.reversed { 0 } else { seqlen - 1 };
    for (i, &more) in dh_last.iter().enumerate() {
        let at = (i / channels * seqlen + last) * channels + i % channels;
        sum[at] = sum[at] + more;
    }
    assert_eq!(apart, adjoint(&problem.scan(), algorithm, &h, &sum, None));
}

/// The gradient that leaves a piece through `dh0` enters the piece before it as `dh_last`.
fn adjoint_splits<E: ScanElement>(algorithm: Algorithm, spec: Spec) {
    let mut problem: Problem<E> = Spec { has_starts: false, reversed: false, ..spec }.draw();
    let ScanShape { seqlen, channels, .. } = problem.shape;
    let at = problem.random.below(seqlen);
    if at == 0 {
        return;
    }
    let dh: Vec<E> = problem.random.numbers(problem.shape.len());
    let h = run(&problem.scan(), algorithm);
    let whole = adjoint(&problem.scan(), algorithm, &h, &dh, None);

    let part = |xs: &[E], from, to| rows(xs, seqlen, channels, from, to);
    let (mut early, mut late) = (problem.piece(0, at), problem.piece(at, seqlen));
    early.h0.clone_from(&problem.h0);
    let h_early = part(&h, 0, at);
    late.h0 = Some(early.scan().last_state(&h_early).unwrap());
    let (h_late, dh_late) = (part(&h, at, seqlen), part(&dh, at, seqlen));
    let late_grads = adjoint(&late.scan(), algorithm, &h_late, &dh_late, None);
    let handed = late_grads.dh0.as_deref();
    let early_grads = adjoint(&early.scan(), algorithm, &h_early, &part(&dh, 0, at), handed);

    let scale = problem.scan().adjoint_magnitude(&dh, None).unwrap();
    let tolerance = tolerance::<E>(seqlen).times(2.0);
    let da = [early_grads.da, late_grads.da];
    for (grads, (from, to)) in da.iter().zip([(0, at), (at, seqlen)]) {
        let scale = rows(&scale.da, seqlen, channels, from, to);
        tolerance.check(grads, &part(&whole.da, from, to), &scale).unwrap();
    }
    tolerance.check(&early_grads.dh0.unwrap(), &whole.dh0.unwrap(), &scale.dh0).unwrap();
}

/// Every length of interest against every width, once: the property tests draw from the same.
fn odd_shapes<E: ScanElement>(algorithm: Algorithm) {
    for seqlen in [1, 2, 31, 32, 33, 63, 64, 65, 97, 127, 128, 129, 1000, 1025] {
        for channels in [1, 3, 8, 33, 257] {
            let spec = Spec {
                shape: (1, seqlen, channels),
                decays: Decays::Turned,
                inputs: Inputs::Dense,
                has_h0: true,
                has_starts: false,
                reversed: false,
                seed: (seqlen * channels) as u64,
            };
            equals_the_oracle::<E>(algorithm, spec);
        }
    }
}

macro_rules! properties {
    ($algorithm:ident, $name:ident, $($element:ident = $type:ty),*) => {
        mod $name { $( mod $element {
            use super::super::*;

            properties! { @each $algorithm, $type,
                equals_the_oracle any_split_agrees steps_equal_the_sequence
                reversed_is_flip_scan_flip segments_equal_a_loop a_nan_stays_in_its_segment
                later_tokens_change_nothing adjoint_equals_the_oracle adjoint_is_the_transpose
                last_gradient_adds_to_the_last_token adjoint_splits
            }

            #[test]
            fn odd_shapes() {
                super::super::odd_shapes::<$type>(Algorithm::$algorithm);
            }
        } )* }
    };
    (@each $algorithm:ident, $type:ty, $($property:ident)*) => { $(
        proptest! {
            #![proptest_config(config())]

            #[test]
            fn $property(spec in specs()) {
                super::super::$property::<$type>(Algorithm::$algorithm, spec);
            }
        }
    )* };
}

/// Few cases, because each property is run for every algorithm and element type.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() }
}

macro_rules! for_every_element {
    ($($algorithm:ident $name:ident),*) => { $(
        properties!($algorithm, $name,
            real32 = f32, real64 = f64,
            complex64 = gateloop_scan::Complex<f32>, complex128 = gateloop_scan::Complex<f64>);
    )* };
}

for_every_element!(Naive naive, Tree tree, Heinsen heinsen, Chunked chunked);
