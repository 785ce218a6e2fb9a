//! Training on several ranks, each a process: that it is what one process does, and what it sends.

// A test ends by panicking.
#![allow(clippy::unwrap_used)]

mod steps;
