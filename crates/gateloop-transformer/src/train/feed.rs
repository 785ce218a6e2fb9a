//! What a trainer learns from: windows, and the states that go with them.

use super::prefetch::Prefetch;
use crate::config::LossOn;
use crate::data::{Batch, SamplerState, StreamSampler, WindowSampler};
use crate::evaluate::{ids, segments};
use crate::model::{DecodeState, LossInput, Model, ModelError};
use crate::ranks::{Ranks, RanksError};
use crate::train::TrainError;
use crate::weights::Tensors;
use std::sync::Arc;
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
    ranks: Arc<Ranks>,
}

impl Feed {
    /// Batches of `batch` windows; states are carried for `carried` micro-batches, if that is asked for.
    pub(super) fn new(
        windows: Windows,
        batch: usize,
        loss_on: LossOn,
        carried: Option<usize>,
        ranks: Arc<Ranks>,
    ) -> Self {
        let states = carried.map(|n| (0..n).map(|_| None).collect());
        Self { windows: Prefetch::new(windows, batch), batch, loss_on, states, ranks }
    }

    /// The windows of the next `count` micro-batches.
    pub(super) fn draw(&mut self, count: usize) -> Vec<Drawn> {
        let next = |_| {
            let (mut batch, begins) = self.windows.next_batch();
            let sequence = self.ranks.sequence();
            if sequence.size() > 1 {
                batch = batch.slice(sequence.rank(), sequence.size());
            }
            let counts = batch.counts(self.loss_on);
            let targets = match &counts {
                Some(counts) => predicted(counts, batch.window_len),
                None => batch.targets(),
            };
            Drawn { batch, begins, counts, targets }
        };
        (0..count).map(next).collect()
    }

    /// The loss of the windows of micro-batch `micro` of a step.
    pub(super) fn loss(
        &mut self,
        model: &Model,
        micro: usize,
        drawn: &Drawn,
    ) -> Result<Tensor, ModelError> {
        let (batch, device) = (&drawn.batch, model.device());
        let windows = ids(batch, device)?;
        let counts = drawn.counts.as_ref().map(|counts| -> Result<Tensor, ModelError> {
            Ok(Tensor::f_from_slice(counts)?.f_view_as(&windows)?.f_to_device(device)?)
        });
        let counts = counts.transpose()?;
        let segments = segments(batch, device)?;
        let ranks = self.ranks.slices();
        let input = LossInput {
            windows: &windows,
            counts: counts.as_ref(),
            segments: segments.as_ref(),
            ranks: ranks.as_ref(),
        };
        let Some(place) = self.states.as_mut().and_then(|states| states.get_mut(micro)) else {
            return model.loss_of(&input, None);
        };
        let before = place.take().filter(|_| !drawn.begins);
        let mut state = before.unwrap_or_else(|| model.initial_state(self.batch as i64));
        let loss = model.loss_of(&input, Some(&mut state))?;
        *place = Some(state.detached()?);
        Ok(loss)
    }

    /// The carried states by name: `MICRO.LAYER.PART`, those of all ranks' sequences. Collective.
    pub(super) fn carried(&self) -> Result<Tensors, TrainError> {
        let mut tensors = Tensors::new();
        for (micro, state) in self.states.iter().flatten().enumerate() {
            let Some(state) = state else { continue };
            for (name, tensor) in state.tensors()? {
                tensors.insert(format!("{micro}.{name}"), self.of_all(tensor)?);
            }
        }
        Ok(tensors)
    }

    /// The rows of all ranks, in the order of their windows.
    fn of_all(&self, own: Tensor) -> Result<Tensor, TrainError> {
        let data = self.ranks.data();
        if data.size() == 1 || !self.has_rows(&own, 1) {
            return Ok(own);
        }
        let all = data.all_gather(&own).map_err(RanksError::from)?;
        Ok(all.f_flatten(0, 1).map_err(ModelError::from)?)
    }

    /// Whether a part of a state has a row for each sequence of `ranks` ranks; a count of tokens has not.
    fn has_rows(&self, part: &Tensor, ranks: usize) -> bool {
        part.dim() > 1 && part.size()[0] == (self.batch * ranks) as i64
    }

    /// Goes on from states that [`carried`](Self::carried) gave; those that are not there begin anew.
    pub(super) fn restore(&mut self, model: &Model, tensors: &Tensors) -> Result<(), ModelError> {
        let mut own = Tensors::new();
        for (name, all) in tensors {
            own.insert(name.clone(), self.of_own(all)?);
        }
        for (micro, place) in self.states.iter_mut().flatten().enumerate() {
            let prefix = format!("{micro}.");
            let parts: Tensors = own
                .iter()
                .filter_map(|(name, t)| {
                    Some((name.strip_prefix(&prefix)?.to_owned(), t.shallow_clone()))
                })
                .collect();
            *place = if parts.is_empty() { None } else { Some(model.state_from(&parts)?) };
        }
        Ok(())
    }

    /// This rank's rows of all.
    fn of_own(&self, all: &Tensor) -> Result<Tensor, ModelError> {
        let data = self.ranks.data();
        if data.size() == 1 || !self.has_rows(all, data.size()) {
            return Ok(all.shallow_clone());
        }
        let batch = self.batch as i64;
        Ok(all.f_narrow(0, data.rank() as i64 * batch, batch)?.f_contiguous()?)
    }
}

/// Windows to be learned from.
pub(super) struct Drawn {
    batch: Batch,
    /// Whether they have nothing before them.
    begins: bool,
    /// Which tokens count, [batch, `window_len`]; all if `None`.
    counts: Option<Vec<bool>>,
    /// How many predictions count.
    pub(super) targets: usize,
}

/// How many tokens count that are predicted: all but the first of a row are.
fn predicted(counts: &[bool], window_len: usize) -> usize {
    let rows = counts.chunks(window_len.max(1));
    rows.flat_map(|row| &row[1..]).filter(|counts| **counts).count()
}
