//! The scan of a sequence that several ranks share.

use super::{ScanFunction, ScanOptions, scan_with};
use crate::device::on_cpu;
use crate::elements::{Elements, Output, TensorElement, dispatch_kind};
use crate::error::{NnError, Result};
use crate::slices::{
    self, Pass, Recurrence, SequenceRanks, StateKind, Summary, entry_gradient_of_adjoint,
};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// What [`scan_over_ranks`] makes of a rank's slice.
#[derive(Debug)]
pub struct ScannedSlice {
    /// The states, [B, T, C].
    pub h: Tensor,
    /// The state after the slice's last token (in a reversed scan its first one), [B, C].
    pub h_last: Tensor,
    /// The state before the slice, in the direction of the scan, [B, C].
    pub h_entry: Tensor,
}

/// [`scan_with`](crate::scan_with) of one sequence that `ranks` share, each giving its own slice of `a` and `b`, in the
/// order of time; slices may differ in length.
///
/// Differentiable in `a`, `b`, `h0` and through all three results, on every rank: a loss is then the sum of those of all
/// ranks. One all-gather forward and one backward, each of one state and, forward, one product of decays of every rank.
/// One rank alone runs `scan_with` and gathers nothing.
///
/// If the same decay goes for all channels, give it as a view that was expanded from [B, T, 1], on every rank: then one
/// product is sent and not one a channel. Gradients are those of the expanded view.
///
/// # Shapes
/// - `a`, `b`: [B, T, C], of one kind, with T the length of this rank's slice, at least 1
/// - `h0`: [B, C], the state before the first token of the whole sequence, for the rank that has this token (in a reversed
///   scan: after the last one)
///
/// # Errors
/// [`NnError::Config`] for `h0` on another rank; [`NnError::Gather`] if the gather fails and [`NnError::Gathered`] if the
/// ranks' shapes do not agree. Where gradients are recorded, libtorch is in between and either is an
/// [`NnError::Function`] with the same message.
///
/// ```
/// use gateloop_nn::{Result, ScanOptions, SequenceRanks, scan_over_ranks};
/// use std::sync::Arc;
/// use tch::{Device, Kind, Tensor};
///
/// /// The sum over the tokens of all ranks so far, and that of all tokens before this rank's.
/// fn running_sum(x: &Tensor, ranks: &Arc<dyn SequenceRanks>) -> Result<(Tensor, Tensor)> {
///     let slice = scan_over_ranks(&x.ones_like(), x, None, &ScanOptions::default(), ranks)?;
///     Ok((slice.h, slice.h_entry))
/// }
/// ```
pub fn scan_over_ranks(
    a: &Tensor,
    b: &Tensor,
    h0: Option<&Tensor>,
    options: &ScanOptions,
    ranks: &Arc<dyn SequenceRanks>,
) -> Result<ScannedSlice> {
    if ranks.size() <= 1 {
        let (h, h_last) = scan_with(a, b, h0, options)?;
        let h_entry = match h0 {
            Some(h0) => h0.shallow_clone(),
            None => h_last.f_zeros_like()?,
        };
        return Ok(ScannedSlice { h, h_last, h_entry });
    }
    let function = ScanFunction::of(a, b, h0, options)?;
    let outputs = slices::apply(function, &[a, b], h0, Some(ranks))?;
    let [h, h_last, h_entry] = outputs.try_into().map_err(|outputs: Vec<Tensor>| {
        let message = format!("the scan returned {} outputs instead of 3", outputs.len());
        NnError::Function { message }
    })?;
    Ok(ScannedSlice { h, h_last, h_entry })
}

/// The kind of a state of elements of this kind.
fn state_kind(kind: Kind) -> Kind {
    match kind {
        Kind::BFloat16 | Kind::Half => Kind::Float,
        kind => kind,
    }
}

impl Recurrence for ScanFunction {
    fn operands(&self) -> usize {
        2
    }

    fn pass(&self) -> Pass<'_> {
        let starts = self.options.segment_starts.as_deref();
        Pass { reverse: self.options.reverse, starts }
    }

    fn state(&self, a: &Tensor) -> Result<StateKind> {
        Ok(StateKind { dims: self.state_dims(), kind: state_kind(a.kind()), device: a.device() })
    }

    fn product_width(&self, operands: &[Tensor]) -> i64 {
        let a = &operands[0];
        if a.stride().last() == Some(&0) { 1 } else { self.shape.channels as i64 }
    }

    fn summary(&self, operands: &[Tensor]) -> Result<Summary> {
        let width = self.product_width(operands);
        if on_cpu(&operands[0]) {
            let kind = operands[0].kind();
            let Summary { product, last } = dispatch_kind!(kind, "a", map_as(self, operands))?;
            return Ok(Summary { product: product.f_narrow(1, 0, width)?, last });
        }
        let a = operands[0].f_narrow(2, 0, width)?;
        let product = a.f_prod_dim_int(1, false, state_kind(a.kind()))?;
        Ok(Summary { product, last: self.last_state(operands)? })
    }

    fn entry_gradient(&self, saved: &[Tensor], grad_outputs: &[Option<Tensor>]) -> Result<Tensor> {
        if on_cpu(&saved[0]) {
            let kind = saved[0].kind();
            return dispatch_kind!(kind, "a", entry_gradient_as(self, saved, grad_outputs));
        }
        entry_gradient_of_adjoint(self, saved, grad_outputs)
    }
}

fn map_as<E: TensorElement>(function: &ScanFunction, operands: &[Tensor]) -> Result<Summary> {
    let a = Elements::of::<E>("a", &operands[0])?;
    let b = Elements::of::<E>("b", &operands[1])?;
    let [mut product, mut last] =
        [Output::<E>::new(&function.state_dims())?, Output::<E>::new(&function.state_dims())?];
    function.problem::<E>(&a, &b, None)?.map_into(product.slice_mut(), last.slice_mut())?;
    Ok(Summary { product: product.into_tensor(), last: last.into_tensor() })
}

fn entry_gradient_as<E: TensorElement>(
    function: &ScanFunction,
    saved: &[Tensor],
    grad_outputs: &[Option<Tensor>],
) -> Result<Tensor> {
    let a = Elements::of::<E>("a", &saved[0])?;
    let dh = match &grad_outputs[0] {
        Some(dh) => dh.shallow_clone(),
        None => saved[1].f_zeros_like()?,
    };
    let dh = Elements::of::<E>("dh", &dh)?;
    let dh_last = grad_outputs[1].as_ref().map(|d| Elements::of::<E>("dh_last", d)).transpose()?;
    let mut dh0 = Output::<E>::new(&function.state_dims())?;
    // Neither inputs nor states are read; their gradient stands in for a slice of the same length.
    let problem = function.problem::<E>(&a, &dh, None)?;
    let dh_last = dh_last.as_ref().map(Elements::slice);
    problem.entry_gradient_into(dh.slice(), dh_last, dh0.slice_mut())?;
    Ok(dh0.into_tensor())
}
