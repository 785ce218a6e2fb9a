//! The program `gateloop`; all of it is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    gateloop_transformer::cli::main()
}
