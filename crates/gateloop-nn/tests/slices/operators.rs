//! The operator over ranks, with decays that a layer would not come to.

use crate::common::{
    assert_close_at_scale, gradients, largest, leaf, tensor, tolerance, weighted_sum,
};
use crate::ranks::{edges, on_ranks, tokens};
use gateloop_nn::gate_loop::{Form, Operands, StateTransition, gate_loop, gate_loop_over_ranks};
use tch::{Kind, Tensor};

const SEQLEN: i64 = 150;
const INNER: i64 = 8;

/// q, k, v, ln|a| and the phase of a, [B, T, ..].
fn operands(heads: i64, log_magnitude: impl Fn(&Tensor) -> Tensor) -> [Tensor; 5] {
    let of = |width, seed| tensor(&[2, SEQLEN, width], Kind::Double, seed);
    let uniform = of(heads, 4);
    [of(INNER, 1), of(INNER, 2), of(INNER, 3), log_magnitude(&uniform), of(heads, 5) * 3.0]
}

/// Errors up to `factor` times that of a sum over a sequence and the features of a token.
fn check(
    (what, factor): (&str, f64),
    heads: i64,
    form: Form,
    log_magnitude: impl Fn(&Tensor) -> Tensor,
) {
    let operands = operands(heads, log_magnitude);
    let whole = operands.each_ref().map(leaf);
    let run = |[q, k, v, log_magnitude, phase]: &[Tensor; 5], ranks: Option<&_>| {
        let transition = &StateTransition::from_polar(log_magnitude, phase).expect("of one shape");
        let operands = Operands { q, k, v, transition };
        match ranks {
            Some(ranks) => gate_loop_over_ranks(&operands, form, ranks),
            None => gate_loop(&operands, None, form),
        }
        .expect("operands that fit")
    };
    let (y, last) = run(&whole, None);
    let weights = tensor(&[2, SEQLEN, INNER], Kind::Double, 6);
    // A loss of the last state, too.
    let loss = (&y * &weights).sum(None::<Kind>) + weighted_sum(&last, 7);
    let want = gradients(&loss, &whole.each_ref());
    for bounds in [&[0, 70, SEQLEN][..], &[0, 1, 66, SEQLEN], &[0, 64, 128, 149, SEQLEN]] {
        let pieces = edges(bounds)
            .into_iter()
            .map(|edges| (operands.each_ref().map(|x| tokens(x, edges)), tokens(&weights, edges)));
        let (ranks, traffic) = on_ranks(pieces.collect(), |(operands, weights), ranks| {
            let operands: [Tensor; 5] = operands.each_ref().map(leaf);
            let (y, last) = run(&operands, Some(ranks));
            let mut loss = (&y * weights).sum(None::<Kind>);
            if ranks.rank() + 1 == ranks.size() {
                loss += weighted_sum(&last, 7);
            }
            let grads = gradients(&loss, &operands.each_ref());
            (y.detach(), last.detach(), grads)
        });
        assert_eq!(traffic.gathers, 2);
        let tolerance = tolerance(Kind::Double, SEQLEN * INNER).times(factor);
        let close = |part: &str, got: &Tensor, want: &Tensor| {
            let what = format!("{what}, {form}, {bounds:?}: {part}");
            assert_close_at_scale(&what, got, want, largest(want).max(1.0), tolerance);
        };
        let ys: Vec<&Tensor> = ranks.iter().map(|(y, ..)| y).collect();
        close("y", &Tensor::cat(&ys, 1), &y);
        close("last", &ranks[ranks.len() - 1].1, &last);
        for (i, want) in want.iter().enumerate() {
            let name = ["dq", "dk", "dv", "dln|a|", "dphase"][i];
            let parts: Vec<&Tensor> = ranks.iter().map(|(.., grads)| &grads[i]).collect();
            close(name, &Tensor::cat(&parts, 1), want);
        }
    }
}

#[test]
fn decays_of_every_size() {
    for (heads, form) in [
        (2, Form::Auto),
        (2, Form::Chunkwise),
        (INNER, Form::Auto),
        (INNER, Form::Scan),
        (INNER, Form::Chunkwise),
        (1, Form::Auto),
    ] {
        check(("usual", 4.0), heads, form, |x| (x - 1.0) * 0.1);
        check(("none", 4.0), heads, form, |x| x * 0.0);
        // Ten tokens leave nothing in double precision, and slices have more.
        check(("underflow", 4.0), heads, form, |x| x * 10.0 - 90.0);
        // Exactly zero at some tokens: e^-1000, beside which a sum keeps three digits fewer.
        check(("zeros", 256.0), heads, form, |x| x.lt(-0.9).to_kind(Kind::Double) * -1000.0 - 0.01);
    }
}
