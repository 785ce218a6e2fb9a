//! NVIDIA's compilers, taken from wheels: no CUDA has to be installed, and every machine has the
//! same release of them, without which the generated text would differ from one to the next.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::setup::libtorch::Damage;
use crate::setup::{Package, Wheel, install};

/// The release of NVRTC. Drivers read the PTX of their own CUDA release or older, so this one
/// serves every driver from 550 on.
pub(crate) const NVRTC: &str = "12.4.127";

/// The toolchain, unpacked.
#[derive(Debug)]
pub(crate) struct Toolchain(PathBuf);

impl Toolchain {
    /// Brings it into the cache unless it is there.
    pub(crate) fn ensure(cache: &Path) -> Result<Self> {
        // Asked first without the lock: a library in use by another run is no reason to wait.
        let dir = cache.join(Compilers.folder());
        if Compilers.intact(&dir).is_ok() {
            return Ok(Self(dir));
        }
        install(cache, Compilers, false).map(Self)
    }

    pub(crate) fn nvrtc(&self) -> PathBuf {
        self.0.join(LIBNVRTC)
    }

    /// Knows the architectures up to sm_90a.
    pub(crate) fn ptxas_12(&self) -> PathBuf {
        self.0.join(PTXAS_12)
    }

    /// Knows sm_100 as well.
    pub(crate) fn ptxas_13(&self) -> PathBuf {
        self.0.join(PTXAS_13)
    }
}

const LIBNVRTC: &str = "lib/libnvrtc.so.12";
/// NVRTC loads it from the folder it lies in itself.
const BUILTINS: &str = "lib/libnvrtc-builtins.so.12.4";
const PTXAS_12: &str = "bin/ptxas-12.4";
const PTXAS_13: &str = "bin/ptxas-13.0";

/// What is wanted: its name in a wheel, its name here, its size.
///
/// The sizes tell a whole file from a torn one, and the files of one release from another's.
const FILES: [(&str, &str, u64); 4] = [
    ("nvidia/cuda_nvrtc/lib/libnvrtc.so.12", LIBNVRTC, 60_418_376),
    ("nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.12.4", BUILTINS, 5_343_112),
    ("nvidia/cuda_nvcc/bin/ptxas", PTXAS_12, 30_322_304),
    ("nvidia/cu13/bin/ptxas", PTXAS_13, 37_741_528),
];

const WHEELS: [Wheel; 3] = [
    Wheel {
        requirement: "nvidia-cuda-nvcc==13.0.88",
        platform: "manylinux2014_x86_64",
        bytes: 37_384_532,
        sha256: "56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03",
    },
    Wheel {
        requirement: "nvidia-cuda-nvrtc-cu12==12.4.127",
        platform: "manylinux2014_x86_64",
        bytes: 24_640_306,
        sha256: "a178759ebb095827bd30ef56598ec182b85547f1508941a3d560eb7ea1fbf338",
    },
    Wheel {
        requirement: "nvidia-cuda-nvcc-cu12==12.4.131",
        platform: "manylinux2014_x86_64",
        bytes: 22_265_199,
        sha256: "e4c9a35435c3b0e36c6397c5696334c9ea6650e524736cbd1c5d345ea099bb04",
    },
];

/// The toolchain as a package.
#[derive(Debug, Clone, Copy)]
struct Compilers;

impl Package for Compilers {
    fn folder(self) -> String {
        "kernels-toolchain-12.4".to_owned()
    }

    fn wheels(self) -> &'static [Wheel] {
        &WHEELS
    }

    /// The files above, and the largest wheel twice: pip copies it.
    fn disk_space(self) -> u64 {
        250_000_000
    }

    fn destination(self, entry: &str) -> Option<String> {
        FILES.iter().find(|(from, ..)| *from == entry).map(|(_, to, _)| (*to).to_owned())
    }

    /// A wheel's archive does not say which of its files are programs.
    fn complete(self, tree: &Path) -> Result<()> {
        for program in [PTXAS_12, PTXAS_13] {
            let path = tree.join(program);
            fs::set_permissions(&path, Permissions::from_mode(0o755))
                .map_err(|e| Error::io("make a program of", &path, e))?;
        }
        Ok(())
    }

    fn intact(self, dir: &Path) -> std::result::Result<(), Damage> {
        if !dir.exists() {
            return Err(Damage::Absent);
        }
        for (_, name, expected) in FILES {
            let file = PathBuf::from(name);
            match fs::metadata(dir.join(name)).map(|metadata| metadata.len()) {
                Err(_) => return Err(Damage::Lacks { file }),
                Ok(found) if found != expected => {
                    return Err(Damage::Size { file, found, expected });
                }
                Ok(_) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_files_are_taken_and_nothing_else() {
        let to = |entry| Compilers.destination(entry);
        assert_eq!(to("nvidia/cuda_nvcc/bin/ptxas").as_deref(), Some(PTXAS_12));
        assert_eq!(to("nvidia/cu13/bin/ptxas").as_deref(), Some(PTXAS_13));
        assert_eq!(to("nvidia/cuda_nvrtc/lib/libnvrtc.so.12").as_deref(), Some(LIBNVRTC));
        assert_eq!(to("nvidia/cu13/bin/nvcc"), None);
    }

    #[test]
    fn a_torn_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let intact = || Compilers.intact(dir.path());
        assert!(matches!(intact(), Err(Damage::Lacks { .. })));
        fs::create_dir(dir.path().join("lib")).unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for (_, name, bytes) in FILES {
            // Sparse, so that nothing is written.
            fs::File::create(dir.path().join(name)).unwrap().set_len(bytes).unwrap();
        }
        Compilers.complete(dir.path()).unwrap();
        assert_eq!(intact(), Ok(()));
        let mode = fs::metadata(dir.path().join(PTXAS_13)).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
        fs::write(dir.path().join(BUILTINS), "torn").unwrap();
        assert!(matches!(intact(), Err(Damage::Size { found: 4, .. })));
        assert_eq!(Compilers.intact(&dir.path().join("none")), Err(Damage::Absent));
    }

    #[test]
    fn the_pins_are_well_formed() {
        for wheel in Compilers.wheels() {
            assert!(wheel.requirement.contains("=="), "{wheel:?}");
            assert_eq!(wheel.sha256.len(), 64, "{wheel:?}");
        }
        assert!(WHEELS.iter().any(|wheel| wheel.requirement.ends_with(NVRTC)));
    }
}
