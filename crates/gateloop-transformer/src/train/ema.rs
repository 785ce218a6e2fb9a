//! An exponential moving average of the weights.

use crate::weights::{self, Tensors, WeightsError};
use gateloop_nn::{NnError, foreach};
use tch::Tensor;

/// A tensor of its own with the same numbers.
fn copy(tensor: &Tensor) -> Result<Tensor, NnError> {
    let mut copy = tensor.f_detach()?.f_empty_like()?;
    copy.f_copy_(&tensor.f_detach()?)?;
    Ok(copy)
}

/// Averages of a model's parameters over the updates (Polyak and Juditsky 1992; the warm-up of the decay is
/// TensorFlow's).
#[derive(Debug)]
pub(super) struct Ema {
    decay: f64,
    params: Vec<Tensor>,
    averages: Vec<Tensor>,
    names: Vec<String>,
}

impl Ema {
    /// Averages that begin at the parameters as they are.
    pub(super) fn new(parameters: &Tensors, decay: f64) -> Result<Self, NnError> {
        Ok(Self {
            decay,
            params: parameters.values().map(Tensor::shallow_clone).collect(),
            averages: parameters.values().map(copy).collect::<Result<_, NnError>>()?,
            names: parameters.keys().cloned().collect(),
        })
    }

    /// Takes in the parameters after update number `step`, counted from 1.
    pub(super) fn update(&mut self, step: u64) -> Result<(), NnError> {
        let step = step as f64;
        let decay = self.decay.min((1.0 + step) / (10.0 + step));
        foreach::lerp_(&self.averages, &self.params, 1.0 - decay)
    }

    /// Puts the averages into the model and keeps the parameters; a second time, the other way round.
    pub(super) fn exchange(&mut self) -> Result<(), NnError> {
        tch::no_grad(|| {
            for (param, average) in self.params.iter_mut().zip(&mut self.averages) {
                let kept = copy(param)?;
                param.f_copy_(average)?;
                average.f_copy_(&kept)?;
            }
            Ok(())
        })
    }

    /// The averages by the names of their parameters.
    pub(super) fn state(&self) -> Tensors {
        let averages = self.averages.iter().map(Tensor::shallow_clone);
        self.names.iter().cloned().zip(averages).collect()
    }

    /// Goes on from averages that [`state`](Self::state) gave.
    pub(super) fn load_state(&mut self, state: &Tensors) -> Result<(), WeightsError> {
        weights::load_strict(&self.state(), state)
    }
}
