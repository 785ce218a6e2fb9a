//! What stands around the operators in a layer, row by row: the raw layer of the root-mean-square norm and of the output gate.
//!
//! Each is one pass over its rows forward and one back, in the kind that the matrix product next to it takes.

use super::args::check_address;
use super::error::CudaError;
use super::params::{RmsNormAdjointParams, RmsNormParams, SiluGateAdjointParams, SiluGateParams};
use super::{Cuda, DeviceLimits, Dtype, Stream};

/// `ROW_THREADS` of kernels/rows.cuh.
const THREADS: u32 = 256;
/// `ROW_WARPS` of kernels/rows.cuh: of a block.
const WARPS: usize = 8;
/// Numbers of a row that a warp holds: `HELD` of kernels/rows.cuh a lane.
const OF_WARP: usize = 32 * 16;
/// Blocks of a norm that a multiprocessor holds at once, and of its adjoint: what registers allow.
const RESIDENT: usize = 4;
const RESIDENT_ADJOINT: usize = 2;
/// Blocks of a launch; the kernels count them in 32 bits.
const MAX_BLOCKS: u128 = 1 << 31;

/// What keeps the length that a row is divided by from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowLength {
    /// `max(|x|, 1e-12)`
    Clamped = 0,
    /// `sqrt(|x|^2 + 1e-5)`
    Epsilon = 1,
}

/// `y = x / length(x) sqrt(width) gamma`, row by row.
///
/// Addresses of contiguous arrays in device memory.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormArgs {
    /// Of x and gamma, [`Dtype::F32`] or [`Dtype::F64`].
    pub dtype: Dtype,
    /// Of y: the same, or [`Dtype::Bf16`] beside [`Dtype::F32`].
    pub y_dtype: Dtype,
    /// How many there are.
    pub rows: usize,
    /// Numbers of a row, at most [`RmsNormArgs::MAX_WIDTH`].
    pub width: usize,
    /// The length of a row.
    pub length: RowLength,
    /// `[rows, width]`.
    pub x: u64,
    /// `[width]`.
    pub gamma: u64,
    /// `[rows, width]`, written; not looked at by the adjoint.
    pub y: u64,
}

/// The adjoint of [`RmsNormArgs`], with the gradient of what went around the norm added: where y and x itself are used.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormAdjointArgs {
    /// The forward pass's.
    pub forward: RmsNormArgs,
    /// The gradient of y, `[rows, width]`, of y's type.
    pub dy: u64,
    /// The gradient of x by other ways, `[rows, width]`, of x's type; 0 for none.
    pub dshortcut: u64,
    /// `[rows, width]`, written.
    pub dx: u64,
    /// The gradient of gamma in parts that add up to it, `[n, width]` with n from [`RmsNormArgs::parts`], written.
    pub dgamma: u64,
}

/// `gated = y silu(gates)`, row by row.
///
/// Addresses of arrays in device memory, contiguous but for the gates, which may lie among other columns.
#[derive(Debug, Clone, Copy)]
pub struct SiluGateArgs {
    /// Of all arrays: a real one.
    pub dtype: Dtype,
    /// How many there are.
    pub rows: usize,
    /// Numbers of a row.
    pub width: usize,
    /// `[rows, width]`.
    pub y: u64,
    /// `[rows, width]`.
    pub gates: u64,
    /// Elements from one row of the gates to the next.
    pub gates_stride: i64,
    /// `[rows, width]`, written; not looked at by the adjoint.
    pub gated: u64,
}

/// The adjoint of [`SiluGateArgs`].
#[derive(Debug, Clone, Copy)]
pub struct SiluGateAdjointArgs {
    /// The forward pass's.
    pub forward: SiluGateArgs,
    /// `[rows, width]`.
    pub dgated: u64,
    /// `[rows, width]`, written.
    pub dy: u64,
    /// `[rows, width]`, written.
    pub dgates: u64,
    /// Elements from one row of `dgates` to the next.
    pub dgates_stride: i64,
}

impl RmsNormArgs {
    /// The longest row that the warps of a block hold.
    pub const MAX_WIDTH: usize = WARPS * OF_WARP;

    /// n: in how many parts the adjoint leaves the gradient of gamma.
    pub fn parts(&self, limits: DeviceLimits) -> usize {
        blocks_of_norm(self.rows, self.width, limits, RESIDENT_ADJOINT) as usize
    }

