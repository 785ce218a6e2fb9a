//! Sequences that were packed into one: each is as if it stood alone.

use crate::common::{
    TestResult, assert_close, gradients, leaf, tensor, tolerance, values, weighted_sum,
};
use crate::variants::{Check, DIM, build, every_layer};
use gateloop_nn::{
    AttentionConfig, FeedForwardConfig, GateLoopConfig, LayerInput, NnError, Result, Segments,
    SequenceLayer, SimpleGateLoopConfig,
};
use gateloop_scan::Tolerance;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const SEQLEN: i64 = 70;
/// Where sequences begin, beside the first token, in each of two rows: a sequence of one token, one over several chunks.
const STARTS: [&[i64]; 2] = [&[1, 2, 20, 69], &[33]];

/// Sums of ln|a| over a chunk have a thousand in them for each sequence that begins there, and so carry three digits fewer.
fn layer_tolerance() -> Tolerance {
    tolerance(Kind::Double, SEQLEN * DIM).times(64.0)
}

fn segments(first: bool) -> Segments {
    let is_start = |row: &[i64], t: i64| (first && t == 0) || row.contains(&t);
    let starts: Vec<bool> =
        STARTS.iter().flat_map(|row| (0..SEQLEN).map(|t| is_start(row, t))).collect();
    Segments::new(&starts, [2, SEQLEN], Device::Cpu).expect("a flag for each token")
}

/// What the layer makes of each sequence alone, and, if `before` is given, of the first of each row after that.
fn alone<L: SequenceLayer>(layer: &L, x: &Tensor, before: Option<&Tensor>) -> Result<Tensor> {
    let mut rows = Vec::new();
    for (row, starts) in STARTS.iter().enumerate() {
        let edges: Vec<i64> = [0].iter().chain(*starts).chain(&[SEQLEN]).copied().collect();
        for edge in edges.windows(2) {
            let piece = x.narrow(0, row as i64, 1).narrow(1, edge[0], edge[1] - edge[0]);
            let mut state = layer.initial_state(1);
            if let (Some(before), 0) = (before, edge[0]) {
                let _ = layer.prefill(&before.narrow(0, row as i64, 1), &mut state)?;
            }
            rows.push(layer.prefill(&piece, &mut state)?);
        }
    }
    Ok(Tensor::cat(&rows, 1).view([2, SEQLEN, -1]))
}

struct Packed;

impl Check for Packed {
    fn check<L: SequenceLayer>(&self, what: &str, _: &VarStore, layer: &L) {
        let tolerance = layer_tolerance();
        let x = leaf(&tensor(&[2, SEQLEN, DIM], Kind::Double, 90));
        let separate = alone(layer, &x, None).unwrap_or_else(|error| panic!("{what}: {error}"));
        let want = gradients(&weighted_sum(&separate, 91), &[&x]);
        let unpacked = layer.forward(&x).unwrap_or_else(|error| panic!("{what}: {error}"));
        for first in [false, true] {
            let segments = segments(first);
            let input = LayerInput::from(&x).with_segments(Some(&segments));
            let packed = match layer.forward_of(input) {
                Ok(packed) => packed,
                Err(error) => {
                    // A layer that knows no segments says so and does not ignore them.
                    assert!(matches!(error, NnError::Config { .. }), "{what}: {error}");
                    assert!(what.contains("Heinsen"), "{what}: {error}");
                    return;
                }
            };
            assert_close(what, &packed, &separate, tolerance);
            let got = gradients(&weighted_sum(&packed, 91), &[&x]);
            assert_close(&format!("{what}: gradient"), &got[0], &want[0], tolerance);
            let alone = ["feed-forward", "FeedForward", "window: Some(1)"];
            let mixes = !alone.iter().any(|layer| what.contains(layer));
            assert_eq!(values(&packed) != values(&unpacked), mixes, "{what}");
        }
    }
}

#[test]
fn packed_sequences_know_nothing_of_one_another() {
    every_layer(&Packed);
}

fn check_state<L: SequenceLayer>(what: &str, layer: &L) -> TestResult {
    let tolerance = layer_tolerance();
    let (x, before) =
        (tensor(&[2, SEQLEN, DIM], Kind::Double, 92), tensor(&[2, 9, DIM], Kind::Double, 93));
    let mut state = layer.initial_state(2);
    let _ = layer.prefill(&before, &mut state)?;
    let segments = segments(false);
    let packed =
        layer.prefill_of(LayerInput::from(&x).with_segments(Some(&segments)), &mut state)?;
    assert_close(what, &packed, &alone(layer, &x, Some(&before))?, tolerance);

    // What is handed on is of the last sequence of each row alone.
    let next = tensor(&[2, DIM], Kind::Double, 94);
    let after = layer.step(&next, &mut state)?;
    for (row, starts) in (0..).zip(STARTS) {
        let start = starts[starts.len() - 1];
        let mut state = layer.initial_state(1);
        let _ = layer.prefill(&x.narrow(0, row, 1).narrow(1, start, SEQLEN - start), &mut state)?;
        let alone = layer.step(&next.narrow(0, row, 1), &mut state)?;
        assert_close(what, &after.narrow(0, row, 1), &alone, tolerance);
    }
    Ok(())
}

#[test]
fn a_state_goes_into_the_first_sequence_and_comes_out_of_the_last() -> TestResult {
    for config in crate::variants::gate_loops() {
        let (_vs, layer) = build(|path| config.init(path));
        check_state(&format!("{config:?}"), &layer)?;
    }
    for config in crate::variants::simple_gate_loops() {
        let (_vs, layer) = build(|path| config.init(path));
        check_state(&format!("{config:?}"), &layer)?;
    }
    Ok(())
}

#[test]
fn what_cannot_be_packed_is_refused() -> TestResult {
    let (_vs, attention) = build(|path| {
        AttentionConfig { dim_head: 4, heads: 2, ..AttentionConfig::new(DIM) }.init(path)
    });
    let x = tensor(&[2, SEQLEN, DIM], Kind::Double, 95);
    let segments = segments(true);
    let mut state = attention.initial_state(2);
    let _ = attention.prefill(&x, &mut state)?;
    let input = LayerInput::from(&x).with_segments(Some(&segments));
    let error = attention.prefill_of(input, &mut state).unwrap_err();
    assert!(error.to_string().contains("segments"), "{error}");
    // Segments of another shape, in every layer.
    let x = tensor(&[2, SEQLEN - 1, DIM], Kind::Double, 96);
    let input = LayerInput::from(&x).with_segments(Some(&segments));
    let (_vs, gate_loop) = build(|path| GateLoopConfig::new(DIM).init(path));
    let (_vs, simple) = build(|path| SimpleGateLoopConfig::new(DIM).init(path));
    for error in [
        attention.forward_of(input).unwrap_err(),
        gate_loop.forward_of(input).unwrap_err(),
        simple.forward_of(input).unwrap_err(),
        Segments::new(&[true], [2, 3], Device::Cpu).unwrap_err(),
    ] {
        assert!(matches!(error, NnError::Shape { .. }), "{error}");
    }
    // A layer that mixes nothing over time has nothing to keep apart.
    let feed_forward = FeedForwardConfig::new(DIM);
    let (_vs, feed_forward) = build(|path| feed_forward.init(path));
    let y = feed_forward.forward_of(input)?;
    assert_eq!(values(&y), values(&feed_forward.forward(&x)?));
    Ok(())
}
