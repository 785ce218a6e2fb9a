//! Times the CUDA kernels beside a copy of the device's memory: one JSON object a line.
//!
//! Each answer is checked against a loop in double precision, on some channels, before it is timed; one
//! that fails is reported as failed. Times are medians over launches between two events.

mod clock;
mod oracle;
mod work;

use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{Cuda, CudaError, Dtype, Operation};
use std::env;
use std::process::ExitCode;
use work::Work;

const SHAPES: [[usize; 3]; 8] = [
    [8, 16_384, 1536],
    [8, 8192, 1024],
    [1, 65_536, 512],
    [8, 2048, 1024],
    [16, 16_384, 128],
    [8, 256, 512],
    [1, 1, 512],
    // The states at the ends of chunks, of 32 texts and 8 heads of 64.
    [256, 16, 4096],
];

fn main() -> ExitCode {
    let quick = env::args().any(|argument| argument == "--quick");
    match run(quick) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(CudaError::NoDriver) => {
            println!("skipped: no CUDA driver");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every answer was right.
fn run(quick: bool) -> Result<bool, CudaError> {
    let cuda = Cuda::device(0)?;
    let clock = clock::Clock::new(&cuda)?;
    println!(
        "{{\"device\":\"{}\",\"multiprocessors\":{}}}",
        cuda.name(),
        cuda.limits().multiprocessors
    );
    let copy = clock.copy_rate(1 << 30)?;
    println!("{{\"work\":\"copy\",\"bytes\":{},\"gb_s\":{copy:.0}}}", 1_u64 << 30);
    let mut right = true;
    for (i, dims) in SHAPES.into_iter().enumerate() {
        if quick && i % 2 == 1 {
            continue;
        }
        let [batch, seqlen, channels] = dims;
        let shape = ScanShape::new(batch, seqlen, channels)?;
        for operation in Operation::ALL {
            for dtype in [Dtype::F32, Dtype::C64, Dtype::Bf16, Dtype::F64] {
                // Double precision of the largest shapes would take most of the time and the memory.
                if !operation.takes(dtype) || (dtype == Dtype::F64 && i < 2) {
                    continue;
                }
                let work = Work::new(&cuda, operation, dtype, shape)?;
                let error = work.check()?;
                let head = format!(
                    "\"work\":\"{}\",\"dtype\":\"{}\",\"shape\":{dims:?},\"rel_error\":{error:.1e}",
                    operation.name(),
                    dtype.name()
                );
                if error > oracle::allowed(dtype) {
                    right = false;
                    println!("{{{head},\"failed\":true}}");
                    continue;
                }
                let ms = clock.median(&|| work.launch())?;
                let rate = work.bytes() as f64 / ms / 1e6;
                // The same bytes through a copy: what launch and ramp leave of the bandwidth at this size.
                let same = clock.copy_rate((work.bytes() / 2).min(1 << 30))?;
                println!(
                    "{{{head},\"ms\":{ms:.4},\"gb_s\":{rate:.0},\"of_copy\":{:.3},\"of_copy_of_as_many\":{:.3}}}",
                    rate / copy,
                    rate / same
                );
            }
        }
    }
    Ok(right)
}
