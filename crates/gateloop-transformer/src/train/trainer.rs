//! One step of training after another, without files or terminals.

use super::ema::Ema;
use super::feed::{Feed, Windows};
use super::norms::{Norms, by_part};
use super::{Optimizer, TrainError, schedule};
use crate::config::{LossOn, TrainConfig};
use crate::data::Batch;
use crate::device::{DeviceError, has_bf16};
use crate::evaluate::validate;
use crate::model::{Model, ModelError};
use gateloop_nn::Autocast;
use std::f64::consts::LN_2;
use std::time::{Duration, Instant};

/// A model, its optimiser and its stream of data.
#[derive(Debug)]
pub struct Trainer {
    pub(super) model: Model,
    pub(super) optimizer: Optimizer,
    pub(super) ema: Option<Ema>,
    pub(super) feed: Feed,
    config: TrainConfig,
    pub(super) step: u64,
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
}

impl Trainer {
    /// Starts at step 0, on the windows of a [`WindowSampler`](crate::data::WindowSampler) or a
    /// [`StreamSampler`](crate::data::StreamSampler) of `batch_size` x `grad_accum` streams. States are carried only
    /// between the windows of the latter.
    pub fn new(
        mut model: Model,
        windows: impl Into<Windows>,
        config: &TrainConfig,
    ) -> Result<Self, TrainError> {
        if config.precision == "bf16" && !has_bf16(model.device()) {
            return Err(DeviceError::Precision { device: model.device() }.into());
        }
        model.check_trainable()?;
        model.set_recompute(config.recompute);
        let parameters = model.parameters();
        let optimizer = Optimizer::new(&parameters, config).map_err(ModelError::from)?;
        let ema = (config.ema_decay > 0.0).then(|| Ema::new(&parameters, config.ema_decay));
        let ema = ema.transpose().map_err(ModelError::from)?;
        let carried = config.carry_state.then_some(config.grad_accum);
        let feed = Feed::new(windows.into(), config.batch_size, config.loss_on, carried);
        Ok(Self { model, optimizer, ema, feed, config: config.clone(), step: 0 })
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
        self.update(None)
    }

    /// [`train_step`](Self::train_step), which also measures every part of the model. The update is the same.
    pub fn train_step_with_norms(&mut self) -> Result<(StepReport, Norms), TrainError> {
        let mut norms = Norms::default();
        Ok((self.update(Some(&mut norms))?, norms))
    }

    fn update(&mut self, mut norms: Option<&mut Norms>) -> Result<StepReport, TrainError> {
        let drawn = self.feed.draw(self.config.grad_accum);
        let (begun, mut measuring) = (Instant::now(), Duration::ZERO);
        self.optimizer.clear_gradients().map_err(ModelError::from)?;
        let targets: usize = drawn.iter().map(|drawn| drawn.targets).sum();
        let mut loss = 0.0;
        for (micro, drawn) in drawn.iter().enumerate() {
            // The mean over all predictions of the step, as if they were of one batch.
            let share = drawn.targets as f64 / targets.max(1) as f64;
            let micro = {
                let _autocast = self.is_bf16().then(Autocast::bf16);
                self.feed.loss(&self.model, micro, drawn)?
            };
            let micro = micro.f_mul_scalar(share).map_err(ModelError::from)?;
            micro.f_backward().map_err(ModelError::from)?;
            loss += micro.f_double_value(&[]).map_err(ModelError::from)?;
        }
        if let Some(norms) = &mut norms {
            let begun = Instant::now();
            norms.grad = by_part(self.optimizer.gradients()).map_err(ModelError::from)?;
            measuring = begun.elapsed();
        }
        let grad_norm = self.optimizer.clip_gradients().map_err(ModelError::from)?;
        let lr = schedule::lr(&self.config, self.step);
        if !(loss.is_finite() && grad_norm.is_finite()) {
            let step = self.step + 1;
            return Err(TrainError::Diverged { step, lr, loss, grad_norm });
        }
        self.optimizer.step(lr).map_err(ModelError::from)?;
        self.step += 1;
        if let Some(ema) = &mut self.ema {
            ema.update(self.step).map_err(ModelError::from)?;
        }
        let model_s = begun.elapsed().saturating_sub(measuring).as_secs_f64();
        if let Some(norms) = norms {
            norms.param = by_part(self.optimizer.parameters()).map_err(ModelError::from)?;
        }
        Ok(StepReport { loss, grad_norm, model_s })
    }
}

/// Mean cross entropy over windows in bits a token, taken `rows` windows at a time.
pub fn bits_per_character(model: &Model, windows: &Batch, rows: usize) -> Result<f64, ModelError> {
    Ok(validate(model, windows, rows, LossOn::All)?.loss / LN_2)
}
