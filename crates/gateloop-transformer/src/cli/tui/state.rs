//! What the view shows.

use super::super::pace::Pace;
use crate::metrics::Record;
use crate::metrics::memory::{HISTOGRAM, layer_and_quantity};
use crate::train::Tick;
use std::collections::VecDeque;
use std::f64::consts::LN_2;

/// Lines of the log that are kept.
const LOG: usize = 1000;

/// A run so far, as it is shown.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The run folder.
    pub(super) title: String,
    pub(super) step: u64,
    pub(super) steps: u64,
    pub(super) pace: Pace,
    /// Step and bits per character.
    pub(super) train: Vec<(f64, f64)>,
    pub(super) valid: Vec<(f64, f64)>,
    /// The newest record's quantities.
    pub(super) lr: Option<f64>,
    pub(super) tokens_per_s: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    pub(super) gates: Vec<Gates>,
    /// Step and text.
    pub(super) sample: Option<(u64, String)>,
    pub(super) log: VecDeque<String>,
    pub(super) stopping: bool,
}

/// The memory of one layer's gates.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Gates {
    pub(super) layer: String,
    /// In tokens.
    pub(super) median: f64,
    pub(super) counts: Vec<u64>,
}

impl State {
    pub(super) fn tick(&mut self, tick: &Tick) {
        (self.step, self.steps) = (tick.step, tick.steps);
        self.pace.tick(tick);
    }

    pub(super) fn record(&mut self, record: &Record) {
        let value = |key: &str| record.values.get(key).copied();
        let point = |bpc: Option<f64>| Some((record.step as f64, bpc.filter(|x| x.is_finite())?));
        // What was recorded before there were subwords has no bits; there they follow from the loss.
        let train = value("train/bpc").or_else(|| value("train/loss").map(|loss| loss / LN_2));
        self.train.extend(point(train));
        self.valid.extend(point(value("valid/bpc")));
        self.lr = value("lr").or(self.lr);
        self.tokens_per_s = value("tokens_per_s").or(self.tokens_per_s);
        self.memory_bytes = value("memory_bytes").or(self.memory_bytes);
        let gates: Vec<Gates> = record
            .counts
            .iter()
            .filter_map(|(key, counts)| {
                let (layer, quantity) = layer_and_quantity(key)?;
                let median = value(&format!("gates/{layer}/p50")).unwrap_or(f64::NAN);
                let counts = counts.clone();
                (quantity == HISTOGRAM).then(|| Gates { layer: layer.to_owned(), median, counts })
            })
            .collect();
        if !gates.is_empty() {
            self.gates = gates;
        }
    }

    pub(super) fn sample(&mut self, step: u64, text: &str) {
        self.sample = Some((step, text.to_owned()));
    }

    pub(super) fn say(&mut self, line: &str) {
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        // A control character in a file's name must not reach the terminal.
        self.log.push_back(line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect());
    }
}
