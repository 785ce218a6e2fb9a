//! What a model makes of windows, prediction by prediction.

use crate::config::LossOn;
use crate::data::{Batch, Mark};
use crate::model::{DecodeState, Model, ModelError};
use gateloop_nn::{Segments, SequenceRanks};
use std::sync::Arc;
use tch::{Device, Kind, Reduction, TchError, Tensor};

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
        let ids = ids(batch, model.device())?;
        let inputs = ids.f_narrow(1, 0, ids.size()[1] - 1)?;
        let segments = segments(batch, model.device())?;
        let logits = match (state, &segments) {
            (Some(state), segments) => model.prefill_packed(&inputs, state, segments.as_ref())?,
            (None, Some(segments)) => model.forward_packed(&inputs, segments)?,
            (None, None) => model.forward(&inputs)?,
        };
        let judged = Judged::new(&logits, &ids, batch.marks.is_some())?;
        Self::of(batch, loss_on, &judged)
    }

    /// The same, where every rank of a sequence reads its slice of each window; all of them get all predictions.
    /// Collective.
    pub(super) fn predict_together(
        model: &Model,
        batch: &Batch,
        loss_on: LossOn,
        ranks: &Arc<dyn SequenceRanks>,
    ) -> Result<Self, ModelError> {
        let own = batch.slice(ranks.rank(), ranks.size());
        let ids = ids(&own, model.device())?;
        let inputs = ids.f_narrow(1, 0, ids.size()[1] - 1)?;
        let segments = segments(&own, model.device())?;
        let logits = model.forward_slice(&inputs, segments.as_ref(), ranks)?;
        let judged = Judged::new(&logits, &ids, batch.marks.is_some())?;
        Self::of(batch, loss_on, &judged.of_all(batch, ranks)?)
    }

    fn of(batch: &Batch, loss_on: LossOn, judged: &Judged) -> Result<Self, ModelError> {
        let mut losses = vec![0.0; judged.losses.numel()];
        judged.losses.f_contiguous()?.f_copy_data(&mut losses, judged.losses.numel())?;
        let answers = match (&batch.marks, &judged.right) {
            (Some(marks), Some(right)) => {
                let mut values = vec![false; right.numel()];
                right.f_contiguous()?.f_copy_data(&mut values, right.numel())?;
                Some((without_first(marks, batch.window_len), values))
            }
            _ => None,
        };
        let counts = batch.counts(loss_on);
        Ok(Self {
            len: batch.window_len.saturating_sub(1),
            losses,
            counts: counts.map(|counts| without_first(&counts, batch.window_len)),
            answers,
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

/// Predictions as tensors, [B, T].
struct Judged {
    /// Float.
    losses: Tensor,
    /// Bool: whether what came was the likeliest, if that is asked for.
    right: Option<Tensor>,
}

impl Judged {
    /// Of logits [B, T, V] for all but the first of ids [B, T + 1].
    fn new(logits: &Tensor, ids: &Tensor, with_right: bool) -> Result<Self, TchError> {
        let (batch, len) = (logits.size()[0], logits.size()[1]);
        let logits = logits.f_flatten(0, 1)?;
        let targets = ids.f_narrow(1, 1, len)?.f_reshape([-1])?;
        let losses = logits
            .f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::None, -100, 0.0)?
            .f_to_kind(Kind::Float)?
            .f_view([batch, len])?;
        let right = with_right
            .then(|| logits.f_argmax(-1, false)?.f_eq_tensor(&targets)?.f_view([batch, len]));
        Ok(Self { losses, right: right.transpose()? })
    }

    /// From each rank's slice of the windows the whole of them.
    fn of_all(&self, batch: &Batch, ranks: &Arc<dyn SequenceRanks>) -> Result<Self, ModelError> {
        let size = ranks.size();
        let lens: Vec<i64> = (0..size).map(|rank| batch.slice_len(rank, size) as i64).collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        // Slices may differ by a token; what is gathered may not.
        let padded =
            |x: &Tensor| x.f_to_kind(Kind::Float)?.f_constant_pad_nd([0, longest - x.size()[1]]);
        let parts: Vec<Tensor> = [Some(&self.losses), self.right.as_ref()]
            .into_iter()
            .flatten()
            .map(padded)
            .collect::<Result<_, _>>()?;
        let own = Tensor::f_stack(&parts, 0)?;
        let all = ranks.all_gather(&own.f_view([-1])?)?;
        let all = all.f_view([size as i64, parts.len() as i64, -1, longest])?;
        let whole = |part: i64| {
            let slices = lens.iter().enumerate().map(|(rank, len)| {
                all.f_select(0, rank as i64)?.f_select(0, part)?.f_narrow(1, 0, *len)
            });
            Tensor::f_cat(&slices.collect::<Result<Vec<_>, _>>()?, 1)
        };
        let right = self.right.as_ref().map(|_| whole(1)?.f_to_kind(Kind::Bool));
        Ok(Self { losses: whole(0)?, right: right.transpose()? })
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
