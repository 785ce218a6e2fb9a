//! The kernels on a device, against the naive scan. Without a driver every test says `skipped`.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // A test ends by panicking.

use gateloop_scan::cuda::{Cuda, DeviceElement, DeviceVec, GateMode, Gates, Operation, Stream};
use gateloop_scan::{Algorithm, Complex, Scan, ScanElement, ScanGrads, ScanShape, Tolerance};
use std::sync::Arc;

fn device() -> Option<Arc<Cuda>> {
    if !Cuda::is_available() {
        println!("skipped: no CUDA driver");
        return None;
    }
    Some(Cuda::device(0).unwrap())
}

/// Numbers that look random, from a seed.
struct Random(u64);
impl Random {
    fn next(&mut self) -> f64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }
}

fn decays<E: ScanElement>(random: &mut Random, len: usize) -> Vec<E> {
    (0..len)
        .map(|_| {
            let modulus = match random.next() {
                p if p < 0.02 => 0.0,
                p if p < 0.04 => 1.0,
                p if p < 0.5 => random.between(0.9, 1.0),
                _ => random.between(0.0, 1.0),
            };
            E::narrow(Complex::from_polar(modulus, random.between(-3.2, 3.2)))
        })
        .collect()
}

fn inputs<E: ScanElement>(random: &mut Random, len: usize) -> Vec<E> {
    (0..len)
        .map(|_| E::narrow(Complex::new(random.between(-1.0, 1.0), random.between(-1.0, 1.0))))
        .collect()
}

/// Leaves NaNs in the memory that the next allocations get, so that an unwritten output shows.
fn poison(cuda: &Cuda) {
    let mut vec = DeviceVec::<u8>::uninit(cuda, Stream::default(), 64 << 20).unwrap();
    vec.fill_bytes(cuda, Stream::default(), 0xff).unwrap();
}

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: [usize; 3],
    reversed: bool,
    h0: bool,
    starts: bool,
}

fn check_scan<E: ScanElement + DeviceElement>(cuda: &Cuda, case: Case, seed: u64) {
    let [batch, seqlen, channels] = case.shape;
    let shape = ScanShape::new(batch, seqlen, channels).unwrap();
    let mut random = Random(seed);
    let (a, b) = (decays::<E>(&mut random, shape.len()), inputs::<E>(&mut random, shape.len()));
    let h0 = inputs::<E>(&mut random, shape.state_len());
    let dh = inputs::<E>(&mut random, shape.len());
    let dh_last = inputs::<E>(&mut random, shape.state_len());
    let starts: Vec<bool> = (0..shape.token_count()).map(|_| random.next() < 0.03).collect();

    let mut problem = Scan::new(shape, &a, &b).unwrap();
    if case.h0 {
        problem = problem.with_initial_state(&h0).unwrap();
    }
    if case.starts {
        problem = problem.with_segment_starts(&starts).unwrap();
    }
    if case.reversed {
        problem = problem.reversed();
    }
    let want = problem.run(Algorithm::Naive).unwrap();
    let want_last = problem.last_state(&want).unwrap();

    let stream = Stream::default();
    let up = |data: &[E]| DeviceVec::upload(cuda, stream, data).unwrap();
    let bytes: Vec<u8> = starts.iter().map(|&start| u8::from(start)).collect();
    let (da, db, dh0) = (up(&a), up(&b), up(&h0));
    let cuts = DeviceVec::upload(cuda, stream, &bytes).unwrap();
    let (h0_device, cuts) = (case.h0.then_some(&dh0), case.starts.then_some(&cuts));
    poison(cuda);
    let (h, last) = cuda.run_scan(stream, shape, &da, &db, h0_device, cuts, case.reversed).unwrap();
    let tolerance = Tolerance::of::<E>(seqlen);
    let name = format!("{} {case:?}", E::NAME);
    let magnitude = problem.magnitude().unwrap();
    let got = h.download(cuda, stream).unwrap();
    tolerance.check(&got, &want, &magnitude).unwrap_or_else(|e| panic!("h of {name}: {e:?}"));
    let got_last = last.download(cuda, stream).unwrap();
    assert_eq!(problem.last_state(&got).unwrap(), got_last, "h_last of {name}");
    assert_eq!(want_last.len(), got_last.len());

    let mut grads = problem.adjoint(Algorithm::Naive, &want, &dh, Some(&dh_last)).unwrap();
    let mut want_dh0 = vec![E::ZERO; shape.state_len()];
    problem
        .adjoint_into(
            Algorithm::Naive,
            &want,
            &dh,
            Some(&dh_last),
            ScanGrads { da: &mut grads.da, db: &mut grads.db, dh0: Some(&mut want_dh0) },
        )
        .unwrap();
    let (h_naive, dh_device, dh_last_device) = (up(&want), up(&dh), up(&dh_last));
    poison(cuda);
    let (got_da, got_db, got_dh0) = cuda
        .run_scan_adjoint(
            stream,
            shape,
            &da,
            &h_naive,
            h0_device,
            cuts,
            case.reversed,
            &dh_device,
            Some(&dh_last_device),
        )
        .unwrap();
    let sizes = problem.adjoint_magnitude(&dh, Some(&dh_last)).unwrap();
    let tell = |what: &str| format!("{what} of {name}");
    tolerance
        .check(&got_db.download(cuda, stream).unwrap(), &grads.db, &sizes.db)
        .unwrap_or_else(|e| panic!("{}: {e:?}", tell("db")));
    tolerance
        .check(&got_da.download(cuda, stream).unwrap(), &grads.da, &sizes.da)
        .unwrap_or_else(|e| panic!("{}: {e:?}", tell("da")));
    tolerance
        .check(&got_dh0.download(cuda, stream).unwrap(), &want_dh0, &sizes.dh0)
        .unwrap_or_else(|e| panic!("{}: {e:?}", tell("dh0")));
}

