//! How a problem is cut into tiles and how many blocks run: a pure function of its shape and the
//! device's limits.

use super::error::CudaError;
use super::geometry::{GROUP, Geometry, SHORT, SMALL, TALL, geometry};
use super::params::Shape;
use super::{Dtype, Operation};
use crate::ScanShape;

/// What a device offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLimits {
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Shared memory that a block may ask for, in bytes.
    pub shared_per_block: usize,
    /// Shared memory of a multiprocessor, in bytes.
    pub shared_per_multiprocessor: usize,
    /// Threads of a multiprocessor.
    pub threads_per_multiprocessor: usize,
}

/// A launch, decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kernel: String,
    pub(crate) grid: u32,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: usize,
    pub(crate) shape: Shape,
    /// 16-byte words of the workspace's records.
    pub(crate) words: u64,
    /// Whether blocks meet in a workspace; where each thread has a channel to itself they do not.
    pub(crate) meets: bool,
}

/// The kernels count tiles in 32 bits, and blocks ask for some more than there are.
pub(crate) const MAX_TILES: u128 = 1 << 31;
/// The kernels count channels in 32 bits, and the last tile of channels reaches past the end.
pub(crate) const MAX_CHANNELS: usize = 1 << 31;

/// What the names of kernels end in that take a few tokens.
pub(crate) const STEP: &str = "_step";
/// `STEP_THREADS` of kernels/step.cuh.
pub(crate) const STEP_THREADS: usize = 128;
/// `STEP_TOKENS` of kernels/step.cuh.
pub(crate) const STEP_TOKENS: usize = 4;

/// Bytes that the driver keeps of a multiprocessor's shared memory for each block.
const RESERVED: usize = 1024;

impl Plan {
    pub(crate) fn new(
        operation: Operation,
        dtype: Dtype,
        shape: ScanShape,
        aligned: bool,
        limits: &DeviceLimits,
    ) -> Result<Self, CudaError> {
        if let Some(step) = Self::step(operation, dtype, shape)? {
            return Ok(step);
        }
        let (kernel, tile) = choose(operation, dtype, shape, limits)?;
        let shared_bytes = tile.shared_bytes(operation, dtype);
        if shape.channels > MAX_CHANNELS {
            return Err(CudaError::TooManyChannels { channels: shape.channels });
        }
        let columns_per_row = shape.channels.div_ceil(tile.channels());
        let columns = columns(tile, shape);
        let chunks = shape.seqlen.div_ceil(tile.positions());
        let tiles = columns * chunks as u128;
        if tiles > MAX_TILES {
            return Err(CudaError::TooLarge { tiles });
        }
        let resident = (limits.shared_per_multiprocessor / (shared_bytes + RESERVED))
            .min(limits.threads_per_multiprocessor / tile.threads())
            .clamp(1, tile.blocks);
        let grid = tiles.min((limits.multiprocessors * resident) as u128) as u32;
        let state = operation.state(dtype);
        let (pair, one) = (state.record_words(2), state.record_words(1));
        let groups = chunks.div_ceil(GROUP);
        let words = if chunks == 1 { 0 } else { chunks * pair + groups * (pair + one) };
        let prefetch = if tiles <= u128::from(grid) { 1 } else { tile.stages as u32 };
        Ok(Self {
            kernel,
            grid,
            threads: tile.threads() as u32,
            shared_bytes,
            shape: Shape {
                seqlen: shape.seqlen as i64,
                channels: shape.channels as u32,
                columns: columns as u32,
                columns_per_row: columns_per_row as u32,
                chunks: chunks as u32,
                aligned: u32::from(aligned),
                prefetch,
            },
            words: columns as u64 * tile.channels() as u64 * words as u64,
            meets: true,
        })
    }

    /// A forward pass of a few tokens, as decoding has one: a thread a channel. `None` for anything else.
    fn step(
        operation: Operation,
        dtype: Dtype,
        shape: ScanShape,
    ) -> Result<Option<Self>, CudaError> {
        let columns_per_row = shape.channels.div_ceil(STEP_THREADS);
        let columns = shape.batch as u128 * columns_per_row as u128;
        let applies = operation.is_forward()
            && shape.seqlen <= STEP_TOKENS
            && columns < MAX_TILES
            && shape.channels <= MAX_CHANNELS;
        if !applies {
            return Ok(None);
        }
        if !operation.takes(dtype) {
            return Err(CudaError::Dtype { operation: operation.name(), dtype: dtype.name() });
        }
        Ok(Some(Self {
            kernel: format!("{}{STEP}", operation.kernel(dtype)),
            grid: columns as u32,
            threads: STEP_THREADS as u32,
            shared_bytes: 0,
            shape: Shape {
                seqlen: shape.seqlen as i64,
                channels: shape.channels as u32,
                columns: columns as u32,
                columns_per_row: columns_per_row as u32,
                chunks: 1,
                aligned: 0,
                prefetch: 1,
            },
            words: 0,
            meets: false,
        }))
    }
}

