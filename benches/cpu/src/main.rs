//! The worker of `cargo xtask bench`: one process, asked line by line, so that its samples can be taken
//! in turn with those of other programs.
//!
//! | request | answer, a line of JSON |
//! | --- | --- |
//! | `prepare KEY` | makes the inputs, runs once, checks: `{}`, `{"wrong": why}` or `{"unavailable": why}` |
//! | `time KEY` | `{"seconds": s}` for one run, or for one token where a run makes several |
//! | `memory KEY` | `{"before": bytes, "peak": bytes}` around one unchecked run, in a process of its own |
//! | `release` | `{}`, after everything prepared is gone |
//! | `versions` | `{"versions": {name: version}}` |
//!
//! A key is `WORK@SIDE`; [`key`] lists them. The end of the input ends the worker.

mod aligned;
mod answer;
mod bandwidth;
mod error;
mod generate;
mod key;
mod layer;
mod lines;
mod memory;
mod product;
mod scan;
mod session;
mod train;
mod work;

use std::io::{BufRead, Write};

fn main() -> std::io::Result<()> {
    // As the program `gateloop` does.
    gateloop_nn::pool::install().map_err(std::io::Error::other)?;
    let mut session = session::Session::default();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        writeln!(out, "{}", session.answer(&line?))?;
        out.flush()?;
    }
    Ok(())
}
