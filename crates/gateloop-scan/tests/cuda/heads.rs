//! What lies between the matrix products of wider heads on a device, against loops in double precision.

use crate::data::{Random, down, poison, up};
use crate::device::device;
use gateloop_scan::ScanElement;
use gateloop_scan::cuda::{
    Cuda, DeviceElement, DeviceVec, Dtype, Stream, TurnAdjointArgs, TurnArgs, WeighAdjointArgs,
    WeighArgs,
};

/// Sums of ln|a| and of arg a over chunks.
fn tokens(random: &mut Random, chunks: usize, chunk_len: usize) -> [Vec<f64>; 2] {
    let mut sums = [Vec::new(), Vec::new()];
    for _ in 0..chunks {
        let mut now = [0.0, 0.0];
        for _ in 0..chunk_len {
            now[0] += random.between(-0.7, 0.0);
            now[1] += random.between(-3.0, 3.0);
            sums[0].push(now[0]);
            sums[1].push(now[1]);
        }
    }
    sums
}

/// Within `allowed` of the sizes of what was added up.
fn assert_near<E: ScanElement>(what: &str, got: &[E], want: &[f64], sizes: &[f64], allowed: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, ((got, want), size)) in got.iter().zip(want).zip(sizes).enumerate() {
        let off = (got.widen().re - want).abs();
        assert!(off <= allowed * size, "{what}[{i}]: {got:?} for {want}");
    }
}

fn check_weigh<E: ScanElement + DeviceElement>(cuda: &Cuda, dtype: Dtype, allowed: f64) {
    for (chunks, c) in [(5, 64), (2, 1), (3, 65), (1, 200), (40, 33)] {
        let mut random = Random((chunks * c) as u64);
        let [log_a, phase] = tokens(&mut random, chunks, c);
        let mut pairs = || -> Vec<E> {
            (0..chunks * c * c).map(|_| E::narrow(random.between(-1.0, 1.0).into())).collect()
        };
        let (s, d) = (pairs(), pairs());
        let tiles = WeighAdjointArgs::tiles(c);
        let mut want = [vec![0.0; s.len()], vec![0.0; s.len()]];
        let mut sizes = vec![0.0; s.len()];
        let mut sums = [(); 4].map(|()| vec![0.0; chunks * c]);
        let mut sum_sizes = [(); 4].map(|()| vec![0.0; chunks * c]);
        for at in 0..s.len() {
            let (i, j) = (at / c, at / c / c * c + at % c);
            if j > i {
                continue;
            }
            let size = (log_a[i] - log_a[j]).exp();
            let (sine, cosine) = (phase[i] - phase[j]).sin_cos();
            let (score, gradient) = (s[at].widen().re, d[at].widen().re);
            want[0][at] = score * size * cosine;
            want[1][at] = gradient * size * cosine;
            // An exponent is off by its own rounding, which grows with it.
            sizes[at] = size * (1.0 + log_a[j] - log_a[i]);
            if j < i {
                let terms = [gradient * want[0][at], -gradient * score * size * sine];
                for k in 0..4 {
                    let token = [i, j][k % 2];
                    sums[k][token] += terms[k / 2];
                    sum_sizes[k][token] += sizes[at];
                }
            }
        }

        let (log_a, phase) = (up(cuda, &log_a), up(cuda, &phase));
        let scores = up(cuda, &s);
        let args = WeighArgs {
            dtype,
            chunks,
            chunk_len: c,
            scores: scores.ptr(),
            log_a: log_a.ptr(),
            phase: phase.ptr(),
        };
        // SAFETY: the vectors have these lengths, and live until the download.
        unsafe { cuda.weigh(Stream::default(), &args) }.unwrap();
        assert_near("weighed", &down(cuda, &scores), &want[0], &sizes, allowed);

        let (scores, dscores) = (up(cuda, &s), up(cuda, &d));
        poison(cuda);
        let parts = [(); 4].map(|()| {
            DeviceVec::<f64>::uninit(cuda, Stream::default(), chunks * tiles * c).unwrap()
        });
        let args = WeighAdjointArgs {
            forward: WeighArgs { scores: scores.ptr(), ..args },
            dscores: dscores.ptr(),
            log_later: parts[0].ptr(),
            log_earlier: parts[1].ptr(),
            phase_later: parts[2].ptr(),
            phase_earlier: parts[3].ptr(),
        };
        // SAFETY: as above.
        unsafe { cuda.weigh_adjoint(Stream::default(), &args) }.unwrap();
        assert_near("scores", &down(cuda, &scores), &want[0], &sizes, allowed);
        assert_near("dscores", &down(cuda, &dscores), &want[1], &sizes, allowed);
        for k in 0..4 {
            let parts = down(cuda, &parts[k]);
            let mut total = vec![0.0; chunks * c];
            for (at, part) in parts.iter().enumerate() {
                total[at / (tiles * c) * c + at % c] += part;
            }
            assert_near("sums", &total, &sums[k], &sum_sizes[k], allowed);
        }
    }
}