/// The names of the kernels that take a few tokens.
#[cfg(test)]
pub(crate) fn step_names() -> impl Iterator<Item = String> {
    let forward = Operation::ALL.into_iter().filter(|operation| operation.is_forward());
    let with_dtypes = |operation: Operation| {
        let dtypes = Dtype::ALL.into_iter().filter(move |&dtype| operation.takes(dtype));
        dtypes.map(move |dtype| format!("{}{STEP}", operation.kernel(dtype)))
    };
    forward.flat_map(with_dtypes)
}

fn columns(tile: Geometry, shape: ScanShape) -> u128 {
    shape.batch as u128 * shape.channels.div_ceil(tile.channels()) as u128
}

/// Whether many multiprocessors would work on the same column, tile after tile: each then waits for the
/// state that the one before has yet to find. Eight to a column is where the two kinds of tiles are equally
/// fast (H100).
fn is_crowded(tile: Geometry, shape: ScanShape, limits: &DeviceLimits) -> bool {
    let columns = columns(tile, shape);
    let tiles = columns * shape.seqlen.div_ceil(tile.positions()) as u128;
    let blocks = (limits.multiprocessors * tile.blocks) as u128;
    tiles > blocks && 8 * columns < blocks
}

/// The kernel with the largest tiles that fit the device.
fn fitting(
    operation: Operation,
    dtype: Dtype,
    limits: &DeviceLimits,
) -> Result<(String, Geometry), CudaError> {
    let kernel = operation.kernel(dtype);
    let unknown = CudaError::Dtype { operation: operation.name(), dtype: dtype.name() };
    let tile = geometry(&kernel).ok_or(unknown)?;
    let (needed, given) = (tile.shared_bytes(operation, dtype), limits.shared_per_block);
    if needed <= given {
        return Ok((kernel, tile));
    }
    let small = format!("{kernel}{SMALL}");
    match geometry(&small) {
        Some(tile) if tile.shared_bytes(operation, dtype) <= given => Ok((small, tile)),
        _ => Err(CudaError::SharedMemory { kernel, needed, given }),
    }
}

/// The same, or the one with tall tiles where columns are few, or with low ones where less than half of a
/// tile's positions are there.
fn choose(
    operation: Operation,
    dtype: Dtype,
    shape: ScanShape,
    limits: &DeviceLimits,
) -> Result<(String, Geometry), CudaError> {
    let (kernel, tile) = fitting(operation, dtype, limits)?;
    let ending = if 2 * shape.seqlen <= tile.positions() {
        SHORT
    } else if is_crowded(tile, shape, limits) {
        TALL
    } else {
        return Ok((kernel, tile));
    };
    let other = format!("{}{ending}", operation.kernel(dtype));
    let fits = |tile: &Geometry| tile.shared_bytes(operation, dtype) <= limits.shared_per_block;
    Ok(match geometry(&other).filter(fits) {
        Some(tile) => (other, tile),
        None => (kernel, tile),
    })
}

