//! Parity with the reference implementations: the layers and models of this workspace run on cases that
//! the PyTorch and the JAX reference have written, and every number is compared.
//!
//! A case is a safetensors file: the reference's weights, an input, and what the reference makes of
//! them in double precision: outputs, loss, the gradient of every parameter and of the input, the
//! state, a greedy continuation. Beside it stands how far the reference's own single precision is off.
//! `cargo xtask parity` writes the cases, runs them and makes docs/parity.md of the results; a small
//! set of them is in this package's `fixtures`, and `cargo test` runs those.

mod case_file;
mod compare;
mod error;
mod layers;
mod models;
pub mod plot;
mod report;
mod run;
pub mod trajectory;

pub use case_file::{Case, CaseFile};
pub use error::ParityError;
pub use report::{Quantity, Report};
pub use run::check;
