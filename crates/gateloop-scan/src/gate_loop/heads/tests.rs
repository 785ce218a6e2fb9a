#![allow(clippy::unwrap_used)] // A test ends by panicking.

use super::*;
use crate::chunked::dispatch::{Isa, Kernel, Level};
use crate::gate_loop::{Real, Rows, RowsMut};
use crate::{Complex, ScanShape, Tolerance};

use super::product::{Matrix, Part, multiply};

/// Numbers in [-1, 1).
fn numbers<R: Real>(len: usize, seed: u64) -> Vec<R> {
    let mut state = seed;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        R::narrow(Complex::from((state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0))
    };
    (0..len).map(|_| next()).collect()
}

struct Multiply<'m, R> {
    a: Matrix<'m, R>,
    b: Matrix<'m, R>,
    c: &'m mut [R],
    part: Part,
    adds: bool,
}

impl<R: Real> Kernel for Multiply<'_, R> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        multiply::<I, R>(self.a, self.b, self.c, self.part, self.adds);
    }
}

/// Whether `a[i][p] b[p][j]` counts, and the result at (i, j).
fn counts(part: Part, i: usize, p: usize, j: usize) -> [bool; 2] {
    match part {
        Part::Whole => [true, true],
        Part::LowerResult => [true, j <= i],
        Part::LowerLeft => [p <= i, true],
        Part::UpperLeft => [p >= i, true],
    }
}

fn products_are_right<R: Real>() {
    let parts = [Part::Whole, Part::LowerResult, Part::LowerLeft, Part::UpperLeft];
    for level in Level::available() {
        for [rows, depth, cols] in [
            [1, 1, 1],
            [7, 7, 7],
            [13, 13, 13],
            [64, 64, 64],
            [65, 65, 33],
            [5, 9, 50],
            [12, 3, 47],
        ] {
            for part in parts {
                let is_square = rows == depth && (part != Part::LowerResult || rows == cols);
                if part != Part::Whole && !is_square {
                    continue;
                }
                for [turned, adds] in [[false, false], [false, true], [true, false]] {
                    let mut a = numbers::<R>(rows * depth, 1);
                    let b = numbers::<R>(depth * cols, 2);
                    let before = numbers::<R>(rows * cols, 3);
                    let at = |i: usize, p: usize| if turned { p * rows + i } else { i * depth + p };
                    for i in 0..rows {
                        for p in 0..depth {
                            if !counts(part, i, p, 0)[0] {
                                a[at(i, p)] = R::narrow(f64::NAN.into()); // Must not be read.
                            }
                        }
                    }
                    let mut c = before.clone();
                    let left = if turned {
                        Matrix::new(&a, depth, rows).transposed()
                    } else {
                        Matrix::new(&a, rows, depth)
                    };
                    let right = Matrix::new(&b, depth, cols);
                    level.dispatch(Multiply { a: left, b: right, c: &mut c, part, adds });
                    let tolerance = Tolerance::of::<R>(depth + 1);
                    for i in 0..rows {
                        for j in (0..cols).filter(|&j| counts(part, i, 0, j)[1]) {
                            let start = if adds { before[i * cols + j].widen().re } else { 0.0 };
                            let (mut exact, mut scale) = (start, start.abs());
                            for p in (0..depth).filter(|&p| counts(part, i, p, j)[0]) {
                                let term = a[at(i, p)].widen().re * b[p * cols + j].widen().re;
                                (exact, scale) = (exact + term, scale + term.abs());
                            }
                            let found = [c[i * cols + j]];
                            tolerance.check(&found, &[exact], &[scale]).unwrap_or_else(|wrong| {
                                panic!(
                                    "{level:?} {part:?} {rows} {depth} {cols} ({i}, {j}): {wrong}"
                                )
                            });
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_loops_on_every_instruction_set() {
    products_are_right::<f32>();
    products_are_right::<f64>();
}

/// y and all gradients, one after the other.
fn everything(level: Level) -> Vec<f64> {
    let (shape, of_heads) =
        (ScanShape::new(2, 150, 60).unwrap(), ScanShape::new(2, 150, 3).unwrap());
    let [q, k, v, dy] = [1, 2, 3, 4].map(|seed| numbers::<f64>(shape.len(), seed));
    let log_magnitude: Vec<f64> =
        numbers(of_heads.len(), 5).iter().map(|x: &f64| x - 1.0).collect();
    let phase: Vec<f64> = numbers(of_heads.len(), 6).iter().map(|x: &f64| 3.0 * x).collect();
    let rows = |name, data| Rows::contiguous(name, data, shape).unwrap();
    let of_a_head = |name, data| Rows::contiguous(name, data, of_heads).unwrap();
    let mut operator = WideHeads::new(
        rows("q", &q),
        rows("k", &k),
        rows("v", &v),
        of_a_head("log_magnitude", &log_magnitude),
        of_a_head("phase", &phase),
    )
    .unwrap();
    operator.level = level;
    let mut entries = vec![0.0; operator.entries_len()];
    let mut out = [0; 4].map(|_| vec![0.0; shape.len()]);
    let mut gates = [0; 2].map(|_| vec![0.0; of_heads.len()]);
    let [y, dq, dk, dv] = out.each_mut();
    let states = WideStates { h_last: None, entries: Some(&mut entries) };
    operator.forward_into(RowsMut::contiguous("y", y, shape).unwrap(), states).unwrap();
    let [dlog_magnitude, dphase] = gates.each_mut();
    let upstream = WideHeadsUpstream { entries: &entries, dy: rows("dy", &dy), dh_last: None };
    let grads = WideHeadsGrads {
        dq: RowsMut::contiguous("dq", dq, shape).unwrap(),
        dk: RowsMut::contiguous("dk", dk, shape).unwrap(),
        dv: RowsMut::contiguous("dv", dv, shape).unwrap(),
        dlog_magnitude: RowsMut::contiguous("dlog_magnitude", dlog_magnitude, of_heads).unwrap(),
        dphase: RowsMut::contiguous("dphase", dphase, of_heads).unwrap(),
        dh0: None,
    };
    operator.adjoint_into(upstream, grads).unwrap();
    out.into_iter().chain(gates).flatten().collect()
}

#[test]
fn instruction_sets_agree() {
    let mut levels = Level::available().collect::<Vec<_>>();
    let plain = everything(levels.pop().unwrap());
    for level in levels {
        for (fast, plain) in everything(level).into_iter().zip(&plain) {
            assert!(
                (fast - plain).abs() <= 1e-11 * (1.0 + plain.abs()),
                "{level:?} {fast} {plain}"
            );
        }
    }
}
