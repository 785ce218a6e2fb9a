//! The figure that training watches: a few fixed windows, each from an empty state.

use super::predict::Rows;
use super::tally::Tally;
use super::{Accuracy, Evaluation};
use crate::config::LossOn;
use crate::data::Batch;
use crate::model::{Model, ModelError};
use gateloop_nn::SequenceRanks;
use std::f64::consts::LN_2;
use std::sync::Arc;

/// What a validation came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Validation {
    /// Mean loss in nats a token, of the tokens that count.
    pub loss: f64,
    /// How many of them there are.
    pub tokens: u64,
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
    validate_on(model, windows, rows, loss_on, None)
}

/// The same among the ranks of a sequence, which read a slice of each window each. Collective among them.
pub fn validate_on(
    model: &Model,
    windows: &Batch,
    rows: usize,
    loss_on: LossOn,
    ranks: Option<&Arc<dyn SequenceRanks>>,
) -> Result<Validation, ModelError> {
    let mut tally = Tally::default();
    tch::no_grad(|| {
        for batch in windows.chunks(rows) {
            let predicted = match ranks {
                Some(ranks) => Rows::predict_together(model, &batch, loss_on, ranks)?,
                None => Rows::predict(model, &batch, loss_on, None)?,
            };
            predicted.each(|row| {
                tally.begin();
                tally.add(row, 0, |place| row.count(place));
            });
        }
        Ok::<(), ModelError>(())
    })?;
    let Evaluation { bpc, tokens, answers, .. } = tally.finish(false, 1.0);
    Ok(Validation { loss: bpc * LN_2, tokens, answers })
}
