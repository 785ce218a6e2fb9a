//! Gives the binaries of this package a run path to libtorch; a dependency's does not carry over.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = env::var("DEP_GATELOOP_NN_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
