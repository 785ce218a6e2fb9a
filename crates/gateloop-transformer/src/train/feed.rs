//! What a trainer learns from: windows, and the states that go with them.

use super::prefetch::Prefetch;
use crate::config::LossOn;
use crate::data::{Batch, Mark, SamplerState, StreamSampler, WindowSampler};
use crate::model::{DecodeState, Model, ModelError};
use crate::weights::Tensors;
use tch::Tensor;

/// A stream of windows.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Windows {
    /// Drawn at random.
    Random(Box<WindowSampler>),
    /// One after the other.
    Sequential(StreamSampler),
}

impl From<WindowSampler> for Windows {
    fn from(sampler: WindowSampler) -> Self {
        Self::Random(Box::new(sampler))
    }
}

impl From<StreamSampler> for Windows {
    fn from(sampler: StreamSampler) -> Self {
        Self::Sequential(sampler)
    }
}

impl Windows {
    /// The next windows, and whether they have nothing before them.
    pub(super) fn next_batch(&mut self, batch: usize) -> (Batch, bool) {
        match self {
            Self::Random(sampler) => (sampler.next_batch(batch), true),
            Self::Sequential(sampler) => sampler.next_batch(batch),
        }
    }

    pub(super) fn state(&self) -> SamplerState {
        match self {
            Self::Random(sampler) => sampler.state(),
            Self::Sequential(sampler) => sampler.state(),
        }
    }

    pub(super) fn restore(&mut self, state: SamplerState) {
        match self {
            Self::Random(sampler) => sampler.restore(state),
            Self::Sequential(sampler) => sampler.restore(state),
        }
    }
}

/// Windows with the states that are carried between them.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) windows: Prefetch,
    batch: usize,
    loss_on: LossOn,
    /// After the last window of each micro-batch of a step; none if no state is carried.
    states: Option<Vec<Option<DecodeState>>>,
}

impl Feed {
    /// Batches of `batch` windows; states are carried for `carried` micro-batches, if that is asked for.
    pub(super) fn new(
        windows: Windows,
        batch: usize,
        loss_on: LossOn,
        carried: Option<usize>,
    ) -> Self {
        let states = carried.map(|n| (0..n).map(|_| None).collect());
        Self { windows: Prefetch::new(windows, batch), batch, loss_on, states }
    }

    /// The loss of the next windows, `micro` of this step.
    pub(super) fn loss(&mut self, model: &Model, micro: usize) -> Result<Tensor, ModelError> {
        let (batch, begins) = self.windows.next_batch();
        let windows = to_tensor(&batch, model)?;
        let counts = self.counts(&batch, model)?;
        let Some(place) = self.states.as_mut().and_then(|states| states.get_mut(micro)) else {
            return match counts {
                Some(counts) => model.loss_where(&windows, &counts, None),
                None => model.loss(&windows),
            };
        };
        let before = place.take().filter(|_| !begins);
        let mut state = before.unwrap_or_else(|| model.initial_state(self.batch as i64));
        let loss = match counts {
            Some(counts) => model.loss_where(&windows, &counts, Some(&mut state))?,
            None => model.loss_from(&windows, &mut state)?,
        };
        *place = Some(state.detached()?);
        Ok(loss)
    }

    /// Which tokens the loss is taken of, Bool [batch, `window_len`]; `None` for all.
    fn counts(&self, batch: &Batch, model: &Model) -> Result<Option<Tensor>, ModelError> {
        let (LossOn::Answers, Some(marks)) = (self.loss_on, &batch.marks) else { return Ok(None) };
        let counts: Vec<bool> = marks.iter().map(|mark| *mark == Mark::Answer).collect();
        let counts = Tensor::f_from_slice(&counts)?
            .f_view([batch.batch as i64, batch.window_len as i64])?
            .f_to_device(model.device())?;
        Ok(Some(counts))
    }

    /// The carried states by name: `MICRO.LAYER.PART`.
    pub(super) fn carried(&self) -> Result<Tensors, ModelError> {
        let mut tensors = Tensors::new();
        for (micro, state) in self.states.iter().flatten().enumerate() {
            let Some(state) = state else { continue };
            let named = state.tensors()?.into_iter();
            tensors.extend(named.map(|(name, tensor)| (format!("{micro}.{name}"), tensor)));
        }
        Ok(tensors)
    }

    /// Goes on from states that [`carried`](Self::carried) gave; those that are not there begin anew.
    pub(super) fn restore(&mut self, model: &Model, tensors: &Tensors) -> Result<(), ModelError> {
        for (micro, place) in self.states.iter_mut().flatten().enumerate() {
            let prefix = format!("{micro}.");
            let own: Tensors = tensors
                .iter()
                .filter_map(|(name, t)| {
                    Some((name.strip_prefix(&prefix)?.to_owned(), t.shallow_clone()))
                })
                .collect();
            *place = if own.is_empty() { None } else { Some(model.state_from(&own)?) };
        }
        Ok(())
    }
}

/// Int64 [batch, `window_len`] on the model's device.
fn to_tensor(batch: &Batch, model: &Model) -> Result<Tensor, ModelError> {
    Ok(Tensor::f_from_slice(&batch.ids)?
        .f_view([batch.batch as i64, batch.window_len as i64])?
        .f_to_device(model.device())?)
}
