//! Which device a name means on this machine.

use gateloop_nn::{NnError, cuda};
use tch::{Cuda, Device};

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The name means nothing.
    #[error("`{name}` is no device: use auto, cpu, cuda or cuda:N")]
    Unknown {
        /// The name.
        name: String,
    },
    /// There is no such GPU, or libtorch does not see it.
    #[error(
        "`{name}` cannot be used: {reason}. Use `cpu` or `auto`, or see `cargo xtask doctor` and \
         `cargo xtask setup --cuda`"
    )]
    Missing {
        /// The name.
        name: String,
        /// What is in the way.
        reason: String,
    },
    /// A precision that the device has no arithmetic for.
    #[error(
        "`train.precision` = bf16: the device is {device:?}, a processor without instructions for bfloat16 \
         (AVX-512 BF16, or BF16 of ARM), where it is several times slower than f32: use f32"
    )]
    Precision {
        /// The device.
        device: Device,
    },
}

/// The device behind `auto`, `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// [`DeviceError::Missing`] for a GPU that is asked for by name and is not to be had; `auto` then means
/// the CPU.
pub fn device(name: &str) -> Result<Device, DeviceError> {
    device_of(name, 0)
}

/// The same for rank `local_rank` of those on this machine: `auto` and `cuda` are then the GPU of that number.
pub fn device_of(name: &str, local_rank: usize) -> Result<Device, DeviceError> {
    let missing = |reason: String| DeviceError::Missing { name: name.to_owned(), reason };
    let ordinal = match name {
        "cpu" => return Ok(Device::Cpu),
        "auto" => {
            let usable = cuda::open().unwrap_or(false) && Cuda::is_available();
            if !usable {
                return Ok(Device::Cpu);
            }
            local_rank
        }
        "cuda" => local_rank,
        _ => name
            .strip_prefix("cuda:")
            .and_then(|ordinal| ordinal.parse().ok())
            .ok_or_else(|| DeviceError::Unknown { name: name.to_owned() })?,
    };
    if !cuda::open().map_err(|error: NnError| missing(error.to_string()))? {
        return Err(missing("this libtorch has no CUDA half".to_owned()));
    }
    let count = Cuda::device_count();
    if count <= ordinal as i64 {
        return Err(missing(format!("libtorch sees {count} GPUs")));
    }
    Ok(Device::Cuda(ordinal))
}

/// Whether matrix products in bfloat16 are faster than in f32 on a device.
pub(crate) fn has_bf16(device: Device) -> bool {
    match device {
        Device::Cpu => {
            #[cfg(target_arch = "x86_64")]
            let has = is_x86_feature_detected!("avx512bf16");
            #[cfg(target_arch = "aarch64")]
            let has = std::arch::is_aarch64_feature_detected!("bf16");
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let has = false;
            has
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn names() {
        assert_eq!(device("cpu").unwrap(), Device::Cpu);
        assert!(device("auto").is_ok());
        assert!(matches!(device("gpu"), Err(DeviceError::Unknown { .. })));
        assert!(matches!(device("cuda:x"), Err(DeviceError::Unknown { .. })));
        let far = device("cuda:200").unwrap_err().to_string();
        assert!(far.contains("`cuda:200`") && far.contains("`cpu`"), "{far}");
    }
}
