//! Is this folder a sound libtorch of the right version?

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::manifest::Manifest;

/// The one release of libtorch that our `tch` binds.
pub(crate) const VERSION: &str = "2.11.0";

/// Where the releases of libtorch keep the three numbers, newest habit first.
const HEADERS: [&str; 3] = [
    "include/torch/headeronly/version.h",
    "include/torch/csrc/api/include/torch/version.h",
    "include/torch/version.h",
];

/// What torch-sys asks the linker for.
const LIBRARIES: [&str; 3] = ["lib/libtorch_cpu.so", "lib/libc10.so", "lib/libtorch.so"];

/// Why a folder is not a libtorch to build with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub(crate) enum Damage {
    #[error("it does not exist")]
    Absent,
    #[error("it is not a folder")]
    NotAFolder,
    #[error("it is a folder of its own, not a link that may be replaced")]
    NotALink,
    #[error("it holds no {}", HEADERS[0])]
    NoVersion,
    #[error("it is libtorch {found}, and {VERSION} is needed")]
    Version { found: String },
    #[error("it lacks {}", file.display())]
    Lacks { file: PathBuf },
    #[error("{} has {found} bytes in place of {expected}", file.display())]
    Size { file: PathBuf, found: u64, expected: u64 },
    #[error("its list of files is absent or unreadable")]
    NoManifest,
}

/// Checks the version, the libraries, and every file where the folder has a list of them.
pub(crate) fn check(dir: &Path, cuda: bool) -> Result<(), Damage> {
    if !dir.exists() {
        return Err(Damage::Absent);
    }
    if !dir.is_dir() {
        return Err(Damage::NotAFolder);
    }
    let found = version(dir).ok_or(Damage::NoVersion)?;
    if found != VERSION {
        return Err(Damage::Version { found });
    }
    let cuda = cuda.then_some("lib/libtorch_cuda.so");
    for file in LIBRARIES.into_iter().chain(cuda) {
        if !dir.join(file).is_file() {
            return Err(Damage::Lacks { file: file.into() });
        }
    }
    if Manifest::exists(dir) { Manifest::read(dir)?.check(dir) } else { Ok(()) }
}

fn version(dir: &Path) -> Option<String> {
    HEADERS.iter().find_map(|header| parse_version(&fs::read_to_string(dir.join(header)).ok()?))
}

fn parse_version(header: &str) -> Option<String> {
    let number = |name: &str| {
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            let matches = words.next() == Some("#define") && words.next() == Some(name);
            matches.then(|| words.next()?.parse::<u32>().ok()).flatten()
        })
    };
    let major = number("TORCH_VERSION_MAJOR")?;
    let minor = number("TORCH_VERSION_MINOR")?;
    Some(format!("{major}.{minor}.{}", number("TORCH_VERSION_PATCH")?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A folder that looks like a libtorch of some version.
    pub(crate) fn fake(dir: &Path, minor: u32) {
        fs::create_dir_all(dir.join("include/torch/headeronly")).unwrap();
        fs::create_dir_all(dir.join("lib")).unwrap();
        let header = format!(
            "#pragma once\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR {minor}\n\
             \n#define TORCH_VERSION_PATCH 0\n#define TORCH_VERSION \\\n  \"2.{minor}.0\"\n"
        );
        fs::write(dir.join(HEADERS[0]), header).unwrap();
        for library in LIBRARIES {
            fs::write(dir.join(library), library).unwrap();
        }
    }

    #[test]
    fn the_version_is_read_from_the_header() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), 11);
        assert_eq!(check(dir.path(), false), Ok(()));
        fake(dir.path(), 12);
        assert_eq!(check(dir.path(), false), Err(Damage::Version { found: "2.12.0".into() }));
        fs::write(dir.path().join(HEADERS[0]), "#define TORCH_VERSION_MAJOR two\n").unwrap();
        assert_eq!(check(dir.path(), false), Err(Damage::NoVersion));
    }

    #[test]
    fn older_releases_keep_the_version_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), 4);
        let old = dir.path().join(HEADERS[1]);
        fs::create_dir_all(old.parent().unwrap()).unwrap();
        fs::rename(dir.path().join(HEADERS[0]), old).unwrap();
        assert_eq!(check(dir.path(), false), Err(Damage::Version { found: "2.4.0".into() }));
    }

    #[test]
    fn what_is_lacking_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fake(dir.path(), 11);
        let lacks = |file: &str| Err(Damage::Lacks { file: file.into() });
        assert_eq!(check(dir.path(), true), lacks("lib/libtorch_cuda.so"));
        fs::remove_file(dir.path().join("lib/libc10.so")).unwrap();
        assert_eq!(check(dir.path(), false), lacks("lib/libc10.so"));
        assert_eq!(check(&dir.path().join("nowhere"), false), Err(Damage::Absent));
    }
}
