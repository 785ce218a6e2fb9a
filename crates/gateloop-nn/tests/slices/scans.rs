//! The scan over ranks: values and gradients are those of the scan in one piece.

use crate::common::{
    assert_bits, assert_close_at_scale, gradients, largest, leaf, tensor, tolerance,
};
use crate::ranks::{edges, flags, on_ranks, partitions, tokens};
use gateloop_nn::{ScanOptions, ScannedSlice, SequenceRanks, scan_over_ranks, scan_with};
use std::sync::Arc;
use tch::{Kind, Tensor};

const BATCH: i64 = 2;
const SEQLEN: i64 = 23;
const CHANNELS: i64 = 5;

/// One sequence, and the weights with which its states count.
struct Case {
    a: Tensor,
    b: Tensor,
    h0: Option<Tensor>,
    options: ScanOptions,
    /// Of the states, [B, T, C].
    weights: Tensor,
    /// Of the state after each slice, and of that before it, [ranks, B, C].
    of_last: Tensor,
    of_entry: Tensor,
}

impl Case {
    fn new(kind: Kind, a: Tensor, options: ScanOptions, with_h0: bool) -> Self {
        let dims = [BATCH, SEQLEN, CHANNELS];
        Self {
            a,
            b: tensor(&dims, kind, 2),
            h0: with_h0.then(|| tensor(&[BATCH, CHANNELS], kind, 3)),
            options,
            weights: tensor(&dims, kind, 4),
            of_last: tensor(&[4, BATCH, CHANNELS], kind, 5),
            of_entry: tensor(&[4, BATCH, CHANNELS], kind, 6),
        }
    }

    /// The rank that has the first token of the pass.
    fn first(&self, bounds: &[i64]) -> usize {
        if self.options.reverse { bounds.len() - 2 } else { 0 }
    }

    /// What a rank has.
    fn piece(&self, rank: usize, bounds: &[i64]) -> Self {
        let edges = edges(bounds)[rank];
        let starts = self.options.segment_starts.as_ref();
        let segment_starts = starts.map(|starts| flags(starts, SEQLEN, edges));
        let of_rank = |tensor: &Tensor| tensor.narrow(0, rank as i64, 1);
        let h0 = self.h0.as_ref().filter(|_| rank == self.first(bounds));
        Self {
            a: tokens(&self.a, edges),
            b: tokens(&self.b, edges),
            h0: h0.map(Tensor::shallow_clone),
            options: ScanOptions { segment_starts, ..self.options.clone() },
            weights: tokens(&self.weights, edges),
            of_last: of_rank(&self.of_last),
            of_entry: of_rank(&self.of_entry),
        }
    }

    /// Everything in one piece: h, the state before and after each slice, and the gradients of a, b and h0.
    fn whole(&self, bounds: &[i64]) -> Outcome {
        let (a, b) = (leaf(&self.a), leaf(&self.b));
        let h0 = self.h0.as_ref().map(leaf);
        let (h, _) = scan_with(&a, &b, h0.as_ref(), &self.options).expect("operands that fit");
        let entry = h0.as_ref().map_or_else(|| h.select(1, 0).zeros_like(), Tensor::shallow_clone);
        let mut loss = real_sum(&h, &self.weights);
        let (mut lasts, mut entries) = (Vec::new(), Vec::new());
        for (rank, [from, to]) in edges(bounds).into_iter().enumerate() {
            let (before, after) =
                if self.options.reverse { (to, from) } else { (from - 1, to - 1) };
            let enters = if rank == self.first(bounds) {
                entry.shallow_clone()
            } else {
                // Nothing enters across the beginning of a sequence; of a forward pass it enters, and is forgotten.
                let enters = h.select(1, before);
                match (&self.options.segment_starts, self.options.reverse) {
                    (Some(starts), true) => {
                        let at = |row: i64| starts[(row * SEQLEN + to) as usize];
                        let cut: Vec<bool> = (0..BATCH).map(at).collect();
                        enters.masked_fill(&Tensor::from_slice(&cut).unsqueeze(-1), 0.0)
                    }
                    _ => enters,
                }
            };
            loss += real_sum(&enters, &self.of_entry.get(rank as i64));
            loss += real_sum(&h.select(1, after), &self.of_last.get(rank as i64));
            lasts.push(h.select(1, after).detach());
            entries.push(enters.detach());
        }
        let leaves: Vec<&Tensor> = [&a, &b].into_iter().chain(&h0).collect();
        let grads = gradients(&loss, &leaves);
        Outcome { h: h.detach(), lasts, entries, grads }
    }

