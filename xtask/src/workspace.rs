//! Where things lie: the workspace, the cache of this user, a `LIBTORCH` the user exported.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

/// The workspace this program belongs to.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    pub(crate) fn locate() -> Self {
        // Cargo names the package's folder at run time; the one of the build serves a bare start.
        let package = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self { root: package.parent().map_or_else(|| package.clone(), Path::to_path_buf) }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The link through which Cargo's `[env]` finds libtorch.
    pub(crate) fn libtorch_link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    /// The `LIBTORCH` the user exported, as against the one that Cargo's `[env]` gives to every
    /// process it starts, which is always [`Self::libtorch_link`].
    pub(crate) fn exported_libtorch(&self) -> Option<PathBuf> {
        exported(env::var_os("LIBTORCH"), &self.libtorch_link())
    }

    /// The Cargo that started this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }

    /// Where builds go.
    pub(crate) fn target_dir(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| self.root.join("target"), |dir| self.root.join(dir))
    }

    /// The folders that may hold data sets, in the order in which `gateloop` looks.
    pub(crate) fn data_dirs(&self) -> Vec<PathBuf> {
        let given = env::var_os("GATELOOP_DATA").filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let cached = cache_dir().ok().map(|dir| dir.join("data"));
        given.into_iter().chain([self.root.join("data")]).chain(cached).collect()
    }
}

fn exported(value: Option<OsString>, link: &Path) -> Option<PathBuf> {
    value.filter(|value| !value.is_empty()).map(PathBuf::from).filter(|path| path != link)
}

/// The cache of this user, shared by all clones: `$GATELOOP_CACHE`, else
/// `$XDG_CACHE_HOME/gateloop`, else `~/.cache/gateloop`.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    let dir = cache_dir_from(|name| env::var_os(name)).ok_or(Error::NoHome)?;
    std::path::absolute(&dir).map_err(|source| Error::io("find", &dir, source))
}

fn cache_dir_from(var: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| var(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // The XDG specification says that a relative path there is to be ignored.
    set("GATELOOP_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME").filter(|dir| dir.is_absolute())?.join("gateloop")))
        .or_else(|| Some(set("HOME")?.join(".cache/gateloop")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(vars: &[(&str, &str)]) -> Option<PathBuf> {
        cache_dir_from(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into()))
    }

    #[test]
    fn the_cache_follows_the_nearest_variable() {
        let home = ("HOME", "/home/ada");
        assert_eq!(cache(&[home]), Some("/home/ada/.cache/gateloop".into()));
        assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/c")]), Some("/c/gateloop".into()));
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "/c"), ("GATELOOP_CACHE", "/big")]),
            Some("/big".into())
        );
        assert_eq!(
            cache(&[home, ("XDG_CACHE_HOME", "relative"), ("GATELOOP_CACHE", "")]),
            Some("/home/ada/.cache/gateloop".into())
        );
        assert_eq!(cache(&[]), None);
    }

    #[test]
    fn the_libtorch_of_cargo_config_is_not_an_exported_one() {
        let link = Path::new("/w/.libtorch");
        assert_eq!(exported(Some("/w/.libtorch".into()), link), None);
        assert_eq!(exported(Some("".into()), link), None);
        assert_eq!(exported(None, link), None);
        assert_eq!(exported(Some("/opt/libtorch".into()), link), Some("/opt/libtorch".into()));
    }
}
