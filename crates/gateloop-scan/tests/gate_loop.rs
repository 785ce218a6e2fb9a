//! The fused operators on the CPU, against loops in double precision: packed operands, poisoned
//! outputs, guarded neighbours, every schedule.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "common/backwards.rs"]
mod backwards;
mod common;
#[path = "common/loops.rs"]
mod loops;

use backwards::Backwards;
use common::Random;
use gateloop_scan::gate_loop::{
    GateLoop, GateLoopGrads, GateMode, Real, Rows, RowsMut, SimpleGateLoop, SimpleGateLoopGrads,
    States, Upstream,
};
use gateloop_scan::{Complex, ParallelFor, ScanElement, ScanError, ScanShape, Tolerance};
use loops::{C, Loops};

/// A case with its data, narrowed to the numbers of the test.
struct Case<R> {
    loops: Loops,
    has_h0: bool,
    /// q, k, v (or q, kv) side by side, with `PADDING` columns behind them: `[B, T, N C + PADDING]`.
    packed: Vec<R>,
    z: Vec<R>,
    dy: Vec<R>,
    h0: Vec<C>,
    dh_last: Vec<C>,
}

const PADDING: usize = 3;

/// All that an operator writes, in double precision.
#[derive(Debug, PartialEq)]
struct Results {
    y: Vec<f64>,
    last: Vec<C>,
    inputs: Vec<f64>,
    dz: Vec<f64>,
    dh0: Vec<C>,
}

impl<R: Real> Case<R> {
    fn new(loops: Loops, has_h0: bool, seed: u64) -> Self {
        let [batch, seqlen, channels] = loops.shape;
        let mut random = Random(seed);
        let mut draw = |len: usize, size: f64| -> Vec<R> {
            (0..len).map(|_| R::narrow(C::from(size * (2.0 * random.unit() - 1.0)))).collect()
        };
        let tokens = batch * seqlen;
        let (inputs, parts) = if loops.complex { (3, 2) } else { (2, 1) };
        let packed = draw(tokens * (inputs * channels + PADDING), 1.0);
        let z = draw(tokens * parts * channels, 4.0);
        let dy = draw(tokens * channels, 1.0);
        let mut state = |_| {
            let numbers = draw(2 * batch * channels, 1.0);
            let part = |x: R| x.widen().re;
            numbers
                .chunks(2)
                .map(|p| C::new(part(p[0]), if loops.complex { part(p[1]) } else { 0.0 }))
                .collect()
        };
        let (h0, dh_last) = (state(0), state(1));
        Self { loops, has_h0, packed, z, dy, h0, dh_last }
    }

    fn shape(&self) -> ScanShape {
        let [batch, seqlen, channels] = self.loops.shape;
        ScanShape::new(batch, seqlen, channels).unwrap()
    }

    fn inputs(&self) -> usize {
        if self.loops.complex { 3 } else { 2 }
    }

    fn row(&self) -> usize {
        self.inputs() * self.loops.shape[2] + PADDING
    }

    /// Column `i` of the packed operands.
    fn column(&self, i: usize) -> Vec<f64> {
        let channels = self.loops.shape[2];
        let rows = self.packed.chunks(self.row());
        rows.flat_map(|row| &row[i * channels..(i + 1) * channels]).map(|x| x.widen().re).collect()
    }

    fn oracle(&self) -> Results {
        let wide = |data: &[R]| -> Vec<f64> { data.iter().map(|x| x.widen().re).collect() };
        let parts = if self.loops.complex { 2 } else { 1 };
        let z: Vec<C> = wide(&self.z)
            .chunks(parts)
            .map(|p| C::new(p[0], p.get(1).copied().unwrap_or(0.0)))
            .collect();
        let (q, k) = (self.column(0), self.column(1));
        let v = if self.loops.complex { self.column(2) } else { vec![1.0; k.len()] };
        let h0 = self.has_h0.then_some(self.h0.as_slice());
        let want = self.loops.run(&q, &k, &v, &z, h0, &wide(&self.dy), &self.dh_last);
        let channels = self.loops.shape[2];
        let mut grads = vec![want.dq, want.dk, want.dv];
        grads.truncate(self.inputs());
        let tokens = q.len() / channels;
        let inputs = (0..tokens)
            .flat_map(|t| grads.iter().flat_map(move |g| &g[t * channels..(t + 1) * channels]))
            .copied()
            .collect();
        let dz = want.dz.iter().flat_map(|z| [z.re, z.im].into_iter().take(parts)).collect();
        Results { y: want.y, last: want.last, inputs, dz, dh0: want.dh0 }
    }

