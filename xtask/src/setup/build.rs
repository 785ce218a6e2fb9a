//! The two builds of libtorch and the wheels they are taken from.

use std::path::Path;

use super::libtorch::{self, Damage, VERSION};
use super::manifest::Manifest;
use super::package::{Package, Wheel};
use crate::error::{Error, Result};

/// Which libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    Cpu,
    Cuda,
}

impl Package for Build {
    fn folder(self) -> String {
        let name = match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        };
        format!("libtorch-{VERSION}-{name}")
    }

    fn wheels(self) -> &'static [Wheel] {
        match self {
            Self::Cpu => &WHEELS[..CPU_WHEELS],
            Self::Cuda => &WHEELS,
        }
    }

    /// Measured: 1.06 and 3.82 GB.
    fn disk_space(self) -> u64 {
        match self {
            Self::Cpu => 1_200_000_000,
            Self::Cuda => 4_300_000_000,
        }
    }

    /// All libraries go into one folder: the libraries of every wheel look for each other beside
    /// themselves (`$ORIGIN`), and the other places they look in lie outside of our folder.
    fn destination(self, entry: &str) -> Option<String> {
        if let Some(header) = entry.strip_prefix("torch/include/") {
            return Some(format!("include/{header}"));
        }
        let (folder, name) = entry.rsplit_once('/')?;
        let vendor = folder.strip_prefix("nvidia/").and_then(|rest| rest.strip_suffix("/lib"));
        let libraries = folder == "torch/lib" || vendor.is_some_and(|it| !it.contains('/'));
        let wanted = match self {
            Self::Cpu => CPU_LIBRARIES.contains(&name),
            Self::Cuda => name.contains(".so") && !PYTHON_LIBRARIES.contains(&name),
        };
        (libraries && wanted).then(|| format!("lib/{name}"))
    }

    fn complete(self, tree: &Path) -> Result<()> {
        if self == Self::Cpu {
            // torch-sys links with `-ltorch`. The wheel's own libtorch.so is an empty shell that
            // would drag the CUDA libraries in.
            let shell = tree.join("lib/libtorch.so");
            std::os::unix::fs::symlink("libtorch_cpu.so", &shell)
                .map_err(|e| Error::io("link", &shell, e))?;
        }
        // The very last file.
        Manifest::of(tree)?.write(tree)
    }

    fn intact(self, dir: &Path) -> std::result::Result<(), Damage> {
        if !dir.exists() {
            return Err(Damage::Absent);
        }
        if !Manifest::exists(dir) {
            return Err(Damage::NoManifest);
        }
        libtorch::check(dir, self == Self::Cuda)
    }
}

/// `libtorch_cpu.so` of the wheel asks for the two CUDA libraries even where there is no GPU;
/// they need no driver to load.
const CPU_LIBRARIES: [&str; 5] =
    ["libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"];

/// Of use to the Python package only.
const PYTHON_LIBRARIES: [&str; 2] = ["libtorch_python.so", "libshm.so"];

const CPU_WHEELS: usize = 3;

