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

/// `WeighParams` of `kernels/heads_weigh.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeighParams {
    pub(crate) scores: u64,
    pub(crate) log_a: u64,
    pub(crate) phase: u64,
    pub(crate) chunk_len: u32,
}

/// `WeighAdjointParams` of `kernels/heads_weigh_adjoint.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct WeighAdjointParams {
    pub(crate) scores: u64,
    pub(crate) dscores: u64,
    pub(crate) log_a: u64,
    pub(crate) phase: u64,
    pub(crate) log_later: u64,
    pub(crate) log_earlier: u64,
    pub(crate) phase_later: u64,
    pub(crate) phase_earlier: u64,
    pub(crate) chunk_len: u32,
}

/// `TurnParams` of `kernels/heads_turn.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnParams {
    pub(crate) x: u64,
    pub(crate) log_a: u64,
    pub(crate) phase: u64,
    pub(crate) y: u64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
}

/// `TurnAdjointParams` of `kernels/heads_turn.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnAdjointParams {
    pub(crate) x: u64,
    pub(crate) dy: u64,
    pub(crate) log_a: u64,
    pub(crate) phase: u64,
    pub(crate) dx: u64,
    pub(crate) dlog_a: u64,
    pub(crate) dphase: u64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
}

/// `RmsNormParams` of kernels/rms_norm.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNormParams {
    pub(crate) x: u64,
    pub(crate) gamma: u64,
    pub(crate) y: u64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
    pub(crate) warps: u32,
    pub(crate) kind: u32,
    pub(crate) aligned: u32,
}

/// `RmsNormAdjointParams` of `kernels/rms_norm_adjoint.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RmsNormAdjointParams {
    pub(crate) x: u64,
    pub(crate) gamma: u64,
    pub(crate) dy: u64,
    pub(crate) dshortcut: u64,
    pub(crate) dx: u64,
    pub(crate) dgamma: u64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
    pub(crate) warps: u32,
    pub(crate) kind: u32,
    pub(crate) aligned: u32,
}

/// `SiluGateParams` of kernels/silu_gate.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiluGateParams {
    pub(crate) y: u64,
    pub(crate) gates: u64,
    pub(crate) gated: u64,
    pub(crate) gates_row: i64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
    pub(crate) aligned: u32,
}

/// `SiluGateAdjointParams` of kernels/silu_gate.cu.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SiluGateAdjointParams {
    pub(crate) y: u64,
    pub(crate) gates: u64,
    pub(crate) dgated: u64,
    pub(crate) dy: u64,
    pub(crate) dgates: u64,
    pub(crate) gates_row: i64,
    pub(crate) dgates_row: i64,
    pub(crate) rows: i64,
    pub(crate) width: u32,
    pub(crate) aligned: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::device::{NEEDED, NEEDED_CAPABILITY};
    use crate::cuda::geometry::{Geometry, geometry};
    use crate::cuda::plan::{STEP, STEP_THREADS, STEP_TOKENS};
    use crate::cuda::ptx::{assert_takes, ptx};
    use crate::cuda::{Dtype, Operation};

    const fn bytes(operation: Operation) -> usize {
        match operation {
            Operation::Scan => size_of::<ScanParams>(),
            Operation::ScanAdjoint => size_of::<ScanAdjointParams>(),
            Operation::GateLoop | Operation::SimpleGateLoop => size_of::<GateLoopParams>(),
            _ => size_of::<GateLoopAdjointParams>(),
        }
    }

    fn text(kernel: &str) -> String {
        let ptx = ptx(kernel).unwrap_or_else(|| panic!("no kernel {kernel}"));
        String::from_utf8_lossy(&ptx).into_owned()
    }

    #[test]
    fn the_ptx_takes_these_structures_and_as_many_threads() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|&dtype| operation.takes(dtype)) {
                let (name, bytes) = (operation.kernel(dtype), bytes(operation));
                let threads = geometry(&name).map_or(0, Geometry::threads);
                assert_takes(&name, &[bytes, size_of::<WorkspaceParams>()], threads);
                if operation.is_forward() {
                    assert_takes(&format!("{name}{STEP}"), &[bytes], STEP_THREADS);
                }
            }
        }
        let header = include_str!("../../kernels/step.cuh");
        let constants = format!("STEP_THREADS = {STEP_THREADS}, STEP_TOKENS = {STEP_TOKENS};");
        assert!(header.contains(&constants), "{constants}");
    }

    #[test]
    fn the_ptx_asks_for_what_is_checked() {
        // PTX ISA 8.4 came with CUDA 12.4.
        assert_eq!(NEEDED, (12, 4));
        let target = format!(".target sm_{}{}", NEEDED_CAPABILITY.0, NEEDED_CAPABILITY.1);
        for operation in Operation::ALL {
            let ptx = text(&operation.kernel(Dtype::F32));
            let head: Vec<&str> = ptx.lines().take(20).collect();
            assert!(head.contains(&".version 8.4") && head.contains(&target.as_str()), "{head:?}");
        }
    }
}