    fn operand_rows(&self) -> Vec<Rows<'_, R>> {
        let shape = self.shape();
        let ScanShape { batch, seqlen, channels, .. } = shape;
        let wide = ScanShape::new(batch, seqlen, self.inputs() * channels).unwrap();
        let strides = [seqlen * self.row(), self.row()];
        let all = Rows::strided("packed", &self.packed, wide, strides).unwrap();
        let column = |i: usize| all.columns("packed", i * channels..(i + 1) * channels).unwrap();
        (0..self.inputs()).map(column).collect()
    }
}

/// Runs the operator and its adjoint on outputs full of NaN, and checks the columns between them.
macro_rules! run {
    ($case:ident, $threads:ident, $operator:expr, $state:ty, $grads:ident, [$($part:ident),*], $n:literal) => {{
        let shape = $case.shape();
        let parts = $case.z.len() / shape.len();
        let nan = R::narrow(C::new(f64::NAN, 0.0));
        let nan_state = <$state>::narrow(C::new(f64::NAN, f64::NAN));
        let narrow = |state: &[C]| -> Vec<$state> {
            state.iter().map(|&x| <$state>::narrow(x)).collect()
        };
        let (h0, dh_last) = (narrow(&$case.h0), narrow(&$case.dh_last));
        let mut operator = $operator.on($threads);
        if $case.has_h0 {
            operator = operator.with_initial_state(&h0).unwrap();
        }
        if let Some(starts) = &$case.loops.starts {
            operator = operator.with_segment_starts(starts).unwrap();
        }
        if $case.loops.reversed {
            operator = operator.reversed();
        }
        let mut y = vec![nan; shape.len()];
        let mut last = vec![nan_state; shape.state_len()];
        let mut checkpoints = vec![nan_state; operator.checkpoints_len()];
        let states = States { h_last: Some(&mut last), checkpoints: Some(&mut checkpoints) };
        operator.forward_into(RowsMut::contiguous("y", &mut y, shape).unwrap(), states).unwrap();

        // The gradients of the inputs side by side, guard columns behind them.
        let guard = R::narrow(C::new(77.0, 0.0));
        let mut packed = vec![guard; $case.packed.len()];
        let mut dz = vec![nan; $case.z.len()];
        let mut dh0 = vec![nan_state; shape.state_len()];
        let ScanShape { batch, seqlen, channels, .. } = shape;
        let gates = ScanShape::new(batch, seqlen, parts * channels).unwrap();
        let wide = ScanShape::new(batch, seqlen, $n * channels).unwrap();
        let strides = [seqlen * $case.row(), $case.row()];
        let [$($part),*] =
            RowsMut::strided("d", &mut packed, wide, strides).unwrap().split::<$n>("d").unwrap();
        let dz_rows = RowsMut::contiguous("dz", &mut dz, gates).unwrap();
        let upstream = Upstream {
            checkpoints: &checkpoints,
            dy: Rows::contiguous("dy", &$case.dy, shape).unwrap(),
            dh_last: Some(&dh_last),
        };
        let grads = $grads { $($part),*, dz: dz_rows, dh0: Some(&mut dh0) };
        operator.adjoint_into(upstream, grads).unwrap();

        let mut inputs = Vec::new();
        for row in packed.chunks($case.row()) {
            inputs.extend(row[..$n * channels].iter().map(|x| x.widen().re));
            assert!(row[$n * channels..].iter().all(|&x| x == guard), "a neighbour was written");
        }
        let wide = |data: &[R]| -> Vec<f64> { data.iter().map(|x| x.widen().re).collect() };
        let states = |data: &[$state]| -> Vec<C> { data.iter().map(|x| x.widen()).collect() };
        Results { y: wide(&y), last: states(&last), inputs, dz: wide(&dz), dh0: states(&dh0) }
    }};
}