    fn kernel(&self, operation: &'static str) -> Result<String, CudaError> {
        match (self.dtype, self.y_dtype) {
            (Dtype::F32, Dtype::F32) | (Dtype::F64, Dtype::F64) => {
                Ok(format!("{operation}_{}", self.dtype.name()))
            }
            (Dtype::F32, Dtype::Bf16) => Ok(format!("{operation}_f32_bf16")),
            (Dtype::F32 | Dtype::F64, other) | (other, _) => {
                Err(CudaError::Dtype { operation, dtype: other.name() })
            }
        }
    }

    fn check(&self) -> Result<(), CudaError> {
        if self.width > Self::MAX_WIDTH {
            let most = Self::MAX_WIDTH;
            let problem = format!("rows of {} numbers, at most {most} are possible", self.width);
            return Err(CudaError::Operand { operand: "x", problem });
        }
        check_address("x", self.x, self.dtype)?;
        check_address("gamma", self.gamma, self.dtype)
    }

    fn is_empty(&self) -> bool {
        self.rows == 0 || self.width == 0
    }
}

impl SiluGateArgs {
    fn kernel(&self, operation: &'static str) -> Result<String, CudaError> {
        match self.dtype {
            Dtype::C64 | Dtype::C128 => {
                Err(CudaError::Dtype { operation, dtype: self.dtype.name() })
            }
            real => Ok(format!("{operation}_{}", real.name())),
        }
    }

    fn check(&self) -> Result<(), CudaError> {
        check_address("y", self.y, self.dtype)?;
        check_address("gates", self.gates, self.dtype)
    }

    /// Blocks of a launch, a warp a row; none if there is nothing to do.
    fn grid(&self) -> Result<Option<u32>, CudaError> {
        if u32::try_from(self.width).is_err() {
            return Err(CudaError::TooManyChannels { channels: self.width });
        }
        let blocks = self.rows.div_ceil(WARPS);
        if blocks as u128 >= MAX_BLOCKS {
            return Err(CudaError::TooLarge { tiles: blocks as u128 });
        }
        Ok((blocks > 0 && self.width > 0).then_some(blocks as u32))
    }
}