    /// This piece by its rank.
    fn on_rank(self, ranks: &Arc<dyn SequenceRanks>) -> Outcome {
        let (a, b, h0) = (leaf(&self.a), leaf(&self.b), self.h0.as_ref().map(leaf));
        let ScannedSlice { h, h_last, h_entry } =
            scan_over_ranks(&a, &b, h0.as_ref(), &self.options, ranks).expect("operands that fit");
        let loss = real_sum(&h, &self.weights)
            + real_sum(&h_last, &self.of_last.get(0))
            + real_sum(&h_entry, &self.of_entry.get(0));
        let leaves: Vec<&Tensor> = [&a, &b].into_iter().chain(&h0).collect();
        let grads = gradients(&loss, &leaves);
        let (lasts, entries) = (vec![h_last.detach()], vec![h_entry.detach()]);
        Outcome { h: h.detach(), lasts, entries, grads }
    }

    /// All of it, put together again from what the ranks have.
    fn split(&self, bounds: &[i64]) -> Outcome {
        let size = bounds.len() - 1;
        let pieces = (0..size).map(|rank| self.piece(rank, bounds)).collect();
        let (ranks, traffic) = on_ranks(pieces, Self::on_rank);
        assert_eq!(traffic.gathers, if size == 1 { 0 } else { 2 });
        let over_time = |part: &dyn Fn(&Outcome) -> &Tensor| {
            Tensor::cat(&ranks.iter().map(part).collect::<Vec<_>>(), 1)
        };
        let mut grads = vec![over_time(&|rank| &rank.grads[0]), over_time(&|rank| &rank.grads[1])];
        grads.extend(ranks.iter().filter_map(|rank| rank.grads.get(2).map(Tensor::shallow_clone)));
        Outcome {
            h: over_time(&|rank| &rank.h),
            lasts: ranks.iter().map(|rank| rank.lasts[0].shallow_clone()).collect(),
            entries: ranks.iter().map(|rank| rank.entries[0].shallow_clone()).collect(),
            grads,
        }
    }

    fn check(&self, what: &str) {
        // A state is rounded at every token, a gradient in two passes, and a map of a slice in between.
        let tolerance = tolerance(self.a.kind(), SEQLEN).times(4.0);
        for bounds in partitions(SEQLEN) {
            let (got, want) = (self.split(&bounds), self.whole(&bounds));
            let what = format!("{what}, {:?}, {bounds:?}", self.a.kind());
            let pairs =
                |part: fn(&Outcome) -> Vec<&Tensor>| part(&got).into_iter().zip(part(&want));
            let parts = [
                ("states", pairs(|o| vec![&o.h]).collect::<Vec<_>>()),
                ("last states", pairs(|o| o.lasts.iter().collect()).collect()),
                ("states that enter", pairs(|o| o.entries.iter().collect()).collect()),
                ("gradients", pairs(|o| o.grads.iter().collect()).collect()),
            ];
            assert_eq!(got.grads.len(), want.grads.len(), "{what}");
            for (part, pairs) in parts {
                for (i, (got, want)) in pairs.into_iter().enumerate() {
                    let what = format!("{what}: {part} {i}");
                    let scale = largest(want).max(1.0);
                    assert_close_at_scale(&what, got, want, scale, tolerance);
                    if bounds.len() == 2 {
                        assert_bits(&what, got, want);
                    }
                }
            }
        }
    }
}

struct Outcome {
    h: Tensor,
    lasts: Vec<Tensor>,
    entries: Vec<Tensor>,
    grads: Vec<Tensor>,
}