fn results<R: Real>(case: &Case<R>, threads: &dyn ParallelFor) -> Results
where
    Complex<R>: ScanElement,
{
    let rows = case.operand_rows();
    let ScanShape { batch, seqlen, channels, .. } = case.shape();
    let parts = if case.loops.complex { 2 } else { 1 };
    let gates = ScanShape::new(batch, seqlen, parts * channels).unwrap();
    let z = Rows::contiguous("z", &case.z, gates).unwrap();
    if case.loops.complex {
        let operator = GateLoop::new(rows[0], rows[1], rows[2], z).unwrap();
        let operator = operator.with_mode(case.loops.mode);
        run!(case, threads, operator, Complex<R>, GateLoopGrads, [dq, dk, dv], 3)
    } else {
        let operator = SimpleGateLoop::new(rows[0], rows[1], z).unwrap();
        run!(case, threads, operator, R, SimpleGateLoopGrads, [dq, dkv], 2)
    }
}

fn check<R: Real>(case: &Case<R>)
where
    Complex<R>: ScanElement,
{
    let [_, seqlen, channels] = case.loops.shape;
    let want = case.oracle();
    let got = results(case, &Backwards(1));
    // A gradient passes through the forward scan, the reverse scan and the gate's derivative.
    let tolerance = Tolerance::of::<R>(seqlen.min(64)).times(3.0);
    let name = format!(
        "{} {:?} complex {} {:?} reversed {} starts {} h0 {}",
        R::NAME,
        case.loops.shape,
        case.loops.complex,
        case.loops.mode,
        case.loops.reversed,
        case.loops.starts.is_some(),
        case.has_h0
    );
    let check = |what: &str, got: &[f64], want: &[f64]| {
        if let Err(mismatch) = tolerance.check_uniform(got, want) {
            panic!("{what} of {name}: {mismatch}");
        }
    };
    let flat = |state: &[C]| -> Vec<f64> { state.iter().flat_map(|x| [x.re, x.im]).collect() };
    check("y", &got.y, &want.y);
    check("h_last", &flat(&got.last), &flat(&want.last));
    check("dq, dk, dv", &got.inputs, &want.inputs);
    check("dz", &got.dz, &want.dz);
    check("dh0", &flat(&got.dh0), &flat(&want.dh0));
    // How many threads there are, and in which order they work, changes nothing.
    if seqlen * channels >= 4096 {
        for threads in [3, 64] {
            assert_eq!(results(case, &Backwards(threads)), got, "{threads} threads, {name}");
        }
        assert_eq!(results(case, &gateloop_scan::Rayon), got, "rayon, {name}");
    }
}

fn check_shapes<R: Real>(complex: bool)
where
    Complex<R>: ScanElement,
{
    let mut count = 0_usize;
    for seqlen in [1, 2, 31, 32, 33, 63, 64, 65, 97, 129, 1000, 1025, 5000] {
        for channels in [1, 3, 8, 16, 33, 127, 128, 129, 300] {
            if seqlen * channels > 150_000 {
                continue;
            }
            let batch = 1 + count % 3;
            let mode = [GateMode::Complex, GateMode::Real, GateMode::Identity][count % 3];
            // Without a decay below 1 states grow with T, and so do the rounding errors.
            let mode = if seqlen > 64 { GateMode::Complex } else { mode };
            let mut random = Random(count as u64);
            let starts = (0..batch * seqlen).map(|_| random.unit() < 0.03).collect();
            let loops = Loops {
                shape: [batch, seqlen, channels],
                complex,
                mode,
                reversed: count & 1 == 1,
                starts: (count & 2 == 2).then_some(starts),
            };
            check(&Case::<R>::new(loops, count & 4 == 4, count as u64));
            count += 1;
        }
    }
    assert!(count > 90, "{count}");
}

