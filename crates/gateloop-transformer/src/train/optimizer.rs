//! Adam and AdamW with decay groups, gradient clipping, and moments that can be saved.

use super::TrainError;
use super::shard::{Shard, place};
use super::verdict::{CLIP_EPS, Measured, Verdict};
use crate::config::TrainConfig;
use crate::model::ModelError;
use crate::weights::{self, Tensors, WeightsError};
use gateloop_dist::Group;
use gateloop_nn::NnError;
use gateloop_nn::foreach::{self, AdamW, AdamWGuard, AdamWState};
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, TchError, Tensor};

/// The optimiser of a model: Adam, or AdamW whose decay touches only the parameters of two or more
/// dimensions (matrices decay; biases and norms do not), as in the reference's training script. The
/// projections to the state transition may have a learning rate of their own.
#[derive(Debug)]
pub struct Optimizer {
    slots: Vec<Slot>,
    options: AdamW,
    transition_lr_frac: f64,
    clip_norm: f64,
    /// `None` where this rank updates everything.
    shard: Option<Shard>,
}

/// A parameter with its moments.
#[derive(Debug)]
struct Slot {
    name: String,
    param: Tensor,
    /// Of the parameter, or of this rank's piece of it.
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Number of updates: a Float scalar, as libtorch's fused update counts.
    steps: Tensor,
    /// The elements of the parameter that are this rank's to update; all if `None`.
    piece: Option<Range<i64>>,
}

impl Slot {
    fn new(name: &str, param: &Tensor, piece: Option<Range<i64>>) -> Result<Self, NnError> {
        let zeros = || match &piece {
            None => tch::no_grad(|| param.f_zeros_like()),
            Some(piece) => {
                Tensor::f_zeros([piece.end - piece.start], (param.kind(), param.device()))
            }
        };
        Ok(Self {
            name: name.to_owned(),
            param: param.shallow_clone(),
            exp_avg: zeros()?,
            exp_avg_sq: zeros()?,
            steps: Tensor::f_zeros([], (Kind::Float, param.device()))?,
            piece,
        })
    }

    /// This rank's elements of a tensor like the parameter; nothing is copied.
    fn own(&self, tensor: &Tensor) -> Result<Tensor, NnError> {
        let Some(piece) = &self.piece else { return Ok(tensor.shallow_clone()) };
        // A view of a leaf that records gradients could not be updated in place.
        let flat = tensor.f_detach()?.f_view([-1])?;
        Ok(flat.f_narrow(0, piece.start, piece.end - piece.start)?)
    }

    /// This rank's part of `exp_avg` or `exp_avg_sq`.
    fn moment(&self, part: &str) -> Tensor {
        if part == "exp_avg" { &self.exp_avg } else { &self.exp_avg_sq }.shallow_clone()
    }