fn real_sum(x: &Tensor, weights: &Tensor) -> Tensor {
    let product = x * weights;
    let real = if product.is_complex() { product.real() } else { product };
    real.sum(None::<Kind>)
}

const KINDS: [Kind; 4] = [Kind::Double, Kind::Float, Kind::ComplexDouble, Kind::ComplexFloat];

fn decays(kind: Kind) -> Tensor {
    tensor(&[BATCH, SEQLEN, CHANNELS], kind, 1)
}

fn both_ways(what: &str, decays: impl Fn(Kind) -> Tensor, starts: Option<&[bool]>) {
    for kind in KINDS {
        for (reverse, with_h0) in [(false, false), (false, true), (true, false), (true, true)] {
            let segment_starts = starts.map(<[bool]>::to_vec);
            let options = ScanOptions { reverse, segment_starts, ..ScanOptions::default() };
            let what = format!("{what}, reverse {reverse}, h0 {with_h0}");
            Case::new(kind, decays(kind), options, with_h0).check(&what);
        }
    }
}

#[test]
fn a_split_scan_is_the_scan() {
    both_ways("plain", decays, None);
}

#[test]
fn decays_of_zero_and_of_one_are_as_good_as_others() {
    let edges = |kind| {
        let a = decays(kind);
        let _ = a.slice(1, 3, SEQLEN, 7).fill_(0.0);
        let _ = a.slice(2, 1, 2, 1).fill_(1.0);
        a
    };
    both_ways("zeros", edges, None);
}

#[test]
fn products_that_underflow_do_no_harm() {
    // Three of them are nothing in single precision, and a slice's in double.
    for (kind, tiny) in
        [(Kind::Float, 1e-20), (Kind::Double, 1e-120), (Kind::ComplexDouble, 1e-120)]
    {
        let a = decays(kind) * tiny;
        let _ = a.slice(2, 1, 2, 1).fill_(1.0);
        Case::new(kind, a, ScanOptions::default(), true).check("underflow");
    }
}

#[test]
fn sequences_begin_anywhere() {
    // At the first token of slices, at their last, in their midst; not in every row and slice.
    for starts in
        [&[[0_usize, 0], [0, 11], [1, 3]][..], &[[0, 2], [0, 7], [0, 15]], &[[1, 22], [0, 1]]]
    {
        let mut flags = vec![false; (BATCH * SEQLEN) as usize];
        for [row, t] in starts {
            flags[row * SEQLEN as usize + t] = true;
        }
        both_ways(&format!("{starts:?}"), decays, Some(&flags));
    }
}

#[test]
fn an_expanded_decay_has_one_gradient_for_all_channels() {
    let a = tensor(&[BATCH, SEQLEN, 1], Kind::ComplexDouble, 1);
    let b = tensor(&[BATCH, SEQLEN, CHANNELS], Kind::ComplexDouble, 2);
    let weights = tensor(&[BATCH, SEQLEN, CHANNELS], Kind::ComplexDouble, 3);
    let options = ScanOptions::default();
    let whole = leaf(&a);
    let expanded = whole.expand([BATCH, SEQLEN, CHANNELS], false);
    let (h, _) = scan_with(&expanded, &b, None, &options).expect("operands that fit");
    let want = gradients(&real_sum(&h, &weights), &[&whole]);
    let pieces = edges(&[0, 4, 5, SEQLEN]);
    let pieces = pieces.iter().map(|&edges| [&a, &b, &weights].map(|x| tokens(x, edges)));
    let (got, traffic) = on_ranks(pieces.collect(), |[a, b, weights], ranks| {
        let a = leaf(&a);
        let expanded = a.expand(b.size(), false);
        let slice = scan_over_ranks(&expanded, &b, None, &options, ranks).expect("it fits");
        gradients(&real_sum(&slice.h, &weights), &[&a]).remove(0)
    });
    let tolerance = tolerance(Kind::ComplexDouble, SEQLEN * CHANNELS);
    assert_close_at_scale("da", &Tensor::cat(&got, 1), &want[0], largest(&want[0]), tolerance);
    // Forward a state and one product a row, backward a state, in complex numbers of 16 bytes.
    assert_eq!(traffic.bytes as i64, 3 * 16 * (BATCH * (CHANNELS + 1) + BATCH * CHANNELS));
}

