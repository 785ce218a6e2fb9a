//! What stands around the operators in a layer: the norm, the output gate, and what lies between the products of wider heads.

use crate::oracle::{self, C};
use gateloop_scan::cuda::{
    Cuda, CudaError, DeviceVec, Dtype, RmsNormAdjointArgs, RmsNormArgs, RowLength,
    SiluGateAdjointArgs, SiluGateArgs, Stream, TurnAdjointArgs, TurnArgs, WeighAdjointArgs,
    WeighArgs,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokens a chunk, and the width of a head.
const CHUNK: usize = 64;

/// One kernel on one shape.
pub(crate) struct Around<'a> {
    pub(crate) name: &'static str,
    pub(crate) dtype: Dtype,
    /// Rows or chunks, and what each of them is.
    pub(crate) shape: [usize; 3],
    /// Bytes that must move: each input read once, each output written once.
    pub(crate) bytes: usize,
    launch: Box<dyn Fn() -> Result<(), CudaError> + 'a>,
    /// What has been computed and what should have been, in part, after the first launch.
    answers: Box<dyn Fn() -> Result<[Vec<f64>; 2], CudaError> + 'a>,
}

impl Around<'_> {
    pub(crate) fn launch(&self) -> Result<(), CudaError> {
        (self.launch)()
    }

    /// The relative error of some of the answers. Before any other launch: scores are weighed in their place.
    pub(crate) fn check(&self) -> Result<f64, CudaError> {
        self.launch()?;
        let [got, want] = (self.answers)()?.map(|x| x.into_iter().map(C::from).collect::<Vec<_>>());
        Ok(oracle::distance(&got, &want))
    }
}

/// All of them, for so many rows of 512 channels, 8 heads of 64.
pub(crate) fn all(cuda: &Cuda, rows: usize) -> Result<Vec<Around<'_>>, CudaError> {
    let (width, chunks) = (8 * CHUNK, rows / CHUNK * 8);
    Ok(vec![
        norm(cuda, rows, width)?,
        norm_adjoint(cuda, rows, width)?,
        gate(cuda, rows, width)?,
        gate_adjoint(cuda, rows, width)?,
        weigh(cuda, chunks)?,
        weigh_adjoint(cuda, chunks)?,
        turn(cuda, 8 * rows)?,
        turn_adjoint(cuda, 8 * rows)?,
    ])
}

fn reals(seed: u64, count: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// Cut off, not rounded: what is on the device is what the answers are computed from.
fn cut(data: &[f32]) -> Vec<f32> {
    data.iter().map(|x| f32::from_bits(x.to_bits() & 0xffff_0000)).collect()
}

fn upload(cuda: &Cuda, data: &[f32]) -> Result<DeviceVec<f32>, CudaError> {
    DeviceVec::upload(cuda, Stream::default(), data)
}

fn upload_bf16(cuda: &Cuda, data: &[f32]) -> Result<DeviceVec<u8>, CudaError> {
    let bytes: Vec<u8> =
        data.iter().flat_map(|x| ((x.to_bits() >> 16) as u16).to_le_bytes()).collect();
    DeviceVec::upload(cuda, Stream::default(), &bytes)
}

fn room<E: gateloop_scan::cuda::DeviceElement>(
    cuda: &Cuda,
    count: usize,
) -> Result<DeviceVec<E>, CudaError> {
    DeviceVec::uninit(cuda, Stream::default(), count)
}

/// The first numbers of a vector on the device.
fn first(cuda: &Cuda, vec: &DeviceVec<f32>, count: usize) -> Result<Vec<f64>, CudaError> {
    let data = vec.download_range(cuda, Stream::default(), 0..count)?;
    Ok(data.into_iter().map(f64::from).collect())
}

fn first_bf16(cuda: &Cuda, vec: &DeviceVec<u8>, count: usize) -> Result<Vec<f64>, CudaError> {
    let data = vec.download_range(cuda, Stream::default(), 0..2 * count)?;
    let number = |pair: &[u8]| u32::from(u16::from_le_bytes([pair[0], pair[1]])) << 16;
    Ok(data.chunks_exact(2).map(|pair| f64::from(f32::from_bits(number(pair)))).collect())
}

fn wide(data: &[f32]) -> Vec<f64> {
    data.iter().copied().map(f64::from).collect()
}

/// x and gamma of a norm, and the inverse of the first row's length.
struct Rows {
    x: Vec<f32>,
    gamma: Vec<f32>,
    inverse: f64,
}

impl Rows {
    fn new(rows: usize, width: usize) -> Self {
        let (x, gamma) = (reals(1, rows * width), reals(2, width));
        let squares: f64 = wide(&x[..width]).iter().map(|x| x * x).sum();
        Self { inverse: 1.0 / squares.sqrt(), x, gamma }
    }
}

fn norm_args(x: &DeviceVec<f32>, gamma: &DeviceVec<f32>, y: u64) -> RmsNormArgs {
    let width = gamma.len();
    RmsNormArgs {
        dtype: Dtype::F32,
        y_dtype: Dtype::Bf16,
        rows: x.len() / width,
        width,
        length: RowLength::Clamped,
        x: x.ptr(),
        gamma: gamma.ptr(),
        y,
    }
}

fn norm(cuda: &Cuda, rows: usize, width: usize) -> Result<Around<'_>, CudaError> {
    let of = Rows::new(rows, width);
    let (x, gamma) = (upload(cuda, &of.x)?, upload(cuda, &of.gamma)?);
    let y = room::<u8>(cuda, 2 * rows * width)?;
    let args = norm_args(&x, &gamma, y.ptr());
    let scale = of.inverse * (width as f64).sqrt();
    let want: Vec<f64> =
        (0..width).map(|i| f64::from(of.x[i]) * scale * f64::from(of.gamma[i])).collect();
    Ok(Around {
        name: "rms_norm",
        dtype: Dtype::Bf16,
        shape: [rows, 1, width],
        bytes: rows * width * (4 + 2),
        launch: Box::new(move || {
            let _ = (&x, &gamma);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.rms_norm(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first_bf16(cuda, &y, width)?, want.clone()])),
    })
}

