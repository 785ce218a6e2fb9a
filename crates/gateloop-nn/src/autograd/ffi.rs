//! The Rust half of the bridge in `csrc/autograd.cpp`; the contract is stated there.

use super::{Function, Saved};
use crate::error::{NnError, Result};
use crate::ffi_error::{ErrorSlot, ErrorText, set_error};
use std::any::Any;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use tch::Tensor;
use torch_sys::C_tensor;

/// A `std::vector<at::Tensor>` of the other side.
#[repr(C)]
struct TensorList {
    _private: [u8; 0],
}

#[repr(C)]
struct VTable {
    forward: extern "C" fn(
        *const c_void,
        *const *const C_tensor,
        usize,
        *mut TensorList,
        *mut TensorList,
        *mut ErrorText,
    ) -> c_int,
    backward: extern "C" fn(
        *const c_void,
        *const *const C_tensor,
        usize,
        *const *const C_tensor,
        usize,
        *const u8,
        usize,
        *mut TensorList,
        *mut ErrorText,
    ) -> c_int,
    drop: extern "C" fn(*mut c_void),
}

unsafe extern "C" {
    fn gateloop_apply(
        object: *mut c_void,
        vtable: *const VTable,
        inputs: *const *const C_tensor,
        n_inputs: usize,
        outputs: *mut *mut C_tensor,
        capacity: usize,
        error: *mut ErrorText,
    ) -> i64;
    fn gateloop_list_push(list: *mut TensorList, tensor: *const C_tensor);
}

/// One table for each function type; it lives as long as the program, as the graph requires.
struct TableOf<F>(std::marker::PhantomData<F>);

impl<F: Function> TableOf<F> {
    const TABLE: VTable =
        VTable { forward: forward::<F>, backward: backward::<F>, drop: drop_object::<F> };
}

fn check_defined(inputs: &[&Tensor]) -> Result<()> {
    match inputs.iter().position(|input| !input.defined()) {
        Some(i) => Err(NnError::Function { message: format!("input {i} is an undefined tensor") }),
        None => Ok(()),
    }
}

/// The outputs where nothing is to be recorded, without a way through C++.
pub(super) fn forward_only<F: Function>(function: &F, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    check_defined(inputs)?;
    let inputs: Vec<Tensor> = inputs.iter().map(|input| input.shallow_clone()).collect();
    let run = AssertUnwindSafe(|| outputs_of(function, &inputs, &mut Saved::nothing()));
    catch_unwind(run).unwrap_or_else(|payload| {
        Err(NnError::Function { message: format!("panic: {}", panic_text(payload.as_ref())) })
    })
}

fn outputs_of<F: Function>(
    function: &F,
    inputs: &[Tensor],
    saved: &mut Saved,
) -> Result<Vec<Tensor>> {
    let outputs = function.forward(inputs, saved)?;
    if outputs.len() == F::OUTPUTS {
        return Ok(outputs);
    }
    let message = format!("{} outputs were returned, {} declared", outputs.len(), F::OUTPUTS);
    Err(NnError::Function { message })
}

/// The outputs, and the function in libtorch's graph.
pub(super) fn apply<F: Function>(function: F, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    check_defined(inputs)?;
    let object = Box::into_raw(Box::new(function)).cast::<c_void>();
    let pointers: Vec<*const C_tensor> = inputs.iter().map(|t| t.as_ptr()).collect();
    let mut outputs = vec![ptr::null_mut(); F::OUTPUTS];
    let error = ErrorSlot::new();
    // SAFETY: `object` is a leaked box of F whose ownership passes to the callee in every case; the
    // table is a constant promoted to a static; inputs and outputs are live arrays of the stated
    // lengths.
    let count = unsafe {
        gateloop_apply(
            object,
            const { &TableOf::<F>::TABLE },
            pointers.as_ptr(),
            pointers.len(),
            outputs.as_mut_ptr(),
            outputs.len(),
            error.as_ptr(),
        )
    };
    let Ok(count) = usize::try_from(count) else {
        return Err(NnError::Function { message: error.message() });
    };
    // SAFETY: the callee wrote `count` new tensors, which are ours.
    Ok(outputs.into_iter().take(count).map(|p| unsafe { Tensor::from_ptr(p) }).collect())
}

