//! The differentiable scan against a loop that libtorch differentiates itself.

#[path = "../common/mod.rs"]
mod common;

mod agreement;
mod case;
mod errors;
mod operands;
