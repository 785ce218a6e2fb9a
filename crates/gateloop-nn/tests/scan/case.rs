//! One scan, run by the crate and by the loop, compared in values and gradients.

use crate::common::{assert_close, gradients, leaf, tensor, tolerance, weighted_sum};
use gateloop_nn::{Result, ScanOptions, scan_with};
use std::f64::consts::SQRT_2;
use tch::{Kind, Tensor};

/// Every element type that a scan takes.
pub(crate) const KINDS: [Kind; 4] =
    [Kind::Float, Kind::Double, Kind::ComplexFloat, Kind::ComplexDouble];

/// The results that a loss depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Through {
    States,
    Last,
    Both,
}

/// A loss that depends on the results that are named, on every element with another weight.
pub(crate) fn loss((h, last): &(Tensor, Tensor), through: Through) -> Tensor {
    let (h, last) = (weighted_sum(h, 101), weighted_sum(last, 102));
    match through {
        Through::States => h,
        Through::Last => last,
        Through::Both => h + last,
    }
}

/// Operands of a scan; each is a leaf.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) a: Tensor,
    pub(crate) b: Tensor,
    pub(crate) h0: Option<Tensor>,
}

impl Case {
    /// Decays of modulus 0.5 to 1, as the layers have them: states stay of the size of the inputs,
    /// and no gradient vanishes.
    pub(crate) fn new(shape: [i64; 3], kind: Kind, with_h0: bool) -> Self {
        let [batch, _, channels] = shape;
        let a = tensor(&shape, kind, 1);
        let largest = if a.is_complex() { SQRT_2 } else { 1.0 };
        let modulus = a.abs() / (2.0 * largest) + 0.5;
        Self {
            a: leaf(&(a.sgn() * modulus)),
            b: leaf(&tensor(&shape, kind, 2)),
            h0: with_h0.then(|| leaf(&tensor(&[batch, channels], kind, 3))),
        }
    }

    /// The same numbers in the wide kind, as new leaves.
    pub(crate) fn widened(&self) -> Self {
        let kind = if self.a.is_complex() { Kind::ComplexDouble } else { Kind::Double };
        let widen = |x: &Tensor| leaf(&x.to_kind(kind));
        Self { a: widen(&self.a), b: widen(&self.b), h0: self.h0.as_ref().map(widen) }
    }

    pub(crate) fn named(&self) -> Vec<(&'static str, &Tensor)> {
        [("a", &self.a), ("b", &self.b)]
            .into_iter()
            .chain(self.h0.as_ref().map(|h0| ("h0", h0)))
            .collect()
    }

    pub(crate) fn run(&self, options: &ScanOptions) -> Result<(Tensor, Tensor)> {
        scan_with(&self.a, &self.b, self.h0.as_ref(), options)
    }

    /// Compares values and all gradients with those of the loop in double precision.
    #[track_caller]
    pub(crate) fn check(&self, what: &str, options: &ScanOptions, through: Through) {
        let (kind, seqlen) = (self.a.kind(), self.a.size()[1]);
        let wide = self.widened();
        let result = self.run(options).unwrap_or_else(|error| panic!("{what}: {error}"));
        let oracle = looped(&wide.a, &wide.b, wide.h0.as_ref(), options);
        // A state, or its adjoint, is a sum of T terms.
        let tolerance = tolerance(kind, seqlen);
        assert_close(&format!("{what}: h"), &result.0, &oracle.0, tolerance);
        assert_close(&format!("{what}: h_last"), &result.1, &oracle.1, tolerance);

        let (mine, theirs) = (self.named(), wide.named());
        let leaves = |named: &[(&'static str, &Tensor)]| {
            let leaves: Vec<Tensor> = named.iter().map(|(_, leaf)| leaf.shallow_clone()).collect();
            leaves
        };
        let (mine_leaves, their_leaves) = (leaves(&mine), leaves(&theirs));
        let got = gradients(&loss(&result, through), &mine_leaves.iter().collect::<Vec<_>>());
        let want = gradients(&loss(&oracle, through), &their_leaves.iter().collect::<Vec<_>>());
        for (i, (name, _)) in mine.iter().enumerate() {
            assert_close(&format!("{what}: gradient of {name}"), &got[i], &want[i], tolerance);
        }
    }
}

/// The definition, token by token, in operations that libtorch differentiates.
pub(crate) fn looped(
    a: &Tensor,
    b: &Tensor,
    h0: Option<&Tensor>,
    options: &ScanOptions,
) -> (Tensor, Tensor) {
    let [batch, seqlen, channels] = a.size()[..] else { panic!("a is [B, T, C]") };
    let mut h = match h0 {
        Some(h0) => h0.shallow_clone(),
        None => Tensor::zeros([batch, channels], (a.kind(), a.device())),
    };
    let mut states: Vec<Tensor> = Vec::new();
    for position in 0..seqlen {
        let t = if options.reverse { seqlen - 1 - position } else { position };
        h = a.select(1, t) * (h * kept(options, batch, seqlen, t)) + b.select(1, t);
        states.push(h.shallow_clone());
    }
    if options.reverse {
        states.reverse();
    }
    (Tensor::stack(&states, 1), h)
}

/// [B, 1]: 0 where the state that enters token `t` belongs to another segment, else 1.
fn kept(options: &ScanOptions, batch: i64, seqlen: i64, t: i64) -> Tensor {
    // The boundary lies before a segment's first token: in reverse, one crosses it on leaving t + 1.
    let boundary = if options.reverse { t + 1 } else { t };
    let cut = |b: i64| {
        boundary < seqlen
            && options
                .segment_starts
                .as_ref()
                .is_some_and(|starts| starts[(b * seqlen + boundary) as usize])
    };
    let kept: Vec<f64> = (0..batch).map(|b| f64::from(u8::from(!cut(b)))).collect();
    Tensor::from_slice(&kept).view([batch, 1])
}