fn norm_adjoint(cuda: &Cuda, rows: usize, width: usize) -> Result<Around<'_>, CudaError> {
    let of = Rows::new(rows, width);
    let (dy, around) = (cut(&reals(3, rows * width)), reals(4, rows * width));
    let along: f64 = (0..width)
        .map(|i| f64::from(of.x[i]) * of.inverse * f64::from(of.gamma[i]) * f64::from(dy[i]))
        .sum();
    let scale = of.inverse * (width as f64).sqrt();
    let want: Vec<f64> = (0..width)
        .map(|i| {
            let (u, g) = (f64::from(of.x[i]) * of.inverse, of.gamma[i] * dy[i]);
            scale * (f64::from(g) - u * along) + f64::from(around[i])
        })
        .collect();
    let (x, gamma) = (upload(cuda, &of.x)?, upload(cuda, &of.gamma)?);
    let (dy, around) = (upload_bf16(cuda, &dy)?, upload(cuda, &around)?);
    let forward = norm_args(&x, &gamma, 0);
    let dx = room::<f32>(cuda, rows * width)?;
    let dgamma = room::<f32>(cuda, forward.parts(cuda.limits()) * width)?;
    let args = RmsNormAdjointArgs {
        forward,
        dy: dy.ptr(),
        dshortcut: around.ptr(),
        dx: dx.ptr(),
        dgamma: dgamma.ptr(),
    };
    Ok(Around {
        name: "rms_norm_adjoint",
        dtype: Dtype::Bf16,
        shape: [rows, 1, width],
        bytes: rows * width * (4 + 2 + 4 + 4),
        launch: Box::new(move || {
            let _ = (&x, &gamma, &dy, &around, &dgamma);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.rms_norm_adjoint(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first(cuda, &dx, width)?, want.clone()])),
    })
}

fn open(g: f64) -> f64 {
    1.0 / (1.0 + (-g).exp())
}

fn gate(cuda: &Cuda, rows: usize, width: usize) -> Result<Around<'_>, CudaError> {
    let [y, gates] = [5, 6].map(|seed| cut(&reals(seed, rows * width)));
    let want: Vec<f64> =
        (0..width).map(|i| f64::from(y[i]) * f64::from(gates[i]) * open(gates[i].into())).collect();
    let (y, gates) = (upload_bf16(cuda, &y)?, upload_bf16(cuda, &gates)?);
    let gated = room::<u8>(cuda, 2 * rows * width)?;
    let args = gate_args(rows, width, &y, &gates, gated.ptr());
    Ok(Around {
        name: "silu_gate",
        dtype: Dtype::Bf16,
        shape: [rows, 1, width],
        bytes: rows * width * (2 + 2 + 2),
        launch: Box::new(move || {
            let _ = (&y, &gates);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.silu_gate(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first_bf16(cuda, &gated, width)?, want.clone()])),
    })
}

fn gate_args(
    rows: usize,
    width: usize,
    y: &DeviceVec<u8>,
    gates: &DeviceVec<u8>,
    gated: u64,
) -> SiluGateArgs {
    SiluGateArgs {
        dtype: Dtype::Bf16,
        rows,
        width,
        y: y.ptr(),
        gates: gates.ptr(),
        gates_stride: width as i64,
        gated,
    }
}

