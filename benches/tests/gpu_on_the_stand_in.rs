//! The program `gpu` on a machine without one: every answer that it would time is right.
#![allow(clippy::unwrap_used)] // A test ends by panicking.

#[path = "../../crates/gateloop-scan/tests/common/stand_in.rs"]
mod again;
#[path = "../../crates/gateloop-scan/tests/common/host_compiler.rs"]
mod host_compiler;

use again::{build_stand_in, show, with_stand_in};
use gateloop_scan::cuda::Cuda;
use std::path::Path;

#[test]
fn every_answer_is_right() {
    if Cuda::is_available() {
        println!("skipped: there is a CUDA driver");
        return;
    }
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/gateloop-scan/kernels");
    let Some(folder) = build_stand_in(&kernels) else { return };
    let gpu = Path::new(env!("CARGO_BIN_EXE_gpu"));
    let output = with_stand_in(gpu, &folder, "").arg("--tiny").output().unwrap();
    let lines = show(&output);
    assert!(output.status.success(), "{}\n{lines}", output.status);
    assert!(!lines.contains("failed"), "{lines}");
    for work in ["scan", "gate_loop_adjoint", "rms_norm_adjoint", "silu_gate", "heads_turn"] {
        let name = format!("\"work\":\"{work}\"");
        let of = |line: &&str| line.contains(&name) && line.contains("\"of_copy\":");
        assert!(lines.lines().any(|line| of(&line)), "{work}:\n{lines}");
    }
}
