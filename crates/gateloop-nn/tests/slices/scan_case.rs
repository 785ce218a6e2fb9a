//! One sequence, scanned in one piece and in slices.

use crate::common::{
    assert_bits, assert_close_at_scale, gradients, largest, leaf, tensor, tolerance,
};
use crate::ranks::{edges, flags, on_ranks, partitions, tokens};
use gateloop_nn::{ScanOptions, ScannedSlice, SequenceRanks, scan_over_ranks, scan_with};
use std::sync::Arc;
use tch::{Kind, Tensor};

pub(crate) const BATCH: i64 = 2;
pub(crate) const SEQLEN: i64 = 23;
pub(crate) const CHANNELS: i64 = 5;

/// One sequence, and the weights with which its states count.
pub(crate) struct Case {
    pub(crate) a: Tensor,
    pub(crate) b: Tensor,
    pub(crate) h0: Option<Tensor>,
    pub(crate) options: ScanOptions,
    /// Of the states, [B, T, C].
    pub(crate) weights: Tensor,
    /// Of the state after each slice, and of that before it, [ranks, B, C].
    pub(crate) of_last: Tensor,
    pub(crate) of_entry: Tensor,
}

impl Case {
    pub(crate) fn new(kind: Kind, a: Tensor, options: ScanOptions, with_h0: bool) -> Self {
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
    pub(crate) fn piece(&self, rank: usize, bounds: &[i64]) -> Self {
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
    pub(crate) fn whole(&self, bounds: &[i64]) -> Outcome {
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
    pub(crate) fn split(&self, bounds: &[i64]) -> Outcome {
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

    pub(crate) fn check(&self, what: &str) {
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

pub(crate) struct Outcome {
    pub(crate) h: Tensor,
    pub(crate) lasts: Vec<Tensor>,
    pub(crate) entries: Vec<Tensor>,
    pub(crate) grads: Vec<Tensor>,
}

pub(crate) fn real_sum(x: &Tensor, weights: &Tensor) -> Tensor {
    let product = x * weights;
    let real = if product.is_complex() { product.real() } else { product };
    real.sum(None::<Kind>)
}
