//! What a slice does to the state and to the gradient that enter it, against scans and adjoints that do everything.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "common/backwards.rs"]
mod backwards;
mod common;

use backwards::Backwards;
use common::Random;
use gateloop_scan::gate_loop::{
    GateLoop, GateLoopGrads, GateMode, Rows, RowsMut, SimpleGateLoop, SimpleGateLoopGrads, States,
    Upstream,
};
use gateloop_scan::{Algorithm, Complex, Scan, ScanElement, ScanShape, Tolerance};

/// Small, wide, and long enough that time is cut into chunks.
const SHAPES: [[usize; 3]; 5] = [[1, 1, 1], [2, 7, 5], [1, 70, 300], [2, 130, 33], [1, 20_000, 5]];

/// None, a few, and one at the first token of each row.
fn starts(shape: ScanShape, which: usize) -> Option<Vec<bool>> {
    let is_start = |i: usize| match which {
        1 => i % 53 == 17,
        _ => i.is_multiple_of(shape.seqlen),
    };
    (which > 0).then(|| (0..shape.token_count()).map(is_start).collect())
}

fn check_scan<E: ScanElement>(shape: ScanShape, which: usize, reversed: bool, size: f64) {
    let mut random = Random(shape.len() as u64 + which as u64);
    let mut numbers = |len: usize, size: f64| -> Vec<E> {
        random.numbers::<E>(len).into_iter().map(|x| E::narrow(x.widen() * size)).collect()
    };
    let (a, b, dh) =
        (numbers(shape.len(), size), numbers(shape.len(), 1.0), numbers(shape.len(), 1.0));
    let (one, dh_last) = (vec![E::ONE; shape.state_len()], numbers(shape.state_len(), 1.0));
    let starts = starts(shape, which);
    let threads = [1, 2, 7].map(Backwards);
    let scan = |b, h0, threads| {
        let mut scan = Scan::new(shape, &a, b).unwrap().on(threads);
        if let Some(h0) = h0 {
            scan = scan.with_initial_state(h0).unwrap();
        }
        if let Some(starts) = &starts {
            scan = scan.with_segment_starts(starts).unwrap();
        }
        if reversed { scan.reversed() } else { scan }
    };
    // From a state of one and without inputs, what is left is the product.
    let nothing = vec![E::ZERO; shape.len()];
    let last_state = |b, h0| {
        let scan = scan(b, h0, &threads[0]);
        scan.last_state(&scan.run(Algorithm::Naive).unwrap()).unwrap()
    };
    let want = [last_state(&nothing, Some(&one)), last_state(&b, None)];
    let full = scan(&b, Some(&one), &threads[0]);
    let h = full.run(Algorithm::Naive).unwrap();
    let want_dh0 = full.adjoint(Algorithm::Naive, &h, &dh, Some(&dh_last)).unwrap().dh0.unwrap();

    let mut bits: Option<[Vec<E>; 3]> = None;
    for threads in &threads {
        // An initial state makes no difference.
        for h0 in [None, Some(one.as_slice())] {
            let scan = scan(&b, h0, threads);
            let mut got = [0; 3].map(|_| vec![E::narrow(Complex::from(f64::NAN)); one.len()]);
            let [product, last, dh0] = &mut got;
            scan.map_into(product, last).unwrap();
            scan.entry_gradient_into(&dh, Some(&dh_last), dh0).unwrap();
            let tolerance = Tolerance::of::<E>(shape.seqlen);
            for (got, want) in got.iter().zip([&want[0], &want[1], &want_dh0]) {
                let scale = vec![(1.0 / (1.0 - size)).min(shape.seqlen as f64); got.len()];
                tolerance.check(got, want, &scale).unwrap();
            }
            assert_eq!(*bits.get_or_insert_with(|| got.clone()), got);
        }
    }
}

#[test]
fn a_scan_is_reduced_to_its_map() {
    for [batch, seqlen, channels] in SHAPES {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        for which in 0..3 {
            for reversed in [false, true] {
                for size in [0.9, 0.999] {
                    check_scan::<f32>(shape, which, reversed, size);
                    check_scan::<f64>(shape, which, reversed, size);
                    check_scan::<Complex<f32>>(shape, which, reversed, size);
                    check_scan::<Complex<f64>>(shape, which, reversed, size);
                }
            }
        }
    }
}

