//! `[train]`: the optimiser and the rhythm of a run.

use serde::{Deserialize, Serialize};

use super::check::{check, fraction, positive, seed};
use super::{ConfigError, LossOn, Schedule, WindowOrder};

/// How a model is trained; the defaults are those of the reference's training script.
///
/// The optimiser is Adam when `weight_decay` is 0 and otherwise AdamW, whose decay touches only
/// parameters of two or more dimensions. An `*_every` of 0 switches that event off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Optimiser steps in all.
    pub steps: u64,
    /// Sequences a micro-batch.
    pub batch_size: usize,
    /// Tokens a sequence that the loss is taken over; a window holds one more.
    pub seq_len: usize,
    /// Micro-batches whose gradients make one step.
    pub grad_accum: usize,
    /// Which windows a step learns from.
    pub window_order: WindowOrder,
    /// Whether the state goes from a window to the next of its stretch (truncated backpropagation through time):
    /// what was read before is known, and gradients end where a window begins. Needs sequential windows and layers
    /// whose state does not grow.
    pub carry_state: bool,
    /// Compute each layer again in the backward pass and keep only what goes in between layers: less memory
    /// for more time, the numbers are the same to within rounding.
    pub recompute: bool,
    /// Which tokens the loss is taken over, in training and in validation.
    pub loss_on: LossOn,
    /// Learning rate, the highest of the schedule.
    pub lr: f64,
    /// How it goes on after the warm-up.
    pub schedule: Schedule,
    /// Steps in which it rises from near 0 to `lr`, in a straight line.
    pub warmup_steps: u64,
    /// Where a falling schedule ends.
    pub min_lr: f64,
    /// The learning rate of the projections to the state transition (`to_a`), as a share of the others'.
    /// With Adam this is what a lower learning rate is; `model.frac_gradient_state_transition`, the
    /// reference's, scales a gradient that Adam then divides by its own size.
    pub transition_lr_frac: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; 0 is plain Adam.
    pub weight_decay: f64,
    /// Largest norm of the gradient of all parameters together; 0 is no clipping.
    pub clip_norm: f64,
    /// Decay of the exponential moving average of the weights, which is then what is validated, sampled and
    /// used after training; 0 is none. Short of 1 / (1 - decay) steps it is lower: (1 + step) / (10 + step).
    pub ema_decay: f64,
    /// Seed of the initial weights and of the order of the data.
    pub seed: u64,
    /// Steps between records of the training loss.
    pub log_every: u64,
    /// Steps between records of the norms of parameters and gradients, part by part of the model.
    pub norms_every: u64,
    /// Steps between measurements of how long the gates remember, on the first `batch_size` windows of the
    /// validation: without validations (`validate_every = 0`) there are none.
    pub gates_every: u64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Fixed windows that a validation covers.
    pub validate_windows: usize,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Latest checkpoints that are kept; 0 keeps all.
    pub keep_checkpoints: usize,
    /// Steps between generated samples.
    pub sample_every: u64,
    /// Write the records as event files of TensorBoard as well, in `tensorboard/` of the run folder.
    pub tensorboard: bool,
    /// CPU threads; 0 leaves the choice to libtorch.
    pub threads: usize,
    /// `"auto"` (the first GPU if there is one), `"cpu"`, `"cuda"` or `"cuda:N"`.
    pub device: String,
    /// `"f32"`, or `"bf16"`: matrix products in bfloat16, parameters, states and optimiser in f32; on a GPU, or on a CPU
    /// with instructions for it.
    pub precision: String,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 100_000,
            batch_size: 4,
            seq_len: 256,
            grad_accum: 4,
            window_order: WindowOrder::Random,
            carry_state: false,
            recompute: false,
            loss_on: LossOn::All,
            lr: 1e-4,
            schedule: Schedule::Constant,
            warmup_steps: 0,
            min_lr: 0.0,
            transition_lr_frac: 1.0,
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            weight_decay: 0.0,
            clip_norm: 0.5,
            ema_decay: 0.0,
            seed: 42,
            log_every: 10,
            norms_every: 100,
            gates_every: 100,
            validate_every: 100,
            validate_windows: 32,
            checkpoint_every: 1_000,
            keep_checkpoints: 3,
            sample_every: 500,
            tensorboard: false,
            threads: 0,
            device: "auto".to_owned(),
            precision: "f32".to_owned(),
        }
    }
}

impl TrainConfig {
    /// Tokens that one optimiser step learns from.
    pub fn tokens_per_step(&self) -> u64 {
        let sizes = [self.batch_size, self.seq_len, self.grad_accum];
        sizes.iter().fold(1, |product, size| product.saturating_mul(*size as u64))
    }

