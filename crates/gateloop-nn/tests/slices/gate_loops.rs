//! GateLoop over ranks: fused with one channel a head, chunkwise with wider heads.

use crate::common::tolerance;
use crate::layers::Sequence;
use crate::ranks::partitions;
use gateloop_nn::gate_loop::{Form, TransitionMode};
use gateloop_nn::{GateLoopConfig, NormPlacement, Residual};
use gateloop_scan::Tolerance;
use tch::Kind;

const DIM: i64 = 8;
/// Two chunks and a bit in one piece: slices are cut elsewhere.
const SEQLEN: i64 = 139;

/// Sums over features and tokens, each of which may be rounded once more where slices meet; and phases and logarithms are
/// added up from other tokens on.
fn layer_tolerance(kind: Kind) -> Tolerance {
    tolerance(kind, SEQLEN * DIM).times(8.0)
}

fn check(what: &str, sequence: &Sequence, kind: Kind, config: &GateLoopConfig) {
    for bounds in partitions(SEQLEN) {
        let traffic =
            sequence.check(what, &bounds, layer_tolerance(kind), |path| config.init(path));
        let once_more = usize::from(config.recompute && config.heads.is_some());
        let gathers = if bounds.len() == 2 { 0 } else { 2 + once_more };
        assert_eq!(traffic.gathers, gathers, "{what}");
    }
}

const MODES: [TransitionMode; 3] =
    [TransitionMode::Complex, TransitionMode::Real, TransitionMode::Identity];

#[test]
fn max_heads_are_split() {
    for kind in [Kind::Double, Kind::Float] {
        let sequence = Sequence::new(kind, SEQLEN, DIM);
        for transition in MODES {
            let config = GateLoopConfig { transition, ..GateLoopConfig::new(DIM) };
            check("max heads", &sequence, kind, &config);
        }
    }
    let plain = GateLoopConfig::new(DIM);
    let sequence = Sequence::new(Kind::Double, SEQLEN, DIM);
    for config in [
        GateLoopConfig { direct_kv: true, sub_ln: true, ..plain.clone() },
        GateLoopConfig { swish_gating: false, recompute: true, ..plain.clone() },
        GateLoopConfig { form: Form::Scan, dim_inner: Some(4), ..plain.clone() },
        GateLoopConfig { form: Form::Chunkwise, ..plain.clone() },
    ] {
        check(&format!("{config:?}"), &sequence, Kind::Double, &config);
    }
}

#[test]
fn heads_of_width_four_are_split() {
    for kind in [Kind::Double, Kind::Float] {
        let sequence = Sequence::new(kind, SEQLEN, DIM);
        for transition in MODES {
            for recompute in [false, true] {
                let plain = GateLoopConfig::new(DIM);
                let config = GateLoopConfig { heads: Some(2), transition, recompute, ..plain };
                check("width 4", &sequence, kind, &config);
            }
        }
    }
}

#[test]
fn wide_heads_are_split() {
    for (dim_inner, heads) in [(16, 2), (64, 1)] {
        let plain = GateLoopConfig::new(DIM);
        let config = GateLoopConfig { dim_inner: Some(dim_inner), heads: Some(heads), ..plain };
        let sequence = Sequence::new(Kind::Double, SEQLEN, DIM);
        check(&format!("{heads} heads of {dim_inner}"), &sequence, Kind::Double, &config);
    }
}

#[test]
fn sequences_begin_in_slices_and_between_them() {
    // Sums of ln|a| have a thousand in them for each sequence that begins in a chunk, and three digits fewer.
    for places in [&[(0, 0), (1, 1), (0, 69), (1, 138)][..], &[(0, 46), (1, 92), (1, 3)]] {
        for heads in [None, Some(2)] {
            for recompute in [false, true] {
                let config = GateLoopConfig { heads, recompute, ..GateLoopConfig::new(DIM) };
                let sequence = Sequence::new(Kind::Double, SEQLEN, DIM).beginning_at(places);
                for bounds in partitions(SEQLEN) {
                    let tolerance = layer_tolerance(Kind::Double).times(64.0);
                    let what = format!("heads {heads:?}, {places:?}");
                    sequence.check(&what, &bounds, tolerance, |path| config.init(path));
                }
            }
        }
    }
}

#[test]
fn a_shortcut_hands_the_ranks_on() {
    for placement in [NormPlacement::default(), NormPlacement::Post] {
        for heads in [None, Some(2)] {
            let config = GateLoopConfig { heads, ..GateLoopConfig::new(DIM) };
            let sequence = Sequence::new(Kind::Double, SEQLEN, DIM);
            let traffic = sequence.check(
                &format!("{placement:?}"),
                &[0, 50, 51, SEQLEN],
                layer_tolerance(Kind::Double),
                |path| Residual::new(path, DIM, placement, |path| config.init(path)),
            );
            assert_eq!(traffic.gathers, 2);
        }
    }
}
