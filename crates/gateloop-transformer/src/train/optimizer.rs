//! Adam and AdamW with decay groups, gradient clipping, and moments that can be saved.

use crate::config::TrainConfig;
use crate::weights::{self, Tensors, WeightsError};
use gateloop_nn::NnError;
use gateloop_nn::foreach::{self, AdamW, AdamWState};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

/// The optimiser of a model: Adam, or AdamW whose decay touches only the parameters of two or more
/// dimensions (matrices decay; biases and norms do not), as in the reference's training script. The
/// projections to the state transition may have a learning rate of their own.
#[derive(Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    options: AdamW,
    transition_lr_frac: f64,
    clip_norm: f64,
}

/// A parameter with its moments.
#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Number of updates: a Float scalar, as libtorch's fused update counts.
    steps: Tensor,
}

impl Slot {
    /// Whether this belongs to a projection to the state transition.
    fn is_transition(&self) -> bool {
        self.name.split('.').any(|part| part == "to_a")
    }
}

impl Optimizer {
    /// Moments of zero for every parameter that is trained.
    pub fn new(
        parameters: &BTreeMap<String, Tensor>,
        config: &TrainConfig,
    ) -> Result<Self, NnError> {
        let slots = parameters
            .iter()
            .filter(|(_, param)| param.requires_grad())
            .map(|(name, param)| {
                let zeros = || tch::no_grad(|| param.f_zeros_like());
                Ok(Slot {
                    name: name.clone(),
                    param: param.shallow_clone(),
                    exp_avg: zeros()?,
                    exp_avg_sq: zeros()?,
                    steps: Tensor::f_zeros([], (Kind::Float, param.device()))?,
                })
            })
            .collect::<Result<_, NnError>>()?;
        let TrainConfig { lr, beta1, beta2, eps, weight_decay, clip_norm, .. } = *config;
        let options = AdamW { lr, beta1, beta2, eps, weight_decay };
        Ok(Self { slots, options, transition_lr_frac: config.transition_lr_frac, clip_norm })
    }

    /// Gives back all gradients.
    pub fn clear_gradients(&mut self) -> Result<(), NnError> {
        let params: Vec<Tensor> = self.slots.iter().map(|s| s.param.shallow_clone()).collect();
        foreach::clear_grads(&params)
    }

    /// The gradients that there are, by the names of their parameters.
    pub(super) fn gradients(&self) -> impl Iterator<Item = (&str, Tensor)> {
        let named = self.slots.iter().map(|slot| (slot.name.as_str(), slot.param.grad()));
        named.filter(|(_, grad)| grad.defined())
    }

    /// The parameters that are trained, by name.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, Tensor)> {
        self.slots.iter().map(|slot| (slot.name.as_str(), slot.param.shallow_clone()))
    }

    /// The norm of all gradients together, which are scaled down to `clip_norm` if it is above it.
    pub fn clip_gradients(&self) -> Result<f64, NnError> {
        let grads: Vec<Tensor> = self.gradients().map(|(_, grad)| grad).collect();
        let norm = foreach::total_norm(&grads)?;
        if self.clip_norm > 0.0 && norm > self.clip_norm {
            foreach::mul_(&grads, self.clip_norm / (norm + 1e-6))?;
        }
        Ok(norm)
    }

    /// Updates every parameter that has a gradient, at a learning rate.
    pub fn step(&mut self, lr: f64) -> Result<(), NnError> {
        for (decays, transition) in [(true, false), (false, false), (true, true), (false, true)] {
            let group: Vec<&Slot> = self
                .slots
                .iter()
                .filter(|slot| slot.param.grad().defined())
                .filter(|slot| {
                    (slot.param.dim() >= 2, slot.is_transition()) == (decays, transition)
                })
                .collect();
            let weight_decay = if decays { self.options.weight_decay } else { 0.0 };
            let lr = if transition { lr * self.transition_lr_frac } else { lr };
            let list = |tensor: fn(&Slot) -> Tensor| -> Vec<Tensor> {
                group.iter().map(|slot| tensor(slot)).collect()
            };
            let state = AdamWState {
                params: &list(|slot| slot.param.shallow_clone()),
                grads: &list(|slot| slot.param.grad()),
                exp_avgs: &list(|slot| slot.exp_avg.shallow_clone()),
                exp_avg_sqs: &list(|slot| slot.exp_avg_sq.shallow_clone()),
                steps: &list(|slot| slot.steps.shallow_clone()),
            };
            foreach::adamw_(&state, &AdamW { lr, weight_decay, ..self.options })?;
        }
        Ok(())
    }

    /// The moments and counts by name: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`.
    pub fn state(&self) -> Tensors {
        self.slots
            .iter()
            .flat_map(|slot| {
                [
                    ("exp_avg", &slot.exp_avg),
                    ("exp_avg_sq", &slot.exp_avg_sq),
                    ("step", &slot.steps),
                ]
                .map(|(part, tensor)| (format!("{part}.{}", slot.name), tensor.shallow_clone()))
            })
            .collect()
    }

    /// Goes on from moments that [`state`](Self::state) gave.
    pub fn load_state(&mut self, state: &Tensors) -> Result<(), WeightsError> {
        weights::load_strict(&self.state(), state)
    }
}
