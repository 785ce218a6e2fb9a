//! The list of files of an installed libtorch: it tells an intact one from a damaged one.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::libtorch::Damage;
use crate::error::{Error, Result};

const NAME: &str = "gateloop-manifest.txt";

/// Raised whenever the same wheels are to be laid out in another way.
const TITLE: &str = "# libtorch 2.11.0, layout 1, by `cargo xtask setup`: bytes and name of a file";

/// Every file with its size. Contents were checked when the wheels were: a checksum of half a
/// gigabyte at each start would be slow, and what goes wrong later shows in names and sizes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Manifest(Vec<(u64, PathBuf)>);

impl Manifest {
    pub(crate) fn exists(dir: &Path) -> bool {
        dir.join(NAME).exists()
    }

    /// Lists what lies in `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut folders = vec![dir.to_path_buf()];
        while let Some(folder) = folders.pop() {
            let list = fs::read_dir(&folder).map_err(|e| Error::io("list", &folder, e))?;
            for entry in list {
                let path = entry.map_err(|e| Error::io("list", &folder, e))?.path();
                let metadata = fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?;
                if metadata.is_dir() {
                    folders.push(path);
                } else if let Ok(name) = path.strip_prefix(dir) {
                    files.push((metadata.len(), name.to_path_buf()));
                }
            }
        }
        files.sort_by(|a, b| a.1.cmp(&b.1));
        Ok(Self(files))
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let mut text = format!("{TITLE}\n");
        for (bytes, name) in &self.0 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{bytes}\t{}", name.display());
        }
        let path = dir.join(NAME);
        fs::write(&path, text).map_err(|e| Error::io("write", &path, e))
    }

    pub(crate) fn read(dir: &Path) -> std::result::Result<Self, Damage> {
        let text = fs::read_to_string(dir.join(NAME)).map_err(|_| Damage::NoManifest)?;
        Self::parse(&text).ok_or(Damage::NoManifest)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        let file = |line: &str| {
            let (bytes, name) = line.split_once('\t')?;
            Some((bytes.parse().ok()?, name.into()))
        };
        let files = lines.map(file).collect::<Option<Vec<_>>>()?;
        (!files.is_empty()).then_some(Self(files))
    }

    /// Finds the first file that is absent or of another size.
    pub(crate) fn check(&self, dir: &Path) -> std::result::Result<(), Damage> {
        for (expected, name) in &self.0 {
            let file = || name.clone();
            match fs::metadata(dir.join(name)) {
                Err(_) => return Err(Damage::Lacks { file: file() }),
                Ok(found) if found.len() != *expected => {
                    let (found, expected) = (found.len(), *expected);
                    return Err(Damage::Size { file: file(), found, expected });
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
    fn a_change_of_any_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir(path.join("lib")).unwrap();
        fs::write(path.join("lib/a.so"), "four").unwrap();
        std::os::unix::fs::symlink("a.so", path.join("lib/b.so")).unwrap();
        Manifest::of(path).unwrap().write(path).unwrap();

        let manifest = Manifest::read(path).unwrap();
        assert_eq!(manifest.0, [(4, "lib/a.so".into()), (4, "lib/b.so".into())]);
        assert_eq!(manifest.check(path), Ok(()));

        fs::write(path.join("lib/a.so"), "fo").unwrap();
        assert_eq!(
            manifest.check(path),
            Err(Damage::Size { file: "lib/a.so".into(), found: 2, expected: 4 })
        );
        fs::remove_file(path.join("lib/a.so")).unwrap();
        assert_eq!(manifest.check(path), Err(Damage::Lacks { file: "lib/a.so".into() }));
    }

    #[test]
    fn a_torn_or_foreign_list_is_no_list() {
        assert_eq!(Manifest::parse(""), None);
        assert_eq!(Manifest::parse(TITLE), None);
        assert_eq!(Manifest::parse(&format!("{TITLE}\n12\tlib/a.so\n12")), None);
        assert_eq!(Manifest::parse("# another layout\n12\tlib/a.so\n"), None);
        assert!(Manifest::parse(&format!("{TITLE}\n12\tlib/a.so\n")).is_some());
    }
}
