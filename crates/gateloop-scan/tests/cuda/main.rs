//! The kernels on a device. Without a driver every test says `skipped`, and `stand_in.rs` runs them all on what stands in for
//! one.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "../common/stand_in.rs"]
mod again;
mod data;
mod device;
mod gates;
mod half;
mod heads;
#[path = "../common/host_compiler.rs"]
mod host_compiler;
#[path = "../common/loops.rs"]
mod loops;
mod memory;
mod rows;
mod scan;
mod stand_in;
