//! The scan and the fused operators on NVIDIA GPUs.
//!
//! Nothing of CUDA is needed to build this, and nothing but the driver (550 or newer) to run it: the
//! kernels are embedded as PTX, which the driver compiles for the device when a kernel is first used.
//! Results are bit-equal from run to run. docs/kernels.md describes the kernels.
//!
//! Two layers: [`DeviceVec`] with [`Cuda::run_scan`] and its siblings owns its memory and checks
//! everything; the raw layer ([`Cuda::scan`] and its siblings) takes device pointers, strides and a
//! stream from whoever has them, such as a tensor library.
//!
//! ```
//! use gateloop_scan::cuda::{Cuda, CudaError};
//!
//! match Cuda::device(0) {
//!     Ok(cuda) => println!("{}", cuda.name()),
//!     Err(CudaError::NoDriver) => println!("skipped: no CUDA driver"),
//!     Err(other) => return Err(other),
//! }
//! # Ok::<(), CudaError>(())
//! ```

mod args;
mod device;
mod error;
mod fused;
mod geometry;
mod heads;
mod launch;
mod memory;
mod operation;
mod owned;
mod params;
mod plan;
mod ptx;
mod rows;

pub use args::{
    Array, Dims, GateLoopAdjointArgs, GateLoopArgs, RawWorkspace, ScanAdjointArgs, ScanArgs, Stream,
};
pub use device::Cuda;
pub use error::CudaError;
pub use fused::{GateLoopGrads, GateLoopResult, Gates};
pub use heads::{TurnAdjointArgs, TurnArgs, WeighAdjointArgs, WeighArgs};
pub use memory::{DeviceElement, DeviceVec};
pub use operation::{Dtype, Operation};
pub use plan::DeviceLimits;
pub use rows::{RmsNormAdjointArgs, RmsNormArgs, RowLength, SiluGateAdjointArgs, SiluGateArgs};