#[test]
fn the_scan_and_its_adjoint_equal_the_naive_ones() {
    let Some(cuda) = device() else { return };
    let mut cases = 0_u64;
    for seqlen in [1, 2, 31, 33, 56, 63, 64, 69, 70, 71, 127, 129, 1000, 1025, 4097, 20_000] {
        for channels in [1, 3, 4, 31, 32, 33, 64, 65, 128, 500] {
            if seqlen * channels > 600_000 {
                continue;
            }
            let bits = cases.wrapping_mul(0x9E37_79B9) >> 3;
            let case = Case {
                shape: [1 + (cases % 3) as usize, seqlen, channels],
                reversed: bits & 1 == 1,
                h0: bits & 2 == 2,
                starts: bits & 4 == 4,
            };
            match cases % 2 {
                0 => check_scan::<f32>(&cuda, case, cases),
                _ => check_scan::<f64>(&cuda, case, cases),
            }
            match cases % 4 {
                0 | 1 => check_scan::<Complex<f32>>(&cuda, case, cases),
                _ => check_scan::<Complex<f64>>(&cuda, case, cases),
            }
            cases += 1;
        }
    }
    println!("{cases} shapes");
}

#[test]
fn every_switch_on_and_off() {
    let Some(cuda) = device() else { return };
    for bits in 0..8 {
        let (reversed, h0, starts) = (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4);
        for shape in [[2, 500, 36], [1, 1300, 7]] {
            let case = Case { shape, reversed, h0, starts };
            check_scan::<f32>(&cuda, case, bits);
            check_scan::<f64>(&cuda, case, bits);
            check_scan::<Complex<f32>>(&cuda, case, bits);
            check_scan::<Complex<f64>>(&cuda, case, bits);
        }
    }
}

#[test]
fn a_nan_stays_in_its_segment() {
    let Some(cuda) = device() else { return };
    let shape = ScanShape::new(1, 3000, 70).unwrap();
    let mut random = Random(5);
    let (a, mut b) =
        (decays::<f32>(&mut random, shape.len()), inputs::<f32>(&mut random, shape.len()));
    b[1000 * 70..1001 * 70].fill(f32::NAN);
    let mut starts = vec![0_u8; 3000];
    starts[1500] = 1;
    let stream = Stream::default();
    let a = DeviceVec::upload(&cuda, stream, &a).unwrap();
    let b = DeviceVec::upload(&cuda, stream, &b).unwrap();
    let starts = DeviceVec::upload(&cuda, stream, &starts).unwrap();
    let (h, _) = cuda.run_scan(stream, shape, &a, &b, None, Some(&starts), false).unwrap();
    let h = h.download(&cuda, stream).unwrap();
    assert!(h[..1000 * 70].iter().all(|h| h.is_finite()));
    assert!(h[1000 * 70..1500 * 70].iter().all(|h| h.is_nan()));
    assert!(h[1500 * 70..].iter().all(|h| h.is_finite()));
}

