//! The kernels on a device. Without a driver every test says `skipped`.
#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod data;
mod device;
mod gates;
mod half;
mod heads;
#[path = "../common/loops.rs"]
mod loops;
mod memory;
mod scan;
