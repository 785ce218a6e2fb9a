//! The fused operators on a device, against loops in double precision.

use crate::data::{Random, poison};
use crate::device::{devices, is_stand_in};
use crate::loops::{C, Loops};
use gateloop_scan::cuda::{Cuda, DeviceElement, DeviceVec, Gates, Operation, Stream};
use gateloop_scan::gate_loop::GateMode;
use gateloop_scan::{ScanElement, ScanShape};

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
    let starts = loops.starts.as_ref().map(|starts| {
        let bytes: Vec<u8> = starts.iter().map(|&start| u8::from(start)).collect();
        DeviceVec::upload(cuda, stream, &bytes).unwrap()
    });
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
    for cuda in devices() {
        check_operators(&cuda);
    }
}

fn check_operators(cuda: &Cuda) {
    let most = if is_stand_in(cuda) { 20_000 } else { 200_000 };
    let mut cases = 0_usize;
    for seqlen in [1, 2, 3, 4, 5, 11, 12, 13, 19, 20, 21, 35, 36, 37, 48, 49, 240, 500, 1025, 5000]
    {
        for channels in [1, 4, 31, 33, 64, 130] {
            if seqlen * channels > most {
                continue;
            }
            let batch = 1 + cases % 3;
            let mode = [GateMode::Complex, GateMode::Real, GateMode::Identity][cases / 3 % 3];
            // Without a decay below 1 the states grow with T, and so do the rounding errors.
            let mode = if seqlen > 300 { GateMode::Complex } else { mode };
            let mut random = Random(cases as u64);
            let starts: Vec<bool> = (0..batch * seqlen).map(|_| random.next() < 0.03).collect();
            for complex in [true, false] {
                let loops = Loops {
                    shape: [batch, seqlen, channels],
                    complex,
                    mode,
                    reversed: cases & 1 == 1,
                    starts: (cases & 2 == 2).then(|| starts.clone()),
                };
                let has_h0 = cases & 4 == 4;
                check_gates::<f32>(cuda, &loops, has_h0, 3e-6);
                check_gates::<f64>(cuda, &loops, has_h0, 1e-14);
            }
            cases += 1;
        }
    }
    println!("{cases} shapes on {}", cuda.name());
}
