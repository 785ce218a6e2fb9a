//! A validation that the ranks share.

use super::TrainError;
use crate::config::TrainConfig;
use crate::data::Batch;
use crate::evaluate::{Accuracy, Validation, validate_on};
use crate::model::{Model, ModelError};
use crate::ranks::{Ranks, RanksError};
use gateloop_dist::Reduce;
use tch::{Kind, TchError, Tensor};

/// What all ranks make of the windows together, each of them of its part. Collective.
pub(super) fn validate_together(
    model: &Model,
    windows: &Batch,
    config: &TrainConfig,
    ranks: &Ranks,
) -> Result<Validation, TrainError> {
    let own = windows.part(ranks.share());
    let (rows, slices) = (config.batch_size, ranks.slices());
    let own = validate_on(model, &own, rows, config.loss_on, slices.as_ref())?;
    if ranks.data().size() == 1 {
        return Ok(own);
    }
    let sums = numbers(&own, model).map_err(ModelError::from)?;
    ranks.data().all_reduce(&sums, Reduce::Sum).map_err(RanksError::from)?;
    Ok(validation(&sums).map_err(ModelError::from)?)
}

/// What can be added up of a validation.
fn numbers(own: &Validation, model: &Model) -> Result<Tensor, TchError> {
    let answers = own.answers.unwrap_or_default();
    let counts = [answers.tokens, answers.right_tokens, answers.lines, answers.right_lines];
    // The mean of no predictions is not a number.
    let sum = if own.tokens == 0 { 0.0 } else { own.loss * own.tokens as f64 };
    let mut numbers = vec![sum, own.tokens as f64, f64::from(u8::from(own.answers.is_some()))];
    numbers.extend(counts.map(|count| count as f64));
    Tensor::f_from_slice(&numbers)?.f_to_device(model.device())
}

fn validation(sums: &Tensor) -> Result<Validation, TchError> {
    let mut numbers = [0.0; 7];
    sums.f_to_kind(Kind::Double)?.f_copy_data(&mut numbers, 7)?;
    let [sum, tokens, has_answers, answers @ ..] = numbers;
    let [tokens_of_answers, right_tokens, lines, right_lines] = answers.map(|n| n as u64);
    let answers = Accuracy { tokens: tokens_of_answers, right_tokens, lines, right_lines };
    Ok(Validation {
        loss: sum / tokens,
        tokens: tokens as u64,
        answers: (has_answers > 0.0).then_some(answers),
    })
}
