//! A layer over ranks against the layer on one: outputs, the gradient of the input, those of all parameters.

use crate::common::{
    assert_bits, assert_close_at_scale, fill_parameters, gradients, largest, leaf, tensor,
};
use crate::ranks::{Traffic, edges, flags, on_ranks, tokens};
use gateloop_nn::{LayerInput, Result, Segments, SequenceLayer, SequenceRanks};
use gateloop_scan::Tolerance;
use std::sync::Arc;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

pub(crate) const BATCH: i64 = 2;

/// Parameters, the same on every rank.
pub(crate) fn build<L>(kind: Kind, init: impl FnOnce(&Path<'_>) -> Result<L>) -> (VarStore, L) {
    let mut vs = VarStore::new(Device::Cpu);
    let layer = init(&vs.root()).expect("the configuration is right");
    vs.set_kind(kind);
    fill_parameters(&vs);
    (vs, layer)
}

/// The sequence that all layers read.
pub(crate) struct Sequence {
    x: Tensor,
    weights: Tensor,
    /// [B, T] in row-major order.
    starts: Option<Vec<bool>>,
}

struct Outcome {
    y: Tensor,
    dx: Tensor,
    /// Names and gradients; one that nothing depends on has none.
    parameters: Vec<(String, Option<Tensor>)>,
}

impl Sequence {
    pub(crate) fn new(kind: Kind, seqlen: i64, dim: i64) -> Self {
        let dims = [BATCH, seqlen, dim];
        Self { x: tensor(&dims, kind, 11), weights: tensor(&dims, kind, 12), starts: None }
    }

    /// The same with sequences that begin at these (row, token).
    pub(crate) fn beginning_at(self, places: &[(i64, i64)]) -> Self {
        let seqlen = self.seqlen();
        let mut starts = vec![false; (BATCH * seqlen) as usize];
        for (row, t) in places {
            starts[(row * seqlen + t) as usize] = true;
        }
        Self { starts: Some(starts), ..self }
    }

    pub(crate) fn seqlen(&self) -> i64 {
        self.x.size()[1]
    }

    /// The tokens within `edges`.
    fn piece(&self, edges: [i64; 2]) -> Self {
        let starts = self.starts.as_ref();
        let starts = starts.map(|starts| flags(starts, self.seqlen(), edges));
        Self { x: tokens(&self.x, edges), weights: tokens(&self.weights, edges), starts }
    }

    fn run<L: SequenceLayer>(
        &self,
        (vs, layer): &(VarStore, L),
        ranks: Option<&Arc<dyn SequenceRanks>>,
    ) -> Outcome {
        let x = leaf(&self.x);
        let segments = self.starts.as_ref().map(|starts| {
            Segments::new(starts, [BATCH, self.seqlen()], Device::Cpu).expect("a flag a token")
        });
        let input = LayerInput::from(&x).with_segments(segments.as_ref()).with_ranks(ranks);
        let y = layer.forward_of(input).expect("a layer that can be split");
        let mut parameters: Vec<(String, Tensor)> = vs.variables().into_iter().collect();
        parameters.sort_by(|a, b| a.0.cmp(&b.0));
        let leaves: Vec<&Tensor> =
            [&x].into_iter().chain(parameters.iter().map(|(_, tensor)| tensor)).collect();
        let mut grads = gradients(&(&y * &self.weights).sum(None::<Kind>), &leaves);
        let dx = grads.remove(0);
        let names = parameters.into_iter().map(|(name, _)| name);
        let grads = grads.into_iter().map(|grad| grad.defined().then_some(grad));
        Outcome { y: y.detach(), dx, parameters: names.zip(grads).collect() }
    }

    /// Compares the layer over slices with these bounds with the layer in one piece; what it gathered.
    pub(crate) fn check<L: SequenceLayer>(
        &self,
        what: &str,
        bounds: &[i64],
        tolerance: Tolerance,
        init: impl Fn(&Path<'_>) -> Result<L> + Sync,
    ) -> Traffic {
        let kind = self.x.kind();
        let want = self.run(&build(kind, &init), None);
        let pieces = edges(bounds).into_iter().map(|edges| self.piece(edges)).collect();
        let (ranks, traffic) =
            on_ranks(pieces, |piece: Self, ranks| piece.run(&build(kind, &init), Some(ranks)));
        let over_time = |part: fn(&Outcome) -> &Tensor| {
            Tensor::cat(&ranks.iter().map(part).collect::<Vec<_>>(), 1)
        };
        let what = format!("{what}, {kind:?}, {bounds:?}");
        let compare = |part: &str, got: &Tensor, want: &Tensor| {
            let what = format!("{what}: {part}");
            assert_close_at_scale(&what, got, want, largest(want).max(1.0), tolerance);
            if bounds.len() == 2 {
                assert_bits(&what, got, want);
            }
        };
        compare("y", &over_time(|rank| &rank.y), &want.y);
        compare("dx", &over_time(|rank| &rank.dx), &want.dx);
        for (i, (name, want)) in want.parameters.iter().enumerate() {
            let parts: Vec<&Tensor> =
                ranks.iter().filter_map(|rank| rank.parameters[i].1.as_ref()).collect();
            let Some(want) = want else {
                assert!(parts.is_empty(), "{what}: {name} has a gradient");
                continue;
            };
            assert_eq!(parts.len(), ranks.len(), "{what}: {name} has no gradient");
            let sum = parts[1..].iter().fold(parts[0].shallow_clone(), |sum, part| sum + *part);
            compare(name, &sum, want);
        }
        traffic
    }
}
