//! The norm and the gate around the operators on a device, against loops in double precision.

use crate::data::{Random, down, poison, up};
use crate::device::device;
use gateloop_scan::ScanElement;
use gateloop_scan::cuda::{
    Cuda, CudaError, DeviceElement, DeviceVec, Dtype, RmsNormAdjointArgs, RmsNormArgs, RowLength,
    SiluGateAdjointArgs, SiluGateArgs, Stream,
};

fn numbers<E: ScanElement>(random: &mut Random, len: usize, size: f64) -> Vec<E> {
    (0..len).map(|_| E::narrow(random.between(-size, size).into())).collect()
}

fn wide<E: ScanElement>(data: &[E]) -> Vec<f64> {
    data.iter().map(|x| x.widen().re).collect()
}

fn place<E: DeviceElement>(cuda: &Cuda, len: usize) -> DeviceVec<E> {
    DeviceVec::uninit(cuda, Stream::default(), len).unwrap()
}

/// Within `allowed` of the largest.
fn assert_near(what: &str, got: &[f64], want: &[f64], allowed: f64) {
    let largest = want.iter().fold(1e-30_f64, |largest, x| largest.max(x.abs()));
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= allowed * largest, "{what}[{i}]: {got} for {want}");
    }
}

/// y, dx and dgamma of a norm.
struct Norm {
    y: Vec<f64>,
    dx: Vec<f64>,
    dgamma: Vec<f64>,
}

fn norm(x: &[f64], gamma: &[f64], dy: &[f64], shortcut: &[f64], length: RowLength) -> Norm {
    let width = gamma.len();
    let scale = (width as f64).sqrt();
    let mut norm = Norm { y: Vec::new(), dx: Vec::new(), dgamma: vec![0.0; width] };
    for ((x, dy), shortcut) in
        x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(shortcut.chunks_exact(width))
    {
        let squares: f64 = x.iter().map(|x| x * x).sum();
        let inverse = match length {
            RowLength::Clamped => 1.0 / squares.sqrt().max(1e-12),
            RowLength::Epsilon => 1.0 / (squares + 1e-5).sqrt(),
        };
        let terms = x.iter().zip(gamma).zip(dy);
        let along: f64 = terms.map(|((x, gamma), dy)| x * inverse * gamma * dy).sum();
        for i in 0..width {
            let u = x[i] * inverse;
            norm.y.push(u * scale * gamma[i]);
            norm.dx.push(scale * inverse * (gamma[i] * dy[i] - u * along) + shortcut[i]);
            norm.dgamma[i] += scale * u * dy[i];
        }
    }
    norm
}

fn check_norm<E: ScanElement + DeviceElement>(cuda: &Cuda, dtype: Dtype, allowed: f64) {
    for (rows, width) in [(2, 5), (40, 36), (9, 35), (700, 512), (20, 513), (5, 4096), (33, 1500)] {
        for length in [RowLength::Clamped, RowLength::Epsilon] {
            let mut random = Random((rows * width) as u64);
            let x = numbers::<E>(&mut random, rows * width, 3.0);
            let gamma = numbers::<E>(&mut random, width, 1.0);
            let dy = numbers::<E>(&mut random, rows * width, 1.0);
            let shortcut = numbers::<E>(&mut random, rows * width, 1.0);
            for with_shortcut in [false, true] {
                let added = if with_shortcut { wide(&shortcut) } else { vec![0.0; x.len()] };
                let want = norm(&wide(&x), &wide(&gamma), &wide(&dy), &added, length);
                let (x, gamma, dy) = (up(cuda, &x), up(cuda, &gamma), up(cuda, &dy));
                let shortcut = with_shortcut.then(|| up(cuda, &shortcut));
                poison(cuda);
                let (y, dx) = (place::<E>(cuda, rows * width), place::<E>(cuda, rows * width));
                let forward = RmsNormArgs {
                    dtype,
                    y_dtype: dtype,
                    rows,
                    width,
                    length,
                    x: x.ptr(),
                    gamma: gamma.ptr(),
                    y: y.ptr(),
                };
                let parts = forward.parts(cuda.limits());
                let dgamma = place::<E>(cuda, parts * width);
                let adjoint = RmsNormAdjointArgs {
                    forward,
                    dy: dy.ptr(),
                    dshortcut: shortcut.as_ref().map_or(0, DeviceVec::ptr),
                    dx: dx.ptr(),
                    dgamma: dgamma.ptr(),
                };
                // SAFETY: the vectors have these lengths, and live until the download.
                unsafe {
                    cuda.rms_norm(Stream::default(), &forward).unwrap();
                    cuda.rms_norm_adjoint(Stream::default(), &adjoint).unwrap();
                }
                assert_near("y", &wide(&down(cuda, &y)), &want.y, allowed);
                assert_near("dx", &wide(&down(cuda, &dx)), &want.dx, allowed);
                let mut total = vec![0.0; width];
                for (at, part) in wide(&down(cuda, &dgamma)).iter().enumerate() {
                    total[at % width] += part;
                }
                assert_near("dgamma", &total, &want.dgamma, allowed);
            }
        }
    }
}

