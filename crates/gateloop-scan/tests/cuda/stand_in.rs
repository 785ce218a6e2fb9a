//! The tests of this program once more, on a machine without a driver: over `kernels/host/driver.cpp`, which stands in for it.

use crate::again::{build_stand_in, show, with_stand_in};
use gateloop_scan::cuda::{Cuda, CudaError, DeviceVec, Stream};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says to a test of this file that it is run once more: what the refusal should say.
const EXPECTED: &str = "GATELOOP_EXPECTED_REFUSAL";

fn folder() -> Option<PathBuf> {
    if Cuda::is_available() {
        println!("skipped: there is a CUDA driver");
        return None;
    }
    build_stand_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"))
}

/// This program again.
fn run_again(folder: &Path, settings: &str) -> Command {
    with_stand_in(&env::current_exe().unwrap(), folder, settings)
}

#[test]
fn every_test_passes_on_the_stand_in() {
    let Some(folder) = folder() else { return };
    let output =
        run_again(&folder, "").args(["--show-output", "--skip", "stand_in::"]).output().unwrap();
    let shown = show(&output);
    println!("{shown}");
    assert!(output.status.success(), "{}\n{shown}", output.status);
    assert!(!shown.contains("skipped:"), "{shown}");
    assert!(shown.contains("test result: ok."), "{shown}");
}

#[test]
fn a_machine_that_lacks_something_says_what() {
    if let Ok(expected) = env::var(EXPECTED) {
        let refusal = refusal().to_string();
        assert!(refusal.contains(&expected), "{refusal}");
        return;
    }
    let Some(folder) = folder() else { return };
    for (settings, expected) in [
        ("version=12030", "supports CUDA 12.3, but the kernels need 12.4"),
        ("capability=75", "compute capability 7.5"),
        ("devices=0", "no CUDA device 0: this machine shows 0"),
        ("memory=1000000", "no 4000000 bytes left"),
    ] {
        let output = run_again(&folder, settings)
            .env(EXPECTED, expected)
            .args(["--exact", "stand_in::a_machine_that_lacks_something_says_what"])
            .output()
            .unwrap();
        let shown = show(&output);
        assert!(output.status.success() && shown.contains(" 1 passed"), "{settings}:\n{shown}");
    }
}

/// What is said where there is no device to be had, or no room on it for a megabyte of numbers.
fn refusal() -> CudaError {
    let cuda = match Cuda::device(0) {
        Ok(cuda) => cuda,
        Err(refusal) => return refusal,
    };
    let stream = Stream::default();
    let refusal = DeviceVec::<f32>::uninit(&cuda, stream, 1_000_000).unwrap_err();
    // The device has what it had.
    let kept = DeviceVec::upload(&cuda, stream, &vec![1.5_f32; 100_000]).unwrap();
    assert_eq!(kept.download(&cuda, stream).unwrap(), vec![1.5; 100_000]);
    refusal
}
