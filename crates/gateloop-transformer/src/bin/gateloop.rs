//! The program `gateloop`; all of it is in the library's `cli`.

use std::env;
use std::process::ExitCode;

/// Read by libtorch when it allocates its first tensor: large ones then lie in large pages, which the kernel
/// hands out in one piece. A training step is a tenth faster for it.
const LARGE_PAGES: &str = "THP_MEM_ALLOC_ENABLE";

fn main() -> ExitCode {
    if env::var_os(LARGE_PAGES).is_none() {
        // SAFETY: nothing else runs yet that could read the environment.
        unsafe { env::set_var(LARGE_PAGES, "1") };
    }
    gateloop_transformer::cli::main()
}
