//! Lesson 4: the same scan and its gradient on a GPU.
//!
//! `cargo run --release -p gateloop-scan --features cuda --example 04-cuda [SEQLEN [CHANNELS]]`

use gateloop_scan::cuda::{Cuda, DeviceVec, Stream};
use gateloop_scan::{Algorithm, Scan, ScanShape, Tolerance};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse::<usize>());
    let seqlen = sizes.next().transpose()?.unwrap_or(16_384);
    let channels = sizes.next().transpose()?.unwrap_or(256);
    if !Cuda::is_available() {
        println!("skipped: no CUDA driver");
        return Ok(());
    }
    // One object a device, whoever asks; work queues up in a stream, here the default one.
    let cuda = Cuda::device(0)?;
    let stream = Stream::default();
    println!("{}: {seqlen} tokens x {channels} channels, f32", cuda.name());

    let shape = ScanShape::new(1, seqlen, channels)?;
    let a: Vec<f32> = (0..shape.len()).map(|i| 0.9 + 0.1 * (i as f32).sin()).collect();
    let b: Vec<f32> = (0..shape.len()).map(|i| (0.7 * i as f32).cos()).collect();
    let a_device = DeviceVec::upload(&cuda, stream, &a)?;
    let b_device = DeviceVec::upload(&cuda, stream, &b)?;

    // The first launch also has the driver compile the kernels; the second shows what a scan costs.
    for name in ["first launch", "second launch"] {
        let start = Instant::now();
        cuda.run_scan(stream, shape, &a_device, &b_device, None, None, false)?;
        cuda.synchronize(stream)?;
        println!("{name:<16}{:>10.3} ms", start.elapsed().as_secs_f64() * 1e3);
    }
    let (h, last) = cuda.run_scan(stream, shape, &a_device, &b_device, None, None, false)?;
    let h_host = h.download(&cuda, stream)?;

    let scan = Scan::new(shape, &a, &b)?;
    let start = Instant::now();
    let want = scan.run(Algorithm::Auto)?;
    println!("{:<16}{:>10.3} ms", "on the CPU", start.elapsed().as_secs_f64() * 1e3);
    let tolerance = Tolerance::of::<f32>(seqlen);
    tolerance.check(&h_host, &want, &scan.magnitude()?).map_err(|found| format!("h: {found:?}"))?;
    assert_eq!(last.download(&cuda, stream)?, scan.last_state(&h_host)?);

    // The gradient of sum(h). The states stay on the device.
    let ones = vec![1.0_f32; shape.len()];
    let dh = DeviceVec::upload(&cuda, stream, &ones)?;
    let (_, db, _) =
        cuda.run_scan_adjoint(stream, shape, &a_device, &h, None, None, false, &dh, None)?;
    let grads = scan.adjoint(Algorithm::Auto, &want, &ones, None)?;
    let sizes = scan.adjoint_magnitude(&ones, None)?;
    tolerance
        .check(&db.download(&cuda, stream)?, &grads.db, &sizes.db)
        .map_err(|found| format!("db: {found:?}"))?;
    println!("states and gradients agree with the CPU's");
    Ok(())
}
