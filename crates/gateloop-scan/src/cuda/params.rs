//! The kernels' parameters, in the layout that the CUDA sources give them.

/// Where an array lies: `View` of kernels/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) at: u64,
    pub(crate) batch: i64,
    pub(crate) row: i64,
}

/// Where segments begin, by position of the pass: `Starts` of kernels/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Starts {
    pub(crate) at: u64,
    pub(crate) batch: i64,
    pub(crate) row: i64,
    pub(crate) first: i64,
    pub(crate) last: i64,
}

/// How a problem falls into tiles: `Shape` of kernels/tile.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) seqlen: i64,
    pub(crate) channels: u32,
    pub(crate) columns: u32,
    pub(crate) columns_per_row: u32,
    pub(crate) chunks: u32,
    pub(crate) aligned: u32,
    pub(crate) prefetch: u32,
}

/// `Workspace` of kernels/lookback.cuh.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct WorkspaceParams {
    pub(crate) control: u64,
    pub(crate) records: u64,
    pub(crate) capacity: u64,
}

/// `ScanParams` of kernels/scan.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanParams {
    pub(crate) a: View,
    pub(crate) b: View,
    pub(crate) h: View,
    pub(crate) h0: u64,
    pub(crate) h_last: u64,
    pub(crate) starts: Starts,
    pub(crate) shape: Shape,
}

/// `ScanAdjointParams` of `kernels/scan_adjoint.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScanAdjointParams {
    pub(crate) a: View,
    pub(crate) h: View,
    pub(crate) dh: View,
    pub(crate) da: View,
    pub(crate) db: View,
    pub(crate) h0: u64,
    pub(crate) dh_last: u64,
    pub(crate) dh0: u64,
    pub(crate) starts: Starts,
    pub(crate) shape: Shape,
}

/// `GateLoopParams` of `kernels/gate_loop.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLoopParams {
    pub(crate) q: View,
    pub(crate) k: View,
    pub(crate) v: View,
    pub(crate) z: View,
    pub(crate) y: View,
    pub(crate) h0: u64,
    pub(crate) h_last: u64,
    pub(crate) checkpoints: u64,
    pub(crate) starts: Starts,
    pub(crate) shape: Shape,
    pub(crate) mode: u32,
    pub(crate) checkpoint_len: u32,
}

/// `GateLoopAdjointParams` of `kernels/gate_loop_adjoint.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct GateLoopAdjointParams {
    pub(crate) q: View,
    pub(crate) k: View,
    pub(crate) v: View,
    pub(crate) z: View,
    pub(crate) dy: View,
    pub(crate) dq: View,
    pub(crate) dk: View,
    pub(crate) dv: View,
    pub(crate) dz: View,
    pub(crate) checkpoints: u64,
    pub(crate) dh_last: u64,
    pub(crate) dh0: u64,
    pub(crate) starts: Starts,
    pub(crate) shape: Shape,
    pub(crate) mode: u32,
    pub(crate) has_h0: u32,
}
