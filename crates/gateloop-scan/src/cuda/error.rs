//! What can go wrong on the way to a GPU.

use crate::ScanError;
use cudarc::driver::sys::CUresult;

/// Why a kernel was not run. Nothing has been written when one of these comes back, and the device
/// stays usable, except after [`CudaError::Driver`] as the driver's manual says.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no CUDA driver on this machine.
    #[error("no CUDA driver (libcuda) was found: install NVIDIA's driver, or use the CPU")]
    NoDriver,
    /// The driver cannot read the kernels.
    #[error(
        "the CUDA driver supports CUDA {}.{}, but the kernels need 12.4: install driver 550 or \
         newer", found.0, found.1
    )]
    DriverTooOld {
        /// The newest CUDA of the driver, as (major, minor).
        found: (i32, i32),
    },
    /// The device cannot run the kernels.
    #[error(
        "the device has compute capability {}.{}, but the kernels need 8.0 (A100 or newer): use \
         another device, or the CPU", found.0, found.1
    )]
    DeviceTooOld {
        /// The device's compute capability, as (major, minor).
        found: (usize, usize),
    },
    /// There is no such device.
    #[error(
        "there is no CUDA device {ordinal}: this machine shows {count}; choose a smaller ordinal, \
         or look at CUDA_VISIBLE_DEVICES"
    )]
    NoDevice {
        /// The device asked for.
        ordinal: usize,
        /// How many there are.
        count: usize,
    },
    /// The device's memory is used up.
    #[error("the device has no {bytes} bytes left: use smaller batches or shorter sequences")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// The problem has more tiles than the kernels count.
    #[error("the problem falls into {tiles} tiles, at most 2^31 are possible: split the batch")]
    TooLarge {
        /// The number of tiles.
        tiles: u128,
    },
    /// The problem has more channels than the kernels count.
    #[error("{channels} channels a token, at most 2^31 are possible: split the channels")]
    TooManyChannels {
        /// The number of channels.
        channels: usize,
    },
    /// An operand lies on another device than the one that is to work with it.
    #[error(
        "`{operand}` lies on device {actual}, but device {expected} was asked: upload it there"
    )]
    WrongDevice {
        /// The argument's name.
        operand: &'static str,
        /// Where it lies.
        actual: usize,
        /// Where it would have to be.
        expected: usize,
    },
    /// A block needs more shared memory than the device gives.
    #[error(
        "kernel {kernel} needs {needed} bytes of shared memory, the device gives a block {given}: \
         use the CPU, or a data center GPU"
    )]
    SharedMemory {
        /// The kernel.
        kernel: String,
        /// Bytes needed.
        needed: usize,
        /// Bytes given.
        given: usize,
    },
    /// There is no kernel for this type of element.
    #[error("there is no {operation} kernel for {dtype}: convert the operands")]
    Dtype {
        /// The operation.
        operation: &'static str,
        /// The type's name.
        dtype: &'static str,
    },
    /// A null pointer or a workspace that is too small.
    #[error("`{operand}`: {problem}")]
    Operand {
        /// The argument's name.
        operand: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The operands do not fit each other.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// The driver refused a call.
    #[error(
        "the CUDA driver failed to {action}: {code:?}; NVIDIA's list of CUresult says what that \
         means, and if a kernel failed, only a new process can use the device again"
    )]
    Driver {
        /// What was asked of it.
        action: &'static str,
        /// Its answer.
        code: CUresult,
    },
}

/// Names the action of a driver call that failed.
pub(super) trait Context<T> {
    fn to(self, action: &'static str) -> Result<T, CudaError>;
}

impl<T> Context<T> for Result<T, cudarc::driver::result::DriverError> {
    fn to(self, action: &'static str) -> Result<T, CudaError> {
        self.map_err(|error| CudaError::Driver { action, code: error.0 })
    }
}