    /// Checks the ranges.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_sizes()?;
        self.validate_optimiser()
    }

    fn validate_sizes(&self) -> Result<(), ConfigError> {
        let count = |key, value| check(i64::try_from(value).is_ok(), key, value, "0 to 2^63 - 1");
        check(self.steps > 0, "train.steps", self.steps, "1 or more")?;
        count("train.steps", self.steps)?;
        positive("train.batch_size", self.batch_size)?;
        positive("train.seq_len", self.seq_len)?;
        positive("train.grad_accum", self.grad_accum)?;
        positive("train.validate_windows", self.validate_windows)?;
        count("train.warmup_steps", self.warmup_steps)?;
        count("train.log_every", self.log_every)?;
        count("train.norms_every", self.norms_every)?;
        count("train.gates_every", self.gates_every)?;
        count("train.validate_every", self.validate_every)?;
        count("train.checkpoint_every", self.checkpoint_every)?;
        count("train.sample_every", self.sample_every)?;
        count("train.keep_checkpoints", self.keep_checkpoints as u64)?;
        if self.carry_state && self.window_order == WindowOrder::Random {
            return Err(ConfigError::Contradiction {
                first: "train.carry_state = true".to_owned(),
                second: "train.window_order = \"random\"".to_owned(),
                problem: "windows that do not follow one another have no state to hand on; take \"sequential\"",
            });
        }
        if self.carry_state && self.recompute {
            return Err(ConfigError::Contradiction {
                first: "train.carry_state = true".to_owned(),
                second: "train.recompute = true".to_owned(),
                problem: "layers that go on from a state are kept, not computed again; leave one out, and for less \
                          memory take shorter windows",
            });
        }
        check(self.threads <= 1024, "train.threads", self.threads, "0 to 1024")?;
        let device = self.device.as_str();
        let known = matches!(device, "auto" | "cpu" | "cuda")
            || device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u8>().is_ok());
        check(known, "train.device", device, "auto, cpu, cuda or cuda:N")?;
        let precision = self.precision.as_str();
        check(matches!(precision, "f32" | "bf16"), "train.precision", precision, "f32 or bf16")?;
        seed("train.seed", self.seed)
    }

    fn validate_optimiser(&self) -> Result<(), ConfigError> {
        let positive = |key, value: f64| {
            check(value > 0.0 && value.is_finite(), key, value, "finite and above 0")
        };
        let not_negative = |key, value: f64| {
            check(value >= 0.0 && value.is_finite(), key, value, "finite, 0 or above (0 is off)")
        };
        let beta = |key, value: f64| {
            check((0.0..1.0).contains(&value), key, value, "0 or above and below 1")
        };
        positive("train.lr", self.lr)?;
        beta("train.beta1", self.beta1)?;
        beta("train.beta2", self.beta2)?;
        positive("train.eps", self.eps)?;
        not_negative("train.weight_decay", self.weight_decay)?;
        not_negative("train.clip_norm", self.clip_norm)?;
        fraction("train.transition_lr_frac", self.transition_lr_frac)?;
        beta("train.ema_decay", self.ema_decay)?;
        self.validate_schedule()
    }

    fn validate_schedule(&self) -> Result<(), ConfigError> {
        let Self { lr, min_lr, warmup_steps, steps, schedule, .. } = *self;
        let usable = min_lr >= 0.0 && min_lr.is_finite();
        check(usable, "train.min_lr", min_lr, "finite, 0 or above")?;
        let contradiction = |first: String, second: String, problem| {
            Err(ConfigError::Contradiction { first, second, problem })
        };
        if min_lr > lr {
            let (first, second) =
                (format!("train.min_lr = {min_lr:e}"), format!("train.lr = {lr:e}"));
            return contradiction(
                first,
                second,
                "the schedule falls; lower the one or raise the other",
            );
        }
        if min_lr > 0.0 && schedule == Schedule::Constant {
            let first = format!("train.min_lr = {min_lr:e}");
            let second = "train.schedule = \"constant\"".to_owned();
            let problem = "a constant rate ends where it began; take \"cosine\" or \"linear\"";
            return contradiction(first, second, problem);
        }
        if warmup_steps > 0 && warmup_steps >= steps {
            let first = format!("train.warmup_steps = {warmup_steps}");
            let second = format!("train.steps = {steps}");
            return contradiction(first, second, "nothing is left after the warm-up; shorten it");
        }
        Ok(())
    }
}