#[test]
fn a_nan_before_the_beginning_of_a_sequence_stays_there() {
    for reverse in [false, true] {
        let (a, b) = (decays(Kind::Double), tensor(&[BATCH, SEQLEN, CHANNELS], Kind::Double, 2));
        let spoiled = if reverse { SEQLEN - 1 } else { 0 };
        let _ = b.select(1, spoiled).fill_(f64::NAN);
        let mut starts = vec![false; (BATCH * SEQLEN) as usize];
        for row in 0..BATCH {
            starts[(row * SEQLEN + 10) as usize] = true;
        }
        let case = Case {
            b,
            ..Case::new(
                Kind::Double,
                a,
                ScanOptions { reverse, segment_starts: Some(starts), ..ScanOptions::default() },
                false,
            )
        };
        for bounds in [[0, 4, 16, SEQLEN], [0, 10, 11, SEQLEN], [0, 5, 10, SEQLEN]] {
            let h = case.split(&bounds).h;
            let (from, len) = if reverse { (0, 10) } else { (10, SEQLEN - 10) };
            assert!(bool::try_from(h.narrow(1, from, len).isfinite().all()).expect("a flag"));
            assert!(!bool::try_from(h.isfinite().all()).expect("a flag"));
        }
    }
}

/// A rank whose loss knows only one of the results still gathers for the others.
#[test]
fn a_result_that_no_loss_knows_holds_nobody_up() {
    for reverse in [false, true] {
        let options = ScanOptions { reverse, ..ScanOptions::default() };
        for [first, second, third] in [[0, 1, 2], [1, 2, 0], [2, 0, 1], [1, 1, 1], [2, 2, 2]] {
            let bounds = [0, 9, 10, SEQLEN];
            let case = Case::new(Kind::Double, decays(Kind::Double), options.clone(), false);
            let known = [first, second, third];
            let mut masked = case.piece(0, &[0, SEQLEN]);
            masked.of_last = case.of_last.copy();
            masked.of_entry = case.of_entry.copy();
            for (rank, [from, to]) in edges(&bounds).into_iter().enumerate() {
                let weights = [
                    masked.weights.narrow(1, from, to - from),
                    masked.of_last.get(rank as i64),
                    masked.of_entry.get(rank as i64),
                ];
                for (result, mut weights) in weights.into_iter().enumerate() {
                    if result != known[rank] {
                        let _ = weights.zero_();
                    }
                }
            }
            let want = masked.whole(&bounds).grads;
            let pieces = (0..3).map(|rank| (masked.piece(rank, &bounds), known[rank])).collect();
            let (got, traffic) = on_ranks(pieces, |(piece, known): (Case, usize), ranks| {
                let (a, b) = (leaf(&piece.a), leaf(&piece.b));
                let slice = scan_over_ranks(&a, &b, None, &piece.options, ranks).expect("it fits");
                let loss = match known {
                    0 => real_sum(&slice.h, &piece.weights),
                    1 => real_sum(&slice.h_last, &piece.of_last.get(0)),
                    _ => real_sum(&slice.h_entry, &piece.of_entry.get(0)),
                };
                gradients(&loss, &[&a, &b])
            });
            assert_eq!(traffic.gathers, 2);
            for (i, want) in want.iter().enumerate() {
                let parts: Vec<&Tensor> = got.iter().map(|grads| &grads[i]).collect();
                let what = format!("reverse {reverse}, {known:?}: gradient {i}");
                let tolerance = tolerance(Kind::Double, SEQLEN).times(4.0);
                let scale = largest(want).max(1.0);
                assert_close_at_scale(&what, &Tensor::cat(&parts, 1), want, scale, tolerance);
            }
        }
    }
}
