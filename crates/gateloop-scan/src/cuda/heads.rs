//! What lies between the matrix products of chunkwise GateLoop, for heads of any width: the raw layer.
//!
//! A tensor library multiplies; these weigh what it multiplied, and turn queries and keys on their way to the states. g and p are
//! the sums of ln|a| and arg a from the start of a chunk, in double precision whatever the operands are.

use super::args::check_address;
use super::error::CudaError;
use super::params::{TurnAdjointParams, TurnParams, WeighAdjointParams, WeighParams};
use super::{Cuda, Dtype, Stream};

/// `SIDE` of kernels/heads.cuh: tokens a side of a tile of pairs.
const SIDE: usize = 64;
/// `HEADS_THREADS` of kernels/heads.cuh.
const THREADS: u32 = 256;
/// `TURN_ROWS` of kernels/heads_turn.cu: rows of a block.
const TURN_ROWS: usize = 8;
/// Blocks of a launch; the kernels count them in 32 bits.
const MAX_BLOCKS: u128 = 1 << 31;

/// `scores[i, j] *= e^{g[i] - g[j]} cos(p[i] - p[j])` for `j <= i`, and 0 above the diagonal, in place.
///
/// Addresses of contiguous arrays in device memory.
#[derive(Debug, Clone, Copy)]
pub struct WeighArgs {
    /// Of the scores, [`Dtype::F32`] or [`Dtype::F64`].
    pub dtype: Dtype,
    /// Chunks of all sequences and heads.
    pub chunks: usize,
    /// C: tokens a chunk.
    pub chunk_len: usize,
    /// `q k^T`, `[chunks, C, C]`. What is above the diagonal is not read.
    pub scores: u64,
    /// g, `[chunks, C]`, f64.
    pub log_a: u64,
    /// p, `[chunks, C]`, f64.
    pub phase: u64,
}

/// The adjoint of [`WeighArgs`].
///
/// The gradients come as sums over tiles, n = C / 64 rounded up, so that no two blocks add to one number: that of g is the sum
/// over n of `log_later` less that of `log_earlier`, and so for p.
#[derive(Debug, Clone, Copy)]
pub struct WeighAdjointArgs {
    /// The forward pass's; its scores are the products again, and become the weighed ones.
    pub forward: WeighArgs,
    /// The gradient of the weighed scores, `[chunks, C, C]`, which becomes that of the products.
    pub dscores: u64,
    /// `[chunks, n, C]`, f64.
    pub log_later: u64,
    /// `[chunks, n, C]`, f64.
    pub log_earlier: u64,
    /// `[chunks, n, C]`, f64.
    pub phase_later: u64,
    /// `[chunks, n, C]`, f64.
    pub phase_earlier: u64,
}

impl WeighAdjointArgs {
    /// n: tiles of a chunk of C tokens.
    pub const fn tiles(chunk_len: usize) -> usize {
        chunk_len.div_ceil(SIDE)
    }
}

/// `y = [x e^g cos p, x e^g sin p]`, row by row.
#[derive(Debug, Clone, Copy)]
pub struct TurnArgs {
    /// Of x and y, [`Dtype::F32`] or [`Dtype::F64`].
    pub dtype: Dtype,
    /// Tokens of all heads.
    pub rows: usize,
    /// d: numbers of a row of x.
    pub width: usize,
    /// `[rows, d]`.
    pub x: u64,
    /// g, `[rows]`, f64.
    pub log_a: u64,
    /// p, `[rows]`, f64.
    pub phase: u64,
    /// `[rows, 2 d]`; not looked at by the adjoint.
    pub y: u64,
}

/// The adjoint of [`TurnArgs`].
#[derive(Debug, Clone, Copy)]
pub struct TurnAdjointArgs {
    /// The forward pass's.
    pub forward: TurnArgs,
    /// `[rows, 2 d]`.
    pub dy: u64,
    /// `[rows, d]`.
    pub dx: u64,
    /// `[rows]`, f64.
    pub dlog_a: u64,
    /// `[rows]`, f64.
    pub dphase: u64,
}

