//! Heads of any width, forward and adjoint, in f32: operations a second, of the multiplications that a chunk needs.
//!
//! `cargo bench -p gateloop-benches --bench wide_heads`. An answer that differs from the naive scan's is reported as
//! FAILED and not timed.

// Criterion's macros make public functions without documentation.
#![allow(missing_docs)]

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use gateloop_benches::operands;
use gateloop_scan::gate_loop::{
    Rows, RowsMut, WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates,
};
use gateloop_scan::{Algorithm, Complex, Scan, ScanShape, Tolerance};
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// B, T, H, d
const WORKLOADS: [[usize; 4]; 4] =
    [[4, 256, 8, 64], [1, 4096, 8, 64], [1, 4096, 4, 128], [1, 4096, 16, 32]];

fn all(criterion: &mut Criterion) {
    for [batch, seqlen, heads, head_dim] in WORKLOADS {
        let name = format!("wide-heads-f32/{batch}x{seqlen}x{heads}x{head_dim}");
        let mut group = criterion.benchmark_group(&name);
        group.sample_size(10).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_secs(1));
        if let Err(error) = measure(&mut group, [batch, seqlen, heads, head_dim]) {
            println!("FAILED {name}: {error}");
        }
        group.finish();
    }
}

/// The state of head 0 of sequence 0 by the naive scan, read out.
fn oracle(
    operands: [&[f32]; 3],
    decays: &[Complex<f32>],
    [seqlen, heads, d]: [usize; 3],
) -> Result<Vec<f32>> {
    let row = |x: usize, t: usize| &operands[x][t * heads * d..][..d];
    let shape = ScanShape::new(1, seqlen, d * d)?;
    let (mut a, mut b) = (Vec::with_capacity(shape.len()), Vec::with_capacity(shape.len()));
    for t in 0..seqlen {
        let (k, v) = (row(1, t), row(2, t));
        b.extend(k.iter().flat_map(|k| v.iter().map(move |v| Complex::from(k * v))));
        a.extend(std::iter::repeat_n(decays[t * heads], d * d));
    }
    let h = Scan::new(shape, &a, &b)?.run(Algorithm::Naive)?;
    let mut y = vec![0.0; seqlen * d];
    for (t, state) in h.chunks_exact(d * d).enumerate() {
        for (&q, state) in row(0, t).iter().zip(state.chunks_exact(d)) {
            for (y, h) in y[t * d..].iter_mut().zip(state) {
                *y += q * h.re;
            }
        }
    }
    Ok(y)
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    [batch, seqlen, heads, d]: [usize; 4],
) -> Result<()> {
    let shape = ScanShape::new(batch, seqlen, heads * d)?;
    let of_heads = ScanShape::new(batch, seqlen, heads)?;
    let (k, v) = operands::<f32>(shape);
    let q = v.clone();
    let (moduli, phase) = operands::<f32>(of_heads);
    let log_magnitude: Vec<f32> = moduli.iter().map(|x| x.ln()).collect();
    let rows = |name, x| Rows::contiguous(name, x, shape);
    let operator = WideHeads::new(
        rows("q", &q)?,
        rows("k", &k)?,
        rows("v", &v)?,
        Rows::contiguous("log_magnitude", &log_magnitude, of_heads)?,
        Rows::contiguous("phase", &phase, of_heads)?,
    )?;
    let mut y = vec![0.0; shape.len()];
    let mut entries = vec![0.0; operator.entries_len()];
    let states = WideStates { h_last: None, entries: Some(&mut entries) };
    operator.forward_into(RowsMut::contiguous("y", &mut y, shape)?, states)?;

    let checked = seqlen.min(256);
    let decays: Vec<Complex<f32>> =
        moduli.iter().zip(&phase).map(|(&r, &p)| Complex::from_polar(r, p)).collect();
    let expected = oracle([&q, &k, &v], &decays, [checked, heads, d])?;
    let found: Vec<f32> =
        y.chunks_exact(heads * d).take(checked).flat_map(|row| &row[..d]).copied().collect();
    Tolerance::of::<f32>(checked * d).times(4.0).check_uniform(&found, &expected)?;

    // Of each number of the operands: `triangles` products with half of the chunk's tokens, and `states` with the parts
    // of a state. Two operations are one multiplication and addition.
    let operations = |triangles: usize, states: usize| {
        let products = triangles * operator.chunk_len() / 2 + states * 2 * d;
        Throughput::Elements(2 * (shape.len() * products) as u64)
    };
    // q.k and the sums over v; what is added to a state, and what is read from it.
    group.throughput(operations(2, 2));
    group.bench_function("forward", |bencher| {
        bencher.iter(|| {
            let states = WideStates { h_last: None, entries: Some(&mut entries) };
            operator.forward_into(RowsMut::contiguous("y", black_box(&mut y), shape)?, states)
        });
    });
    let [mut dq, mut dk, mut dv] = [0; 3].map(|_| vec![0.0; shape.len()]);
    let [mut dlog_magnitude, mut dphase] = [0; 2].map(|_| vec![0.0; of_heads.len()]);
    // q.k and dy.v, and the gradients of q, k and v; of a state what is added, and one product for each of them.
    group.throughput(operations(5, 4));
    group.bench_function("adjoint", |bencher| {
        bencher.iter(|| {
            let grads = WideHeadsGrads {
                dq: RowsMut::contiguous("dq", &mut dq, shape)?,
                dk: RowsMut::contiguous("dk", &mut dk, shape)?,
                dv: RowsMut::contiguous("dv", &mut dv, shape)?,
                dlog_magnitude: RowsMut::contiguous(
                    "dlog_magnitude",
                    &mut dlog_magnitude,
                    of_heads,
                )?,
                dphase: RowsMut::contiguous("dphase", &mut dphase, of_heads)?,
                dh0: None,
            };
            let dy = Rows::contiguous("dy", &v, shape)?;
            operator.adjoint_into(WideHeadsUpstream { entries: &entries, dy, dh_last: None }, grads)
        });
    });
    Ok(())
}

criterion_group!(benches, all);
criterion_main!(benches);