#[test]
fn results_are_bit_equal_from_run_to_run() {
    let Some(cuda) = device() else { return };
    for dims in [[1, 60_000, 64], [1, 20_000, 512], [4, 3000, 300]] {
        let shape = ScanShape::new(dims[0], dims[1], dims[2]).unwrap();
        let mut random = Random(9);
        let stream = Stream::default();
        let a = DeviceVec::upload(&cuda, stream, &decays::<f32>(&mut random, shape.len())).unwrap();
        let b = DeviceVec::upload(&cuda, stream, &inputs::<f32>(&mut random, shape.len())).unwrap();
        let mut first: Option<Vec<u32>> = None;
        for run in 0..200 {
            let (h, _) = cuda.run_scan(stream, shape, &a, &b, None, None, false).unwrap();
            let h: Vec<u32> =
                h.download(&cuda, stream).unwrap().into_iter().map(f32::to_bits).collect();
            match &first {
                None => first = Some(h),
                Some(first) => assert!(*first == h, "run {run} of {dims:?} differs"),
            }
        }
    }
}

/// The fused operators as loops, in double precision.
struct Loops {
    shape: [usize; 3],
    complex: bool,
    mode: GateMode,
    reversed: bool,
    starts: Option<Vec<u8>>,
}

type C = Complex<f64>;

struct LoopGrads {
    y: Vec<f64>,
    last: Vec<C>,
    dq: Vec<f64>,
    dk: Vec<f64>,
    dv: Vec<f64>,
    dz: Vec<C>,
    dh0: Vec<C>,
}

impl Loops {
    fn decay(&self, z: C) -> C {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match (self.complex, self.mode) {
            (false, _) => C::from(sigmoid(z.re)),
            (true, GateMode::Complex) => C::from_polar(sigmoid(z.norm()), z.arg()),
            (true, GateMode::Real) => {
                C::from(sigmoid(z.re.abs()) * if z.re < 0.0 { -1.0 } else { 1.0 })
            }
            (true, GateMode::Identity) => C::from(1.0),
        }
    }