fn check_gate<E: ScanElement + DeviceElement>(cuda: &Cuda, dtype: Dtype, allowed: f64) {
    // Gates among other columns: at places of 16 bytes, and at others.
    for (rows, width, before, row) in
        [(1, 1, 0, 1), (40, 64, 64, 192), (9, 35, 3, 50), (17, 500, 4, 508)]
    {
        let mut random = Random((rows * width) as u64);
        let [y, d] = [(); 2].map(|()| numbers::<E>(&mut random, rows * width, 2.0));
        let others = numbers::<E>(&mut random, rows * row, 8.0);
        let mut want = [(); 3].map(|()| Vec::new());
        for at in 0..rows * width {
            let g = others[at / width * row + before + at % width].widen().re;
            let (y, d, open) = (y[at].widen().re, d[at].widen().re, 1.0 / (1.0 + (-g).exp()));
            want[0].push(y * g * open);
            want[1].push(d * g * open);
            want[2].push(d * y * open * (1.0 + g * (1.0 - open)));
        }
        let (y, d, gates) = (up(cuda, &y), up(cuda, &d), up(cuda, &others));
        let dgates = up(cuda, &others);
        poison(cuda);
        let (gated, dy) = (place::<E>(cuda, rows * width), place::<E>(cuda, rows * width));
        let first = (before * size_of::<E>()) as u64;
        let forward = SiluGateArgs {
            dtype,
            rows,
            width,
            y: y.ptr(),
            gates: gates.ptr() + first,
            gates_stride: row as i64,
            gated: gated.ptr(),
        };
        let adjoint = SiluGateAdjointArgs {
            forward,
            dgated: d.ptr(),
            dy: dy.ptr(),
            dgates: dgates.ptr() + first,
            dgates_stride: row as i64,
        };
        // SAFETY: the vectors have these lengths, and live until the download.
        unsafe {
            cuda.silu_gate(Stream::default(), &forward).unwrap();
            cuda.silu_gate_adjoint(Stream::default(), &adjoint).unwrap();
        }
        assert_near("gated", &wide(&down(cuda, &gated)), &want[0], allowed);
        assert_near("dy", &wide(&down(cuda, &dy)), &want[1], allowed);
        let all = wide(&down(cuda, &dgates));
        let got: Vec<f64> =
            (0..rows * width).map(|at| all[at / width * row + before + at % width]).collect();
        assert_near("dgates", &got, &want[2], allowed);
        // Nothing beside them was written.
        let untouched = |at: &usize| !(before..before + width).contains(&(at % row));
        let others = wide(&others);
        for at in (0..rows * row).filter(untouched) {
            assert!(all[at] == others[at], "dgates at {at}");
        }
    }
}

#[test]
fn rows_are_normed_as_in_double_precision() {
    let Some(cuda) = device() else { return };
    check_norm::<f32>(&cuda, Dtype::F32, 3e-6);
    check_norm::<f64>(&cuda, Dtype::F64, 1e-14);
}

#[test]
fn rows_are_gated_as_in_double_precision() {
    let Some(cuda) = device() else { return };
    check_gate::<f32>(&cuda, Dtype::F32, 1e-6);
    check_gate::<f64>(&cuda, Dtype::F64, 1e-14);
}

#[test]
fn rows_that_no_kernel_takes_are_refused_and_the_device_goes_on() {
    let Some(cuda) = device() else { return };
    let stream = Stream::default();
    let x = up(&cuda, &vec![0.5_f32; 5000]);
    let y = place::<f32>(&cuda, 5000);
    let args = RmsNormArgs {
        dtype: Dtype::F32,
        y_dtype: Dtype::F32,
        rows: 1,
        width: 5000,
        length: RowLength::Clamped,
        x: x.ptr(),
        gamma: x.ptr(),
        y: y.ptr(),
    };
    // SAFETY: every address lies in vectors that outlive the launches, of which those before the last are refused.
    unsafe {
        let refused = cuda.rms_norm(stream, &args).unwrap_err();
        assert!(refused.to_string().contains("at most 4096"), "{refused}");
        let refused = cuda.rms_norm(stream, &RmsNormArgs { width: 50, y: 0, ..args }).unwrap_err();
        assert!(matches!(refused, CudaError::Operand { operand: "y", .. }), "{refused}");
        cuda.rms_norm(stream, &RmsNormArgs { rows: 100, width: 50, ..args }).unwrap();
    }
    cuda.synchronize(stream).unwrap();
}
