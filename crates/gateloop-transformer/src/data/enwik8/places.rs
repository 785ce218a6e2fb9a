//! Where enwik8 may lie.

use std::env;
use std::path::{Path, PathBuf};

/// The folders that are searched, and the one that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Searched in this order for `enwik8`, `enwik8.gz` and `enwik8.zip`.
    pub search: Vec<PathBuf>,
    /// Where an unpacked enwik8 is kept; searched last.
    pub cache: PathBuf,
}

/// A file that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The bytes themselves.
    Raw(PathBuf),
    /// A `.gz` or `.zip` that holds them.
    Packed(PathBuf),
}

impl Places {
    /// `$GATELOOP_DATA`, `./data`, then the cache: `data` in `$GATELOOP_CACHE`, or else in
    /// `$XDG_CACHE_HOME/gateloop`, or else in `~/.cache/gateloop`.
    pub fn from_env() -> Self {
        Self::from_vars(|name| {
            env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })
    }

    pub(super) fn from_vars(var: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let search = var("GATELOOP_DATA").into_iter().chain([PathBuf::from("data")]).collect();
        let cache = var("GATELOOP_CACHE")
            .or_else(|| Some(var("XDG_CACHE_HOME")?.join("gateloop")))
            .or_else(|| Some(var("HOME")?.join(".cache/gateloop")))
            // Without a home there is still the system's temporary folder.
            .unwrap_or_else(|| env::temp_dir().join("gateloop"));
        Self { search, cache: cache.join("data") }
    }

    pub(super) fn find(&self) -> Option<Found> {
        let folders = || self.search.iter().chain([&self.cache]);
        let file = |folder: &Path, name| Some(folder.join(name)).filter(|path| path.is_file());
        let raw = folders().find_map(|folder| file(folder, "enwik8")).map(Found::Raw);
        raw.or_else(|| {
            let packed =
                |folder: &PathBuf| file(folder, "enwik8.gz").or_else(|| file(folder, "enwik8.zip"));
            folders().find_map(packed).map(Found::Packed)
        })
    }
}
