//! One step of training after another, without files or terminals.

use super::buckets::{Buckets, Shared};
use super::ema::Ema;
use super::feed::{Drawn, Feed, Windows};
use super::norms::{Norms, by_part};
use super::same::{check_same, make_same};
use super::verdict::Measured;
use super::{Optimizer, TrainError, schedule};
use crate::config::{DistConfig, LossOn, TrainConfig};
use crate::data::Batch;
use crate::device::{DeviceError, has_bf16};
use crate::evaluate::validate;
use crate::model::{Model, ModelError};
use crate::ranks::Ranks;
use gateloop_nn::Autocast;
use std::f64::consts::LN_2;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// A model, its optimiser and its stream of data.
#[derive(Debug)]
pub struct Trainer {
    pub(super) model: Model,
    pub(super) optimizer: Optimizer,
    pub(super) ema: Option<Ema>,
    pub(super) feed: Feed,
    config: TrainConfig,
    pub(super) step: u64,
    ranks: Arc<Ranks>,
    dist: DistConfig,
    /// Where the ranks' gradients meet; laid out by the first step.
    buckets: Option<Buckets>,
    /// Whether the device clips and updates before the host knows the loss.
    runs_ahead: bool,
}

/// What a step showed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// Mean cross entropy in nats a token, before the update.
    pub loss: f64,
    /// The norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Seconds of the model's and the optimiser's work, without waiting for data and without measuring norms.
    pub model_s: f64,
    /// Seconds of that in which the ranks' gradients were exchanged, and waited for.
    pub exchange_s: f64,
    /// Whether a rank wants the run to stop after this step.
    pub stops: bool,
}

impl Trainer {
    /// Starts at step 0, on the windows of a [`WindowSampler`](crate::data::WindowSampler) or a
    /// [`StreamSampler`](crate::data::StreamSampler) of `batch_size` x `grad_accum` streams. States are carried only
    /// between the windows of the latter.
    pub fn new(
        model: Model,
        windows: impl Into<Windows>,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        let ranks = Arc::new(Ranks::single());
        Self::with_ranks(model, windows, config, (&DistConfig::default(), ranks))
    }

    /// The same, for one of several ranks that make each step together, whose windows are its
    /// [`share`](Ranks::share) of theirs. Everything that follows is then collective, and the first rank's parameters are
    /// everybody's.
    pub fn with_ranks(
        mut model: Model,
        windows: impl Into<Windows>,
        config: &TrainConfig,
        (dist, ranks): (&DistConfig, Arc<Ranks>),
    ) -> Result<Self, TrainError> {
        if config.precision == "bf16" && !has_bf16(model.device()) {
            return Err(DeviceError::Precision { device: model.device() }.into());
        }
        model.check_trainable()?;
        model.set_recompute(config.recompute);
        let parameters = model.parameters();
        if ranks.count() > 1 {
            make_same(&parameters, &ranks)?;
            check_same(&parameters, 0, &ranks)?;
        }
        let optimizer = if dist.shard_optimizer && ranks.count() > 1 {
            Optimizer::sharded(&parameters, config, ranks.world().clone())
        } else {
            Optimizer::new(&parameters, config)
        };
        let optimizer = optimizer.map_err(ModelError::from)?;
        let ema = (config.ema_decay > 0.0).then(|| Ema::new(&parameters, config.ema_decay));
        let ema = ema.transpose().map_err(ModelError::from)?;
        let carried = config.carry_state.then_some(config.grad_accum);
        let (batch, loss_on) = (config.batch_size, config.loss_on);
        let feed = Feed::new(windows.into(), batch, loss_on, carried, Arc::clone(&ranks));
        let (config, dist) = (config.clone(), dist.clone());
        let runs_ahead = is_plain_cuda(model.device(), ranks.count());
        let (step, buckets) = (0, None);
        Ok(Self { model, optimizer, ema, feed, config, step, ranks, dist, buckets, runs_ahead })
    }

    fn is_bf16(&self) -> bool {
        self.config.precision == "bf16"
    }

    /// The model in training.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Updates done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The learning rate of the last update; before the first one, of that.
    pub fn lr(&self) -> f64 {
        schedule::lr(&self.config, self.step.saturating_sub(1))
    }

    /// Runs `f` while the model has the averaged weights, if there are any.
    pub fn with_averages<T>(
        &mut self,
        f: impl FnOnce(&Model) -> Result<T, TrainError>,
    ) -> Result<T, TrainError> {
        let Some(ema) = &mut self.ema else { return f(&self.model) };
        ema.exchange().map_err(ModelError::from)?;
        let result = f(&self.model);
        ema.exchange().map_err(ModelError::from)?;
        result
    }

    /// One update from `grad_accum` micro-batches.
    ///
    /// A loss or a gradient that is not finite is an error, and nothing is updated: the parameters
    /// stay those of the step before.
    pub fn train_step(&mut self) -> Result<StepReport, TrainError> {
        self.update(None, false)
    }

    /// [`train_step`](Self::train_step), which also measures every part of the model. The update is the same.
    pub fn train_step_with_norms(&mut self) -> Result<(StepReport, Norms), TrainError> {
        let mut norms = Norms::default();
        Ok((self.update(Some(&mut norms), false)?, norms))
    }

