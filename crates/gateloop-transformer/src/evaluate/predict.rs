//! What a model makes of windows, prediction by prediction.

use crate::config::LossOn;
use crate::data::{Batch, Mark};
use crate::model::{DecodeState, Model, ModelError};
use gateloop_nn::Segments;
use std::sync::Arc;
use tch::{Device, Kind, Reduction, Tensor};

/// What a model made of the tokens of a window, all but the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Predictions<'a> {
    /// Losses in nats.
    pub(super) losses: &'a [f32],
    /// Which of them the mean is over; all if `None`.
    pub(super) counts: Option<&'a [bool]>,
    /// Of a synthetic task: what the tokens are in it, and whether they were the likeliest.
    pub(super) answers: Option<(&'a [Mark], &'a [bool])>,
}

impl Predictions<'_> {
    /// Whether the mean is to be over this place too.
    pub(super) fn count(&self, place: usize) -> bool {
        self.counts.is_none_or(|counts| counts[place])
    }
}

/// The predictions of several windows, one after the other.
pub(super) struct Rows {
    /// Predictions of a window.
    len: usize,
    pub(super) losses: Vec<f32>,
    counts: Option<Vec<bool>>,
    answers: Option<(Vec<Mark>, Vec<bool>)>,
}

impl Rows {
    /// Predicts all but the first token of each window, from an empty state or from the one that is given, which is moved
    /// past what is read.
    pub(super) fn predict(
        model: &Model,
        batch: &Batch,
        loss_on: LossOn,
        state: Option<&mut DecodeState>,
    ) -> Result<Self, ModelError> {
        let len = batch.window_len.saturating_sub(1);
        let ids = ids(batch, model.device())?;
        let inputs = ids.f_narrow(1, 0, len as i64)?;
        let segments = segments(batch, model.device())?;
        let logits = match (state, &segments) {
            (Some(state), segments) => model.prefill_packed(&inputs, state, segments.as_ref())?,
            (None, Some(segments)) => model.forward_packed(&inputs, segments)?,
            (None, None) => model.forward(&inputs)?,
        };
        let logits = logits.f_flatten(0, 1)?;
        let targets = ids.f_narrow(1, 1, len as i64)?.f_reshape([-1])?;
        let losses = logits
            .f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::None, -100, 0.0)?
            .f_to_kind(Kind::Float)?;
        let mut values = vec![0.0; losses.numel()];
        losses.f_copy_data(&mut values, losses.numel())?;
        let answers = batch.marks.as_ref().map(|marks| -> Result<_, ModelError> {
            let likeliest = logits.f_argmax(-1, false)?.f_eq_tensor(&targets)?;
            let mut right = vec![false; values.len()];
            likeliest.f_copy_data(&mut right, values.len())?;
            Ok((without_first(marks, batch.window_len), right))
        });
        let counts = batch.counts(loss_on);
        Ok(Self {
            len,
            losses: values,
            counts: counts.map(|counts| without_first(&counts, batch.window_len)),
            answers: answers.transpose()?,
        })
    }

    /// Each window.
    pub(super) fn each(&self, mut f: impl FnMut(&Predictions<'_>)) {
        for (n, losses) in self.losses.chunks(self.len.max(1)).enumerate() {
            let part = n * self.len..n * self.len + losses.len();
            let answers = self.answers.as_ref();
            let answers =
                answers.map(|(marks, right)| (&marks[part.clone()], &right[part.clone()]));
            let counts = self.counts.as_ref().map(|counts| &counts[part.clone()]);
            f(&Predictions { losses, counts, answers });
        }
    }
}

/// The ids of a batch, Int64 [batch, `window_len`].
pub(crate) fn ids(batch: &Batch, device: Device) -> Result<Tensor, ModelError> {
    let dims = [batch.batch as i64, batch.window_len as i64];
    Ok(Tensor::f_from_slice(&batch.ids)?.f_view(dims)?.f_to_device(device)?)
}

/// The documents that begin inside the inputs of a batch, [batch, `window_len` - 1]; `None` if that makes no difference.
pub(crate) fn segments(batch: &Batch, device: Device) -> Result<Option<Arc<Segments>>, ModelError> {
    let Some(starts) = &batch.document_starts else { return Ok(None) };
    let len = batch.window_len.saturating_sub(1);
    let starts: Vec<bool> =
        starts.chunks(batch.window_len.max(1)).flat_map(|row| &row[..len]).copied().collect();
    if !starts.contains(&true) {
        return Ok(None);
    }
    let dims = [batch.batch as i64, len as i64];
    Ok(Some(Arc::new(Segments::new(&starts, dims, device)?)))
}

/// All but the first column.
fn without_first<T: Copy>(rows: &[T], width: usize) -> Vec<T> {
    rows.chunks(width.max(1)).flat_map(|row| &row[1..]).copied().collect()
}
