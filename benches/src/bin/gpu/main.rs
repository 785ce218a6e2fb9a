//! Times the CUDA kernels beside a copy of the device's memory: one JSON object a line.
//!
//! Each answer is checked against a loop in double precision, on some channels, before it is timed; one
//! that fails is reported as failed. Times are medians over launches between two events.

mod around;
mod clock;
mod oracle;
mod report;
mod work;

use clock::Clock;
use gateloop_scan::ScanShape;
use gateloop_scan::cuda::{Cuda, CudaError, Dtype, Operation};
use std::env;
use std::path::Path;
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

/// For a machine that only stands in for a GPU: whether answers are right, the rates of nothing.
const TINY: [[usize; 3]; 2] = [[2, 300, 64], [1, 40, 36]];

/// How much there is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    /// Every other shape.
    Quick,
    /// Shapes of some thousand numbers.
    Tiny,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if let [_, option, folder, day] = &arguments[..]
        && option == "--report"
    {
        return match report::run(Path::new(folder), day) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let asked = |option: &str| arguments.iter().any(|argument| argument == option);
    let extent = match (asked("--quick"), asked("--tiny")) {
        (_, true) => Extent::Tiny,
        (true, false) => Extent::Quick,
        (false, false) => Extent::All,
    };
    match run(extent) {
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
fn run(extent: Extent) -> Result<bool, CudaError> {
    let cuda = Cuda::device(0)?;
    let clock = Clock::new(&cuda)?;
    println!(
        "{{\"device\":\"{}\",\"multiprocessors\":{}}}",
        cuda.name(),
        cuda.limits().multiprocessors
    );
    let most = if extent == Extent::Tiny { 1 << 20 } else { 1 << 30 };
    let copy = clock.copy_rate(most)?;
    println!("{{\"work\":\"copy\",\"bytes\":{most},\"gb_s\":{copy:.0}}}");
    let report = Report { clock: &clock, most, copy };
    let shapes: &[_] = if extent == Extent::Tiny { &TINY } else { &SHAPES };
    let step = if extent == Extent::Quick { 2 } else { 1 };
    let mut right = true;
    for (i, &dims) in shapes.iter().enumerate().step_by(step) {
        let [batch, seqlen, channels] = dims;
        let shape = ScanShape::new(batch, seqlen, channels)?;
        for operation in Operation::ALL {
            for dtype in [Dtype::F32, Dtype::C64, Dtype::Bf16, Dtype::F64] {
                // Double precision of the largest shapes would take most of the time and the memory.
                let is_large = extent != Extent::Tiny && i < 2;
                if !operation.takes(dtype) || (dtype == Dtype::F64 && is_large) {
                    continue;
                }
                let work = Work::new(&cuda, operation, dtype, shape)?;
                let (error, bytes) = (work.check()?, work.bytes());
                let of = Of { name: operation.name(), dtype, dims, error, bytes };
                right &= report.print(&of, &|| work.launch())?;
            }
        }
    }
    let rows = if extent == Extent::Tiny { 128 } else { 32 * 1024 };
    for work in around::all(&cuda, rows)? {
        let (error, bytes) = (work.check()?, work.bytes);
        let of = Of { name: work.name, dtype: work.dtype, dims: work.shape, error, bytes };
        right &= report.print(&of, &|| work.launch())?;
    }
    Ok(right)
}

/// What was computed, and how far off it is.
struct Of {
    name: &'static str,
    dtype: Dtype,
    dims: [usize; 3],
    error: f64,
    bytes: usize,
}

struct Report<'a> {
    clock: &'a Clock,
    /// Bytes of the longest copy.
    most: usize,
    /// Its rate in GB/s.
    copy: f64,
}

impl Report<'_> {
    /// Times what is right, and prints it; whether it is.
    fn print(
        &self,
        of: &Of,
        launch: &dyn Fn() -> Result<(), CudaError>,
    ) -> Result<bool, CudaError> {
        let Of { name, dtype, dims, error, bytes } = of;
        let head = format!(
            "\"work\":\"{name}\",\"dtype\":\"{}\",\"shape\":{dims:?},\"rel_error\":{error:.1e}",
            dtype.name()
        );
        if *error > oracle::allowed(*dtype) {
            println!("{{{head},\"failed\":true}}");
            return Ok(false);
        }
        let ms = self.clock.median(launch)?;
        let rate = *bytes as f64 / ms / 1e6;
        // The same bytes through a copy: what launch and ramp leave of the bandwidth at this size.
        let same = self.clock.copy_rate((bytes / 2).min(self.most))?;
        println!(
            "{{{head},\"ms\":{ms:.4},\"gb_s\":{rate:.0},\"of_copy\":{:.3},\"of_copy_of_as_many\":{:.3}}}",
            rate / self.copy,
            rate / same
        );
        Ok(true)
    }
}
