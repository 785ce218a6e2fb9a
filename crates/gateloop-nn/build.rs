//! Compiles the C++ bridge and tells every binary of this package, and of the packages
//! that depend on it, where libtorch lies.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");

    // torch-sys found the libraries (its `links` name is "tch"); the headers lie beside them.
    let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        println!(
            "cargo:warning=torch-sys did not say where libtorch is; run `cargo xtask setup` first"
        );
        return;
    };
    let root = env::var_os("LIBTORCH_INCLUDE")
        .or_else(|| env::var_os("LIBTORCH"))
        .map(PathBuf::from)
        .filter(|root| root.join("include/torch").is_dir())
        .unwrap_or_else(|| lib.parent().unwrap_or(Path::new("/")).to_path_buf());

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .files([
            "csrc/autograd.cpp",
            "csrc/cuda.cpp",
            "csrc/foreach.cpp",
            "csrc/parallel.cpp",
            "csrc/pool.cpp",
        ])
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        // The bridge runs a few times a step; optimising it would only lengthen the build.
        .opt_level(1)
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .flag_if_supported("-Wno-unused-parameter")
        .compile("gateloop_bridge");

    // Not resolved: where `.libtorch` is a link, `cargo xtask setup --cuda` may point it elsewhere.
    let lib = lib.display();
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    // Dependants read this as DEP_GATELOOP_NN_LIBTORCH_LIB and set the same run path.
    println!("cargo:libtorch_lib={lib}");
}