/// q, k, v and z, and what comes back.
struct Gates {
    shape: ScanShape,
    operands: [Vec<f64>; 4],
    dy: Vec<f64>,
    starts: Option<Vec<bool>>,
    reversed: bool,
}

impl Gates {
    fn new(shape: ScanShape, which: usize, reversed: bool) -> Self {
        let mut random = Random(shape.len() as u64);
        let mut numbers = |len: usize, size: f64| -> Vec<f64> {
            (0..len).map(|_| size * (2.0 * random.unit() - 1.0)).collect()
        };
        let len = shape.len();
        let operands =
            [numbers(len, 1.0), numbers(len, 1.0), numbers(len, 1.0), numbers(2 * len, 6.0)];
        Self { shape, operands, dy: numbers(len, 1.0), starts: starts(shape, which), reversed }
    }

    fn rows<'a>(&self, data: &'a [f64], width: usize) -> Rows<'a, f64> {
        let ScanShape { batch, seqlen, channels, .. } = self.shape;
        let shape = ScanShape::new(batch, seqlen, width * channels).unwrap();
        Rows::contiguous("operand", &data[..shape.len()], shape).unwrap()
    }

    fn places<'a>(&self, data: &'a mut [f64], width: usize) -> RowsMut<'a, f64> {
        let ScanShape { batch, seqlen, channels, .. } = self.shape;
        let shape = ScanShape::new(batch, seqlen, width * channels).unwrap();
        RowsMut::contiguous("grad", &mut data[..shape.len()], shape).unwrap()
    }

    fn close<E: ScanElement>(&self, got: &[E], want: &[E]) {
        let scale = vec![want.iter().map(|x| x.modulus()).fold(1.0, f64::max); want.len()];
        Tolerance::of::<f64>(self.shape.seqlen).check(got, want, &scale).unwrap();
    }
}

macro_rules! check_operator {
    ($gates:ident, $operator:expr, $state:ty, $grads:expr) => {{
        let gates = &$gates;
        let len = gates.shape.state_len();
        let (zero, one) = (<$state>::default(), <$state as ScanElement>::ONE);
        let nan = <$state as ScanElement>::narrow(Complex::from(f64::NAN));
        let nothing = vec![0.0; gates.shape.len()];
        let ones = vec![one; len];
        let dh_last = vec![one + one; len];
        let build = |k| {
            let operator = $operator(k);
            let operator = match &gates.starts {
                Some(starts) => operator.with_segment_starts(starts).unwrap(),
                None => operator,
            };
            if gates.reversed { operator.reversed() } else { operator }
        };
        let forward = |k, h0| {
            let mut operator = build(k);
            if let Some(h0) = h0 {
                operator = operator.with_initial_state(h0).unwrap();
            }
            let (mut y, mut last) = (vec![0.0; gates.shape.len()], vec![zero; len]);
            let mut checkpoints = vec![zero; operator.checkpoints_len()];
            let states = States { h_last: Some(&mut last), checkpoints: Some(&mut checkpoints) };
            operator.forward_into(gates.places(&mut y, 1), states).unwrap();
            (last, checkpoints)
        };
        let k = gates.operands[1].as_slice();
        let (want_product, _) = forward(&nothing, Some(&ones));
        let (want_last, _) = forward(k, None);
        let (_, checkpoints) = forward(k, Some(&ones));
        let mut want_dh0 = vec![zero; len];
        let upstream = Upstream {
            checkpoints: &checkpoints,
            dy: gates.rows(&gates.dy, 1),
            dh_last: Some(&dh_last),
        };
        let mut places = [0; 4].map(|_| vec![0.0; 2 * gates.shape.len()]);
        let [dq, dk, dv, dz] = &mut places;
        let operator = build(k).with_initial_state(&ones).unwrap();
        let grads = $grads(gates, [dq, dk, dv, dz], &mut want_dh0);
        operator.adjoint_into(upstream, grads).unwrap();

        let mut bits = None;
        for threads in [1, 2, 7] {
            let threads = Backwards(threads);
            for operator in [build(k), build(k).with_initial_state(&ones).unwrap()] {
                let operator = operator.on(&threads);
                let mut got = [0; 3].map(|_| vec![nan; len]);
                let [product, last, dh0] = &mut got;
                operator.map_into(product, last).unwrap();
                let dy = gates.rows(&gates.dy, 1);
                operator.entry_gradient_into(dy, Some(&dh_last), dh0).unwrap();
                gates.close(product, &want_product);
                gates.close(last, &want_last);
                gates.close(dh0, &want_dh0);
                assert_eq!(*bits.get_or_insert_with(|| got.clone()), got);
            }
        }
    }};
}

