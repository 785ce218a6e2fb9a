//! Real processes on this machine: every test starts its own program again, once a rank.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

mod faults;
#[cfg(feature = "nccl")]
mod nccl;
mod operations;

use gateloop_dist::DistError;
use gateloop_dist::local::Ended;

/// In a rank: prints the error, for the test to read.
fn report<T>(result: Result<T, DistError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            // libtest does not end its own line before.
            println!("\nERROR {error}");
            None
        }
    }
}

/// What [`report`] printed.
fn error(ended: &Ended) -> Option<&str> {
    ended.stdout.lines().find_map(|line| line.strip_prefix("ERROR "))
}
