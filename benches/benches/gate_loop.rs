//! The fused operators, forward and adjoint, on one long sequence and on a training batch.
//!
//! `cargo bench -p gateloop-benches --bench gate_loop`; a filter selects workloads, as in `-- 1x65536`.
//! An answer that differs from the naive scan's is reported as FAILED and not timed.

// Criterion's macros make public functions without documentation.
#![allow(missing_docs)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use gateloop_benches::{Sample, Workload, operands};
use gateloop_scan::gate_loop::{
    GateLoop, GateLoopGrads, Rows, RowsMut, SimpleGateLoop, SimpleGateLoopGrads, States, Upstream,
};
use gateloop_scan::{Algorithm, Complex, Scan, ScanShape, Tolerance};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn both(criterion: &mut Criterion) {
    for workload in &Workload::SCAN[..2] {
        for (name, measure) in [
            ("simple", simple as fn(&mut BenchmarkGroup<'_, WallTime>, ScanShape) -> Result<()>),
            ("max-heads", max_heads),
        ] {
            let mut group = criterion.benchmark_group(format!("{name}-f32/{workload}"));
            group.sample_size(10).warm_up_time(Duration::from_millis(200));
            group.measurement_time(Duration::from_secs(1));
            let done =
                workload.shape().map_err(Into::into).and_then(|shape| measure(&mut group, shape));
            if let Err(error) = done {
                println!("FAILED {name} {workload}: {error}");
            }
            group.finish();
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// y = q Re(h), by the naive scan.
fn readout<E: Sample>(shape: ScanShape, a: &[E], b: &[E], q: &[f32]) -> Result<Vec<f32>> {
    let h = Scan::new(shape, a, b)?.run(Algorithm::Naive)?;
    Ok(q.iter().zip(h).map(|(&q, h)| q * h.widen().re as f32).collect())
}

fn check(shape: ScanShape, y: &[f32], expected: &[f32]) -> Result<()> {
    // A gate and a scan that round alike, and a product.
    let tolerance = Tolerance::of::<f32>(shape.seqlen).times(4.0);
    Ok(tolerance.check_uniform(y, expected)?)
}

fn simple(group: &mut BenchmarkGroup<'_, WallTime>, shape: ScanShape) -> Result<()> {
    let (z, kv) = operands::<f32>(shape);
    let q = kv.clone();
    let rows = |name, x| Rows::contiguous(name, x, shape);
    let operator = SimpleGateLoop::new(rows("q", &q)?, rows("kv", &kv)?, rows("z", &z)?)?;
    let mut y = vec![0.0; shape.len()];
    let mut checkpoints = vec![0.0; operator.checkpoints_len()];
    let states = States { h_last: None, checkpoints: Some(&mut checkpoints) };
    operator.forward_into(RowsMut::contiguous("y", &mut y, shape)?, states)?;
    let a: Vec<f32> = z.iter().copied().map(sigmoid).collect();
    check(shape, &y, &readout(shape, &a, &kv, &q)?)?;

    let bytes = (shape.len() * size_of::<f32>()) as u64;
    group.throughput(Throughput::Bytes(4 * bytes));
    group.bench_function("forward", |bencher| {
        bencher.iter(|| {
            operator.forward_into(
                RowsMut::contiguous("y", black_box(&mut y), shape)?,
                States::default(),
            )
        });
    });
    let [mut dq, mut dkv, mut dz] = [0; 3].map(|_| vec![0.0; shape.len()]);
    group.throughput(Throughput::Bytes(7 * bytes));
    group.bench_function("adjoint", |bencher| {
        bencher.iter(|| {
            let grads = SimpleGateLoopGrads {
                dq: RowsMut::contiguous("dq", &mut dq, shape)?,
                dkv: RowsMut::contiguous("dkv", &mut dkv, shape)?,
                dz: RowsMut::contiguous("dz", &mut dz, shape)?,
                dh0: None,
            };
            let dy = Rows::contiguous("dy", &kv, shape)?;
            operator.adjoint_into(Upstream { checkpoints: &checkpoints, dy, dh_last: None }, grads)
        });
    });
    Ok(())
}

fn max_heads(group: &mut BenchmarkGroup<'_, WallTime>, shape: ScanShape) -> Result<()> {
    let gates = ScanShape::new(shape.batch, shape.seqlen, 2 * shape.channels)?;
    let (k, v) = operands::<f32>(shape);
    let (_, z) = operands::<f32>(gates);
    let q = v.clone();
    let rows = |name, x| Rows::contiguous(name, x, shape);
    let operator = GateLoop::new(
        rows("q", &q)?,
        rows("k", &k)?,
        rows("v", &v)?,
        Rows::contiguous("z", &z, gates)?,
    )?;
    let mut y = vec![0.0; shape.len()];
    let mut checkpoints = vec![Complex::<f32>::ZERO; operator.checkpoints_len()];
    let states = States { h_last: None, checkpoints: Some(&mut checkpoints) };
    operator.forward_into(RowsMut::contiguous("y", &mut y, shape)?, states)?;
    let decay = |z: &[f32]| {
        let z = Complex::new(z[0], z[1]);
        Complex::from_polar(sigmoid(z.norm()), z.arg())
    };
    let a: Vec<Complex<f32>> = z.chunks_exact(2).map(decay).collect();
    let kv: Vec<Complex<f32>> = k.iter().zip(&v).map(|(&k, &v)| (k * v).into()).collect();
    check(shape, &y, &readout(shape, &a, &kv, &q)?)?;

    let bytes = (shape.len() * size_of::<f32>()) as u64;
    group.throughput(Throughput::Bytes(6 * bytes));
    group.bench_function("forward", |bencher| {
        bencher.iter(|| {
            operator.forward_into(
                RowsMut::contiguous("y", black_box(&mut y), shape)?,
                States::default(),
            )
        });
    });
    let [mut dq, mut dk, mut dv] = [0; 3].map(|_| vec![0.0; shape.len()]);
    let mut dz = vec![0.0; gates.len()];
    group.throughput(Throughput::Bytes(11 * bytes));
    group.bench_function("adjoint", |bencher| {
        bencher.iter(|| {
            let grads = GateLoopGrads {
                dq: RowsMut::contiguous("dq", &mut dq, shape)?,
                dk: RowsMut::contiguous("dk", &mut dk, shape)?,
                dv: RowsMut::contiguous("dv", &mut dv, shape)?,
                dz: RowsMut::contiguous("dz", &mut dz, gates)?,
                dh0: None,
            };
            let dy = Rows::contiguous("dy", &v, shape)?;
            operator.adjoint_into(Upstream { checkpoints: &checkpoints, dy, dh_last: None }, grads)
        });
    });
    Ok(())
}

criterion_group!(benches, both);
criterion_main!(benches);
