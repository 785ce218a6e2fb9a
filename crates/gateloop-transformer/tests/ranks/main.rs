//! Training on several ranks, each a process: that it is what one process does, what it sends, and how it ends.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
mod faults;
#[path = "../common/how_often.rs"]
mod how_often;
mod kills;
mod program;
mod runs;
#[path = "../common/small_run.rs"]
mod small_run;
mod steps;
