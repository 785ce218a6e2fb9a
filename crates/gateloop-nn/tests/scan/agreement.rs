//! Every algorithm, kind, length and direction equals the loop, in values and gradients.

use crate::case::{Case, KINDS, Through};
use gateloop_nn::ScanOptions;
use gateloop_scan::Algorithm;

/// Around one, and around the widths of vectors and the lengths of chunks.
const LENGTHS: [i64; 8] = [1, 2, 3, 31, 32, 33, 64, 65];

fn algorithms() -> impl Iterator<Item = Algorithm> {
    [Algorithm::Auto].into_iter().chain(Algorithm::CONCRETE)
}

#[test]
fn every_algorithm_equals_the_loop() {
    for kind in KINDS {
        for seqlen in LENGTHS {
            for with_h0 in [false, true] {
                let case = Case::new([2, seqlen, 5], kind, with_h0);
                for algorithm in algorithms() {
                    for reverse in [false, true] {
                        let options = ScanOptions { algorithm, reverse, segment_starts: None };
                        let what = format!("{algorithm}, {kind:?}, T {seqlen}, reverse {reverse}");
                        case.check(&what, &options, Through::Both);
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_flow_through_each_result_alone() {
    for kind in KINDS {
        for algorithm in algorithms() {
            let options = ScanOptions { algorithm, ..ScanOptions::default() };
            let case = Case::new([2, 33, 3], kind, true);
            case.check(&format!("{algorithm}, {kind:?}"), &options, Through::States);
            case.check(&format!("{algorithm}, {kind:?}"), &options, Through::Last);
        }
    }
}

#[test]
fn segments_equal_the_loop() {
    let (batch, seqlen) = (2, 33);
    let starts: Vec<bool> = (0..batch * seqlen).map(|i| i % 7 == 3 || i == seqlen).collect();
    for kind in KINDS {
        let case = Case::new([batch, seqlen, 3], kind, true);
        for algorithm in algorithms() {
            for reverse in [false, true] {
                let segment_starts = Some(starts.clone());
                let options = ScanOptions { algorithm, reverse, segment_starts };
                let what = format!("{algorithm}, {kind:?}, reverse {reverse}, segments");
                case.check(&what, &options, Through::Both);
            }
        }
    }
}
