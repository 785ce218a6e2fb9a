//! One sequence over several ranks, each a thread here, against the same sequence in one piece.

#[path = "../common/mod.rs"]
mod common;

mod errors;
mod gate_loops;
mod layers;
mod operators;
mod ranks;
mod scan_case;
mod scans;
mod simple_gate_loops;
mod traffic;