    /// One update, which measures every part of the model if there is a place for it, and tells the other ranks whether
    /// this one wants to stop.
    pub(super) fn update(
        &mut self,
        mut norms: Option<&mut Norms>,
        stops: bool,
    ) -> Result<StepReport, TrainError> {
        let drawn = self.feed.draw(self.config.grad_accum);
        let (begun, mut measuring) = (Instant::now(), Duration::ZERO);
        self.optimizer.clear_gradients().map_err(ModelError::from)?;
        let targets: usize = drawn.iter().map(|drawn| drawn.targets).sum();
        // The mean over all predictions of the step, as if they were of one batch. What other ranks have is only known
        // later: until then the sum over this rank's, in units of what a rank has when all count. It is the loss that
        // is weighed and not its gradient, as that may come from another rank's loss.
        let is_alone = self.ranks.count() == 1;
        let whole = if is_alone { targets.max(1) as f64 } else { self.targets_if_all_count() };
        let losses = self.backward(&drawn, whole)?;
        // What the device does not wait for, it tells with the norm.
        let loss = if self.runs_ahead { f64::NAN } else { read_sum(&losses)? };
        let exchanging = Instant::now();
        let mut shared = Shared { loss, weight: targets as f64 / whole, stops };
        if !is_alone {
            shared = self.average(shared)?;
        }
        let exchange_s = exchanging.elapsed().as_secs_f64();
        if let Some(norms) = &mut norms {
            let begun = Instant::now();
            norms.grad = by_part(self.optimizer.gradients()).map_err(ModelError::from)?;
            measuring = begun.elapsed();
        }
        let lr = schedule::lr(&self.config, self.step);
        let measured = if self.runs_ahead {
            self.optimizer.clip_and_step(&losses, lr).map_err(ModelError::from)?
        } else {
            let grad_norm = self.optimizer.clip_gradients().map_err(ModelError::from)?;
            let measured = Measured { loss: shared.loss, grad_norm };
            if measured.is_finite() {
                self.optimizer.step(lr)?;
            }
            measured
        };
        let Measured { loss, grad_norm } = measured;
        if !measured.is_finite() {
            return Err(TrainError::Diverged { step: self.step + 1, lr, loss, grad_norm });
        }
        self.step += 1;
        if self.dist.check_every > 0 {
            let last = self.step == self.config.steps;
            if last || self.step.is_multiple_of(self.dist.check_every) {
                self.check_same()?;
            }
        }
        if let Some(ema) = &mut self.ema {
            ema.update(self.step).map_err(ModelError::from)?;
        }
        let model_s = begun.elapsed().saturating_sub(measuring).as_secs_f64();
        if let Some(norms) = norms {
            norms.param = by_part(self.optimizer.parameters()).map_err(ModelError::from)?;
        }
        Ok(StepReport { loss, grad_norm, model_s, exchange_s, stops: shared.stops })
    }

    /// Adds the gradients of all micro-batches, whose losses are weighed by their shares of `whole` predictions, and gives
    /// these losses, of which the device is not asked.
    fn backward(&mut self, drawn: &[Drawn], whole: f64) -> Result<Vec<Tensor>, ModelError> {
        let (is_bf16, micro_batches) = (self.is_bf16(), drawn.iter().enumerate());
        let losses = micro_batches.map(|(micro, drawn)| {
            let share = drawn.targets as f64 / whole;
            let loss = {
                let _autocast = is_bf16.then(Autocast::bf16);
                self.feed.loss(&self.model, micro, drawn)?
            };
            let loss = loss.f_mul_scalar(share)?;
            loss.f_backward()?;
            Ok(loss.f_detach()?)
        });
        losses.collect()
    }

    /// Groups of ranks that learn from other windows each.
    pub(super) fn data_ranks(&self) -> usize {
        self.ranks.data().size()
    }

    /// Errs if the ranks' parameters are not the same.
    pub(super) fn check_same(&self) -> Result<(), TrainError> {
        if self.ranks.count() == 1 {
            return Ok(());
        }
        check_same(&self.model.parameters(), self.step, &self.ranks)
    }

    /// Predictions of a step of one rank, if all of them count; where a sequence is shared, on average.
    fn targets_if_all_count(&self) -> f64 {
        let TrainConfig { batch_size, seq_len, grad_accum, .. } = self.config;
        (batch_size * seq_len * grad_accum) as f64 / self.ranks.sequence().size() as f64
    }

    /// The mean over all ranks.
    fn average(&mut self, own: Shared) -> Result<Shared, TrainError> {
        if self.buckets.is_none() {
            let params = self.optimizer.parameters().map(|(_, param)| param);
            let bytes = self.dist.bucket_mb << 20;
            self.buckets = Some(Buckets::new(params, bytes, &self.ranks)?);
        }
        let Some(buckets) = &mut self.buckets else { return Ok(own) };
        buckets.average(own, &self.ranks)
    }
}

/// Whether all that a step takes is in the queue of one GPU: no other rank is asked in between.
fn is_plain_cuda(device: Device, ranks: usize) -> bool {
    device.is_cuda() && ranks == 1
}

/// The sum of scalars, which their device is waited for.
fn read_sum(scalars: &[Tensor]) -> Result<f64, ModelError> {
    scalars.iter().try_fold(0.0, |sum, scalar| Ok(sum + scalar.f_double_value(&[])?))
}

/// Mean cross entropy over windows in bits a token, taken `rows` windows at a time.
pub fn bits_per_character(model: &Model, windows: &Batch, rows: usize) -> Result<f64, ModelError> {
    Ok(validate(model, windows, rows, LossOn::All)?.loss / LN_2)
}

#[cfg(test)]
mod tests;
