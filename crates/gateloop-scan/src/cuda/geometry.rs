//! What a kernel's tiles look like: read from the kernels' sources, which are the one place that says.

use super::{Dtype, Operation};
use std::collections::HashMap;
use std::sync::LazyLock;

/// The numbers in the last line of a kernel: `Geometry` of kernels/tile.cuh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Warps that carry data.
    pub(crate) warps: usize,
    /// Consecutive positions of each.
    pub(crate) rows: usize,
    /// Channels of a lane.
    pub(crate) lane: usize,
    /// Tiles in shared memory.
    pub(crate) stages: usize,
    /// Blocks of a multiprocessor.
    pub(crate) blocks: usize,
}

impl Geometry {
    pub(crate) const fn positions(self) -> usize {
        self.warps * self.rows
    }
    pub(crate) const fn channels(self) -> usize {
        32 * self.lane
    }
    pub(crate) const fn threads(self) -> usize {
        32 * (self.warps + self.lane + 1)
    }

    /// Dynamic shared memory of a block: `SHARED_BYTES` of kernels/pass.cuh.
    pub(crate) fn shared_bytes(self, operation: Operation, dtype: Dtype) -> usize {
        let state = operation.state(dtype);
        let (state_bytes, align) = (state.bytes(), state.alignment());
        let states = self.warps * self.channels() * state_bytes;
        let mut one = (2 * states + 4 * self.warps).next_multiple_of(align);
        if operation.recomputes() {
            one = (one + states + 4 * self.warps).next_multiple_of(align);
        }
        let taken = (32 + 8 * operation.arrays()).next_multiple_of(16);
        let shared = (2 * one).next_multiple_of(16) + taken * (self.stages + 2);
        let tile = self.positions() * self.channels() * operation.staged_bytes(dtype);
        self.stages * tile + shared
    }
}

/// `GROUP` of kernels/lookback.cuh.
pub(crate) const GROUP: usize = 8;

const SOURCES: [&str; 6] = [
    include_str!("../../kernels/scan.cu"),
    include_str!("../../kernels/scan_adjoint.cu"),
    include_str!("../../kernels/gate_loop.cu"),
    include_str!("../../kernels/gate_loop_adjoint.cu"),
    include_str!("../../kernels/simple_gate_loop.cu"),
    include_str!("../../kernels/simple_gate_loop_adjoint.cu"),
];

static GEOMETRIES: LazyLock<HashMap<String, Geometry>> = LazyLock::new(|| {
    SOURCES.iter().flat_map(|source| source.lines()).filter_map(instance).collect()
});

/// What the names of kernels end in whose tiles are smaller, for devices with less shared memory.
pub(crate) const SMALL: &str = "_small";
/// What the names of kernels end in whose tiles are narrower and higher, for few columns.
pub(crate) const TALL: &str = "_tall";
/// What the names of kernels end in whose tiles are low, for short sequences.
pub(crate) const SHORT: &str = "_short";

/// The names of all kernels.
#[cfg(test)]
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    GEOMETRIES.keys().map(String::as_str)
}

/// The geometry of a kernel, by name.
pub(crate) fn geometry(kernel: &str) -> Option<Geometry> {
    GEOMETRIES.get(kernel).copied()
}

/// Reads a line such as `SCAN(f32, float, 7, 10, 2, 3, 2)`.
fn instance(line: &str) -> Option<(String, Geometry)> {
    let (macro_name, arguments) = line.strip_suffix(')')?.split_once('(')?;
    let prefix = match macro_name {
        "SCAN" => "scan_",
        "SCAN_ADJOINT" => "scan_adjoint_",
        "GATE_LOOP" | "GATE_LOOP_ADJOINT" => "",
        _ => return None,
    };
    let arguments: Vec<&str> = arguments.split(',').map(str::trim).collect();
    let numbers: Vec<usize> = arguments.iter().rev().map_while(|a| a.parse().ok()).collect();
    let [blocks, stages, lane, rows, warps] = numbers[..] else { return None };
    let geometry = Geometry { warps, rows, lane, stages, blocks };
    Some((format!("{prefix}{}", arguments[0]), geometry))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // A test ends by panicking.
    use super::*;

    #[test]
    fn every_kernel_has_a_geometry() {
        for operation in Operation::ALL {
            for dtype in Dtype::ALL {
                if operation.takes(dtype) {
                    let name = operation.kernel(dtype);
                    let geometry = geometry(&name).unwrap_or_else(|| panic!("{name}"));
                    assert!(geometry.stages >= 3 && geometry.threads() <= 1024, "{name}");
                    let bytes = geometry.shared_bytes(operation, dtype);
                    assert!(bytes * geometry.blocks <= 227 * 1024 || geometry.blocks > 1, "{name}");
                }
            }
        }
        // 28, high tiles for two of them, low ones for four, small ones for all.
        assert_eq!(GEOMETRIES.len(), 28 + 2 + 4 + 28);
    }

    #[test]
    fn a_warp_meets_one_checkpoint_at_most() {
        for (forward, adjoint) in [
            (Operation::GateLoop, Operation::GateLoopAdjoint),
            (Operation::SimpleGateLoop, Operation::SimpleGateLoopAdjoint),
        ] {
            for dtype in [Dtype::F32, Dtype::F64, Dtype::Bf16, Dtype::F16] {
                let (name, adjoint) = (forward.kernel(dtype), adjoint.kernel(dtype));
                // A device may have room for the one's larger tiles and not for the other's.
                for (forward, backward) in [("", ""), (SMALL, SMALL), ("", SMALL), (SMALL, "")] {
                    let rows = geometry(&format!("{name}{forward}")).unwrap().rows;
                    let tile = geometry(&format!("{adjoint}{backward}")).unwrap();
                    assert!(rows <= tile.positions(), "{name}{forward}");
                }
                // Checkpoints are one a tile, whatever the shape.
                assert!(geometry(&format!("{adjoint}{TALL}")).is_none());
            }
        }
    }

    /// tests/kernels_on_host.rs compares the same file with the kernels themselves.
    #[test]
    fn a_launch_is_what_the_kernels_ask_for() {
        let mut needs: HashMap<&str, [usize; 4]> = HashMap::new();
        for line in include_str!("../../kernels/needs.txt").lines() {
            if !line.starts_with('#') {
                let (kernel, numbers) = line.split_once(' ').unwrap();
                let numbers: Vec<_> = numbers.split(' ').map(|n| n.parse().unwrap()).collect();
                needs.insert(kernel, numbers.try_into().unwrap());
            }
        }
        for operation in Operation::ALL {
            for dtype in Dtype::ALL.into_iter().filter(|dtype| operation.takes(*dtype)) {
                for tiles in ["", SMALL, TALL, SHORT] {
                    let kernel = format!("{}{tiles}", operation.kernel(dtype));
                    let Some(tile) = geometry(&kernel) else { continue };
                    let shared = tile.shared_bytes(operation, dtype);
                    let ours = [shared, tile.threads(), tile.positions(), tile.channels()];
                    assert_eq!(needs.remove(kernel.as_str()), Some(ours), "{kernel}");
                }
            }
        }
        assert!(needs.is_empty(), "{needs:?}");
    }

    #[test]
    fn the_group_is_that_of_the_kernels() {
        let source = include_str!("../../kernels/lookback.cuh");
        assert!(source.contains(&format!("constexpr int GROUP = {GROUP};")));
    }
}
