use super::isa::run_at;
use super::many::ManyRows;
use super::panels::Panels;
use super::places::{Columns, Place};
use super::{Map, Matrix, Part, Product, multiply, multiply_twice};
use crate::feed_forward::Gelu;
use crate::norm::RmsNormKind;
use crate::pointwise::Before;
use gateloop_scan::Tolerance;

const GUARD: usize = 5;
const SENTINEL: f32 = 1234.5;

/// Numbers in -1..1 that follow from an index.
fn number(index: usize) -> f32 {
    ((index * 7919 + 13) % 2003) as f32 / 1001.5 - 1.0
}

/// `values` between two guards, at an odd offset in memory.
fn guarded<T: Copy>(values: &[T], guard: T) -> Vec<T> {
    let guard = [guard; GUARD];
    [&guard[..], values, &guard[..]].concat()
}

fn inside<T>(buffer: &[T]) -> &[T] {
    &buffer[GUARD..buffer.len() - GUARD]
}

/// The weights of one kind with their exact values.
struct Case {
    f32: Vec<f32>,
    bf16: Vec<u16>,
    int8: Vec<i8>,
    scale: Vec<f32>,
}

impl Case {
    fn new(out_dim: usize, in_dim: usize) -> Self {
        let weights: Vec<f32> = (0..out_dim * in_dim).map(|i| number(i + 3)).collect();
        let scale: Vec<f32> = (0..out_dim).map(|o| 0.01 + o as f32 * 1e-4).collect();
        Self {
            // What lies beyond the ends must not be read: it would be seen.
            bf16: guarded(
                &weights.iter().map(|w| (w.to_bits() >> 16) as u16).collect::<Vec<_>>(),
                0x7FC0,
            ),
            int8: guarded(&weights.iter().map(|w| (w * 127.0) as i8).collect::<Vec<_>>(), 127),
            f32: guarded(&weights, f32::NAN),
            scale,
        }
    }

    fn matrices(&self) -> [(Matrix<'_>, Vec<f64>); 3] {
        let bf16 = |bits: &u16| f64::from(f32::from_bits(u32::from(*bits) << 16));
        let (in_dim, int8) = (inside(&self.int8).len() / self.scale.len(), inside(&self.int8));
        let scaled = int8
            .iter()
            .enumerate()
            .map(|(i, &w)| f64::from(w) * f64::from(self.scale[i / in_dim]))
            .collect();
        [
            (
                Matrix::F32(inside(&self.f32)),
                inside(&self.f32).iter().copied().map(f64::from).collect(),
            ),
            (Matrix::Bf16(inside(&self.bf16)), inside(&self.bf16).iter().map(bf16).collect()),
            (Matrix::Int8(int8, &self.scale), scaled),
        ]
    }
}

/// y and the sums of moduli that its rounding is relative to.
fn oracle(w: &[f64], x: &[f32], bias: Option<&[f32]>, in_dim: usize) -> (Vec<f64>, Vec<f64>) {
    let mut y = Vec::new();
    let mut scale = Vec::new();
    for x in x.chunks(in_dim) {
        for (o, w) in w.chunks(in_dim).enumerate() {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[o]));
            let terms = w.iter().zip(x).map(|(w, x)| w * f64::from(*x));
            y.push(terms.clone().sum::<f64>() + bias);
            scale.push(terms.map(f64::abs).sum::<f64>() + bias.abs());
        }
    }
    (y, scale)
}

/// Every kind of weights against the oracle, into a poisoned output between guards.
fn check(out_dim: usize, in_dim: usize, rows: usize) {
    let case = Case::new(out_dim, in_dim);
    let x = guarded(&(0..rows * in_dim).map(number).collect::<Vec<_>>(), f32::NAN);
    let bias: Vec<f32> = (0..out_dim).map(|o| number(o + 7)).collect();
    for bias in [None, Some(&bias[..])] {
        for (matrix, exact) in case.matrices() {
            let mut y = guarded(&vec![f32::NAN; rows * out_dim], SENTINEL);
            let end = y.len() - GUARD;
            let product = Product { map: Map { matrix, bias }, y: &mut y[GUARD..end] };
            multiply(inside(&x), rows, Before::Nothing, &mut [product]);
            let (expected, scale) = oracle(&exact, inside(&x), bias, in_dim);
            // One more rounding for the scale and one for the bias.
            Tolerance::of::<f32>(in_dim + 2)
                .check(inside(&y), &expected, &scale)
                .unwrap_or_else(|e| panic!("out {out_dim} in {in_dim} rows {rows}: {e}"));
            let guards = y[..GUARD].iter().chain(&y[end..]);
            assert!(guards.copied().all(|guard| guard == SENTINEL), "written outside y");
        }
    }
}

