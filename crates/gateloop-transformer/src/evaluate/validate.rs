//! The figure that training watches: a few fixed windows, each from an empty state.

use super::tally::Tally;
use super::{Accuracy, Rows, to_tensor};
use crate::config::LossOn;
use crate::data::Batch;
use crate::model::{Model, ModelError};
use std::f64::consts::LN_2;

/// What a validation came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Mean loss in nats a token, of the tokens that count.
    pub loss: f64,
    /// Of a synthetic task.
    pub answers: Option<Accuracy>,
}

impl Validation {
    /// Bits a byte of text, of tokens of so many bytes.
    pub fn bpc(&self, bytes_per_token: f64) -> f64 {
        self.loss / LN_2 / bytes_per_token
    }
}

/// Predicts all but the first token of each window, `rows` windows at a time.
pub fn validate(
    model: &Model,
    windows: &Batch,
    rows: usize,
    loss_on: LossOn,
) -> Result<Validation, ModelError> {
    let mut tally = Tally::default();
    let len = windows.window_len.saturating_sub(1);
    tch::no_grad(|| {
        for batch in windows.chunks(rows) {
            let ids = to_tensor(&batch.ids, batch.batch, model)?;
            let logits = model.forward(&ids.f_narrow(1, 0, len as i64)?)?;
            let targets = without_first(&batch.ids, batch.window_len);
            let marks = batch.marks.as_ref().map(|marks| without_first(marks, batch.window_len));
            Rows::of(&logits, &targets, marks.as_deref(), model)?.each(len, |row| {
                tally.begin();
                tally.add(row, 0, |place| row.count(place, loss_on));
            });
        }
        Ok::<(), ModelError>(())
    })?;
    let evaluation = tally.finish(false, 1.0);
    Ok(Validation { loss: evaluation.bpc * LN_2, answers: evaluation.answers })
}

/// All but the first column.
fn without_first<T: Copy>(rows: &[T], width: usize) -> Vec<T> {
    rows.chunks(width).flat_map(|row| &row[1..]).copied().collect()
}