impl Cuda {
    /// Norms rows, in stream order.
    ///
    /// # Safety
    /// Every address is device memory of this context, valid for the whole of its array until the stream is done; nothing
    /// else writes to it meanwhile.
    ///
    /// # Errors
    /// [`CudaError::Dtype`], [`CudaError::Operand`] for rows that are too long and for a null or misaligned array, and
    /// those of the driver.
    pub unsafe fn rms_norm(&self, stream: Stream, args: &RmsNormArgs) -> Result<(), CudaError> {
        let kernel = args.kernel("rms_norm")?;
        if args.is_empty() {
            return Ok(());
        }
        args.check()?;
        check_address("y", args.y, args.y_dtype)?;
        let RmsNormArgs { dtype, rows, width, length, x, gamma, y, .. } = *args;
        let params = RmsNormParams {
            x,
            gamma,
            y,
            rows: rows as i64,
            width: width as u32,
            warps: warps(width) as u32,
            kind: length as u32,
            aligned: aligned(dtype, &[x, gamma, y], &[width as i64]),
        };
        let grid = blocks_of_norm(rows, width, self.limits(), RESIDENT);
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// The adjoint of [`Cuda::rms_norm`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::rms_norm`].
    ///
    /// # Errors
    /// As [`Cuda::rms_norm`].
    pub unsafe fn rms_norm_adjoint(
        &self,
        stream: Stream,
        args: &RmsNormAdjointArgs,
    ) -> Result<(), CudaError> {
        let RmsNormAdjointArgs { forward, dy, dshortcut, dx, dgamma } = *args;
        let kernel = forward.kernel("rms_norm_adjoint")?;
        if forward.is_empty() {
            return Ok(());
        }
        forward.check()?;
        check_address("dy", dy, forward.y_dtype)?;
        for (operand, address) in [("dx", dx), ("dgamma", dgamma)] {
            check_address(operand, address, forward.dtype)?;
        }
        if dshortcut != 0 {
            check_address("dshortcut", dshortcut, forward.dtype)?;
        }
        let RmsNormArgs { dtype, rows, width, length, x, gamma, .. } = forward;
        let params = RmsNormAdjointParams {
            x,
            gamma,
            dy,
            dshortcut,
            dx,
            dgamma,
            rows: rows as i64,
            width: width as u32,
            warps: warps(width) as u32,
            kind: length as u32,
            aligned: aligned(dtype, &[x, gamma, dy, dshortcut, dx], &[width as i64]),
        };
        let grid = forward.parts(self.limits()) as u32;
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// Gates rows, in stream order.
    ///
    /// # Safety
    /// As [`Cuda::rms_norm`].
    ///
    /// # Errors
    /// [`CudaError::Dtype`], [`CudaError::Operand`] for a null or misaligned array, [`CudaError::TooLarge`],
    /// [`CudaError::TooManyChannels`], and those of the driver.
    pub unsafe fn silu_gate(&self, stream: Stream, args: &SiluGateArgs) -> Result<(), CudaError> {
        let kernel = args.kernel("silu_gate")?;
        let Some(grid) = args.grid()? else { return Ok(()) };
        args.check()?;
        check_address("gated", args.gated, args.dtype)?;
        let SiluGateArgs { dtype, rows, width, y, gates, gates_stride, gated } = *args;
        let params = SiluGateParams {
            y,
            gates,
            gated,
            gates_row: gates_stride,
            rows: rows as i64,
            width: width as u32,
            aligned: aligned(dtype, &[y, gates, gated], &[width as i64, gates_stride]),
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// The adjoint of [`Cuda::silu_gate`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::rms_norm`].
    ///
    /// # Errors
    /// As [`Cuda::silu_gate`].
    pub unsafe fn silu_gate_adjoint(
        &self,
        stream: Stream,
        args: &SiluGateAdjointArgs,
    ) -> Result<(), CudaError> {
        let SiluGateAdjointArgs { forward, dgated, dy, dgates, dgates_stride } = *args;
        let kernel = forward.kernel("silu_gate_adjoint")?;
        let Some(grid) = forward.grid()? else { return Ok(()) };
        forward.check()?;
        for (operand, address) in [("dgated", dgated), ("dy", dy), ("dgates", dgates)] {
            check_address(operand, address, forward.dtype)?;
        }
        let SiluGateArgs { dtype, rows, width, y, gates, gates_stride, .. } = forward;
        let strides = [width as i64, gates_stride, dgates_stride];
        let params = SiluGateAdjointParams {
            y,
            gates,
            dgated,
            dy,
            dgates,
            gates_row: gates_stride,
            dgates_row: dgates_stride,
            rows: rows as i64,
            width: width as u32,
            aligned: aligned(dtype, &[y, gates, dgated, dy, dgates], &strides),
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }
}

/// Warps that have a row together: 1, 2, 4 or 8.
fn warps(width: usize) -> usize {
    width.div_ceil(OF_WARP).next_power_of_two()
}

/// So many blocks a multiprocessor as it holds at once, which go on from row to row, or fewer where rows are few.
fn blocks_of_norm(rows: usize, width: usize, limits: DeviceLimits, resident: usize) -> u32 {
    rows.div_ceil(WARPS / warps(width).min(WARPS)).min(resident * limits.multiprocessors) as u32
}

/// Whether every row of every array begins where 16 bytes may be read at once.
fn aligned(dtype: Dtype, addresses: &[u64], strides: &[i64]) -> u32 {
    let bytes = dtype.bytes() as i64;
    let is = addresses.iter().all(|address| address.is_multiple_of(16))
        && strides.iter().all(|stride| stride * bytes % 16 == 0);
    u32::from(is)
}

/// The names of all kernels.
#[cfg(test)]
pub(super) const KERNELS: [&str; 14] = [
    "rms_norm_adjoint_f32",
    "rms_norm_adjoint_f32_bf16",
    "rms_norm_adjoint_f64",
    "rms_norm_f32",
    "rms_norm_f32_bf16",
    "rms_norm_f64",
    "silu_gate_adjoint_bf16",
    "silu_gate_adjoint_f16",
    "silu_gate_adjoint_f32",
    "silu_gate_adjoint_f64",
    "silu_gate_bf16",
    "silu_gate_f16",
    "silu_gate_f32",
    "silu_gate_f64",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use crate::cuda::ptx::assert_takes;

    const LIMITS: DeviceLimits = DeviceLimits {
        multiprocessors: 132,
        shared_per_block: 227 << 10,
        shared_per_multiprocessor: 228 << 10,
        threads_per_multiprocessor: 2048,
    };
    const NORM: RmsNormArgs = RmsNormArgs {
        dtype: Dtype::F32,
        y_dtype: Dtype::Bf16,
        rows: 100,
        width: 512,
        length: RowLength::Clamped,
        x: 4096,
        gamma: 4096,
        y: 4096,
    };
    const GATE: SiluGateArgs = SiluGateArgs {
        dtype: Dtype::Bf16,
        rows: 9,
        width: 5,
        y: 2,
        gates: 2,
        gates_stride: 30,
        gated: 2,
    };

    #[test]
    fn a_row_has_as_many_warps_as_hold_it() {
        for (width, expected) in
            [(1, 1), (512, 1), (513, 2), (1024, 2), (1025, 4), (2049, 8), (4096, 8)]
        {
            assert_eq!(warps(width), expected, "{width}");
        }
        assert_eq!(RmsNormArgs::MAX_WIDTH, 4096);
    }

    #[test]
    fn norms_keep_every_multiprocessor_busy_and_no_block_idle() {
        assert_eq!(NORM.parts(LIMITS), 13);
        assert_eq!(RmsNormArgs { width: 4096, ..NORM }.parts(LIMITS), 100);
        assert_eq!(RmsNormArgs { rows: 1 << 40, ..NORM }.parts(LIMITS), 264);
    }

    #[test]
    fn a_gate_has_a_warp_a_row() {
        assert_eq!(GATE.grid().unwrap(), Some(2));
        assert_eq!(SiluGateArgs { rows: 0, ..GATE }.grid().unwrap(), None);
        assert_eq!(SiluGateArgs { width: 0, ..GATE }.grid().unwrap(), None);
        let most = usize::MAX;
        let rows = SiluGateArgs { rows: most, ..GATE }.grid();
        assert!(matches!(rows, Err(CudaError::TooLarge { .. })));
        let width = SiluGateArgs { width: most, ..GATE }.grid();
        assert!(matches!(width, Err(CudaError::TooManyChannels { .. })));
    }

    #[test]
    fn what_a_kernel_would_fault_at_is_named() {
        let named = |result: Result<(), CudaError>| match result {
            Err(CudaError::Operand { operand, .. }) => operand,
            other => panic!("{other:?}"),
        };
        assert_eq!(named(RmsNormArgs { width: 4097, ..NORM }.check()), "x");
        assert_eq!(named(RmsNormArgs { x: 4098, ..NORM }.check()), "x");
        assert_eq!(named(RmsNormArgs { gamma: 0, ..NORM }.check()), "gamma");
        assert_eq!(named(SiluGateArgs { y: 0, ..GATE }.check()), "y");
        assert_eq!(named(SiluGateArgs { gates: 3, ..GATE }.check()), "gates");
        NORM.check().unwrap();
        GATE.check().unwrap();
    }

    #[test]
    fn kinds_without_a_kernel_are_named() {
        let norm = |dtype, y_dtype| RmsNormArgs { dtype, y_dtype, ..NORM }.kernel("rms_norm");
        assert_eq!(norm(Dtype::F32, Dtype::Bf16).unwrap(), "rms_norm_f32_bf16");
        assert_eq!(norm(Dtype::F64, Dtype::F64).unwrap(), "rms_norm_f64");
        for (dtype, y_dtype, named) in [
            (Dtype::F64, Dtype::Bf16, "bf16"),
            (Dtype::F32, Dtype::F16, "f16"),
            (Dtype::Bf16, Dtype::Bf16, "bf16"),
        ] {
            let refused = norm(dtype, y_dtype);
            assert!(
                matches!(refused, Err(CudaError::Dtype { dtype, .. }) if dtype == named),
                "{refused:?}"
            );
        }
        let refused = SiluGateArgs { dtype: Dtype::C64, ..GATE }.kernel("silu_gate");
        assert!(matches!(refused, Err(CudaError::Dtype { .. })));
    }

    #[test]
    fn vectors_are_for_rows_that_all_begin_at_16_bytes() {
        assert_eq!(aligned(Dtype::F32, &[0, 16], &[4, 512]), 1);
        assert_eq!(aligned(Dtype::F32, &[8], &[4]), 0);
        assert_eq!(aligned(Dtype::Bf16, &[16], &[12]), 0);
    }

    #[test]
    fn the_ptx_takes_these_structures_and_as_many_threads() {
        for name in KERNELS {
            let bytes = match name {
                _ if name.starts_with("rms_norm_adjoint") => size_of::<RmsNormAdjointParams>(),
                _ if name.starts_with("rms_norm") => size_of::<RmsNormParams>(),
                _ if name.starts_with("silu_gate_adjoint") => size_of::<SiluGateAdjointParams>(),
                _ => size_of::<SiluGateParams>(),
            };
            assert_takes(name, &[bytes], THREADS as usize);
        }
        let header = include_str!("../../kernels/rows.cuh");
        for constant in [format!("ROW_THREADS = {THREADS},"), format!("HELD = {};", OF_WARP / 32)] {
            assert!(header.contains(&constant), "{constant}");
        }
        assert_eq!(THREADS as usize / 32, WARPS);
    }
}
