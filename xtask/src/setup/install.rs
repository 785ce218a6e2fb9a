//! Installing a package into the cache so that it is there entirely or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use super::package::Package;
use super::{pip, unpack};
use crate::error::{Error, Result};
use crate::python::Python;

/// The folders of unfinished installations begin with this.
const STAGING: &str = ".staging-";

/// Installs unless an intact one is there already; returns its folder.
pub(crate) fn install(cache: &Path, package: impl Package, force: bool) -> Result<PathBuf> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")) {
        return Err(Error::Platform { os: std::env::consts::OS, arch: std::env::consts::ARCH });
    }
    fs::create_dir_all(cache)
        .map_err(|source| Error::Cache { path: cache.to_path_buf(), source })?;
    // Held until the end of this function; the system gives it back however this process ends.
    let _lock = lock(cache)?;
    remove_leftovers(cache)?;

    let target = cache.join(package.folder());
    if !force && package.intact(&target).is_ok() {
        return Ok(target);
    }
    require_space(cache, package.disk_space())?;
    match bring_in(cache, package, &target) {
        // Named by the folder that stays: the one that was being filled is gone by now.
        Err(Error::DiskFull { .. }) => Err(Error::DiskFull { path: cache.to_path_buf() }),
        done => done.map(|()| target),
    }
}

/// Downloads, checks and unpacks every wheel, then puts the whole in place.
fn bring_in(cache: &Path, package: impl Package, target: &Path) -> Result<()> {
    let python = Python::find()?;
    python.pip_version()?;

    // In the folder of the target, for a rename is atomic only within one file system. Its name
    // is new each time: a pip that outlived a killed run must not write into ours.
    let staging = staging(cache)?;
    let tree = staging.path().join("tree");
    for wheel in package.wheels() {
        let file = pip::download(&python, wheel, staging.path())?;
        unpack::verify(&file, wheel)?;
        unpack::unpack(&file, package, &tree)?;
        fs::remove_file(&file).map_err(|e| Error::io("remove", &file, e))?;
    }
    complete(&tree, package)?;
    swap(&tree, target, &staging.path().join("replaced"))
}

/// A folder for what is unfinished; it goes when it is dropped, or by [`remove_leftovers`].
pub(crate) fn staging(cache: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(STAGING)
        .tempdir_in(cache)
        .map_err(|e| Error::io("create a folder in", cache, e))
}

/// Adds what the wheels lack and looks at the whole once more.
fn complete(tree: &Path, package: impl Package) -> Result<()> {
    package.complete(tree)?;
    package.intact(tree).map_err(|damage| Error::Installed { path: tree.to_path_buf(), damage })
}

/// Puts `fresh` in the place of `target`; what was there goes to `old`.
pub(crate) fn swap(fresh: &Path, target: &Path, old: &Path) -> Result<()> {
    if target.exists() {
        fs::rename(target, old).map_err(|e| Error::io("move away", target, e))?;
    }
    fs::rename(fresh, target).map_err(|e| Error::io("create", target, e))
}

pub(crate) fn lock(cache: &Path) -> Result<File> {
    let path = cache.join("setup.lock");
    let file =
        File::create(&path).map_err(|source| Error::Cache { path: cache.to_path_buf(), source })?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => eprintln!("waiting for another setup to end"),
        Err(TryLockError::Error(source)) => return Err(Error::io("lock", &path, source)),
    }
    file.lock().map_err(|e| Error::io("lock", &path, e))?;
    Ok(file)
}

/// Whoever holds the lock knows that nobody is at work in these.
pub(crate) fn remove_leftovers(cache: &Path) -> Result<()> {
    let entries = fs::read_dir(cache).map_err(|e| Error::io("list", cache, e))?;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(STAGING) {
            eprintln!("removing what an interrupted setup left: {}", entry.path().display());
            fs::remove_dir_all(entry.path()).map_err(|e| Error::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

pub(crate) fn require_space(cache: &Path, needed: u64) -> Result<()> {
    let free = fs4::available_space(cache).map_err(|e| Error::io("measure", cache, e))?;
    if free < needed {
        return Err(Error::TooLittleSpace { path: cache.to_path_buf(), free, needed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::build::Build;
    use super::super::libtorch::tests::fake;
    use super::super::libtorch::{self, Damage};
    use super::*;

    #[test]
    fn only_a_whole_tree_of_ours_is_intact() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        assert_eq!(Build::Cpu.intact(&tree), Err(Damage::Absent));
        fake(&tree, 11);
        fs::remove_file(tree.join("lib/libtorch.so")).unwrap();
        assert_eq!(Build::Cpu.intact(&tree), Err(Damage::NoManifest));
        complete(&tree, Build::Cpu).unwrap();
        assert_eq!(Build::Cpu.intact(&tree), Ok(()));
        fs::write(tree.join("lib/libc10.so"), "torn").unwrap();
        assert!(matches!(Build::Cpu.intact(&tree), Err(Damage::Size { .. })));
    }

    #[test]
    fn an_installed_tree_takes_the_place_of_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let (fresh, target) = (dir.path().join("fresh"), dir.path().join("target"));
        fs::create_dir(&target).unwrap();
        fake(&fresh, 11);
        swap(&fresh, &target, &dir.path().join("old")).unwrap();
        assert!(libtorch::check(&target, false).is_ok());
        assert!(!fresh.exists());
    }

    #[test]
    fn leftovers_go_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join(".staging-abc/tree/lib")).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        remove_leftovers(dir.path()).unwrap();
        assert!(!dir.path().join(".staging-abc").exists());
        assert!(dir.path().join("data").exists());
    }

    #[test]
    fn too_little_space_is_told_before_anything_is_downloaded() {
        let dir = tempfile::tempdir().unwrap();
        assert!(require_space(dir.path(), 0).is_ok());
        let error = require_space(dir.path(), u64::MAX).unwrap_err();
        assert!(matches!(error, Error::TooLittleSpace { .. }), "{error}");
        assert!(error.remedy().unwrap().contains("GATELOOP_CACHE"));
    }
}
