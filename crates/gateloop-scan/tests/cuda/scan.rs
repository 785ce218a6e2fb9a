//! The scan on a device, against the naive one.

use crate::data::{Random, poison};
use crate::device::{device, devices, is_stand_in};
use gateloop_scan::cuda::{Cuda, DeviceElement, DeviceVec, Stream};
use gateloop_scan::{Algorithm, Complex, Scan, ScanElement, ScanGrads, ScanShape, Tolerance};

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
    for cuda in devices() {
        check_scans(&cuda);
    }
}

fn check_scans(cuda: &Cuda) {
    let most = if is_stand_in(cuda) { 50_000 } else { 600_000 };
    let mut cases = 0_u64;
    for seqlen in
        [1, 2, 3, 4, 5, 31, 33, 56, 63, 64, 69, 70, 71, 127, 129, 1000, 1025, 4097, 20_000]
    {
        for channels in [1, 3, 4, 31, 32, 33, 64, 65, 128, 500] {
            if seqlen * channels > most {
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
                0 => check_scan::<f32>(cuda, case, cases),
                _ => check_scan::<f64>(cuda, case, cases),
            }
            match cases % 4 {
                0 | 1 => check_scan::<Complex<f32>>(cuda, case, cases),
                _ => check_scan::<Complex<f64>>(cuda, case, cases),
            }
            cases += 1;
        }
    }
    println!("{cases} shapes on {}", cuda.name());
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
    // Blocks that run at the same time are what a device has and the stand-in has not.
    let (part, runs) = if is_stand_in(&cuda) { (20, 5) } else { (1, 200) };
    for dims in [[1, 60_000, 64], [1, 20_000, 512], [4, 3000, 300]] {
        let dims = [dims[0], dims[1] / part, dims[2]];
        let shape = ScanShape::new(dims[0], dims[1], dims[2]).unwrap();
        let mut random = Random(9);
        let stream = Stream::default();
        let a = DeviceVec::upload(&cuda, stream, &decays::<f32>(&mut random, shape.len())).unwrap();
        let b = DeviceVec::upload(&cuda, stream, &inputs::<f32>(&mut random, shape.len())).unwrap();
        let mut first: Option<Vec<u32>> = None;
        for run in 0..runs {
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
