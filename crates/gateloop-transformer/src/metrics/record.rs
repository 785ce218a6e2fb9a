//! One line of `metrics.jsonl`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::MetricsError;

/// Some quantities at one step.
///
/// Keys are `train/loss` (nats per token), `valid/bpc` (bits per character), `lr`, `grad_norm`,
/// `tokens_per_s` and whatever else a caller writes. A value that is not finite is written as
/// `null`, as JSON has no word for it, and reads back as NaN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Line", into = "Line")]
pub struct Record {
    /// Optimiser steps done.
    pub step: u64,
    /// Seconds since the run began.
    pub time_s: f64,
    /// The quantities, under any keys but `step` and `time_s`.
    pub values: BTreeMap<String, f64>,
    /// Histograms, as the counts of their bins, under keys that no quantity has. Those of a gate's memory end
    /// with [`memory::HISTOGRAM`](super::memory::HISTOGRAM).
    pub counts: BTreeMap<String, Vec<u64>>,
}

/// A record as it stands in the file: one flat object.
#[derive(Serialize, Deserialize)]
struct Line {
    step: u64,
    #[serde(deserialize_with = "null_is_nan")]
    time_s: f64,
    #[serde(flatten)]
    entries: BTreeMap<String, Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, null or an array of counts")]
enum Entry {
    Value(Option<f64>),
    Counts(Vec<u64>),
}

impl From<Line> for Record {
    fn from(line: Line) -> Self {
        let mut record = Self::new(line.step, line.time_s);
        for (key, entry) in line.entries {
            match entry {
                Entry::Value(value) => drop(record.values.insert(key, value.unwrap_or(f64::NAN))),
                Entry::Counts(counts) => drop(record.counts.insert(key, counts)),
            }
        }
        record
    }
}

impl From<Record> for Line {
    fn from(record: Record) -> Self {
        let values = record.values.into_iter().map(|(key, value)| (key, Entry::Value(Some(value))));
        let counts = record.counts.into_iter().map(|(key, counts)| (key, Entry::Counts(counts)));
        Self { step: record.step, time_s: record.time_s, entries: values.chain(counts).collect() }
    }
}

fn null_is_nan<'de, D: Deserializer<'de>>(input: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(input)?.unwrap_or(f64::NAN))
}

impl Record {
    /// A record without quantities.
    pub fn new(step: u64, time_s: f64) -> Self {
        Self { step, time_s, values: BTreeMap::new(), counts: BTreeMap::new() }
    }

    /// Adds a quantity.
    pub fn with(mut self, key: impl Into<String>, value: f64) -> Self {
        self.values.insert(key.into(), value);
        self
    }

    /// Adds a histogram: the counts of its bins.
    pub fn with_counts(mut self, key: impl Into<String>, counts: Vec<u64>) -> Self {
        self.counts.insert(key.into(), counts);
        self
    }
}

/// The records of a file, in the order in which they were written.
///
/// A last line that a crash cut short is left out with a warning; any other damage is an error.
pub fn read(path: impl AsRef<Path>) -> Result<Vec<Record>, MetricsError> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| MetricsError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let lines = parse(&bytes, path)?;
    Ok(lines.into_iter().map(|(_, record)| record).collect())
}

/// Each record with the text it came from, newline excluded.
pub(super) fn parse<'a>(
    bytes: &'a [u8],
    path: &Path,
) -> Result<Vec<(&'a [u8], Record)>, MetricsError> {
    let mut records = Vec::new();
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let (text, complete) = match line.strip_suffix(b"\n") {
            Some(text) => (text, true),
            None => (line, false),
        };
        if text.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice(text) {
            Ok(record) => records.push((text, record)),
            Err(error) if complete => {
                return Err(MetricsError::Damaged {
                    path: path.to_owned(),
                    line: index + 1,
                    message: error.to_string(),
                });
            }
            Err(_) => tracing::warn!(
                path = %path.display(),
                line = index + 1,
                "the last record was cut short and is left out"
            ),
        }
    }
    Ok(records)
}
