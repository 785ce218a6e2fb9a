//! Watching a run.

use crate::metrics::Record;

/// Where a run is, after a step.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// Steps done.
    pub step: u64,
    /// Steps to be done in all.
    pub steps: u64,
    /// Loss of this step in nats a token.
    pub loss: f64,
    /// The same in bits a byte of text.
    pub bpc: f64,
    /// Tokens learned from in this step.
    pub tokens: u64,
}

/// Sees a run while it goes; the default is to look away.
pub trait Observer {
    /// A step is done.
    fn tick(&mut self, _tick: &Tick) {}

    /// A record was written to the metrics.
    fn record(&mut self, _record: &Record) {}

    /// Something happened that a person would want to know.
    fn note(&mut self, _text: &str) {}

    /// The model wrote some text.
    fn sample(&mut self, _step: u64, _text: &str) {}
}

/// Sees nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
