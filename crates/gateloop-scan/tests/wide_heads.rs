//! Heads of any width, against the recurrence token by token in double precision: padded rows, poisoned outputs,
//! guarded neighbours, every cut.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "common/backwards.rs"]
mod backwards;
mod common;
#[path = "common/head_loops.rs"]
mod head_loops;

use backwards::Backwards;
use common::Random;
use gateloop_scan::gate_loop::{
    Real, Rows, RowsMut, WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates,
};
use gateloop_scan::{Complex, ParallelFor, Rayon, ScanElement, ScanError, ScanShape, Tolerance};
use head_loops::{C, Operands, Results};

/// Columns behind the operands' that nobody may touch.
const PADDING: usize = 3;
const POISON: f64 = 1e30;

/// Which decays there are.
#[derive(Debug, Clone, Copy)]
enum Gates {
    Usual,
    /// Close to 1, any angle.
    Slow,
    One,
    /// A third of them exactly zero, the others of any size.
    Forgetting,
    /// So small that products vanish.
    Fast,
}

impl Gates {
    const ALL: [Self; 5] = [Self::Usual, Self::Slow, Self::One, Self::Forgetting, Self::Fast];

    fn draw(self, random: &mut Random) -> [f64; 2] {
        let angle = 6.0 * random.unit() - 3.0;
        match self {
            Self::Usual => [(0.5 + 0.5 * random.unit()).ln(), angle],
            Self::Slow => [-1e-3 * random.unit(), angle],
            Self::One => [0.0, 0.0],
            Self::Forgetting if random.below(3) == 0 => [f64::NEG_INFINITY, angle],
            Self::Forgetting => [random.unit().ln(), angle],
            Self::Fast => [-20.0 - 100.0 * random.unit(), angle],
        }
    }
}

fn narrowed<R: Real>(x: f64) -> f64 {
    R::narrow(x.into()).widen().re
}

/// Numbers that R can hold.
fn operands<R: Real>(dims: [usize; 4], gates: Gates, has_states: bool, seed: u64) -> Operands {
    let [batch, seqlen, heads, d] = dims;
    let mut random = Random(seed);
    let drawn = |random: &mut Random, len: usize| -> Vec<f64> {
        (0..len).map(|_| narrowed::<R>(2.0 * random.unit() - 1.0)).collect()
    };
    let [q, k, v, dy] = [0; 4].map(|_| drawn(&mut random, batch * seqlen * heads * d));
    let (mut log_magnitude, mut phase) = (Vec::new(), Vec::new());
    for _ in 0..batch * seqlen * heads {
        let [log, angle] = gates.draw(&mut random).map(narrowed::<R>);
        log_magnitude.push(log);
        phase.push(angle);
    }
    let mut state = || -> Vec<C> {
        let numbers = drawn(&mut random, 2 * batch * heads * d * d);
        let size = if has_states { 1.0 } else { 0.0 };
        numbers.chunks(2).map(|x| C::new(x[0], x[1]).scale(size)).collect()
    };
    let (h0, dh_last) = (state(), state());
    Operands { dims, q, k, v, log_magnitude, phase, h0, dy, dh_last }
}

/// How the operator is run.
struct How<'h> {
    chunk_len: Option<usize>,
    has_states: bool,
    threads: &'h dyn ParallelFor,
}

fn narrow_all<R: Real>(x: &[f64]) -> Vec<R> {
    x.iter().map(|&x| R::narrow(x.into())).collect()
}

/// An output that was not zero before, between neighbours that nobody may touch.
struct Guarded<R>(Vec<R>);

impl<R: Real> Guarded<R> {
    fn new(len: usize) -> Self {
        Self(vec![R::narrow(POISON.into()); len + 2 * PADDING])
    }

    fn slice(&mut self) -> &mut [R] {
        let len = self.0.len() - 2 * PADDING;
        &mut self.0[PADDING..][..len]
    }