#[test]
fn gate_loop_equals_its_loop_in_f32() {
    check_shapes::<f32>(true);
}

#[test]
fn gate_loop_equals_its_loop_in_f64() {
    check_shapes::<f64>(true);
}

#[test]
fn simple_gate_loop_equals_its_loop_in_f32() {
    check_shapes::<f32>(false);
}

#[test]
fn simple_gate_loop_equals_its_loop_in_f64() {
    check_shapes::<f64>(false);
}

/// What happens to one channel of an operand goes nowhere else, and not back in time.
#[test]
fn a_nan_stays_in_its_channel_and_its_future() {
    for complex in [true, false] {
        for (operand, poison) in [("q", f64::NAN), ("k", f64::INFINITY), ("z", f64::NAN)] {
            let mode = GateMode::Complex;
            let loops = Loops { shape: [1, 40, 130], complex, mode, reversed: false, starts: None };
            let mut case = Case::<f32>::new(loops, true, 5);
            let clean = results(&case, &Backwards(1));
            let (token, channel) = (17, 127);
            let row = case.row();
            match operand {
                "q" => case.packed[token * row + channel] = poison as f32,
                "k" => case.packed[token * row + 130 + channel] = poison as f32,
                _ => {
                    let parts = if complex { 2 } else { 1 };
                    case.z[(token * 130 + channel) * parts] = poison as f32;
                }
            }
            let dirty = results(&case, &Backwards(1));
            for (i, (dirty, clean)) in dirty.y.iter().zip(&clean.y).enumerate() {
                let reached = i % 130 == channel && i / 130 >= token;
                assert!(reached || dirty == clean, "{operand} {i}: {dirty} {clean}");
                if i == token * 130 + channel {
                    assert!(!dirty.is_finite(), "{operand}");
                }
            }
        }
    }
}

/// An infinite pre-activation is a gate that keeps all, whatever its direction.
#[test]
fn infinite_gates_keep_the_state() {
    let shape = ScanShape::new(1, 2, 3).unwrap();
    let ones = [1.0_f32; 6];
    let gates = ScanShape::new(1, 2, 6).unwrap();
    let inf = f32::INFINITY;
    let z = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, inf, 1.0, -inf, 0.0, 0.0, inf];
    let rows = Rows::contiguous("x", &ones, shape).unwrap();
    let z = Rows::contiguous("z", &z, gates).unwrap();
    let mut y = [f32::NAN; 6];
    let operator = GateLoop::new(rows, rows, rows, z).unwrap();
    let out = RowsMut::contiguous("y", &mut y, shape).unwrap();
    operator.forward_into(out, States::default()).unwrap();
    assert_eq!(y, [1.0, 1.0, 1.0, 2.0, 0.0, 1.0]);
}