fn max_heads_grads<'g>(
    gates: &Gates,
    [dq, dk, dv, dz]: [&'g mut Vec<f64>; 4],
    dh0: &'g mut [Complex<f64>],
) -> GateLoopGrads<'g, f64> {
    GateLoopGrads {
        dq: gates.places(dq, 1),
        dk: gates.places(dk, 1),
        dv: gates.places(dv, 1),
        dz: gates.places(dz, 2),
        dh0: Some(dh0),
    }
}

fn simple_grads<'g>(
    gates: &Gates,
    [dq, dkv, _, dz]: [&'g mut Vec<f64>; 4],
    dh0: &'g mut [f64],
) -> SimpleGateLoopGrads<'g, f64> {
    SimpleGateLoopGrads {
        dq: gates.places(dq, 1),
        dkv: gates.places(dkv, 1),
        dz: gates.places(dz, 1),
        dh0: Some(dh0),
    }
}

#[test]
fn a_fused_operator_is_reduced_to_its_map() {
    for [batch, seqlen, channels] in SHAPES {
        let shape = ScanShape::new(batch, seqlen, channels).unwrap();
        for which in 0..3 {
            for reversed in [false, true] {
                let gates = Gates::new(shape, which, reversed);
                let [q, _, v, z] = gates.operands.each_ref().map(Vec::as_slice);
                for mode in [GateMode::Complex, GateMode::Real, GateMode::Identity] {
                    let operator = |k| {
                        let rows = [q, k, v].map(|x| gates.rows(x, 1));
                        let [q, k, v] = rows;
                        GateLoop::new(q, k, v, gates.rows(z, 2)).unwrap().with_mode(mode)
                    };
                    check_operator!(gates, operator, Complex<f64>, max_heads_grads);
                }
                let operator = |k| {
                    let [q, k, z] = [q, k, z].map(|x| gates.rows(x, 1));
                    SimpleGateLoop::new(q, k, z).unwrap()
                };
                check_operator!(gates, operator, f64, simple_grads);
            }
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_named() {
    let shape = ScanShape::new(1, 2, 3).unwrap();
    let (x, long, state) = ([0.5_f64; 6], [0.0_f64; 7], [0.0_f64; 3]);
    let scan = Scan::new(shape, &x, &x).unwrap();
    let named = |result: Result<(), gateloop_scan::ScanError>, operand: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(&format!("`{operand}`")), "{message}");
    };
    named(scan.map_into(&mut long.clone(), &mut state.clone()), "product");
    named(scan.map_into(&mut state.clone(), &mut long.clone()), "last");
    named(scan.entry_gradient_into(&long, None, &mut state.clone()), "dh");
    named(scan.entry_gradient_into(&x, Some(&long), &mut state.clone()), "dh_last");
    named(scan.entry_gradient_into(&x, None, &mut long.clone()), "dh0");
    let rows = Rows::contiguous("q", &x, shape).unwrap();
    let operator = SimpleGateLoop::new(rows, rows, rows).unwrap();
    named(operator.map_into(&mut long.clone(), &mut state.clone()), "product");
    named(operator.map_into(&mut state.clone(), &mut long.clone()), "last");
    named(operator.entry_gradient_into(rows, Some(&long), &mut state.clone()), "dh_last");
    named(operator.entry_gradient_into(rows, None, &mut long.clone()), "dh0");
}