impl Cuda {
    /// Weighs scores, in stream order.
    ///
    /// # Safety
    /// Every address is device memory of this context, valid for the whole of its array until the stream is done; nothing
    /// else writes to it meanwhile.
    ///
    /// # Errors
    /// [`CudaError::Dtype`], [`CudaError::Operand`] for a null or misaligned array, [`CudaError::TooLarge`], and those of
    /// the driver.
    pub unsafe fn weigh(&self, stream: Stream, args: &WeighArgs) -> Result<(), CudaError> {
        let kernel = kernel("heads_weigh", args.dtype)?;
        args.check()?;
        let Some(grid) = args.grid()? else { return Ok(()) };
        let WeighArgs { scores, log_a, phase, chunk_len, .. } = *args;
        let params = WeighParams { scores, log_a, phase, chunk_len: chunk_len as u32 };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// The adjoint of [`Cuda::weigh`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::weigh`].
    ///
    /// # Errors
    /// As [`Cuda::weigh`].
    pub unsafe fn weigh_adjoint(
        &self,
        stream: Stream,
        args: &WeighAdjointArgs,
    ) -> Result<(), CudaError> {
        let WeighAdjointArgs { forward, dscores, .. } = *args;
        let kernel = kernel("heads_weigh_adjoint", forward.dtype)?;
        forward.check()?;
        let Some(grid) = forward.grid()? else { return Ok(()) };
        check_address("dscores", dscores, forward.dtype)?;
        let sums = [
            ("log_later", args.log_later),
            ("log_earlier", args.log_earlier),
            ("phase_later", args.phase_later),
            ("phase_earlier", args.phase_earlier),
        ];
        for (operand, address) in sums {
            check_address(operand, address, Dtype::F64)?;
        }
        let params = WeighAdjointParams {
            scores: forward.scores,
            dscores,
            log_a: forward.log_a,
            phase: forward.phase,
            log_later: args.log_later,
            log_earlier: args.log_earlier,
            phase_later: args.phase_later,
            phase_earlier: args.phase_earlier,
            chunk_len: forward.chunk_len as u32,
        };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// Turns rows, in stream order.
    ///
    /// # Safety
    /// As [`Cuda::weigh`].
    ///
    /// # Errors
    /// As [`Cuda::weigh`].
    pub unsafe fn turn(&self, stream: Stream, args: &TurnArgs) -> Result<(), CudaError> {
        let kernel = kernel("heads_turn", args.dtype)?;
        let Some(grid) = args.grid()? else { return Ok(()) };
        args.check()?;
        check_address("y", args.y, args.dtype)?;
        let TurnArgs { x, log_a, phase, y, rows, width, .. } = *args;
        let params = TurnParams { x, log_a, phase, y, rows: rows as i64, width: width as u32 };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }

    /// The adjoint of [`Cuda::turn`], in stream order.
    ///
    /// # Safety
    /// As [`Cuda::weigh`].
    ///
    /// # Errors
    /// As [`Cuda::weigh`].
    pub unsafe fn turn_adjoint(
        &self,
        stream: Stream,
        args: &TurnAdjointArgs,
    ) -> Result<(), CudaError> {
        let TurnAdjointArgs { forward, dy, dx, dlog_a, dphase } = *args;
        let kernel = kernel("heads_turn_adjoint", forward.dtype)?;
        let Some(grid) = forward.grid()? else { return Ok(()) };
        forward.check()?;
        for (operand, address) in [("dy", dy), ("dx", dx)] {
            check_address(operand, address, forward.dtype)?;
        }
        for (operand, address) in [("dlog_a", dlog_a), ("dphase", dphase)] {
            check_address(operand, address, Dtype::F64)?;
        }
        let TurnArgs { x, log_a, phase, rows, width, .. } = forward;
        let (rows, width) = (rows as i64, width as u32);
        let params = TurnAdjointParams { x, dy, log_a, phase, dx, dlog_a, dphase, rows, width };
        // SAFETY: the parameters are the kernel's; the caller vouches for the addresses.
        unsafe { self.launch_blocks(&kernel, grid, THREADS, stream, params) }
    }
}

impl WeighArgs {
    fn check(&self) -> Result<(), CudaError> {
        if self.chunks == 0 || self.chunk_len == 0 {
            return Ok(());
        }
        check_address("scores", self.scores, self.dtype)?;
        check_address("log_a", self.log_a, Dtype::F64)?;
        check_address("phase", self.phase, Dtype::F64)
    }

    /// Blocks of a launch; none if there is nothing to do.
    fn grid(&self) -> Result<Option<u32>, CudaError> {
        let tiles = self.chunk_len.div_ceil(SIDE) as u128;
        blocks((self.chunks as u128).saturating_mul(tiles.saturating_mul(tiles)))
    }
}

impl TurnArgs {
    fn check(&self) -> Result<(), CudaError> {
        check_address("x", self.x, self.dtype)?;
        check_address("log_a", self.log_a, Dtype::F64)?;
        check_address("phase", self.phase, Dtype::F64)
    }

    /// Blocks of a launch; none if there is nothing to do.
    fn grid(&self) -> Result<Option<u32>, CudaError> {
        if u32::try_from(self.width).is_err() {
            return Err(CudaError::TooManyChannels { channels: self.width });
        }
        if self.width == 0 { Ok(None) } else { blocks(self.rows.div_ceil(TURN_ROWS) as u128) }
    }
}

fn blocks(count: u128) -> Result<Option<u32>, CudaError> {
    if count >= MAX_BLOCKS {
        return Err(CudaError::TooLarge { tiles: count });
    }
    Ok((count > 0).then_some(count as u32))
}

fn kernel(operation: &'static str, dtype: Dtype) -> Result<String, CudaError> {
    match dtype {
        Dtype::F32 | Dtype::F64 => Ok(format!("{operation}_{}", dtype.name())),
        other => Err(CudaError::Dtype { operation, dtype: other.name() }),
    }
}

/// The names of all kernels.
#[cfg(test)]
pub(super) const KERNELS: [&str; 8] = [
    "heads_turn_adjoint_f32",
    "heads_turn_adjoint_f64",
    "heads_turn_f32",
    "heads_turn_f64",
    "heads_weigh_adjoint_f32",
    "heads_weigh_adjoint_f64",
    "heads_weigh_f32",
    "heads_weigh_f64",
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;
    use crate::cuda::ptx::assert_takes;

    const WEIGH: WeighArgs = WeighArgs {
        dtype: Dtype::F32,
        chunks: 3,
        chunk_len: 65,
        scores: 4096,
        log_a: 4096,
        phase: 4096,
    };
    const TURN: TurnArgs =
        TurnArgs { dtype: Dtype::F64, rows: 9, width: 5, x: 8, log_a: 8, phase: 8, y: 8 };

    #[test]
    fn a_block_has_a_tile_of_pairs_or_eight_rows() {
        assert_eq!(WEIGH.grid().unwrap(), Some(3 * 2 * 2));
        assert_eq!(WeighAdjointArgs::tiles(65), 2);
        assert_eq!(WeighArgs { chunk_len: 64, ..WEIGH }.grid().unwrap(), Some(3));
        assert_eq!(WeighArgs { chunks: 0, ..WEIGH }.grid().unwrap(), None);
        assert_eq!(TURN.grid().unwrap(), Some(2));
        assert_eq!(TurnArgs { rows: 0, ..TURN }.grid().unwrap(), None);
        assert_eq!(TurnArgs { width: 0, ..TURN }.grid().unwrap(), None);
    }

    #[test]
    fn sizes_beyond_the_kernels_numbers_are_refused() {
        let most = usize::MAX;
        for args in [WeighArgs { chunks: most, ..WEIGH }, WeighArgs { chunk_len: most, ..WEIGH }] {
            assert!(matches!(args.grid(), Err(CudaError::TooLarge { .. })), "{args:?}");
        }
        let edge = WeighArgs { chunks: (1 << 31) - 1, chunk_len: 1, ..WEIGH };
        assert_eq!(edge.grid().unwrap(), Some((1 << 31) - 1));
        let beyond = WeighArgs { chunks: 1 << 31, ..edge };
        assert!(matches!(beyond.grid(), Err(CudaError::TooLarge { tiles: 0x8000_0000 })));
        let rows = TurnArgs { rows: most, ..TURN };
        assert!(matches!(rows.grid(), Err(CudaError::TooLarge { .. })));
        let wide = TurnArgs { width: most, ..TURN };
        assert!(matches!(wide.grid(), Err(CudaError::TooManyChannels { .. })));
    }

    #[test]
    fn what_a_kernel_would_fault_at_is_named() {
        for (operand, args) in [
            ("scores", WeighArgs { scores: 0, ..WEIGH }),
            ("scores", WeighArgs { scores: 4098, ..WEIGH }),
            ("log_a", WeighArgs { log_a: 4100, ..WEIGH }),
            ("phase", WeighArgs { phase: 0, ..WEIGH }),
        ] {
            let refused = args.check().unwrap_err();
            assert!(
                matches!(refused, CudaError::Operand { operand: named, .. } if named == operand)
            );
        }
        let refused = kernel("heads_weigh", Dtype::Bf16).unwrap_err();
        assert!(matches!(refused, CudaError::Dtype { dtype: "bf16", .. }), "{refused}");
    }

    #[test]
    fn the_ptx_takes_these_structures_and_as_many_threads() {
        for name in KERNELS {
            let bytes = match name {
                _ if name.starts_with("heads_weigh_adjoint") => size_of::<WeighAdjointParams>(),
                _ if name.starts_with("heads_weigh") => size_of::<WeighParams>(),
                _ if name.starts_with("heads_turn_adjoint") => size_of::<TurnAdjointParams>(),
                _ => size_of::<TurnParams>(),
            };
            assert_takes(name, &[bytes], THREADS as usize);
        }
        let header = include_str!("../../kernels/heads.cuh");
        let constants = format!("SIDE = {SIDE}, HEADS_THREADS = {THREADS}");
        assert!(header.contains(&constants), "{constants}");
        assert_eq!(THREADS as usize / 32, TURN_ROWS);
    }
}