extern "C" fn forward<F: Function>(
    function: *const c_void,
    inputs: *const *const C_tensor,
    n_inputs: usize,
    outputs: *mut TensorList,
    saved: *mut TensorList,
    error: *mut ErrorText,
) -> c_int {
    guard(error, || {
        // SAFETY: the pointers come from `gateloop_apply`, which holds them alive for the call;
        // `function` is the box of F that was registered with this very table.
        unsafe {
            let function = &*function.cast::<F>();
            let inputs: Vec<Tensor> = borrowed(inputs, n_inputs).into_iter().flatten().collect();
            let mut kept = Saved(Some(Vec::new()));
            for output in outputs_of(function, &inputs, &mut kept)? {
                gateloop_list_push(outputs, output.as_ptr());
            }
            for tensor in kept.0.into_iter().flatten() {
                gateloop_list_push(saved, tensor.as_ptr());
            }
        }
        Ok(())
    })
}

extern "C" fn backward<F: Function>(
    function: *const c_void,
    saved: *const *const C_tensor,
    n_saved: usize,
    grad_outputs: *const *const C_tensor,
    n_grad_outputs: usize,
    needs_grad: *const u8,
    n_inputs: usize,
    grad_inputs: *mut TensorList,
    error: *mut ErrorText,
) -> c_int {
    guard(error, || {
        // SAFETY: as in `forward`; `needs_grad` has `n_inputs` entries.
        unsafe {
            let function = &*function.cast::<F>();
            let saved: Vec<Tensor> = borrowed(saved, n_saved).into_iter().flatten().collect();
            let grad_outputs = borrowed(grad_outputs, n_grad_outputs);
            let needs_grad: Vec<bool> =
                (0..n_inputs).map(|i| needs_grad.add(i).read() != 0).collect();
            let grads = function.backward(&saved, &grad_outputs, &needs_grad)?;
            if grads.len() != n_inputs {
                return Err(NnError::Function {
                    message: format!(
                        "{} gradients were returned for {n_inputs} inputs",
                        grads.len()
                    ),
                });
            }
            for grad in grads {
                gateloop_list_push(grad_inputs, grad.as_ref().map_or(ptr::null(), Tensor::as_ptr));
            }
        }
        Ok(())
    })
}

extern "C" fn drop_object<F: Function>(function: *mut c_void) {
    // A panicking destructor must not unwind into C++, and there is nobody left to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: called once, by the destructor of the owner, with the box made in `apply`.
        drop(unsafe { Box::from_raw(function.cast::<F>()) });
    }));
}

/// New handles to the tensors behind borrowed pointers; `None` for an undefined one.
///
/// # Safety
/// `pointers` must be valid for `len` reads, each null or a live tensor.
unsafe fn borrowed(pointers: *const *const C_tensor, len: usize) -> Vec<Option<Tensor>> {
    (0..len)
        .map(|i| {
            // SAFETY: the caller vouches for the array; a clone leaves the original alone.
            unsafe {
                let pointer = pointers.add(i).read();
                (!pointer.is_null()).then(|| Tensor::clone_from_ptr(pointer.cast_mut()))
            }
        })
        .collect()
}

/// Runs a callback body and turns an error or a panic into a message and a non-zero status.
fn guard(error: *mut ErrorText, body: impl FnOnce() -> Result<()>) -> c_int {
    let message = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return 0,
        Ok(Err(failure)) => failure.to_string(),
        Err(payload) => format!("panic: {}", panic_text(payload.as_ref())),
    };
    // SAFETY: the other side passes a live string to every callback.
    unsafe { set_error(error, &message) };
    1
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("without a message")
}