    fn is_empty(&self) -> bool {
        self.piece.as_ref().is_some_and(Range::is_empty)
    }

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
        let slots = trained(parameters).map(|(name, param)| Slot::new(name, param, None));
        Ok(Self::of(slots.collect::<Result<_, NnError>>()?, config, None))
    }

    /// The same, where each rank of a group keeps the moments of its share and updates that; all have the parameters and
    /// their gradients. [`step`](Self::step) and [`state`](Self::state) are then collective.
    pub fn sharded(
        parameters: &BTreeMap<String, Tensor>,
        config: &TrainConfig,
        group: Group,
    ) -> Result<Self, NnError> {
        let total = trained(parameters).map(|(_, param)| param.numel() as i64).sum();
        let shard = Shard::new(group, total);
        let mut before = 0;
        let slots = trained(parameters).map(|(name, param)| {
            let numel = param.numel() as i64;
            let piece = shard.piece(before, numel);
            before += numel;
            Slot::new(name, param, Some(piece))
        });
        let slots = slots.collect::<Result<_, NnError>>()?;
        Ok(Self::of(slots, config, Some(shard)))
    }

    fn of(slots: Vec<Slot>, config: &TrainConfig, shard: Option<Shard>) -> Self {
        let TrainConfig { lr, beta1, beta2, eps, weight_decay, clip_norm, .. } = *config;
        let options = AdamW { lr, beta1, beta2, eps, weight_decay };
        let transition_lr_frac = config.transition_lr_frac;
        Self { slots, options, transition_lr_frac, clip_norm, shard }
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
            foreach::mul_(&grads, self.clip_norm / (norm + CLIP_EPS))?;
        }
        Ok(norm)
    }

    /// Updates every parameter that has a gradient, at a learning rate.
    pub fn step(&mut self, lr: f64) -> Result<(), TrainError> {
        self.update(lr, None).map_err(ModelError::from)?;
        let Some(shard) = &self.shard else { return Ok(()) };
        let own = self.slots.iter().map(|slot| slot.own(&slot.param));
        let own = own.collect::<Result<Vec<_>, NnError>>().map_err(ModelError::from)?;
        let params = self.slots.iter().map(|slot| slot.param.f_detach());
        let params = params.collect::<Result<Vec<_>, TchError>>().map_err(ModelError::from)?;
        Ok(shard.gather(&own, |before, elements| place(before, elements, &params))?)
    }

    /// [`clip_gradients`](Self::clip_gradients) and [`step`](Self::step) in one, for gradients of the sum of `losses`, by
    /// an optimiser that has no shares. The device is waited for once, when there is nothing left to give it.
    ///
    /// If loss or norm is not finite, nothing is updated.
    pub(super) fn clip_and_step(
        &mut self,
        losses: &[Tensor],
        lr: f64,
    ) -> Result<Measured, NnError> {
        let grads: Vec<Tensor> = self.gradients().map(|(_, grad)| grad).collect();
        let verdict = Verdict::new(losses, &grads, self.clip_norm)?;
        self.update(lr, Some(&verdict.guard()))?;
        verdict.read()
    }

    /// This rank's part of a step.
    fn update(&mut self, lr: f64, guard: Option<&AdamWGuard<'_>>) -> Result<(), NnError> {
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
            let (elsewhere, own): (Vec<&Slot>, Vec<&Slot>) =
                group.into_iter().partition(|slot| slot.is_empty());
            // What other ranks update is counted here all the same.
            for slot in elsewhere {
                let _ = slot.steps.shallow_clone().f_add_scalar_(1)?;
            }
            let list = |tensor: fn(&Slot) -> Result<Tensor, NnError>| {
                own.iter().map(|slot| tensor(slot)).collect::<Result<Vec<Tensor>, NnError>>()
            };
            let state = AdamWState {
                params: &list(|slot| slot.own(&slot.param))?,
                grads: &list(|slot| slot.own(&slot.param.grad()))?,
                exp_avgs: &list(|slot| Ok(slot.exp_avg.shallow_clone()))?,
                exp_avg_sqs: &list(|slot| Ok(slot.exp_avg_sq.shallow_clone()))?,
                steps: &list(|slot| Ok(slot.steps.shallow_clone()))?,
            };
            let options = AdamW { lr, weight_decay, ..self.options };
            match guard {
                Some(guard) => foreach::adamw_guarded_(&state, &options, guard)?,
                None => foreach::adamw_(&state, &options)?,
            }
        }
        Ok(())
    }

    /// The moments and counts by name: `exp_avg.NAME`, `exp_avg_sq.NAME`, `step.NAME`. Where ranks have shares of them, the
    /// first one gets the whole, and the others what they have.
    pub fn state(&self) -> Result<Tensors, TrainError> {
        let mut state = self.local_state();
        let Some(shard) = &self.shard else { return Ok(state) };
        for part in ["exp_avg", "exp_avg_sq"] {
            let own: Vec<Tensor> = self.slots.iter().map(|slot| slot.moment(part)).collect();
            let whole = self.slots.iter().filter(|_| shard.is_first());
            let whole = whole.map(|slot| slot.param.f_detach()?.f_empty_like());
            let whole = whole.collect::<Result<Vec<_>, TchError>>().map_err(ModelError::from)?;
            shard.gather(&own, |before, elements| place(before, elements, &whole))?;
            let named = self.slots.iter().map(|slot| format!("{part}.{}", slot.name));
            state.extend(named.zip(whole));
        }
        Ok(state)
    }

    /// What this rank keeps of it.
    fn local_state(&self) -> Tensors {
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

    /// Goes on from moments that [`state`](Self::state) gave, on any number of ranks.
    pub fn load_state(&mut self, state: &Tensors) -> Result<(), WeightsError> {
        if self.shard.is_none() {
            return weights::load_strict(&self.local_state(), state);
        }
        let mut own: Tensors =
            state.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        for (slot, part) in self.slots.iter().flat_map(|s| [(s, "exp_avg"), (s, "exp_avg_sq")]) {
            // What is missing, or of another shape, is named by the check below.
            if let Some(tensor) = own.get_mut(&format!("{part}.{}", slot.name))
                && tensor.size() == slot.param.size()
                && let Ok(piece) = slot.own(tensor)
            {
                *tensor = piece;
            }
        }
        weights::load_strict(&self.local_state(), &own)
    }
}

/// The parameters that are trained, in the order of their names.
fn trained(parameters: &BTreeMap<String, Tensor>) -> impl Iterator<Item = (&String, &Tensor)> {
    parameters.iter().filter(|(_, param)| param.requires_grad())
}

#[cfg(test)]
mod tests;
