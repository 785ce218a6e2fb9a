//! How often ranks meet, and how much they send.

use crate::common::{gradients, leaf, tensor, tolerance};
use crate::layers::{BATCH, Sequence, build};
use crate::ranks::{Traffic, edges, on_ranks, tokens};
use gateloop_nn::{GateLoopConfig, LayerInput, Result, SequenceLayer, SimpleGateLoopConfig};
use tch::nn::Path;
use tch::{Kind, Tensor};

const DIM: i64 = 8;
const SEQLEN: i64 = 40;
const BOUNDS: [i64; 5] = [0, 7, 8, 30, SEQLEN];

fn traffic<L: SequenceLayer>(kind: Kind, init: impl Fn(&Path<'_>) -> Result<L> + Sync) -> Traffic {
    let sequence = Sequence::new(kind, SEQLEN, DIM);
    sequence.check("traffic", &BOUNDS, tolerance(kind, SEQLEN * DIM).times(8.0), init)
}

/// Of four ranks, forward and backward, from the numbers that a rank sends for each row of the batch.
fn expected(forward: i64, backward: i64, bytes: i64) -> Traffic {
    Traffic { gathers: 2, bytes: (4 * BATCH * bytes * (forward + backward)) as usize }
}

#[test]
fn a_layer_gathers_a_state_and_a_product_forward_and_a_state_backward() {
    for (kind, bytes) in [(Kind::Float, 4), (Kind::Double, 8)] {
        let simple = traffic(kind, |path| SimpleGateLoopConfig::new(DIM).init(path));
        assert_eq!(simple, expected(2 * DIM, DIM, bytes));
        // Complex numbers are two.
        let max_heads = traffic(kind, |path| GateLoopConfig::new(DIM).init(path));
        assert_eq!(max_heads, expected(4 * DIM, 2 * DIM, bytes));
        // A matrix a head, and one product a head.
        let config = GateLoopConfig { heads: Some(2), ..GateLoopConfig::new(DIM) };
        let chunkwise = traffic(kind, |path| config.init(path));
        assert_eq!(chunkwise, expected(2 * 2 * (4 * 4 + 1), 2 * 2 * 4 * 4, bytes));
    }
}

#[test]
fn without_gradients_nothing_comes_back() {
    let x = tensor(&[BATCH, SEQLEN, DIM], Kind::Double, 1);
    let pieces = edges(&BOUNDS).into_iter().map(|edges| tokens(&x, edges)).collect();
    // Each thread has its own mode, and one of them records.
    let (_, traffic) = on_ranks(pieces, |x, ranks| {
        let (_vs, layer) = build(Kind::Double, |path| GateLoopConfig::new(DIM).init(path));
        let forward = || {
            let y = layer.forward_of(LayerInput::from(&x).with_ranks(Some(ranks)));
            y.expect("a layer that can be split").requires_grad()
        };
        let records = ranks.rank() == 1;
        assert_eq!(if records { forward() } else { tch::no_grad(forward) }, records);
    });
    assert_eq!(traffic, Traffic { gathers: 1, ..expected(4 * DIM, 0, 8) });
}

#[test]
fn two_layers_and_their_gradients_meet_in_the_same_order() {
    let x = tensor(&[BATCH, SEQLEN, DIM], Kind::Double, 1);
    let config = GateLoopConfig { heads: Some(2), ..GateLoopConfig::new(DIM) };
    let reversed = SimpleGateLoopConfig { reverse: true, ..SimpleGateLoopConfig::new(DIM) };
    let pieces = edges(&BOUNDS).into_iter().map(|edges| tokens(&x, edges)).collect();
    let (grads, traffic) = on_ranks(pieces, |x, ranks| {
        let (_vs, first) = build(Kind::Double, |path| config.init(path));
        let (_vs, second) = build(Kind::Double, |path| reversed.init(path));
        let x = leaf(&x);
        let h = first.forward_of(LayerInput::from(&x).with_ranks(Some(ranks)));
        let h = h.expect("a layer that can be split");
        let y = second.forward_of(LayerInput::from(&h).with_ranks(Some(ranks)));
        let y = y.expect("a layer that can be split");
        // The loss is the first rank's alone: what the others have, they have from it.
        let share = if ranks.rank() == 0 { 1.0 } else { 0.0 };
        gradients(&(y.square().sum(None::<Kind>) * share), &[&x]).remove(0)
    });
    assert_eq!(traffic.gathers, 4);
    let (_vs, first) = build(Kind::Double, |path| config.init(path));
    let (_vs, second) = build(Kind::Double, |path| reversed.init(path));
    let x = leaf(&x);
    let y = second.forward(&first.forward(&x).expect("a layer")).expect("a layer");
    let loss = y.narrow(1, 0, BOUNDS[1]).square().sum(None::<Kind>);
    let want = gradients(&loss, &[&x]);
    let got = Tensor::cat(&grads, 1);
    crate::common::assert_close("dx", &got, &want[0], tolerance(Kind::Double, SEQLEN * DIM));
    assert!(grads.iter().all(|grad| crate::common::largest(grad) > 0.0));
}