    /// The gradient of z, through modulus and angle: a = s e^{ip}, s = sigmoid(r).
    fn decay_gradient(&self, z: C, da: C) -> C {
        let a = self.decay(z);
        match (self.complex, self.mode) {
            (false, _) => C::from(da.re * a.re * (1.0 - a.re)),
            (true, GateMode::Identity) => C::from(0.0),
            (true, GateMode::Real) => C::from(da.re * a.re.abs() * (1.0 - a.re.abs())),
            (true, GateMode::Complex) => {
                let (r, p) = z.to_polar();
                let s = a.norm();
                let ds = da.re * p.cos() + da.im * p.sin();
                let dp = s * (da.im * p.cos() - da.re * p.sin());
                let dr = ds * s * (1.0 - s);
                C::new(dr * p.cos() - dp * p.sin() / r, dr * p.sin() + dp * p.cos() / r)
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        q: &[f64],
        k: &[f64],
        v: &[f64],
        z: &[C],
        h0: Option<&[C]>,
        dy: &[f64],
        dh_last: &[C],
    ) -> LoopGrads {
        let [batch, seqlen, channels] = self.shape;
        let len = q.len();
        let mut out = LoopGrads {
            y: vec![0.0; len],
            last: vec![C::default(); batch * channels],
            dq: vec![0.0; len],
            dk: vec![0.0; len],
            dv: vec![0.0; len],
            dz: vec![C::default(); len],
            dh0: vec![C::default(); batch * channels],
        };
        for b in 0..batch {
            for c in 0..channels {
                let state = b * channels + c;
                let token = |s: usize| if self.reversed { seqlen - 1 - s } else { s };
                let at = |s: usize| (b * seqlen + token(s)) * channels + c;
                let cut = |s: usize| {
                    let later = if self.reversed { token(s) + 1 } else { token(s) };
                    later < seqlen
                        && self
                            .starts
                            .as_ref()
                            .is_some_and(|starts| starts[b * seqlen + later] != 0)
                };
                let mut before = vec![C::default(); seqlen];
                let mut h = h0.map_or(C::default(), |h0| h0[state]);
                for (s, before) in before.iter_mut().enumerate() {
                    let o = at(s);
                    *before = if cut(s) { C::default() } else { h };
                    h = self.decay(z[o]) * *before + k[o] * v[o];
                    out.y[o] = q[o] * h.re;
                }
                out.last[state] = h;
                let mut f = dh_last[state];
                for s in (0..seqlen).rev() {
                    let o = at(s);
                    let h = self.decay(z[o]) * before[s] + k[o] * v[o];
                    let g = f + q[o] * dy[o];
                    out.dq[o] = dy[o] * h.re;
                    (out.dk[o], out.dv[o]) = (g.re * v[o], g.re * k[o]);
                    out.dz[o] = self.decay_gradient(z[o], g * before[s].conj());
                    f = if cut(s) { C::default() } else { self.decay(z[o]).conj() * g };
                }
                out.dh0[state] = f;
            }
        }
        out
    }
}

/// Relative RMS of the difference.
fn distance<E: ScanElement>(got: &[E], want: impl Iterator<Item = f64>) -> f64 {
    let (mut error, mut size, mut count) = (0.0, 0.0, 0);
    for (got, want) in got.iter().zip(want) {
        let got = got.widen().re;
        error += (got - want) * (got - want);
        size += want * want;
        count += 1;
    }
    assert_eq!(count, got.len());
    if size == 0.0 { error.sqrt() } else { (error / size).sqrt() }
}

fn check_gates<E: ScanElement + DeviceElement>(
    cuda: &Cuda,
    loops: &Loops,
    has_h0: bool,
    allowed: f64,
) {
    let [batch, seqlen, channels] = loops.shape;
    let shape = ScanShape::new(batch, seqlen, channels).unwrap();
    let parts = if loops.complex { 2 } else { 1 };
    let operation = if loops.complex { Operation::GateLoop } else { Operation::SimpleGateLoop };
    let mut random = Random((seqlen * channels) as u64);
    let mut real = |len: usize, size: f64| -> Vec<E> {
        (0..len).map(|_| E::narrow(C::from(random.between(-size, size)))).collect()
    };
    let (q, k, v, dy) = (
        real(shape.len(), 1.0),
        real(shape.len(), 1.0),
        real(shape.len(), 1.0),
        real(shape.len(), 1.0),
    );
    let z = real(parts * shape.len(), 4.0);
    let (h0, dh_last) =
        (real(parts * shape.state_len(), 1.0), real(parts * shape.state_len(), 1.0));
    let wide = |data: &[E]| -> Vec<f64> { data.iter().map(|x| x.widen().re).collect() };
    let pairs = |data: &[E]| -> Vec<C> {
        let wide = wide(data);
        wide.chunks(parts).map(|p| C::new(p[0], p.get(1).copied().unwrap_or(0.0))).collect()
    };
    let values = if loops.complex { wide(&v) } else { vec![1.0; shape.len()] };
    let h0_pairs = pairs(&h0);
    let want = loops.run(
        &wide(&q),
        &wide(&k),
        &values,
        &pairs(&z),
        has_h0.then_some(h0_pairs.as_slice()),
        &wide(&dy),
        &pairs(&dh_last),
    );

    let stream = Stream::default();
    let up = |data: &[E]| DeviceVec::upload(cuda, stream, data).unwrap();
    let (q, k, v, z, dy, h0, dh_last) =
        (up(&q), up(&k), up(&v), up(&z), up(&dy), up(&h0), up(&dh_last));
    let starts = loops.starts.as_ref().map(|s| DeviceVec::upload(cuda, stream, s).unwrap());
    let gates = Gates { q: &q, k: &k, v: loops.complex.then_some(&v), z: &z };
    poison(cuda);
    let out = cuda
        .run_gate_loop(
            operation,
            stream,
            shape,
            &gates,
            has_h0.then_some(&h0),
            starts.as_ref(),
            loops.reversed,
            loops.mode,
        )
        .unwrap();
    poison(cuda);
    let grads = cuda
        .run_gate_loop_adjoint(
            operation,
            stream,
            shape,
            &gates,
            has_h0,
            starts.as_ref(),
            loops.reversed,
            loops.mode,
            &out.checkpoints,
            &dy,
            Some(&dh_last),
        )
        .unwrap();
    let flat = |pairs: &[C]| -> Vec<f64> {
        pairs.iter().flat_map(|c| [c.re, c.im].into_iter().take(parts)).collect()
    };
    let mut results = vec![
        ("y", &out.y, want.y),
        ("h_last", &out.h_last, flat(&want.last)),
        ("dq", &grads.dq, want.dq),
        ("dk", &grads.dk, want.dk),
        ("dz", &grads.dz, flat(&want.dz)),
        ("dh0", &grads.dh0, flat(&want.dh0)),
    ];
    if loops.complex {
        results.push(("dv", &grads.dv, want.dv));
    }
    for (what, got, want) in results {
        let got = got.download(cuda, stream).unwrap();
        let found = distance(&got, want.into_iter());
        assert!(
            found <= allowed,
            "{what} of {} {:?} {:?} reversed {} starts {} h0 {has_h0}: {found:e}",
            E::NAME,
            loops.shape,
            loops.mode,
            loops.reversed,
            loops.starts.is_some()
        );
    }
}

#[test]
fn the_fused_operators_equal_their_loops() {
    let Some(cuda) = device() else { return };
    let mut cases = 0_usize;
    for seqlen in [1, 2, 11, 12, 13, 19, 20, 21, 35, 36, 37, 48, 49, 240, 500, 1025, 5000] {
        for channels in [1, 4, 31, 33, 64, 130] {
            if seqlen * channels > 200_000 {
                continue;
            }
            let batch = 1 + cases % 3;
            let mode = [GateMode::Complex, GateMode::Real, GateMode::Identity][cases / 3 % 3];
            // Without a decay below 1 the states grow with T, and so do the rounding errors.
            let mode = if seqlen > 300 { GateMode::Complex } else { mode };
            let mut random = Random(cases as u64);
            let starts: Vec<u8> =
                (0..batch * seqlen).map(|_| u8::from(random.next() < 0.03)).collect();
            for complex in [true, false] {
                let loops = Loops {
                    shape: [batch, seqlen, channels],
                    complex,
                    mode,
                    reversed: cases & 1 == 1,
                    starts: (cases & 2 == 2).then(|| starts.clone()),
                };
                let has_h0 = cases & 4 == 4;
                check_gates::<f32>(&cuda, &loops, has_h0, 3e-6);
                check_gates::<f64>(&cuda, &loops, has_h0, 1e-14);
            }
            cases += 1;
        }
    }
    println!("{cases} shapes");
}

#[test]
fn bad_operands_are_refused_and_the_device_goes_on() {
    let Some(cuda) = device() else { return };
    let stream = Stream::default();
    let shape = ScanShape::new(2, 10, 8).unwrap();
    let short = DeviceVec::upload(&cuda, stream, &[0.5_f32; 100]).unwrap();
    let whole = DeviceVec::upload(&cuda, stream, &[0.5_f32; 160]).unwrap();
    let refused = cuda.run_scan(stream, shape, &short, &whole, None, None, false).unwrap_err();
    assert!(refused.to_string().contains("`a` has 100 elements, expected 160"), "{refused}");
    let refused = Cuda::device(4096).unwrap_err();
    assert!(refused.to_string().contains("no CUDA device 4096"), "{refused}");
    let huge = DeviceVec::<f64>::uninit(&cuda, stream, 1 << 45).unwrap_err();
    assert!(huge.to_string().contains("bytes left"), "{huge}");
    cuda.run_scan(stream, shape, &whole, &whole, None, None, false).unwrap();
    cuda.synchronize(stream).unwrap();
}
