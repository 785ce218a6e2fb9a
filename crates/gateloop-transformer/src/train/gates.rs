//! Measuring how long the gates of a model remember.

use crate::data::Batch;
use crate::evaluate::ids;
use crate::metrics::Record;
use crate::metrics::memory::{BINS, BINS_PER_DOUBLING, HISTOGRAM, QUANTILES};
use crate::model::{Model, ModelError};
use tch::{Kind, TchError, Tensor};

/// How long the gates of one layer remember.
#[derive(Debug, Clone, PartialEq)]
pub struct GateMemory {
    /// The layer, as in `layers.0.mixer`.
    pub layer: String,
    /// Gates by their memory 1 / (1 - |a|), in the bins of [`memory`](crate::metrics::memory).
    pub counts: Vec<u64>,
    /// Memory in tokens below which the shares of [`QUANTILES`] lie; infinite where |a| is 1.
    pub quantiles: [f64; QUANTILES.len()],
}

impl GateMemory {
    /// Adds the measurement: `gates/LAYER/log2_memory`, `gates/LAYER/p10` and so on.
    pub(super) fn add_to(self, mut record: Record) -> Record {
        let Self { layer, counts, quantiles } = self;
        for ((name, _), memory) in QUANTILES.into_iter().zip(quantiles) {
            record = record.with(format!("gates/{layer}/{name}"), memory);
        }
        record.with_counts(format!("gates/{layer}/{HISTOGRAM}"), counts)
    }
}

/// The memory of every gate loop while the model reads windows; one for each layer that has gates.
pub fn gate_memory(model: &Model, windows: &Batch) -> Result<Vec<GateMemory>, ModelError> {
    let gates = model.log_gate_magnitudes(&ids(windows, model.device())?)?;
    let memory = |(layer, log_a): (String, Tensor)| Ok(measured(layer, &log_a)?);
    gates.into_iter().map(memory).collect()
}

/// Of ln|a| of any shape.
fn measured(layer: String, log_a: &Tensor) -> Result<GateMemory, TchError> {
    // 1 - |a| = -expm1(ln|a|) keeps its digits where |a| is next to 1.
    let memory = log_a.f_to_kind(Kind::Double)?.f_flatten(0, -1)?.f_expm1()?.f_abs()?;
    let memory = memory.f_reciprocal()?;
    let memory = memory.f_masked_select(&memory.f_isnan()?.f_logical_not()?)?;
    let total = memory.numel();
    let quantile = |(_, share): (&str, f64)| -> Result<f64, TchError> {
        // The nearest rank: a memory that a gate has.
        let rank = ((share * total as f64).ceil() as usize).clamp(1, total);
        memory.f_kthvalue(rank as i64, 0, false)?.0.f_double_value(&[])
    };
    let mut quantiles = [f64::NAN; QUANTILES.len()];
    if total > 0 {
        for (place, named) in quantiles.iter_mut().zip(QUANTILES) {
            *place = quantile(named)?;
        }
    }
    let bins = memory
        .f_log2()?
        .f_mul_scalar(BINS_PER_DOUBLING as f64)?
        .f_floor()?
        .f_clamp(0.0, (BINS - 1) as f64)?
        .f_to_kind(Kind::Int64)?;
    let counts = Vec::<i64>::try_from(bins.f_bincount(None::<&Tensor>, BINS as i64)?)?;
    let counts = counts.into_iter().map(|count| count as u64).collect();
    Ok(GateMemory { layer, counts, quantiles })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ln|a| of a memory in tokens.
    fn log_a(memory: f64) -> f64 {
        (-memory.recip()).ln_1p()
    }

    #[test]
    fn gates_are_counted_by_their_memory() {
        // A little above the edges, so that rounding does not decide.
        let memories = [1.0, 1.5, 2.1, 4.1, 4.2, 3e6, f64::INFINITY];
        let values: Vec<f64> = memories.map(log_a).to_vec();
        let gates = measured("layers.0.mixer".to_owned(), &Tensor::from_slice(&values)).unwrap();
        let mut expected = vec![0; BINS];
        for bin in [0, 1, 2, 4, 4, BINS - 1, BINS - 1] {
            expected[bin] += 1;
        }
        assert_eq!(gates.counts, expected);
        let [low, middle, high] = gates.quantiles;
        assert!((low - 1.0).abs() < 1e-9 && (middle - 4.1).abs() < 1e-9, "{low} {middle}");
        assert_eq!(high, f64::INFINITY);
        let record = gates.add_to(Record::new(1, 0.0));
        assert_eq!(record.counts["gates/layers.0.mixer/log2_memory"], expected);
        assert_eq!(record.values["gates/layers.0.mixer/p50"], middle);
    }

    #[test]
    fn what_is_not_a_number_is_not_counted() {
        let gates = measured(String::new(), &Tensor::from_slice(&[f64::NAN])).unwrap();
        assert_eq!(gates.counts, [0; BINS]);
        assert!(gates.quantiles.iter().all(|quantile| quantile.is_nan()));
    }
}
