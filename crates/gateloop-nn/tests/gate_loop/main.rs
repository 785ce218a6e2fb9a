//! The GateLoop operator: every form computes one function, forward and backward.

#[path = "../common/mod.rs"]
mod common;

mod agreement;
mod case;
mod causality;
mod errors;
mod extremes;
mod handover;
mod oracle;
