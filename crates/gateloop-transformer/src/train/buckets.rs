//! The mean of the ranks' gradients, in a few large messages.

use super::TrainError;
use crate::model::ModelError;
use crate::ranks::{Ranks, RanksError};
use gateloop_dist::{Reduce, Work};
use gateloop_nn::foreach;
use tch::{Kind, TchError, Tensor};

/// What a rank adds to the mean of all, and the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shared {
    /// The sum over the rank's own predictions, in some unit; the mean over all.
    pub(super) loss: f64,
    /// The number of the rank's predictions in the same unit.
    pub(super) weight: f64,
    /// Whether somebody wants the run to stop.
    pub(super) stops: bool,
}

/// The gradients of a model, laid out as they are sent. They are summed where they lie, and become the parameters'
/// gradients without being copied back.
#[derive(Debug)]
pub(super) struct Buckets(Vec<Bucket>);

#[derive(Debug)]
struct Bucket {
    flat: Tensor,
    params: Vec<Tensor>,
    /// The parameters' gradients in `flat`.
    grads: Vec<Tensor>,
    /// The numbers of [`Shared`] in the last bucket; nothing in the others.
    shared: Tensor,
}

/// Numbers that ride along with the gradients: one message less than if they went alone.
const SHARED: i64 = 3;

impl Buckets {
    /// A layout for the parameters that have a gradient, in buckets of so many bytes; a larger parameter has one of its own.
    ///
    /// # Errors
    /// If other ranks have gradients of other parameters.
    pub(super) fn new(
        params: impl Iterator<Item = Tensor>,
        bytes: usize,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        let params: Vec<Tensor> = params.filter(|param| param.grad().defined()).collect();
        let sizes: Vec<usize> = params.iter().map(Tensor::numel).collect();
        ranks.agree("gradients of parameters with elements", &format!("{sizes:?}"))?;
        let mut groups: Vec<(usize, Vec<Tensor>)> = vec![(0, Vec::new())];
        for param in params {
            let size = param.numel() * param.kind().elt_size_in_bytes();
            match groups.last_mut() {
                Some((filled, group)) if group.is_empty() || *filled + size <= bytes => {
                    *filled += size;
                    group.push(param);
                }
                _ => groups.push((size, vec![param])),
            }
        }
        let last = groups.len() - 1;
        let buckets = groups.into_iter().enumerate().map(|(n, (_, params))| {
            Bucket::new(params, if n == last { SHARED } else { 0 }).map_err(ModelError::from)
        });
        Ok(Self(buckets.collect::<Result<_, _>>()?))
    }

    /// Replaces every gradient, which is of a sum as the loss is, by that of the mean over all ranks' predictions.
    /// Collective.
    pub(super) fn average(&mut self, own: Shared, ranks: &Ranks) -> Result<Shared, TrainError> {
        let mut works: Vec<Work> = Vec::new();
        for bucket in &mut self.0 {
            bucket.fill(own).map_err(ModelError::from)?;
            // The next one is filled while this one is sent.
            let begun = ranks.world().begin_all_reduce(&bucket.flat, Reduce::Sum);
            works.push(begun.map_err(RanksError::from)?);
        }
        for work in works {
            work.wait().map_err(RanksError::from)?;
        }
        let mut sums = [0.0; SHARED as usize];
        if let Some(last) = self.0.last() {
            let shared = last.shared.f_to_kind(Kind::Double).map_err(ModelError::from)?;
            shared.f_copy_data(&mut sums, SHARED as usize).map_err(ModelError::from)?;
        }
        let [loss, weight, stops] = sums;
        // Where nothing at all counts, there is nothing to learn: gradients of zero.
        let total = if weight > 0.0 { weight } else { 1.0 };
        for bucket in &mut self.0 {
            let _ = bucket.flat.f_div_scalar_(total).map_err(ModelError::from)?;
            foreach::set_grads(&bucket.params, &bucket.grads).map_err(ModelError::from)?;
        }
        Ok(Shared { loss: loss / total, weight, stops: stops > 0.0 })
    }
}

impl Bucket {
    fn new(params: Vec<Tensor>, shared: i64) -> Result<Self, TchError> {
        let sizes: Vec<i64> = params.iter().map(|param| param.numel() as i64).collect();
        let options = params
            .first()
            .map_or((Kind::Float, tch::Device::Cpu), |param| (param.kind(), param.device()));
        let flat = Tensor::f_zeros([sizes.iter().sum::<i64>() + shared], options)?;
        let mut at = 0;
        let mut grads = Vec::new();
        for (param, size) in params.iter().zip(&sizes) {
            grads.push(flat.f_narrow(0, at, *size)?.f_view(param.size().as_slice())?);
            at += size;
        }
        let shared = flat.f_narrow(0, at, shared)?;
        Ok(Self { flat, params, grads, shared })
    }

    /// Copies the gradients here.
    fn fill(&mut self, own: Shared) -> Result<(), TchError> {
        tch::no_grad(|| {
            for (param, place) in self.params.iter().zip(&mut self.grads) {
                let grad = param.grad();
                // A part of the model that a step did not touch.
                if grad.defined() {
                    place.f_copy_(&grad)?;
                } else {
                    let _ = place.f_zero_()?;
                }
            }
            let mut numbers = vec![own.loss, own.weight, f64::from(u8::from(own.stops))];
            numbers.truncate(self.shared.numel());
            self.shared.f_copy_(&Tensor::f_from_slice(&numbers)?)?;
            Ok(())
        })
    }
}