fn gate_adjoint(cuda: &Cuda, rows: usize, width: usize) -> Result<Around<'_>, CudaError> {
    let [y, gates, d] = [5, 6, 7].map(|seed| cut(&reals(seed, rows * width)));
    let want: Vec<f64> = (0..width)
        .map(|i| {
            let (g, through) = (f64::from(gates[i]), f64::from(d[i]) * f64::from(y[i]));
            through * open(g) * (1.0 + g * (1.0 - open(g)))
        })
        .collect();
    let (y, gates, d) =
        (upload_bf16(cuda, &y)?, upload_bf16(cuda, &gates)?, upload_bf16(cuda, &d)?);
    let (dy, dgates) = (room::<u8>(cuda, 2 * rows * width)?, room::<u8>(cuda, 2 * rows * width)?);
    let args = SiluGateAdjointArgs {
        forward: gate_args(rows, width, &y, &gates, 0),
        dgated: d.ptr(),
        dy: dy.ptr(),
        dgates: dgates.ptr(),
        dgates_stride: width as i64,
    };
    Ok(Around {
        name: "silu_gate_adjoint",
        dtype: Dtype::Bf16,
        shape: [rows, 1, width],
        bytes: rows * width * (2 + 2 + 2 + 2 + 2),
        launch: Box::new(move || {
            let _ = (&y, &gates, &d, &dy);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.silu_gate_adjoint(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first_bf16(cuda, &dgates, width)?, want.clone()])),
    })
}

/// Sums of ln|a| and arg a from the start of each chunk.
fn sums(tokens: usize) -> [Vec<f64>; 2] {
    let steps = reals(8, tokens).into_iter().zip(reals(9, tokens));
    let mut sums = [Vec::with_capacity(tokens), Vec::with_capacity(tokens)];
    let mut now = [0.0, 0.0];
    for (t, (size, angle)) in steps.enumerate() {
        if t % CHUNK == 0 {
            now = [0.0, 0.0];
        }
        now[0] -= 0.05 * (1.0 + f64::from(size));
        now[1] += 3.0 * f64::from(angle);
        sums[0].push(now[0]);
        sums[1].push(now[1]);
    }
    sums
}

/// What the second of the first chunk's rows of pairs is weighed by.
fn second_row([log_a, phase]: &[Vec<f64>; 2]) -> Vec<f64> {
    let weight = |j: usize| (log_a[1] - log_a[j]).exp() * (phase[1] - phase[j]).cos();
    (0..CHUNK).map(|j| if j <= 1 { weight(j) } else { 0.0 }).collect()
}

fn weigh_args(
    chunks: usize,
    scores: &DeviceVec<f32>,
    [log_a, phase]: &[DeviceVec<f64>; 2],
) -> WeighArgs {
    WeighArgs {
        dtype: Dtype::F32,
        chunks,
        chunk_len: CHUNK,
        scores: scores.ptr(),
        log_a: log_a.ptr(),
        phase: phase.ptr(),
    }
}

fn upload_sums(cuda: &Cuda, sums: &[Vec<f64>; 2]) -> Result<[DeviceVec<f64>; 2], CudaError> {
    let up = |data: &[f64]| DeviceVec::upload(cuda, Stream::default(), data);
    Ok([up(&sums[0])?, up(&sums[1])?])
}

fn weigh(cuda: &Cuda, chunks: usize) -> Result<Around<'_>, CudaError> {
    let (sums, data) = (sums(chunks * CHUNK), reals(10, chunks * CHUNK * CHUNK));
    let want: Vec<f64> =
        second_row(&sums).iter().zip(&data[CHUNK..]).map(|(w, &s)| w * f64::from(s)).collect();
    let (scores, sums) = (upload(cuda, &data)?, upload_sums(cuda, &sums)?);
    let args = weigh_args(chunks, &scores, &sums);
    Ok(Around {
        name: "heads_weigh",
        dtype: Dtype::F32,
        shape: [chunks, CHUNK, CHUNK],
        bytes: 8 * data.len() + 16 * chunks * CHUNK,
        launch: Box::new(move || {
            let _ = &sums;
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.weigh(Stream::default(), &args) }
        }),
        answers: Box::new(move || {
            Ok([first(cuda, &scores, 2 * CHUNK)?.split_off(CHUNK), want.clone()])
        }),
    })
}