fn check_turn<E: ScanElement + DeviceElement>(cuda: &Cuda, dtype: Dtype, allowed: f64) {
    for (rows, width) in [(1_usize, 1_usize), (7, 64), (8, 5), (9, 33), (1000, 128)] {
        let mut random = Random((rows * width) as u64);
        let [log_a, phase] = tokens(&mut random, rows.div_ceil(64), 64);
        let mut numbers = |len: usize| -> Vec<E> {
            (0..len).map(|_| E::narrow(random.between(-1.0, 1.0).into())).collect()
        };
        let (x, dy) = (numbers(rows * width), numbers(2 * rows * width));
        let mut want = [vec![0.0; dy.len()], vec![0.0; x.len()]];
        let mut sums = [vec![0.0; rows], vec![0.0; rows]];
        let sizes: Vec<f64> = log_a.iter().take(rows).map(|log| log.exp()).collect();
        for row in 0..rows {
            let (sine, cosine) = phase[row].sin_cos();
            for i in 0..width {
                let (at, re) = (row * width + i, 2 * row * width + i);
                let (value, size) = (x[at].widen().re, sizes[row]);
                let (dre, dim) = (dy[re].widen().re, dy[re + width].widen().re);
                want[0][re] = value * size * cosine;
                want[0][re + width] = value * size * sine;
                want[1][at] = size * (cosine * dre + sine * dim);
                sums[0][row] += value * want[1][at];
                sums[1][row] += value * size * (cosine * dim - sine * dre);
            }
        }
        let spread = |times: usize| -> Vec<f64> {
            sizes.iter().flat_map(|&size| std::iter::repeat_n(size, times)).collect()
        };

        let (log_a, phase) = (up(cuda, &log_a), up(cuda, &phase));
        let (x, dy) = (up(cuda, &x), up(cuda, &dy));
        poison(cuda);
        let place = |len| DeviceVec::<E>::uninit(cuda, Stream::default(), len).unwrap();
        let (y, dx) = (place(2 * rows * width), place(rows * width));
        let place = || DeviceVec::<f64>::uninit(cuda, Stream::default(), rows).unwrap();
        let (dlog_a, dphase) = (place(), place());
        let forward = TurnArgs {
            dtype,
            rows,
            width,
            x: x.ptr(),
            log_a: log_a.ptr(),
            phase: phase.ptr(),
            y: y.ptr(),
        };
        let adjoint = TurnAdjointArgs {
            forward,
            dy: dy.ptr(),
            dx: dx.ptr(),
            dlog_a: dlog_a.ptr(),
            dphase: dphase.ptr(),
        };
        // SAFETY: the vectors have these lengths, and live until the download.
        unsafe {
            cuda.turn(Stream::default(), &forward).unwrap();
            cuda.turn_adjoint(Stream::default(), &adjoint).unwrap();
        }
        assert_near("y", &down(cuda, &y), &want[0], &spread(2 * width), allowed);
        assert_near("dx", &down(cuda, &dx), &want[1], &spread(width), 2.0 * allowed);
        let sizes: Vec<f64> = sizes.iter().map(|size| 2.0 * size * width as f64).collect();
        assert_near("dlog_a", &down(cuda, &dlog_a), &sums[0], &sizes, allowed);
        assert_near("dphase", &down(cuda, &dphase), &sums[1], &sizes, allowed);
    }
}

#[test]
fn scores_are_weighed_as_in_double_precision() {
    let Some(cuda) = device() else { return };
    check_weigh::<f32>(&cuda, Dtype::F32, 4e-7);
    check_weigh::<f64>(&cuda, Dtype::F64, 1e-14);
}

#[test]
fn rows_are_turned_as_in_double_precision() {
    let Some(cuda) = device() else { return };
    check_turn::<f32>(&cuda, Dtype::F32, 1e-6);
    check_turn::<f64>(&cuda, Dtype::F64, 1e-14);
}
