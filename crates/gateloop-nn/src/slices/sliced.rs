//! A recurrence over slices as one differentiable function.

use super::SequenceRanks;
use super::boundary::{Turn, leaving, without_begun};
use super::fold::{arriving, carry};
use super::gather::all_gather;
use super::recurrence::{Recurrence, Summary, too_few};
use crate::autograd::{self, Function, Saved};
use crate::error::{NnError, Result};
use std::sync::Arc;
use tch::Tensor;

/// Whether the state of another rank enters this one's slice.
pub(crate) fn enters_from_before(
    ranks: Option<&Arc<dyn SequenceRanks>>,
    reverse: bool,
) -> Result<bool> {
    ranks.map_or(Ok(false), |ranks| Ok(!Turn::of(ranks.as_ref(), reverse)?.is_first()))
}

/// The outputs of `function`; over ranks those of this one's slice, and one output more: the state that enters it. That is
/// zero before the first token, unless `state` is given, which only the rank that has that token may do.
pub(crate) fn apply<F: Recurrence>(
    function: F,
    operands: &[&Tensor],
    state: Option<&Tensor>,
    ranks: Option<&Arc<dyn SequenceRanks>>,
) -> Result<Vec<Tensor>> {
    let inputs: Vec<&Tensor> = operands.iter().copied().chain(state).collect();
    let Some(ranks) = ranks else { return autograd::apply(function, &inputs) };
    let turn = Turn::of(ranks.as_ref(), function.pass().reverse)?;
    if state.is_some() && !turn.is_first() {
        let problem = format!(
            "rank {} was given one, but the state before the first token is for the rank that has this token",
            ranks.rank()
        );
        return Err(NnError::Config { key: "h0", problem });
    }
    autograd::apply(Sliced { function, turn, ranks: Arc::clone(ranks) }, &inputs)
}

/// Inputs and outputs are the function's, and one output more: the state that enters.
struct Sliced<F> {
    function: F,
    turn: Turn,
    ranks: Arc<dyn SequenceRanks>,
}

impl<F: Recurrence> Sliced<F> {
    /// The maps of all slices in the order of the pass; every rank calls it once.
    fn gather(&self, own: Summary) -> Result<Vec<[Tensor; 2]>> {
        let pass = self.function.pass();
        let (product, last) = (without_begun(own.product, pass)?, leaving(own.last, pass)?);
        let what = "products of decays and last states";
        let gathered = all_gather(self.ranks.as_ref(), what, [&product, &last])?;
        Ok(self.turn.in_order(gathered))
    }

    /// Outputs, the state that entered, and the maps of all slices.
    fn run(
        &self,
        inputs: &[Tensor],
        saved: &mut Saved,
    ) -> Result<(Vec<Tensor>, Tensor, Vec<[Tensor; 2]>)> {
        let function = &self.function;
        let (operands, given) = inputs.split_at(function.operands());
        let state = function.state(&inputs[0])?;
        let nothing = || state.zeros(function.product_width(operands));
        if self.turn.is_first() {
            let outputs = function.forward(inputs, saved)?;
            let last = outputs.last().ok_or_else(too_few)?.shallow_clone();
            // Nothing enters the first slice, so nobody asks for its product.
            let maps = self.gather(Summary { product: nothing()?, last })?;
            let entry = match given.first() {
                Some(given) => given.f_detach_copy()?,
                None => state.zeros(state.dims[1])?,
            };
            return Ok((outputs, entry, maps));
        }
        let own = if self.turn.is_last() {
            // Nor does anyone ask for what leaves the last one.
            Summary { product: nothing()?, last: state.zeros(state.dims[1])? }
        } else {
            function.summary(operands)?
        };
        let maps = self.gather(own)?;
        let entry = carry(&maps[..self.turn.position])?.ok_or_else(too_few)?;
        let inputs: Vec<Tensor> =
            operands.iter().chain([&entry]).map(Tensor::shallow_clone).collect();
        Ok((function.forward(&inputs, saved)?, entry, maps))
    }

    /// Gradients of the inputs and, if there was one, of the state.
    fn gradients(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>> {
        let needs_grad = vec![true; self.function.operands() + 1];
        self.function.backward(saved, grad_outputs, &needs_grad)
    }
}

/// The sum of gradients that may not have arrived.
fn sum(x: Option<&Tensor>, y: Option<&Tensor>) -> Result<Option<Tensor>> {
    match (x, y) {
        (Some(x), Some(y)) => Ok(Some(x.f_add(y)?)),
        (x, y) => Ok(x.or(y).map(Tensor::shallow_clone)),
    }
}

impl<F: Recurrence> Function for Sliced<F> {
    const OUTPUTS: usize = F::OUTPUTS + 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let (mut outputs, entry, maps) = self.run(inputs, saved)?;
        outputs.push(entry);
        // The gradient comes through the slices between this one and the last.
        let between = maps.iter().take(maps.len() - 1).skip(self.turn.position + 1);
        for [product, _] in between {
            saved.push(product);
        }
        Ok(outputs)
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (size, Turn { position, .. }) = (self.ranks.size(), self.turn);
        let (saved, products) =
            saved.split_at(saved.len() - (size - 1).saturating_sub(position + 1));
        let (dentry, grads) = grad_outputs.split_last().ok_or_else(too_few)?;
        // What goes to the slice before: nothing of the first one, which nobody is before.
        let mut own = None;
        let sent = if self.turn.is_first() {
            let state = self.function.state(&saved[0])?;
            state.zeros(state.dims[1])?
        } else {
            let within = if self.turn.is_last() {
                let all = own.insert(self.gradients(saved, grads)?);
                all.pop().flatten().ok_or_else(too_few)?
            } else {
                self.function.entry_gradient(saved, grads)?
            };
            dentry.as_ref().map_or_else(|| Ok(within.shallow_clone()), |d| within.f_add(d))?
        };
        let gathered = all_gather(self.ranks.as_ref(), "gradients of states", [&sent])?;
        if let Some(own) = own {
            return Ok(own);
        }
        let gathered = self.turn.in_order(gathered);
        let later: Vec<Tensor> =
            gathered.into_iter().skip(position + 1).map(|[gradient]| gradient).collect();
        let arriving = arriving(products, &later)?.ok_or_else(too_few)?;
        let arriving = leaving(arriving, self.function.pass())?;
        let (dlast, others) = grads.split_last().ok_or_else(too_few)?;
        let mut grads: Vec<Option<Tensor>> =
            others.iter().map(|grad| grad.as_ref().map(Tensor::shallow_clone)).collect();
        grads.push(sum(dlast.as_ref(), Some(&arriving))?);
        let mut all = self.gradients(saved, &grads)?;
        let dstate = if all.len() > self.function.operands() { all.pop().flatten() } else { None };
        if self.turn.is_first() && dstate.is_some() {
            all.push(sum(dstate.as_ref(), dentry.as_ref())?);
        }
        Ok(all)
    }
}
