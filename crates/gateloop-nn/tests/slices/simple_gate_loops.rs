//! SimpleGateLoop over ranks: forward and reversed, fused and by each algorithm.

use crate::common::tolerance;
use crate::layers::Sequence;
use crate::ranks::partitions;
use gateloop_nn::{Engine, SimpleGateLoopConfig};
use gateloop_scan::{Algorithm, Tolerance};
use tch::Kind;

const DIM: i64 = 6;
/// The fused adjoint keeps a state in 32 tokens: some slices have several of them.
const SEQLEN: i64 = 75;

/// Sums over features and tokens, each of which may be rounded once more where slices meet.
fn layer_tolerance(kind: Kind) -> Tolerance {
    tolerance(kind, SEQLEN * DIM).times(4.0)
}

fn check(what: &str, sequence: &Sequence, kind: Kind, config: &SimpleGateLoopConfig) {
    for bounds in partitions(SEQLEN) {
        let traffic =
            sequence.check(what, &bounds, layer_tolerance(kind), |path| config.init(path));
        assert_eq!(traffic.gathers, if bounds.len() == 2 { 0 } else { 2 }, "{what}");
    }
}

fn configs() -> Vec<SimpleGateLoopConfig> {
    let plain = SimpleGateLoopConfig::new(DIM);
    let engines = [Algorithm::Auto, Algorithm::Naive, Algorithm::Tree].map(Engine::Scan);
    let both = |engine| {
        [false, true].map(|reverse| SimpleGateLoopConfig { engine, reverse, ..plain.clone() })
    };
    engines.into_iter().flat_map(both).collect()
}

#[test]
fn slices_make_the_whole() {
    for kind in [Kind::Double, Kind::Float] {
        let sequence = Sequence::new(kind, SEQLEN, DIM);
        for config in configs() {
            check(&format!("{config:?}"), &sequence, kind, &config);
        }
    }
}

#[test]
fn sequences_begin_in_slices_and_between_them() {
    let kind = Kind::Double;
    for places in [&[(0, 0), (1, 1), (0, 37), (1, 74)][..], &[(0, 25), (1, 50), (1, 3)]] {
        let sequence = Sequence::new(kind, SEQLEN, DIM).beginning_at(places);
        for config in configs() {
            check(&format!("{config:?}, {places:?}"), &sequence, kind, &config);
        }
    }
}
