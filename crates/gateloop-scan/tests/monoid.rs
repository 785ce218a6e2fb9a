//! The laws of the affine monoid on numbers that round.

// A helper that fails is a test that fails.
#![allow(clippy::unwrap_used)]

use gateloop_scan::{Affine, Algorithm, Complex, Scan, ScanElement, ScanShape, Tolerance};
use proptest::prelude::*;

fn numbers() -> impl Strategy<Value = [f64; 12]> {
    prop::array::uniform12(-2.0..2.0)
}

fn maps<E: ScanElement>(x: [f64; 12]) -> [Affine<E>; 3] {
    let number = |i: usize| E::narrow(Complex::new(x[2 * i], x[2 * i + 1]));
    [0, 1, 2].map(|i| Affine::new(number(2 * i), number(2 * i + 1)))
}

fn laws<E: ScanElement>(x: [f64; 12]) {
    let [f, g, k] = maps::<E>(x);
    let one = Affine::identity();
    assert_eq!(one.then(f), f);
    assert_eq!(f.then(one), f);

    let (left, right) = (f.then(g).then(k), f.then(g.then(k)));
    let scale = [
        k.a.modulus() * g.a.modulus() * f.a.modulus(),
        k.a.modulus() * (g.a.modulus() * f.b.modulus() + g.b.modulus()) + k.b.modulus(),
    ];
    let tolerance = Tolerance::of::<E>(3);
    tolerance.check(&[left.a, left.b], &[right.a, right.b], &scale).unwrap();

    // Three maps in a row are a scan of three tokens.
    let (a, b) = ([f.a, g.a, k.a], [f.b, g.b, k.b]);
    let h0 = [E::ONE];
    let shape = ScanShape::new(1, 3, 1).unwrap();
    let scan = Scan::new(shape, &a, &b).unwrap().with_initial_state(&h0).unwrap();
    let h = scan.run(Algorithm::Naive).unwrap();
    let scale = scan.magnitude().unwrap();
    tolerance.check(&[right.apply(E::ONE)], &h[2..], &scale[2..]).unwrap();
}

proptest! {
    #[test]
    fn laws_hold_for_f32(x in numbers()) { laws::<f32>(x); }

    #[test]
    fn laws_hold_for_f64(x in numbers()) { laws::<f64>(x); }

    #[test]
    fn laws_hold_for_complex64(x in numbers()) { laws::<Complex<f32>>(x); }

    #[test]
    fn laws_hold_for_complex128(x in numbers()) { laws::<Complex<f64>>(x); }
}