#[test]
fn every_small_size_equals_the_oracle() {
    for in_dim in 1..=67 {
        for out_dim in [1, 2, 3, 4, 5, 7, 8, 13, 67] {
            for rows in [1, 2, 3, 8, 9, 10] {
                check(out_dim, in_dim, rows);
            }
        }
    }
}

#[test]
fn sizes_of_several_pieces_equal_the_oracle() {
    for (out_dim, in_dim, rows) in [
        (1536, 512, 1),
        (513, 2048, 1),
        (300, 999, 5),
        (2051, 97, 8),
        (600, 1030, 65),
        (37, 512, 128),
        // Rows that are longer than a piece.
        (5, 17_000, 1),
        (5, 17_000, 9),
    ] {
        check(out_dim, in_dim, rows);
    }
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_company() {
    for (out_dim, in_dim, all, some) in
        [(131, 67, 8, 1), (131, 67, 7, 3), (131, 67, 64, 9), (29, 1300, 19, 18)]
    {
        same_bits(out_dim, in_dim, [all, some]);
    }
}

/// The last `some` of `all` rows, with the others and without.
fn same_bits(out_dim: usize, in_dim: usize, [all, some]: [usize; 2]) {
    let case = Case::new(out_dim, in_dim);
    let x: Vec<f32> = (0..all * in_dim).map(number).collect();
    for (matrix, _) in case.matrices() {
        let [together, alone] = [all, some].map(|rows| {
            let mut y = vec![f32::NAN; rows * out_dim];
            let x = &x[(all - rows) * in_dim..];
            multiply(
                x,
                rows,
                Before::Nothing,
                &mut [Product { map: Map { matrix, bias: None }, y: &mut y }],
            );
            y
        });
        assert!(together[(all - some) * out_dim..] == alone, "{all} and {some} rows");
    }
}

#[test]
fn products_computed_together_are_those_computed_alone() {
    let (case, other) = (Case::new(700, 64), Case::new(9, 64));
    let x: Vec<f32> = (0..64).map(number).collect();
    let single = |matrix, out_dim| {
        let mut y = vec![f32::NAN; out_dim];
        multiply(
            &x,
            1,
            Before::Nothing,
            &mut [Product { map: Map { matrix, bias: None }, y: &mut y }],
        );
        y
    };
    let [_, (bf16, _), _] = case.matrices();
    let [_, _, (int8, _)] = other.matrices();
    let (mut first, mut second) = (vec![f32::NAN; 700], vec![f32::NAN; 9]);
    multiply(
        &x,
        1,
        Before::Nothing,
        &mut [
            Product { map: Map { matrix: bf16, bias: None }, y: &mut first },
            Product { map: Map { matrix: int8, bias: None }, y: &mut second },
        ],
    );
    assert_eq!((first, second), (single(bf16, 700), single(int8, 9)));
}

#[test]
fn what_comes_before_is_made_of_every_row() {
    let (out_dim, in_dim) = (21, 40);
    let gamma: Vec<f32> = (0..in_dim).map(number).collect();
    let case = Case::new(out_dim, in_dim);
    for rows in [1, 8, 9, 35] {
        let x: Vec<f32> = (0..rows * in_dim).map(|i| 3.0 * number(i)).collect();
        let gates: Vec<f32> = (0..rows * in_dim).map(|i| 2.0 * number(i + 9)).collect();
        for before in [
            Before::Gelu(Gelu::Erf),
            Before::Swish(&gates),
            Before::RmsNorm { gamma: &gamma, kind: RmsNormKind::Clamped },
        ] {
            let products = |x: &[f32], before| {
                let mut y = vec![f32::NAN; rows * out_dim];
                let matrix = Matrix::F32(inside(&case.f32));
                multiply(
                    x,
                    rows,
                    before,
                    &mut [Product { map: Map { matrix, bias: None }, y: &mut y }],
                );
                y
            };
            let made = before.of(0, &x, &mut Vec::new()).to_vec();
            assert_eq!(products(&x, before), products(&made, Before::Nothing), "{before:?} {rows}");
        }
    }
}

/// Products hide all instructions but a machine's best.
#[test]
fn many_rows_equal_the_oracle_by_all_instructions() {
    for (out_dim, in_dim, rows) in [(21, 40, 35), (48, 600, 16), (13, 17, 64), (6, 512, 9)] {
        let case = Case::new(out_dim, in_dim);
        let x: Vec<f32> = (0..rows * in_dim).map(number).collect();
        let bias: Vec<f32> = (0..out_dim).map(|o| number(o + 7)).collect();
        let w = inside(&case.f32);
        let exact: Vec<f64> = w.iter().copied().map(f64::from).collect();
        let (expected, scale) = oracle(&exact, &x, Some(&bias), in_dim);
        let panels = Panels::of(&x, in_dim, Before::Nothing);
        for level in 0..3 {
            let mut y = vec![f32::NAN; rows * out_dim];
            let place = Place::Rows(Columns::new(&mut y, out_dim));
            let part = Part { w, scale: None, bias: Some(&bias), in_dim, first: 0, len: out_dim };
            let kernel = ManyRows { part, panels: &panels, then: &[], place: &place };
            if run_at(level, kernel) {
                Tolerance::of::<f32>(in_dim + 1)
                    .check(&y, &expected, &scale)
                    .unwrap_or_else(|e| panic!("level {level}, in {in_dim} rows {rows}: {e}"));
            }
        }
    }
}

#[test]
fn two_products_are_one_after_the_other() {
    let (out_dim, inner, in_dim) = (21, 77, 40);
    let [first, second] = [Case::new(inner, in_dim), Case::new(out_dim, inner)];
    let bias: Vec<f32> = (0..inner).map(number).collect();
    let gamma: Vec<f32> = (0..in_dim).map(number).collect();
    let before = Before::RmsNorm { gamma: &gamma, kind: RmsNormKind::Epsilon };
    for rows in [1, 8, 9, 35] {
        let x: Vec<f32> = (0..rows * in_dim).map(number).collect();
        let matrices = first.matrices().into_iter().zip(second.matrices());
        for (((expand, _), (contract, _)), gelu) in matrices.zip([Gelu::Erf, Gelu::Tanh, Gelu::Erf])
        {
            let expand = Map { matrix: expand, bias: Some(&bias) };
            let contract = Map { matrix: contract, bias: None };
            let mut h = vec![f32::NAN; rows * inner];
            multiply(&x, rows, before, &mut [Product { map: expand, y: &mut h }]);
            let [mut one_by_one, mut together] = [(); 2].map(|()| vec![f32::NAN; rows * out_dim]);
            let product = Product { map: contract, y: &mut one_by_one };
            multiply(&h, rows, Before::Gelu(gelu), &mut [product]);
            let product = Product { map: contract, y: &mut together };
            multiply_twice(&x, rows, before, (expand, gelu), product);
            assert_eq!(together, one_by_one, "{rows} rows, {gelu:?}");
        }
    }
}

#[test]
fn infinities_and_nan_stay_in_their_row() {
    let mut weights = vec![0.5_f32; 6 * 20];
    weights[20] = f32::INFINITY;
    weights[3 * 20 + 19] = f32::NAN;
    for rows in [1, 9] {
        let mut y = vec![0.0; rows * 6];
        let matrix = Matrix::F32(&weights);
        let product = Product { map: Map { matrix, bias: None }, y: &mut y };
        multiply(&vec![1.0; rows * 20], rows, Before::Nothing, &mut [product]);
        for y in y.chunks(6) {
            assert_eq!((y[0], y[1], y[2], y[4], y[5]), (10.0, f32::INFINITY, 10.0, 10.0, 10.0));
            assert!(y[3].is_nan());
        }
    }
}