fn weigh_adjoint(cuda: &Cuda, chunks: usize) -> Result<Around<'_>, CudaError> {
    let tokens = chunks * CHUNK;
    let (sums, data) = (sums(tokens), reals(10, tokens * CHUNK));
    let gradient = reals(11, tokens * CHUNK);
    let want: Vec<f64> =
        second_row(&sums).iter().zip(&gradient[CHUNK..]).map(|(w, &d)| w * f64::from(d)).collect();
    let (scores, sums) = (upload(cuda, &data)?, upload_sums(cuda, &sums)?);
    let dscores = upload(cuda, &gradient)?;
    let parts = [(); 4].map(|()| room::<f64>(cuda, tokens * WeighAdjointArgs::tiles(CHUNK)));
    let [log_later, log_earlier, phase_later, phase_earlier] = parts;
    let parts = [log_later?, log_earlier?, phase_later?, phase_earlier?];
    let args = WeighAdjointArgs {
        forward: weigh_args(chunks, &scores, &sums),
        dscores: dscores.ptr(),
        log_later: parts[0].ptr(),
        log_earlier: parts[1].ptr(),
        phase_later: parts[2].ptr(),
        phase_earlier: parts[3].ptr(),
    };
    Ok(Around {
        name: "heads_weigh_adjoint",
        dtype: Dtype::F32,
        shape: [chunks, CHUNK, CHUNK],
        bytes: 16 * data.len() + (16 + 32) * tokens,
        launch: Box::new(move || {
            let _ = (&sums, &scores, &parts);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.weigh_adjoint(Stream::default(), &args) }
        }),
        answers: Box::new(move || {
            Ok([first(cuda, &dscores, 2 * CHUNK)?.split_off(CHUNK), want.clone()])
        }),
    })
}

fn turn_args(x: &DeviceVec<f32>, [log_a, phase]: &[DeviceVec<f64>; 2], y: u64) -> TurnArgs {
    TurnArgs {
        dtype: Dtype::F32,
        rows: log_a.len(),
        width: CHUNK,
        x: x.ptr(),
        log_a: log_a.ptr(),
        phase: phase.ptr(),
        y,
    }
}

fn turn(cuda: &Cuda, rows: usize) -> Result<Around<'_>, CudaError> {
    let (sums, data) = (sums(rows), reals(12, rows * CHUNK));
    let by = C::from_polar(sums[0][0].exp(), sums[1][0]);
    let part = |of: f64| data[..CHUNK].iter().map(move |&x| f64::from(x) * of);
    let want: Vec<f64> = part(by.re).chain(part(by.im)).collect();
    let (x, sums) = (upload(cuda, &data)?, upload_sums(cuda, &sums)?);
    let y = room::<f32>(cuda, 2 * data.len())?;
    let args = turn_args(&x, &sums, y.ptr());
    Ok(Around {
        name: "heads_turn",
        dtype: Dtype::F32,
        shape: [rows, 1, CHUNK],
        bytes: 12 * data.len() + 16 * rows,
        launch: Box::new(move || {
            let _ = (&x, &sums);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.turn(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first(cuda, &y, 2 * CHUNK)?, want.clone()])),
    })
}

fn turn_adjoint(cuda: &Cuda, rows: usize) -> Result<Around<'_>, CudaError> {
    let (sums, data) = (sums(rows), reals(12, rows * CHUNK));
    let gradient = reals(13, 2 * rows * CHUNK);
    let by = C::from_polar(sums[0][0].exp(), sums[1][0]);
    let want: Vec<f64> = (0..CHUNK)
        .map(|i| by.re * f64::from(gradient[i]) + by.im * f64::from(gradient[CHUNK + i]))
        .collect();
    let (x, sums) = (upload(cuda, &data)?, upload_sums(cuda, &sums)?);
    let (dy, dx) = (upload(cuda, &gradient)?, room::<f32>(cuda, data.len())?);
    let (dlog_a, dphase) = (room::<f64>(cuda, rows)?, room::<f64>(cuda, rows)?);
    let args = TurnAdjointArgs {
        forward: turn_args(&x, &sums, 0),
        dy: dy.ptr(),
        dx: dx.ptr(),
        dlog_a: dlog_a.ptr(),
        dphase: dphase.ptr(),
    };
    Ok(Around {
        name: "heads_turn_adjoint",
        dtype: Dtype::F32,
        shape: [rows, 1, CHUNK],
        bytes: 16 * data.len() + 32 * rows,
        launch: Box::new(move || {
            let _ = (&x, &sums, &dy, &dlog_a, &dphase);
            // SAFETY: the vectors have the lengths that are told.
            unsafe { cuda.turn_adjoint(Stream::default(), &args) }
        }),
        answers: Box::new(move || Ok([first(cuda, &dx, CHUNK)?, want.clone()])),
    })
}