    fn rows(&mut self, operand: &'static str, shape: ScanShape) -> RowsMut<'_, R> {
        RowsMut::contiguous(operand, self.slice(), shape).unwrap()
    }

    /// What was written, after a look at the neighbours.
    fn inner(self) -> Vec<f64> {
        let numbers: Vec<f64> = self.0.iter().map(|x| x.widen().re).collect();
        let (head, rest) = numbers.split_at(PADDING);
        let (inner, tail) = rest.split_at(rest.len() - PADDING);
        let poison = narrowed::<R>(POISON);
        assert!(head.iter().chain(tail).all(|&x| x == poison), "a neighbour was overwritten");
        inner.to_vec()
    }
}

fn run<R: Real>(operands: &Operands, how: &How<'_>) -> Results
where
    Complex<R>: ScanElement,
{
    let [batch, seqlen, heads, d] = operands.dims;
    let width = heads * d;
    let tokens = batch * seqlen;
    let stride = 3 * width + PADDING;
    // q, k and v side by side, as a projection has them.
    let mut packed = vec![R::narrow(f64::NAN.into()); tokens * stride];
    for (part, from) in [&operands.q, &operands.k, &operands.v].into_iter().enumerate() {
        for (row, from) in packed.chunks_exact_mut(stride).zip(from.chunks_exact(width)) {
            row[part * width..][..width].copy_from_slice(&narrow_all::<R>(from));
        }
    }
    let wide = ScanShape::new(batch, seqlen, width).unwrap();
    let of_heads = ScanShape::new(batch, seqlen, heads).unwrap();
    let packed_shape = ScanShape::new(batch, seqlen, 3 * width).unwrap();
    let strides = [seqlen * stride, stride];
    let rows = Rows::strided("packed", &packed, packed_shape, strides).unwrap();
    let [q, k, v] = rows.split("packed").unwrap();
    let (log_magnitude, phase) =
        (narrow_all::<R>(&operands.log_magnitude), narrow_all::<R>(&operands.phase));
    let gate = |name, data| Rows::contiguous(name, data, of_heads).unwrap();
    let mut operator =
        WideHeads::new(q, k, v, gate("log_magnitude", &log_magnitude), gate("phase", &phase))
            .unwrap()
            .on(how.threads);
    let state = |from: &[C]| from.iter().map(|&x| Complex::<R>::narrow(x)).collect::<Vec<_>>();
    let (h0, dh_last) = (state(&operands.h0), state(&operands.dh_last));
    if how.has_states {
        operator = operator.with_initial_state(&h0).unwrap();
    }
    if let Some(chunk_len) = how.chunk_len {
        operator = operator.with_chunk_len(chunk_len).unwrap();
    }

    let mut entries = Guarded::<R>::new(operator.entries_len());
    let mut y = Guarded::<R>::new(wide.len());
    let mut last = vec![Complex::<R>::narrow(POISON.into()); operator.state_len()];
    let mut dh0 = last.clone();
    let states = WideStates { h_last: Some(&mut last), entries: Some(entries.slice()) };
    operator.forward_into(y.rows("y", wide), states).unwrap();

    let dy = narrow_all::<R>(&operands.dy);
    let poison = R::narrow(POISON.into());
    let mut packed_grads = vec![poison; tokens * stride];
    let [mut dlog_magnitude, mut dphase] = [0; 2].map(|_| Guarded::<R>::new(of_heads.len()));
    let grads = RowsMut::strided("packed", &mut packed_grads, packed_shape, strides).unwrap();
    let [dq, dk, dv] = grads.split("packed").unwrap();
    let upstream = WideHeadsUpstream {
        entries: entries.slice(),
        dy: Rows::contiguous("dy", &dy, wide).unwrap(),
        dh_last: how.has_states.then_some(&dh_last[..]),
    };
    let grads = WideHeadsGrads {
        dq,
        dk,
        dv,
        dlog_magnitude: dlog_magnitude.rows("dlog_magnitude", of_heads),
        dphase: dphase.rows("dphase", of_heads),
        dh0: Some(&mut dh0),
    };
    operator.adjoint_into(upstream, grads).unwrap();
    entries.inner();
    let part = |part: usize| -> Vec<f64> {
        let rows = packed_grads.chunks_exact(stride);
        rows.flat_map(|row| row[part * width..][..width].iter().map(|x| x.widen().re)).collect()
    };
    assert!(packed_grads.chunks_exact(stride).all(|row| row[3 * width..] == [poison; PADDING]));
    let widened = |x: &[Complex<R>]| x.iter().map(|x| x.widen()).collect::<Vec<_>>();
    Results {
        y: y.inner(),
        last: widened(&last),
        dq: part(0),
        dk: part(1),
        dv: part(2),
        dlog_magnitude: dlog_magnitude.inner(),
        dphase: dphase.inner(),
        dh0: widened(&dh0),
    }
}

/// Compares with the loops.
fn check<R: Real>(operands: &Operands, found: &Results, what: &str)
where
    Complex<R>: ScanElement,
{
    let [batch, seqlen, heads, d] = operands.dims;
    let (exact, scales) = (operands.run(), operands.magnitudes().run());
    // An output has as many roundings as it has terms: those of a state and its row of d.
    let tolerance = Tolerance::of::<R>(seqlen * d);
    let real = |name: &str, found: &[f64], exact: &[f64], scale: &[f64]| {
        let found: Vec<R> = found.iter().map(|&x| R::narrow(x.into())).collect();
        if let Err(wrong) = tolerance.check(&found, exact, scale) {
            panic!("{what}: {name}: {wrong}");
        }
    };
    let complex = |name: &str, found: &[C], exact: &[C], scale: &[C]| {
        let parts = |x: &[C]| x.iter().flat_map(|x| [x.re, x.im]).collect::<Vec<_>>();
        let scale: Vec<f64> = scale.iter().flat_map(|x| [x.norm(); 2]).collect();
        real(name, &parts(found), &parts(exact), &scale);
    };
    real("y", &found.y, &exact.y, &scales.y);
    complex("h_last", &found.last, &exact.last, &scales.last);
    real("dq", &found.dq, &exact.dq, &scales.dq);
    real("dk", &found.dk, &exact.dk, &scales.dk);
    real("dv", &found.dv, &exact.dv, &scales.dv);
    complex("dh0", &found.dh0, &exact.dh0, &scales.dh0);
    // A decay's gradient is what its chunk adds up to, in which other pairs vanish.
    let mut sums = vec![0.0; batch * heads];
    for (i, x) in scales.dlog_magnitude.iter().enumerate() {
        sums[i / (seqlen * heads) * heads + i % heads] += x;
    }
    let of_gates: Vec<f64> = (0..batch * seqlen * heads)
        .map(|i| sums[i / (seqlen * heads) * heads + i % heads])
        .collect();
    real("dlog_magnitude", &found.dlog_magnitude, &exact.dlog_magnitude, &of_gates);
    real("dphase", &found.dphase, &exact.dphase, &of_gates);
}

fn every_shape<R: Real>()
where
    Complex<R>: ScanElement,
{
    let shapes = [
        [1, 1, 1, 1],
        [2, 5, 3, 2],
        [1, 63, 1, 4],
        [1, 64, 2, 16],
        [2, 65, 1, 7],
        [1, 129, 2, 33],
        [1, 200, 1, 64],
        [2, 70, 2, 20],
        [1, 80, 1, 70],
    ];
    for (seed, dims) in shapes.into_iter().enumerate() {
        for gates in Gates::ALL {
            for has_states in [false, true] {
                let operands = operands::<R>(dims, gates, has_states, seed as u64);
                for chunk_len in [None, Some(1), Some(7), Some(dims[1])] {
                    let how = How { chunk_len, has_states, threads: &Rayon };
                    let what = format!("{} {dims:?} {gates:?} {chunk_len:?}", R::NAME);
                    check::<R>(&operands, &run::<R>(&operands, &how), &what);
                }
            }
        }
    }
}

#[test]
fn single_precision_agrees_with_the_loops() {
    every_shape::<f32>();
}

#[test]
fn double_precision_agrees_with_the_loops() {
    every_shape::<f64>();
}

#[test]
fn threads_do_not_change_a_bit() {
    let operands = operands::<f32>([2, 200, 3, 16], Gates::Usual, true, 9);
    let on = |threads: &dyn ParallelFor| {
        run::<f32>(&operands, &How { chunk_len: None, has_states: true, threads })
    };
    let expected = on(&Rayon);
    for threads in [1, 2, 5, 100] {
        assert_eq!(on(&Backwards(threads)), expected);
    }
}

/// y, bit by bit.
fn outputs(operands: &Operands) -> Vec<f64> {
    let how = How { chunk_len: None, has_states: true, threads: &Rayon };
    run::<f32>(operands, &how).y
}

#[test]
fn a_token_changes_nothing_before_it_whatever_it_is() {
    let [batch, seqlen, heads, d] = [1, 150, 2, 20];
    let width = heads * d;
    let operands = operands::<f32>([batch, seqlen, heads, d], Gates::Usual, true, 3);
    let expected = outputs(&operands);
    for t in [0, 1, 5, 63, 64, 65, 130, 149] {
        for value in [0.25, f64::INFINITY, f64::NAN] {
            let mut changed = operands.clone();
            for x in [&mut changed.q, &mut changed.k, &mut changed.v] {
                x[t * width..(t + 1) * width].fill(value);
            }
            changed.log_magnitude[t * heads..(t + 1) * heads].fill(-0.5);
            let found = outputs(&changed);
            assert_eq!(found[..t * width], expected[..t * width], "{t} {value}");
            assert!(found[t * width..] != expected[t * width..]);
        }
    }
}

#[test]
fn a_head_knows_nothing_of_the_others() {
    let [batch, seqlen, heads, d] = [1, 100, 3, 8];
    let width = heads * d;
    let operands = operands::<f32>([batch, seqlen, heads, d], Gates::Usual, false, 4);
    let expected = outputs(&operands);
    let mut changed = operands.clone();
    for row in changed.v.chunks_exact_mut(width) {
        row[d..2 * d].fill(f64::NAN);
    }
    let found = outputs(&changed);
    for (found, expected) in found.chunks_exact(width).zip(expected.chunks_exact(width)) {
        assert!(found[d..2 * d].iter().all(|x| x.is_nan()));
        assert_eq!((&found[..d], &found[2 * d..]), (&expected[..d], &expected[2 * d..]));
    }
}

#[test]
fn a_split_sequence_is_the_whole() {
    let [seqlen, heads, d] = [140, 2, 12];
    let width = heads * d;
    let whole = operands::<f64>([1, seqlen, heads, d], Gates::Usual, true, 5);
    let expected = whole.run();
    for split in [1, 63, 64, 65, 100] {
        let part = |tokens: std::ops::Range<usize>, h0: Vec<C>| {
            let wide = |x: &[f64]| x[tokens.start * width..tokens.end * width].to_vec();
            let narrow = |x: &[f64]| x[tokens.start * heads..tokens.end * heads].to_vec();
            let operands = Operands {
                dims: [1, tokens.len(), heads, d],
                q: wide(&whole.q),
                k: wide(&whole.k),
                v: wide(&whole.v),
                log_magnitude: narrow(&whole.log_magnitude),
                phase: narrow(&whole.phase),
                h0,
                dy: wide(&whole.dy),
                dh_last: whole.dh_last.clone(),
            };
            run::<f64>(&operands, &How { chunk_len: None, has_states: true, threads: &Rayon })
        };
        let first = part(0..split, whole.h0.clone());
        let second = part(split..seqlen, first.last.clone());
        for (found, exact) in first.y.iter().chain(&second.y).zip(&expected.y) {
            assert!((found - exact).abs() < 1e-11, "{split}: {found} {exact}");
        }
        for (found, exact) in second.last.iter().zip(&expected.last) {
            assert!((found - exact).norm() < 1e-11);
        }
    }
}

#[test]
fn a_slice_is_its_map() {
    let dims = [2, 100, 2, 6];
    let operands = operands::<f64>(dims, Gates::Usual, true, 6);
    let [batch, seqlen, heads, d] = dims;
    let wide = ScanShape::new(batch, seqlen, heads * d).unwrap();
    let of_heads = ScanShape::new(batch, seqlen, heads).unwrap();
    let operator = WideHeads::new(
        Rows::contiguous("q", &operands.q, wide).unwrap(),
        Rows::contiguous("k", &operands.k, wide).unwrap(),
        Rows::contiguous("v", &operands.v, wide).unwrap(),
        Rows::contiguous("log_magnitude", &operands.log_magnitude, of_heads).unwrap(),
        Rows::contiguous("phase", &operands.phase, of_heads).unwrap(),
    )
    .unwrap();
    let mut product = vec![C::default(); batch * heads];
    let mut last = vec![C::default(); operator.state_len()];
    operator.map_into(&mut product, &mut last).unwrap();
    let expected = operands.run();
    let mut entry = vec![C::default(); operator.state_len()];
    let dy = Rows::contiguous("dy", &operands.dy, wide).unwrap();
    operator.entry_gradient_into(dy, Some(&operands.dh_last), &mut entry).unwrap();
    for (found, exact) in entry.iter().zip(&expected.dh0) {
        assert!((found - exact).norm() < 1e-12);
    }
    for (i, (last, expected)) in last.iter().zip(expected.last).enumerate() {
        let mapped = product[i / (d * d)] * operands.h0[i] + last;
        assert!((mapped - expected).norm() < 1e-12);
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let shape = ScanShape::new(1, 4, 6).unwrap();
    let numbers = [0.0_f32; 24];
    let rows = |name, data, channels| {
        Rows::contiguous(name, data, ScanShape::new(1, 4, channels).unwrap()).unwrap()
    };
    let wide = rows("q", &numbers[..], 6);
    let gate = rows("gate", &numbers[..8], 2);
    let error = |result: Result<WideHeads<'_, f32>, ScanError>| result.unwrap_err().to_string();
    let short = rows("k", &numbers[..20], 5);
    assert!(error(WideHeads::new(wide, short, wide, gate, gate)).contains("`k`"));
    assert!(error(WideHeads::new(wide, wide, short, gate, gate)).contains("`v`"));
    let narrow = rows("phase", &numbers[..4], 1);
    assert!(error(WideHeads::new(wide, wide, wide, gate, narrow)).contains("`phase`"));
    let four = rows("gate", &numbers[..16], 4);
    assert!(error(WideHeads::new(wide, wide, wide, four, four)).contains("`q`"));
    let operator = WideHeads::new(wide, wide, wide, gate, gate).unwrap();
    assert!(error(operator.with_chunk_len(0)).contains("chunk_len"));
    let state = [Complex::new(0.0, 0.0); 17];
    assert!(error(operator.with_initial_state(&state)).contains("`h0`"));
    let mut y = [POISON as f32; 20];
    let narrow = ScanShape::new(1, 4, 5).unwrap();
    let y_rows = RowsMut::contiguous("y", &mut y, narrow).unwrap();
    let refused = operator.forward_into(y_rows, WideStates::default()).unwrap_err();
    assert!(refused.to_string().contains("`y`"));
    let mut y = [0.0; 24];
    let mut entries = [0.0; 3];
    let y_rows = RowsMut::contiguous("y", &mut y, shape).unwrap();
    let states = WideStates { h_last: None, entries: Some(&mut entries) };
    let refused = operator.forward_into(y_rows, states).unwrap_err();
    assert!(refused.to_string().contains("`entries`"));
}
