//! Custom differentiable functions for tch.
//!
//! tch differentiates what libtorch differentiates. An operation whose gradient is known in closed
//! form, or whose forward pass leaves libtorch (a scan over slices, say), implements [`Function`]
//! and is called through [`apply`]; libtorch then calls [`Function::backward`] like any gradient of
//! its own, from whichever thread runs the backward pass.
//!
//! ```
//! use gateloop_nn::autograd::{self, Function, Saved};
//! use gateloop_nn::Result;
//! use tch::{Device, Kind, Tensor};
//!
//! /// y = x^2, with its gradient written by hand.
//! struct Square;
//!
//! impl Function for Square {
//!     const OUTPUTS: usize = 1;
//!
//!     fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
//!         saved.push(&inputs[0]);
//!         Ok(vec![inputs[0].f_square()?])
//!     }
//!
//!     fn backward(
//!         &self,
//!         saved: &[Tensor],
//!         grad_outputs: &[Option<Tensor>],
//!         _needs_grad: &[bool],
//!     ) -> Result<Vec<Option<Tensor>>> {
//!         Ok(vec![grad_outputs[0].as_ref().map(|dy| dy * &saved[0] * 2.0)])
//!     }
//! }
//!
//! let x = Tensor::arange(3, (Kind::Double, Device::Cpu)).set_requires_grad(true);
//! let y = autograd::apply(Square, &[&x])?;
//! y[0].sum(Kind::Double).backward();
//! assert_eq!(Vec::<f64>::try_from(x.grad())?, [0.0, 2.0, 4.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod ffi;

use crate::error::Result;
use tch::Tensor;

/// A differentiable operation with a hand-written gradient.
///
/// The object itself carries what is not a tensor (a direction, an algorithm); it lives in the
/// graph until the graph is freed.
///
/// Both methods run with gradient recording off. A returned error, or a panic, reaches the caller
/// of [`apply`] or of `backward` as an error with its message. A second derivative (`create_graph`)
/// is refused with an error.
pub trait Function: Send + Sync + 'static {
    /// How many tensors [`forward`](Self::forward) returns.
    const OUTPUTS: usize;

    /// Computes the outputs, and saves what the gradient needs: inputs, outputs or neither.
    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>>;

    /// Computes the gradient of each input from the gradient of each output.
    ///
    /// `saved` holds the tensors in the order in which they were pushed. A gradient is `None` where
    /// nothing depends on that output. `needs_grad` says which inputs want a gradient; the result
    /// has one entry an input, `None` where there is none.
    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>>;
}

/// The tensors that a [`Function`] keeps from its forward pass for its backward pass.
#[derive(Debug)]
pub struct Saved(Option<Vec<Tensor>>);

impl Saved {
    /// For a forward pass that no backward pass follows.
    pub(crate) fn nothing() -> Self {
        Self(None)
    }

    /// Whether a backward pass may follow. Otherwise nothing is kept, and what only the backward pass needs
    /// had better not be computed.
    pub fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps a tensor, if that is wanted; it shares its memory with the original.
    pub fn push(&mut self, tensor: &Tensor) {
        if let Some(kept) = &mut self.0 {
            kept.push(tensor.shallow_clone());
        }
    }
}

/// Applies a function to tensors and records it for the backward pass, if gradients are recorded.
///
/// Returns [`Function::OUTPUTS`] tensors.
pub fn apply<F: Function>(function: F, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    if gradients_are_recorded() {
        ffi::apply(function, inputs)
    } else {
        ffi::forward_only(&function, inputs)
    }
}

/// Whether libtorch records gradients in this thread: true unless within [`tch::no_grad`].
pub fn gradients_are_recorded() -> bool {
    // SAFETY: calls without pointers. libtorch tells its mode when it is set; the second call restores
    // what the first one changed.
    unsafe {
        let before = torch_sys::at_grad_set_enabled(0);
        torch_sys::at_grad_set_enabled(before);
        before != 0
    }
}

/// Whether what is computed from `x` is recorded for a backward pass.
pub(crate) fn records_gradient(x: &Tensor) -> bool {
    x.requires_grad() && gradients_are_recorded()
}
