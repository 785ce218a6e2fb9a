//! Operations on lists of tensors: one call of libtorch for all parameters of a model.

use crate::error::{NnError, Result};
use crate::ffi_error::{ErrorSlot, ErrorText};
use std::ffi::c_int;
use std::ptr;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

/// The constants of an AdamW update (Decoupled Weight Decay Regularization, arXiv 1711.05101); with
/// `weight_decay` 0 it is Adam.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the running mean of gradients.
    pub beta1: f64,
    /// Decay of the running mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Share of lr by which a parameter is shrunk in a step.
    pub weight_decay: f64,
}

type Tensors = *const *const C_tensor;

unsafe extern "C" {
    fn gateloop_fused_adamw(
        params: Tensors,
        grads: Tensors,
        exp_avgs: Tensors,
        exp_avg_sqs: Tensors,
        steps: Tensors,
        n: usize,
        options: *const AdamW,
        grad_scale: *const C_tensor,
        found_inf: *const C_tensor,
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_total_norm(
        tensors: Tensors,
        n: usize,
        norm: *mut *mut C_tensor,
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_clear_grads(tensors: Tensors, n: usize, error: *mut ErrorText) -> c_int;
    fn gateloop_set_grads(
        tensors: Tensors,
        grads: Tensors,
        n: usize,
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_foreach_mul(
        tensors: Tensors,
        n: usize,
        factor: f64,
        error: *mut ErrorText,
    ) -> c_int;
    fn gateloop_foreach_lerp(
        tensors: Tensors,
        targets: Tensors,
        n: usize,
        weight: f64,
        error: *mut ErrorText,
    ) -> c_int;
}

/// The tensors of one AdamW update: lists of one length, entry i of each belonging together.
#[derive(Debug)]
pub struct AdamWState<'a> {
    /// The parameters, contiguous, updated in place.
    pub params: &'a [Tensor],
    /// Their gradients, of the same shapes and kinds in any layout.
    pub grads: &'a [Tensor],
    /// Running means of the gradients, contiguous, updated in place.
    pub exp_avgs: &'a [Tensor],
    /// Running means of the squared gradients, contiguous, updated in place.
    pub exp_avg_sqs: &'a [Tensor],
    /// Numbers of updates so far, Float scalars, counted up in place.
    pub steps: &'a [Tensor],
}

/// What an update is told by tensors on the device of the parameters, so that nobody waits for their values.
#[derive(Debug, Clone, Copy)]
pub struct AdamWGuard<'a> {
    /// A Float scalar by which gradients are divided; contiguous ones are left divided.
    pub grad_scale: Option<&'a Tensor>,
    /// A Float scalar: 1 if nothing may be updated or counted, else 0.
    pub found_inf: &'a Tensor,
}

/// One update of all parameters, with bias-corrected moments.
pub fn adamw_(state: &AdamWState<'_>, options: &AdamW) -> Result<()> {
    update(state, options, None)
}

/// The same, of scaled gradients, and only if it may be: which of the two, the device decides.
pub fn adamw_guarded_(
    state: &AdamWState<'_>,
    options: &AdamW,
    guard: &AdamWGuard<'_>,
) -> Result<()> {
    update(state, options, Some(guard))
}

fn update(state: &AdamWState<'_>, options: &AdamW, guard: Option<&AdamWGuard<'_>>) -> Result<()> {
    check(state)?;
    let AdamWState { params, grads, exp_avgs, exp_avg_sqs, steps } = state;
    let Some(first) = params.first() else { return Ok(()) };
    let grad_scale = guard.and_then(|guard| guard.grad_scale);
    let found_inf = guard.map(|guard| guard.found_inf);
    for (operand, flag) in [("grad_scale", grad_scale), ("found_inf", found_inf)] {
        flag.map_or(Ok(()), |flag| float_scalar(operand, flag, first.device()))?;
    }
    let [grad_scale, found_inf] =
        [grad_scale, found_inf].map(|flag| flag.map_or(ptr::null(), Tensor::as_ptr));
    let error = ErrorSlot::new();
    // libtorch's CPU kernel walks all four arrays in memory order, whatever their strides.
    let grads = grads.iter().map(Tensor::f_contiguous).collect::<Result<Vec<_>, _>>()?;
    let [p, g, m, v, s] = [params, &grads[..], exp_avgs, exp_avg_sqs, steps].map(pointers);
    // SAFETY: five arrays of `params.len()` live tensors; libtorch trusts that shapes, kinds and
    // layouts agree, which `check` made sure of. The other two are null or live tensors that the device can read as
    // one float each, as `float_scalar` made sure of.
    let status = unsafe {
        gateloop_fused_adamw(
            p.as_ptr(),
            g.as_ptr(),
            m.as_ptr(),
            v.as_ptr(),
            s.as_ptr(),
            p.len(),
            options,
            grad_scale,
            found_inf,
            error.as_ptr(),
        )
    };
    report(status, &error)
}

/// Refuses what a kernel on `device` could not read as one float.
fn float_scalar(operand: &'static str, tensor: &Tensor, device: Device) -> Result<()> {
    if !tensor.defined() || tensor.dim() != 0 {
        return Err(shape_error(operand, tensor, "a scalar"));
    }
    if tensor.kind() != Kind::Float {
        return Err(NnError::Kind { operand, expected: "Float", actual: tensor.kind() });
    }
    if tensor.device() != device {
        return Err(NnError::Device { operand, actual: tensor.device() });
    }
    Ok(())
}

/// Refuses lists and tensors that do not belong together.
fn check(state: &AdamWState<'_>) -> Result<()> {
    let AdamWState { params, grads, exp_avgs, exp_avg_sqs, steps } = state;
    let moments = [("exp_avgs", exp_avgs), ("exp_avg_sqs", exp_avg_sqs)];
    for (operand, list) in [("grads", grads), ("steps", steps)].into_iter().chain(moments) {
        if list.len() != params.len() {
            let expected = format!("one entry for each of {} parameters", params.len());
            return Err(NnError::Shape { operand, expected, actual: vec![list.len() as i64] });
        }
    }
    for (i, param) in params.iter().enumerate() {
        in_memory_order("params", param)?;
        like("grads", &grads[i], param)?;
        for (operand, list) in moments {
            like(operand, &list[i], param)?;
            in_memory_order(operand, &list[i])?;
        }
        if !steps[i].defined() || steps[i].numel() != 1 {
            return Err(shape_error("steps", &steps[i], "a scalar"));
        }
    }
    Ok(())
}

/// Refuses a list whose entries are not like those of their places in `tensors`.
fn paired(operand: &'static str, list: &[Tensor], tensors: &[Tensor]) -> Result<()> {
    if list.len() != tensors.len() {
        let expected = format!("one entry for each of {} tensors", tensors.len());
        return Err(NnError::Shape { operand, expected, actual: vec![list.len() as i64] });
    }
    list.iter().zip(tensors).try_for_each(|(entry, tensor)| like(operand, entry, tensor))
}

fn like(operand: &'static str, tensor: &Tensor, param: &Tensor) -> Result<()> {
    if !tensor.defined() || tensor.size() != param.size() {
        let expected = format!("the shape of its partner, {:?},", param.size());
        return Err(shape_error(operand, tensor, expected));
    }
    if tensor.kind() != param.kind() {
        let (expected, actual) = ("the kind of its partner", tensor.kind());
        return Err(NnError::Kind { operand, expected, actual });
    }
    Ok(())
}

fn in_memory_order(operand: &'static str, tensor: &Tensor) -> Result<()> {
    if tensor.defined() && tensor.is_contiguous() {
        return Ok(());
    }
    Err(shape_error(operand, tensor, "a contiguous tensor"))
}

fn shape_error(operand: &'static str, tensor: &Tensor, expected: impl Into<String>) -> NnError {
    let actual = if tensor.defined() { tensor.size() } else { Vec::new() };
    NnError::Shape { operand, expected: expected.into(), actual }
}

/// The Euclidean norm over all elements of all tensors; 0 for none.
pub fn total_norm(tensors: &[Tensor]) -> Result<f64> {
    match total_norm_tensor(tensors)? {
        Some(norm) => Ok(norm.f_double_value(&[])?),
        None => Ok(0.0),
    }
}

/// The same as a scalar of their kind on their device, without waiting for it; `None` for none.
pub fn total_norm_tensor(tensors: &[Tensor]) -> Result<Option<Tensor>> {
    if tensors.is_empty() {
        return Ok(None);
    }
    let error = ErrorSlot::new();
    let pointers = pointers(tensors);
    let mut norm = ptr::null_mut();
    // SAFETY: an array of live tensors; on success `norm` is a new tensor that we own.
    let status = unsafe {
        gateloop_total_norm(pointers.as_ptr(), pointers.len(), &raw mut norm, error.as_ptr())
    };
    report(status, &error)?;
    // SAFETY: see above.
    Ok(Some(unsafe { Tensor::from_ptr(norm) }))
}

/// Gives back the gradients of all tensors, so that none has one.
///
/// Faster than setting them to zero: the next backward pass hands its gradients over instead of adding
/// them to zeros.
pub fn clear_grads(tensors: &[Tensor]) -> Result<()> {
    let error = ErrorSlot::new();
    let pointers = pointers(tensors);
    // SAFETY: an array of live tensors.
    let status = unsafe { gateloop_clear_grads(pointers.as_ptr(), pointers.len(), error.as_ptr()) };
    report(status, &error)
}

/// Makes every entry of `grads` the gradient of the tensor of its place, without a copy: what is written to the one is
/// written to the other, until the gradient is given back.
pub fn set_grads(tensors: &[Tensor], grads: &[Tensor]) -> Result<()> {
    paired("grads", grads, tensors)?;
    let error = ErrorSlot::new();
    let (held, grads) = (pointers(tensors), pointers(grads));
    // SAFETY: two arrays of `held.len()` live tensors, whose shapes and kinds agree pair by pair.
    let status =
        unsafe { gateloop_set_grads(held.as_ptr(), grads.as_ptr(), held.len(), error.as_ptr()) };
    report(status, &error)
}

/// Multiplies every tensor by `factor`, in place.
pub fn mul_(tensors: &[Tensor], factor: f64) -> Result<()> {
    if tensors.is_empty() {
        return Ok(());
    }
    let error = ErrorSlot::new();
    let pointers = pointers(tensors);
    // SAFETY: an array of live tensors.
    let status =
        unsafe { gateloop_foreach_mul(pointers.as_ptr(), pointers.len(), factor, error.as_ptr()) };
    report(status, &error)
}

/// Moves every tensor by a share `weight` of the way to the target of its place, in place.
pub fn lerp_(tensors: &[Tensor], targets: &[Tensor], weight: f64) -> Result<()> {
    paired("targets", targets, tensors)?;
    if tensors.is_empty() {
        return Ok(());
    }
    let error = ErrorSlot::new();
    let (tensors, targets) = (pointers(tensors), pointers(targets));
    // SAFETY: two arrays of `tensors.len()` live tensors.
    let status = unsafe {
        gateloop_foreach_lerp(
            tensors.as_ptr(),
            targets.as_ptr(),
            tensors.len(),
            weight,
            error.as_ptr(),
        )
    };
    report(status, &error)
}

fn pointers(tensors: &[Tensor]) -> Vec<*const C_tensor> {
    tensors.iter().map(Tensor::as_ptr).collect()
}

fn report(status: c_int, error: &ErrorSlot) -> Result<()> {
    if status == 0 {
        return Ok(());
    }
    Err(NnError::Function { message: error.message() })
}
