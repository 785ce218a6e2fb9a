//! Compiles the bridge to c10d, with NCCL if that is asked for and its headers are there.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=csrc");
    for key in ["LIBTORCH", "LIBTORCH_INCLUDE", "CUDA_HOME", "NCCL_HOME", "GATELOOP_CUDA_INCLUDE"] {
        println!("cargo:rerun-if-env-changed={key}");
    }
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
    // Dependants read these as DEP_GATELOOP_DIST_LIBTORCH_LIB and DEP_GATELOOP_DIST_LIBTORCH_ROOT.
    println!("cargo:libtorch_lib={}", lib.display());
    println!("cargo:libtorch_root={}", root.display());
    if env::var_os("CARGO_FEATURE_C10D").is_none() {
        return;
    }

    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .files(["csrc/group.cpp", "csrc/store.cpp"])
        .include("csrc")
        .include(root.join("include"))
        .include(root.join("include/torch/csrc/api/include"))
        .opt_level(1)
        .debug(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("USE_C10D_GLOO", None)
        .flag_if_supported("-Wno-unused-parameter");
    if env::var_os("CARGO_FEATURE_NCCL").is_some() {
        with_nccl(&mut build, &lib);
    }
    build.compile("gateloop_c10d");
    check_gloo(&PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()));

    // c10d is a part of libtorch_cpu, which must follow the bridge on the linker's line.
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}

/// The folders that have the headers of CUDA and NCCL: `GATELOOP_CUDA_INCLUDE`, a list of them, then the usual places.
fn cuda_includes() -> Vec<PathBuf> {
    let listed = env::var_os("GATELOOP_CUDA_INCLUDE");
    let listed = listed.iter().flat_map(env::split_paths);
    let homes = ["CUDA_HOME", "NCCL_HOME"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    let usual = ["/usr/local/cuda", "/usr"].map(PathBuf::from);
    listed.chain(homes.chain(usual).map(|home| home.join("include"))).collect()
}

/// What `ProcessGroupNCCL.hpp` includes: one header of each of the packages that CUDA's headers are divided into.
const CUDA_HEADERS: [&str; 7] = [
    "nccl.h",
    "cuda_runtime_api.h",
    "crt/host_config.h",
    "nv/target",
    "cublas_v2.h",
    "cusparse.h",
    "cusolverDn.h",
];

fn with_nccl(build: &mut cc::Build, lib: &Path) {
    let includes = cuda_includes();
    let is_missing = |header: &&str| !includes.iter().any(|folder| folder.join(header).is_file());
    let missing: Vec<&str> = CUDA_HEADERS.into_iter().filter(is_missing).collect();
    let problem = if !missing.is_empty() {
        format!(
            "{} not found: set GATELOOP_CUDA_INCLUDE to the folders of CUDA's and NCCL's headers",
            missing.join(", ")
        )
    } else if !lib.join("libtorch_cuda.so").is_file() {
        "this libtorch has no libtorch_cuda.so: install one with CUDA".to_owned()
    } else {
        for folder in includes {
            build.include(folder);
        }
        // libtorch's own headers are what is warned of.
        build.define("USE_C10D_NCCL", None).flag_if_supported("-Wno-interference-size");
        // Only a program that calls the bridge comes to need them at run time: rustc links with --as-needed.
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
        return;
    };
    // The program says the same when NCCL is asked of it.
    println!("cargo:warning=built without NCCL: {problem}");
}

/// The declarations in csrc/gloo stand for types of which nothing is used. If the object needed a function or a table of
/// Gloo's, they would not be what they are declared to be.
fn check_gloo(out: &Path) {
    let archive = out.join("libgateloop_c10d.a");
    let Ok(symbols) = Command::new("nm").arg("-C").arg(&archive).output() else { return };
    let text = String::from_utf8_lossy(&symbols.stdout);
    let used = text.lines().find(|line| {
        let undefined = line.trim_start().starts_with("U gloo::");
        undefined || line.contains("vtable for gloo::") || line.contains("typeinfo for gloo::")
    });
    assert!(
        used.is_none(),
        "the bridge uses Gloo itself, whose headers are only stood in for: {used:?}"
    );
}
