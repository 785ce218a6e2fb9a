//! Compiles the C++ bridge and tells every binary of this package, and of the packages
//! that depend on it, where libtorch lies.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    // Found by gateloop-dist, which warns where there is no libtorch.
    let place = |what: &str| env::var_os(format!("DEP_GATELOOP_DIST_LIBTORCH_{what}"));
    let (Some(lib), Some(root)) = (place("LIB"), place("ROOT")) else { return };
    let (lib, root) = (PathBuf::from(lib), PathBuf::from(root));

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
