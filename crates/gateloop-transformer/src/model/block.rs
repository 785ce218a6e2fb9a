//! One layer of the model: what mixes over time, then the feed-forward, each with its shortcut and norm.

use super::mixer::{LayerState, Mixer};
use crate::config::{LayerKind, ModelConfig};
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    FeedForward, FeedForwardConfig, HasLinears, LayerInput, Linear, NnError, NormPlacement,
    Residual, Segments, SequenceLayer, SequenceRanks, recompute_with,
};
use std::sync::Arc;
use tch::Tensor;
use tch::nn::Path;

/// How a whole sequence is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'a> {
    /// How gates are made of what is read.
    pub(super) transition: TransitionMode,
    /// The texts that begin inside.
    pub(super) segments: Option<&'a Arc<Segments>>,
    /// Those that have the other parts of the sequence.
    pub(super) ranks: Option<&'a Arc<dyn SequenceRanks>>,
}

#[derive(Debug)]
pub(super) struct Block {
    /// The layer's own, and before it a simple gate loop if it is attention with one in front.
    mixers: Vec<Residual<Mixer>>,
    feed_forward: Residual<FeedForward>,
}

impl Block {
    pub(super) fn new(path: &Path<'_>, n: usize, config: &ModelConfig) -> Result<Self, NnError> {
        let dim = config.dim as i64;
        let placement = if config.post_ln_norm {
            NormPlacement::Post
        } else {
            NormPlacement::Pre(config.rms_norm.into())
        };
        let feed_forward =
            FeedForwardConfig { dim, mult: config.ff_mult as i64, gelu: config.gelu.into() };
        let mixer = |path: &Path<'_>, kind| {
            Residual::new(path, dim, placement, |path| Mixer::new(path, kind, config))
        };
        let kind = config.layer(n);
        let own = mixer(&(path / 0), kind)?;
        let front = (config.simple_gate_loop_before_attention && kind.is_attention())
            .then(|| mixer(&(path / "front"), LayerKind::SimpleGateLoop));
        let mixers = front.transpose()?.into_iter().chain([own]).collect();
        let feed_forward =
            Residual::new(&(path / 1), dim, placement, |path| feed_forward.init(path))?;
        Ok(Self { mixers, feed_forward })
    }

    /// What mixes, in the order of the states.
    pub(super) fn mixers(&self) -> impl Iterator<Item = &Mixer> {
        self.mixers.iter().map(Residual::layer)
    }

    /// A whole sequence, [B, T, D].
    pub(super) fn forward(&self, x: &Tensor, reading: Reading<'_>) -> Result<Tensor, NnError> {
        self.forward_watched(x, reading, |_, _, _| Ok(()))
    }

    /// [`forward`](Self::forward), in which `watch` sees each mixer and what it is about to read, first `front`, if there is
    /// one, and then `mixer`.
    pub(super) fn forward_watched(
        &self,
        x: &Tensor,
        Reading { transition, segments, ranks }: Reading<'_>,
        mut watch: impl FnMut(&'static str, &Mixer, LayerInput<'_>) -> Result<(), NnError>,
    ) -> Result<Tensor, NnError> {
        let names = ["front", "mixer"];
        let mut x = x.shallow_clone();
        for (mixer, name) in self.mixers.iter().zip(&names[names.len() - self.mixers.len()..]) {
            let input = LayerInput::from(&x);
            let input = input.with_segments(segments.map(Arc::as_ref)).with_ranks(ranks);
            x = mixer.around(input, |mixer, input| {
                watch(name, mixer, input)?;
                mixer.forward_with(input, transition)
            })?;
        }
        self.feed_forward.forward(&x)
    }

    /// [`forward`](Self::forward) without what it would keep for its backward pass, in which it is done again;
    /// `parameters` are the block's.
    pub(super) fn recomputed(
        self: &Arc<Self>,
        x: &Tensor,
        reading: Reading<'_>,
        parameters: &[Tensor],
    ) -> Result<Tensor, NnError> {
        let Reading { transition, segments, ranks } = reading;
        let (block, segments, ranks) = (Arc::clone(self), segments.cloned(), ranks.cloned());
        let run = move |inputs: &[Tensor]| {
            let (segments, ranks) = (segments.as_ref(), ranks.as_ref());
            Ok([block.forward(&inputs[0], Reading { transition, segments, ranks })?])
        };
        let parameters: Vec<&Tensor> = parameters.iter().collect();
        let [y] = recompute_with(run, &[x], &parameters)?;
        Ok(y)
    }

    /// A piece of a sequence, [B, T, D], from one state for each mixer.
    pub(super) fn prefill(
        &self,
        x: &Tensor,
        states: &mut [LayerState],
        segments: Option<&Segments>,
    ) -> Result<Tensor, NnError> {
        let mut x = x.shallow_clone();
        for (mixer, state) in self.mixers.iter().zip(states) {
            x = mixer.prefill_of(LayerInput::from(&x).with_segments(segments), state)?;
        }
        self.feed_forward.forward(&x)
    }

    /// One token, [B, D].
    pub(super) fn step(&self, x: &Tensor, states: &mut [LayerState]) -> Result<Tensor, NnError> {
        let mut x = x.shallow_clone();
        for (mixer, state) in self.mixers.iter().zip(states) {
            x = mixer.step(&x, state)?;
        }
        self.feed_forward.step(&x, &mut ())
    }
}

impl HasLinears for Block {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let mixers = self.mixers.iter_mut().flat_map(Residual::linears_mut);
        mixers.chain(self.feed_forward.linears_mut()).collect()
    }
}
