//! The scan over ranks: values and gradients are those of the scan in one piece.

use crate::common::{assert_close_at_scale, gradients, largest, leaf, tensor, tolerance};
use crate::ranks::{edges, on_ranks, tokens};
use crate::scan_case::{BATCH, CHANNELS, Case, SEQLEN, real_sum};
use gateloop_nn::{ScanOptions, scan_over_ranks, scan_with};
use tch::{Kind, Tensor};

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
