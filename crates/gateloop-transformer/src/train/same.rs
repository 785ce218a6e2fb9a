//! That all ranks have the same parameters: made so at the beginning, and looked at every so often.

use super::TrainError;
use crate::model::ModelError;
use crate::ranks::{Ranks, RanksError};
use crate::weights::Tensors;
use tch::{Device, TchError, Tensor};

/// Gives every rank the first one's parameters. Collective.
pub(super) fn make_same(parameters: &Tensors, ranks: &Ranks) -> Result<(), TrainError> {
    for parameter in parameters.values() {
        let plain = parameter.f_detach().map_err(ModelError::from)?;
        ranks.world().broadcast(&plain, 0).map_err(RanksError::from)?;
    }
    Ok(())
}

/// Errs if a rank's parameters differ from the first one's in a single bit. Collective.
pub(super) fn check_same(parameters: &Tensors, step: u64, ranks: &Ranks) -> Result<(), TrainError> {
    let own = checksum(parameters).map_err(ModelError::from)?;
    // Between GPUs only what is on them can be sent.
    let device = parameters.values().next().map_or(Device::Cpu, Tensor::device);
    let own = Tensor::from(own).f_to_device(device).map_err(ModelError::from)?;
    let all = ranks.world().all_gather(&own).map_err(RanksError::from)?;
    let all = Vec::<i64>::try_from(all).map_err(ModelError::from)?;
    let differ: Vec<usize> = (1..all.len()).filter(|rank| all[*rank] != all[0]).collect();
    if differ.is_empty() {
        return Ok(());
    }
    Err(RanksError::Diverged { step, ranks: differ }.into())
}

/// Of the bits of all parameters, in the order of their names.
fn checksum(parameters: &Tensors) -> Result<i64, TchError> {
    let mut sum = 0;
    for parameter in parameters.values() {
        let plain = parameter.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0; plain.numel() * plain.kind().elt_size_in_bytes()];
        plain.f_copy_data_u8(&mut bytes, plain.numel())?;
        sum = crc32c::crc32c_append(sum, &bytes);
    }
    Ok(i64::from(sum))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    fn parameters(values: &[f32]) -> Tensors {
        let middle = values.len() / 2;
        let parts = [("a", &values[..middle]), ("b", &values[middle..])];
        parts.map(|(name, part)| (name.to_owned(), Tensor::from_slice(part))).into()
    }

    #[test]
    fn every_bit_counts() {
        let values = [1.0, -2.5, 0.0, 3.25, 1e-30];
        let sum = checksum(&parameters(&values)).unwrap();
        assert_eq!(checksum(&parameters(&values)).unwrap(), sum);
        for n in 0..values.len() {
            for bit in 0..32 {
                let mut changed = values;
                changed[n] = f32::from_bits(changed[n].to_bits() ^ (1 << bit));
                assert_ne!(checksum(&parameters(&changed)).unwrap(), sum, "{n} {bit}");
            }
        }
    }
}