#[test]
fn a_fraction_of_the_gradient_reaches_the_gate() {
    let loops = Loops {
        shape: [1, 9, 5],
        complex: true,
        mode: GateMode::Complex,
        reversed: false,
        starts: None,
    };
    let case = Case::<f64>::new(loops, false, 3);
    let whole = results(&case, &Backwards(1));
    let rows = case.operand_rows();
    let shape = case.shape();
    let gates = ScanShape::new(1, 9, 10).unwrap();
    let z = Rows::contiguous("z", &case.z, gates).unwrap();
    let operator = GateLoop::new(rows[0], rows[1], rows[2], z).unwrap().with_gate_gradient(0.5);
    let mut checkpoints = vec![Complex::default(); operator.checkpoints_len()];
    let mut parts = [(); 4].map(|()| vec![0.0; shape.len()]);
    let [y, dq, dk, dv] = &mut parts;
    let rows_of = |data| RowsMut::contiguous("d", data, shape).unwrap();
    let states = States { checkpoints: Some(&mut checkpoints), h_last: None };
    operator.forward_into(rows_of(y), states).unwrap();
    let mut dz = vec![0.0; case.z.len()];
    let dh_last: Vec<C> = case.dh_last.clone();
    let upstream = Upstream {
        checkpoints: &checkpoints,
        dy: Rows::contiguous("dy", &case.dy, shape).unwrap(),
        dh_last: Some(&dh_last),
    };
    let grads = GateLoopGrads {
        dq: rows_of(dq),
        dk: rows_of(dk),
        dv: rows_of(dv),
        dz: RowsMut::contiguous("dz", &mut dz, gates).unwrap(),
        dh0: None,
    };
    operator.adjoint_into(upstream, grads).unwrap();
    let expected: Vec<f64> = whole.dz.iter().map(|dz| 0.5 * dz).collect();
    Tolerance::of::<f64>(1).check_uniform(&dz, &expected).unwrap();
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let shape = ScanShape::new(2, 3, 4).unwrap();
    let other = ScanShape::new(2, 4, 3).unwrap();
    let data = [0.0_f32; 48];
    let rows = Rows::contiguous("x", &data[..24], shape).unwrap();
    let wrong = Rows::contiguous("x", &data[..24], other).unwrap();
    let name = |error: ScanError| match error {
        ScanError::Rows { operand, .. }
        | ScanError::Stride { operand, .. }
        | ScanError::Overlap { operand, .. }
        | ScanError::Length { operand, .. } => operand,
        other => panic!("{other}"),
    };
    assert_eq!(name(SimpleGateLoop::new(rows, wrong, rows).unwrap_err()), "kv");
    assert_eq!(name(SimpleGateLoop::new(rows, rows, wrong).unwrap_err()), "z");
    assert_eq!(name(GateLoop::new(rows, rows, wrong, rows).unwrap_err()), "v");
    assert_eq!(name(GateLoop::new(rows, rows, rows, rows).unwrap_err()), "z");
    let operator = SimpleGateLoop::new(rows, rows, rows).unwrap();
    assert_eq!(name(operator.with_initial_state(&data[..7]).unwrap_err()), "h0");
    assert_eq!(name(operator.with_segment_starts(&[false; 5]).unwrap_err()), "starts");
    let mut y = [0.0; 24];
    let rows = RowsMut::contiguous("y", &mut y, other).unwrap();
    assert_eq!(name(operator.forward_into(rows, States::default()).unwrap_err()), "y");
    let rows = RowsMut::contiguous("y", &mut y, shape).unwrap();
    let mut short = [0.0; 3];
    let states = States { checkpoints: Some(&mut short[..]), h_last: None };
    assert_eq!(name(operator.forward_into(rows, states).unwrap_err()), "checkpoints");
    assert!(y.iter().all(|&y| y == 0.0), "nothing is written when something is refused");
}

#[test]
fn strides_are_checked() {
    let mut data = [0.0_f32; 30];
    let shape = ScanShape::new(2, 3, 4).unwrap();
    assert!(Rows::strided("x", &data, shape, [15, 5]).is_ok());
    for strides in [[18, 5], [15, 8], [usize::MAX, 5], [15, usize::MAX / 2]] {
        let refused = Rows::strided("x", &data, shape, strides).unwrap_err();
        assert!(matches!(refused, ScanError::Stride { operand: "x", .. }), "{refused}");
    }
    // Rows to read may repeat, rows to write may not.
    assert!(Rows::strided("x", &data, shape, [0, 0]).is_ok());
    for strides in [[15, 3], [7, 4]] {
        let refused = RowsMut::strided("x", &mut data, shape, strides).unwrap_err();
        assert!(matches!(refused, ScanError::Overlap { operand: "x", .. }), "{refused}");
    }
    assert!(RowsMut::strided("x", &mut data, shape, [15, 5]).unwrap().split::<3>("x").is_err());
    let rows = Rows::strided("x", &data, shape, [15, 5]).unwrap();
    assert!(rows.columns("x", 2..5).is_err() && rows.split::<3>("x").is_err());
}
