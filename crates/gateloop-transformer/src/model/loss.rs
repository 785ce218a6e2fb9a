//! What a model is trained on: the cross entropy of windows.

use super::error::ids_error;
use super::{Ablation, DecodeState, Model, ModelError};
use gateloop_nn::autograd::gradients_are_recorded;
use gateloop_nn::{Segments, SequenceRanks};
use std::sync::Arc;
use tch::{Kind, Reduction, Tensor};

/// The target that no loss is taken of.
const IGNORED: i64 = -100;

/// Windows to take a loss of.
#[derive(Debug, Clone, Copy)]
pub struct LossInput<'a> {
    /// Int64 [B, T + 1], T >= 1: each token is predicted from those before it.
    pub windows: &'a Tensor,
    /// Bool [B, T + 1], the first column ignored: the tokens that count; all if `None`.
    pub counts: Option<&'a Tensor>,
    /// The texts that begin inside the first T tokens, [B, T].
    pub segments: Option<&'a Arc<Segments>>,
    /// Those that have the other slices of the windows, where this is one: then the loss is that of the slice. Collective
    /// among them, and so is the backward pass.
    pub ranks: Option<&'a Arc<dyn SequenceRanks>>,
}

impl<'a> From<&'a Tensor> for LossInput<'a> {
    fn from(windows: &'a Tensor) -> Self {
        Self { windows, counts: None, segments: None, ranks: None }
    }
}

impl Model {
    /// Mean cross entropy in nats of predicting each token from those before it.
    ///
    /// # Shapes
    /// - `windows`: Int64 [B, T + 1], T >= 1; returns a scalar
    ///
    /// Of a quantised model under [`tch::no_grad`] only.
    pub fn loss(&self, windows: &Tensor) -> Result<Tensor, ModelError> {
        self.loss_with(windows, Ablation::default())
    }

    /// [`loss`](Self::loss) with ablations for this call.
    pub fn loss_with(&self, windows: &Tensor, ablation: Ablation) -> Result<Tensor, ModelError> {
        self.check_windows(windows)?;
        let logits =
            self.run(&windows.f_narrow(1, 0, windows.size()[1] - 1)?, ablation, None, None)?;
        self.cross_entropy(&logits, windows)
    }

    /// [`loss`](Self::loss) of windows that go on from `state`, which is moved past the tokens that are read. The
    /// gradient goes back into `state`, unless it is [`detached`](DecodeState::detached).
    ///
    /// # Shapes
    /// - `windows`: Int64 [B, T + 1], T >= 1; returns a scalar
    pub fn loss_from(
        &self,
        windows: &Tensor,
        state: &mut DecodeState,
    ) -> Result<Tensor, ModelError> {
        self.loss_of(&windows.into(), Some(state))
    }

    /// [`loss`](Self::loss) with all that can be said of the windows, from an empty state or as
    /// [`loss_from`](Self::loss_from); 0 where no token counts.
    pub fn loss_of(
        &self,
        input: &LossInput<'_>,
        state: Option<&mut DecodeState>,
    ) -> Result<Tensor, ModelError> {
        let LossInput { windows, counts, segments, ranks } = *input;
        self.check_windows(windows)?;
        let len = windows.size()[1] - 1;
        let inputs = windows.f_narrow(1, 0, len)?;
        let logits = match state {
            Some(_) if ranks.is_some() => {
                let problem =
                    "a slice of a sequence goes on from the slice before, not from a state";
                return Err(ModelError::State { problem: problem.to_owned() });
            }
            Some(state) => self.logits(&self.read(&inputs, state, segments)?)?,
            None => self.run(&inputs, Ablation::default(), segments, ranks)?,
        };
        let Some(counts) = counts else { return self.cross_entropy(&logits, windows) };
        let counts = counts.f_narrow(1, 1, len)?.f_reshape([-1])?;
        let targets = windows.f_narrow(1, 1, len)?.f_reshape([-1])?;
        let targets = targets.f_masked_fill(&counts.f_logical_not()?, IGNORED)?;
        let logits = logits.f_reshape([-1, self.config.num_tokens as i64])?;
        let sum =
            logits.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Sum, IGNORED, 0.0)?;
        let number = counts.f_sum(Kind::Float)?.f_clamp_min(1.0)?;
        Ok(sum.f_div(&number)?)
    }

    /// Refuses what is no matrix of windows, and weights that cannot be trained where gradients are recorded.
    fn check_windows(&self, windows: &Tensor) -> Result<(), ModelError> {
        if gradients_are_recorded() {
            self.check_trainable()?;
        }
        let [_, len] = windows.size()[..] else { return Err(ids_error(windows, "[B, T + 1]")) };
        if len < 2 {
            return Err(ids_error(windows, "[B, T + 1] with T at least 1"));
        }
        self.check_ids(windows, 2)
    }

    /// Of logits [B, T, V] for all but the first token of windows [B, T + 1].
    fn cross_entropy(&self, logits: &Tensor, windows: &Tensor) -> Result<Tensor, ModelError> {
        let targets = windows.f_narrow(1, 1, windows.size()[1] - 1)?.f_reshape([-1])?;
        let logits = logits.f_reshape([-1, self.config.num_tokens as i64])?;
        Ok(logits.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Mean, IGNORED, 0.0)?)
    }
}
