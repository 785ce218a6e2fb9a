//! The tests of CUDA tensors on tensors of the CPU, with the kernels of gateloop-scan behind its stand-in for the driver: what
//! is between layers and kernels, to the address, without a GPU.

#[path = "../../../gateloop-scan/tests/common/stand_in.rs"]
mod again;
#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../../gateloop-scan/tests/common/host_compiler.rs"]
mod host_compiler;
#[path = "../../tests/cuda/layers.rs"]
mod layers;

use again::{SETTINGS, build_stand_in, show, with_stand_in};
use std::cell::Cell;
use std::env;
use std::path::Path;

thread_local! {
    static PRETENDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread works with tensors on the CPU as if they were on a GPU.
pub(crate) fn pretended() -> bool {
    PRETENDED.get()
}

/// What the tests call a GPU.
mod gpu {
    use super::{PRETENDED, SETTINGS, env};
    use tch::Device;

    #[derive(Debug)]
    pub(crate) struct Gpu {
        pub(crate) device: Device,
        pub(crate) slowness: usize,
    }

    /// Only where the program was run again for it.
    pub(crate) fn gpu() -> Option<Gpu> {
        if env::var_os(SETTINGS).is_none() {
            println!("skipped: runs on the stand-in for the CUDA driver alone");
            return None;
        }
        Some(Gpu { device: Device::Cpu, slowness: 25 })
    }

    pub(crate) fn work_on_gpu<R>(work: impl FnOnce() -> R) -> R {
        PRETENDED.set(true);
        let result = work();
        PRETENDED.set(false);
        result
    }
}

#[test]
fn layers_on_the_stand_in_equal_those_on_the_cpu() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateloop-scan/kernels");
    let Some(folder) = build_stand_in(&kernels) else { return };
    let output = with_stand_in(&env::current_exe().unwrap(), &folder, "any_memory=1")
        .args(["--show-output", "cuda::stand_in::layers::"])
        .output()
        .unwrap();
    let shown = show(&output);
    println!("{shown}");
    assert!(output.status.success(), "{}\n{shown}", output.status);
    assert!(shown.contains("test result: ok.") && !shown.contains("skipped:"), "{shown}");
}