/// torch 2.11.0 and what its metadata requires, the wheels of the CPU build in front.
const WHEELS: [Wheel; 16] = [
    Wheel {
        requirement: "torch==2.11.0",
        platform: "manylinux_2_28_x86_64",
        bytes: 530_604_548,
        sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
    },
    Wheel {
        requirement: "nvidia-cuda-cupti==13.0.85",
        platform: "manylinux_2_25_x86_64",
        bytes: 10_715_597,
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
    },
    Wheel {
        requirement: "nvidia-cuda-runtime==13.0.96",
        platform: "manylinux2014_x86_64",
        bytes: 2_243_632,
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
    },
    Wheel {
        requirement: "nvidia-cublas==13.1.0.3",
        platform: "manylinux_2_27_x86_64",
        bytes: 423_133_236,
        sha256: "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
    },
    Wheel {
        requirement: "nvidia-cudnn-cu13==9.19.0.56",
        platform: "manylinux_2_27_x86_64",
        bytes: 366_066_321,
        sha256: "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
    },
    Wheel {
        requirement: "nvidia-cufft==12.0.0.61",
        platform: "manylinux2014_x86_64",
        bytes: 214_085_489,
        sha256: "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
    },
    Wheel {
        requirement: "nvidia-cusolver==12.0.4.66",
        platform: "manylinux_2_27_x86_64",
        bytes: 200_941_980,
        sha256: "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
    },
    Wheel {
        requirement: "nvidia-nccl-cu13==2.28.9",
        platform: "manylinux_2_18_x86_64",
        bytes: 196_493_177,
        sha256: "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
    },
    Wheel {
        requirement: "nvidia-cusparselt-cu13==0.8.0",
        platform: "manylinux2014_x86_64",
        bytes: 169_884_119,
        sha256: "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
    },
    Wheel {
        requirement: "nvidia-cusparse==12.6.3.3",
        platform: "manylinux2014_x86_64",
        bytes: 145_942_937,
        sha256: "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
    },
    Wheel {
        requirement: "nvidia-cuda-nvrtc==13.0.88",
        platform: "manylinux2010_x86_64",
        bytes: 90_215_200,
        sha256: "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
    },
    Wheel {
        requirement: "nvidia-nvshmem-cu13==3.4.5",
        platform: "manylinux2014_x86_64",
        bytes: 60_412_546,
        sha256: "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
    },
    Wheel {
        requirement: "nvidia-curand==10.4.0.35",
        platform: "manylinux_2_27_x86_64",
        bytes: 59_544_258,
        sha256: "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
    },
    Wheel {
        requirement: "nvidia-nvjitlink==13.0.88",
        platform: "manylinux2010_x86_64",
        bytes: 40_713_933,
        sha256: "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
    },
    Wheel {
        requirement: "nvidia-cufile==1.15.1.6",
        platform: "manylinux2014_x86_64",
        bytes: 1_223_672,
        sha256: "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
    },
    Wheel {
        requirement: "nvidia-nvtx==13.0.85",
        platform: "manylinux1_x86_64",
        bytes: 148_047,
        sha256: "4936d1d6780fbe68db454f5e72a42ff64d1fd6397df9f363ae786930fd5c1cd4",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_build_takes_headers_and_five_libraries() {
        let to = |entry| Build::Cpu.destination(entry);
        assert_eq!(to("torch/include/ATen/ATen.h").as_deref(), Some("include/ATen/ATen.h"));
        assert_eq!(to("torch/lib/libc10.so").as_deref(), Some("lib/libc10.so"));
        assert_eq!(to("nvidia/cu13/lib/libcupti.so.13").as_deref(), Some("lib/libcupti.so.13"));
        assert_eq!(to("torch/lib/libtorch_cuda.so"), None);
        assert_eq!(to("nvidia/cu13/include/cupti.h"), None);
        assert_eq!(to("torch/bin/libc10.so"), None);
        assert_eq!(to("METADATA"), None);
    }

    #[test]
    fn the_cuda_build_takes_every_library_but_pythons() {
        let to = |entry| Build::Cuda.destination(entry);
        assert_eq!(to("torch/lib/libtorch_cuda.so").as_deref(), Some("lib/libtorch_cuda.so"));
        assert_eq!(to("nvidia/nccl/lib/libnccl.so.2").as_deref(), Some("lib/libnccl.so.2"));
        assert_eq!(to("torch/lib/libtorch_python.so"), None);
        assert_eq!(to("torch/lib/libshm/err.h"), None);
        assert_eq!(to("nvidia/nvshmem/lib/cmake/x.so"), None);
    }

    #[test]
    fn the_pins_are_well_formed() {
        for wheel in Build::Cuda.wheels() {
            assert!(wheel.requirement.contains("=="), "{wheel:?}");
            assert!(wheel.platform.ends_with("_x86_64"), "{wheel:?}");
            assert_eq!(wheel.sha256.len(), 64, "{wheel:?}");
            assert!(wheel.bytes > 0, "{wheel:?}");
        }
    }
}
