//! The fused operators on a device, against loops in double precision. Without a driver every test says
//! `skipped`.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "common/device.rs"]
mod on_device;

use gateloop_scan::cuda::{Cuda, DeviceElement, DeviceVec, GateMode, Gates, Operation, Stream};
use gateloop_scan::{Complex, ScanElement, ScanShape};
use on_device::{Random, device, poison};

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