/// [`Cuda::checkpoint_len`](super::Cuda::checkpoint_len).
pub(crate) fn checkpoint_len(
    operation: Operation,
    dtype: Dtype,
    limits: &DeviceLimits,
) -> Result<usize, CudaError> {
    let adjoint = match operation {
        Operation::GateLoop | Operation::GateLoopAdjoint => Operation::GateLoopAdjoint,
        Operation::SimpleGateLoop | Operation::SimpleGateLoopAdjoint => {
            Operation::SimpleGateLoopAdjoint
        }
        Operation::Scan | Operation::ScanAdjoint => {
            let problem = format!("{} keeps no checkpoints: it has its states", operation.name());
            return Err(CudaError::Operand { operand: "operation", problem });
        }
    };
    Ok(fitting(adjoint, dtype, limits)?.1.positions())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    const KIB: usize = 1024;
    const H100: DeviceLimits = DeviceLimits {
        multiprocessors: 132,
        shared_per_block: 227 * KIB,
        shared_per_multiprocessor: 228 * KIB,
        threads_per_multiprocessor: 2048,
    };
    const A100: DeviceLimits = DeviceLimits {
        multiprocessors: 108,
        shared_per_block: 163 * KIB,
        shared_per_multiprocessor: 164 * KIB,
        threads_per_multiprocessor: 2048,
    };
    const B200: DeviceLimits = DeviceLimits {
        multiprocessors: 148,
        shared_per_block: 227 * KIB,
        shared_per_multiprocessor: 228 * KIB,
        threads_per_multiprocessor: 2048,
    };
    const DESKTOP: DeviceLimits = DeviceLimits {
        multiprocessors: 82,
        shared_per_block: 99 * KIB,
        shared_per_multiprocessor: 100 * KIB,
        threads_per_multiprocessor: 1536,
    };

    fn plan(operation: Operation, dtype: Dtype, dims: [usize; 3], limits: &DeviceLimits) -> Plan {
        let shape = ScanShape::new(dims[0], dims[1], dims[2]).unwrap();
        Plan::new(operation, dtype, shape, true, limits).unwrap()
    }

    #[test]
    fn tiles_cover_the_problem() {
        for dims in [[1, 5, 1], [3, 1000, 33], [2, 69, 64], [2, 71, 65], [1, 65_536, 512]] {
            for dtype in Dtype::ALL {
                let plan = plan(Operation::Scan, dtype, dims, &H100);
                let tile = geometry(&plan.kernel).unwrap();
                let shape = plan.shape;
                assert!(shape.chunks as usize * tile.positions() >= dims[1]);
                assert!((shape.chunks as usize - 1) * tile.positions() < dims[1]);
                assert!(shape.columns_per_row as usize * tile.channels() >= dims[2]);
                assert_eq!(shape.columns, shape.columns_per_row * dims[0] as u32);
                assert!(plan.grid >= 1 && plan.grid <= shape.columns * shape.chunks);
                assert_eq!(plan.words == 0, shape.chunks == 1);
            }
        }
    }

    #[test]
    fn sizes_beyond_31_bits_are_counted_in_64() {
        let plan = plan(Operation::Scan, Dtype::F32, [64, 1 << 21, 4096], &H100);
        assert_eq!(plan.shape.columns, 64 * 64);
        let tiles = u64::from(plan.shape.columns) * u64::from(plan.shape.chunks);
        assert!(tiles > 1 << 25 && plan.words > 1 << 31);
    }

    #[test]
    fn too_many_tiles_are_refused() {
        let shape = ScanShape::new(1 << 20, 1 << 30, 64).unwrap();
        let refused = Plan::new(Operation::Scan, Dtype::F32, shape, true, &H100);
        assert!(matches!(refused, Err(CudaError::TooLarge { .. })));
    }

    #[test]
    fn counts_of_32_bits_do_not_wrap() {
        // More channels than 32 bits hold, in few tiles.
        let shape = ScanShape::new(1, 1, 1 << 33).unwrap();
        let refused = Plan::new(Operation::Scan, Dtype::Bf16, shape, true, &H100);
        assert!(matches!(refused, Err(CudaError::TooManyChannels { .. })));
        // So many tiles that the tickets taken after the last would begin again at 0.
        let shape = ScanShape::new(u32::MAX as usize - 1, 1, 1).unwrap();
        let refused = Plan::new(Operation::Scan, Dtype::Bf16, shape, true, &H100);
        assert!(matches!(refused, Err(CudaError::TooLarge { .. })));
        let most = plan(Operation::Scan, Dtype::F32, [1 << 31, 1, 1], &H100).shape;
        assert_eq!((most.columns, most.chunks), (1 << 31, 1));
    }

    #[test]
    fn the_smallest_problem_is_one_tile_of_one_block() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                let plan = plan(operation, dtype, [1, 1, 1], &B200);
                let shape = plan.shape;
                assert_eq!((plan.grid, shape.columns, shape.chunks, shape.prefetch), (1, 1, 1, 1));
            }
        }
    }

    #[test]
    fn a_few_tokens_have_a_thread_a_channel_and_no_workspace() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                let few = plan(operation, dtype, [64, STEP_TOKENS, 513], &DESKTOP);
                assert_eq!(few.kernel.ends_with(STEP), operation.is_forward(), "{}", few.kernel);
                assert_ne!(few.meets, operation.is_forward());
                let more = plan(operation, dtype, [64, STEP_TOKENS + 1, 513], &DESKTOP);
                assert!(more.meets && !more.kernel.ends_with(STEP));
            }
        }
        let step = plan(Operation::Scan, Dtype::F32, [64, 1, 513], &H100);
        assert_eq!((step.grid, step.threads), (64 * 5, 128));
        assert_eq!((step.shared_bytes, step.words), (0, 0));
        assert_eq!((step.shape.columns, step.shape.columns_per_row), (64 * 5, 5));
    }

    #[test]
    fn complex_operators_have_no_complex_operands() {
        let shape = ScanShape::new(1, 8, 8).unwrap();
        let refused = Plan::new(Operation::GateLoop, Dtype::C64, shape, true, &H100);
        assert!(matches!(refused, Err(CudaError::Dtype { .. })));
        let one = ScanShape::new(1, 1, 8).unwrap();
        let refused = Plan::new(Operation::GateLoop, Dtype::C64, one, true, &H100);
        assert!(matches!(refused, Err(CudaError::Dtype { .. })));
    }

    #[test]
    fn a_small_problem_takes_one_tile_a_block() {
        assert_eq!(plan(Operation::Scan, Dtype::F32, [1, 1, 512], &H100).shape.prefetch, 1);
        assert!(plan(Operation::Scan, Dtype::F32, [8, 2048, 1024], &H100).shape.prefetch > 1);
    }

    #[test]
    fn every_kernel_fits_a_data_center_gpu() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                for limits in [&H100, &A100, &B200] {
                    plan(operation, dtype, [8, 2048, 1024], limits);
                }
            }
        }
    }

    #[test]
    fn a_desktop_gpu_gets_the_smaller_tiles() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                let small = plan(operation, dtype, [8, 2048, 1024], &DESKTOP);
                assert!(small.shared_bytes <= DESKTOP.shared_per_block);
            }
        }
        assert_eq!(
            plan(Operation::Scan, Dtype::F32, [1, 99, 9], &DESKTOP).kernel,
            "scan_f32_small"
        );
        assert_eq!(plan(Operation::Scan, Dtype::F32, [1, 99, 9], &H100).kernel, "scan_f32");
    }

    #[test]
    fn few_columns_get_tall_tiles_and_short_sequences_low_ones() {
        let kernel = |dims, limits| plan(Operation::Scan, Dtype::F32, dims, limits).kernel;
        assert_eq!(kernel([1, 65_536, 512], &H100), "scan_f32_tall");
        assert_eq!(kernel([16, 16_384, 128], &H100), "scan_f32");
        assert_eq!(kernel([8, 2048, 1024], &H100), "scan_f32");
        // So short that no block waits for another's turn.
        assert_eq!(kernel([1, 256, 512], &H100), "scan_f32");
        assert_eq!(kernel([1, 65_536, 512], &DESKTOP), "scan_f32_small");
        assert_eq!(kernel([256, 16, 4096], &H100), "scan_f32_short");
        assert_eq!(kernel([256, 16, 4096], &DESKTOP), "scan_f32_short");
        // What has no other tiles keeps its own.
        let other = plan(Operation::GateLoop, Dtype::F32, [1, 65_536, 512], &H100);
        assert_eq!(other.kernel, "gate_loop_f32");
    }

    #[test]
    fn checkpoints_are_for_the_adjoint_that_the_device_gets() {
        for (operation, adjoint) in [
            (Operation::GateLoop, Operation::GateLoopAdjoint),
            (Operation::SimpleGateLoop, Operation::SimpleGateLoopAdjoint),
        ] {
            for limits in [&H100, &A100, &DESKTOP] {
                let tiles = plan(adjoint, Dtype::Bf16, [8, 4096, 512], limits).shape.chunks;
                let len = checkpoint_len(operation, Dtype::Bf16, limits).unwrap();
                assert_eq!(4096_usize.div_ceil(len), tiles as usize);
                assert_eq!(len, checkpoint_len(adjoint, Dtype::Bf16, limits).unwrap());
            }
        }
        let refused = checkpoint_len(Operation::Scan, Dtype::F32, &H100);
        assert!(matches!(refused, Err(CudaError::Operand { operand: "operation", .. })));
    }

    #[test]
    fn a_kernel_that_does_not_fit_says_so() {
        let limits = DeviceLimits { shared_per_block: 48 * KIB, ..DESKTOP };
        let shape = ScanShape::new(1, 4096, 512).unwrap();
        match Plan::new(Operation::Scan, Dtype::F32, shape, true, &limits) {
            Err(CudaError::SharedMemory { needed, given, .. }) => assert!(needed > given),
            other => panic!("{other:?}"),
        }
    }
}
