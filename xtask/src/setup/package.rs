//! What can be installed into the cache: a folder, filled from pinned wheels.

use std::path::Path;

use super::libtorch::Damage;
use crate::error::Result;

/// One wheel of the Python package index, pinned to a file.
#[derive(Debug)]
pub(crate) struct Wheel {
    pub(crate) requirement: &'static str,
    /// A tag the file carries. Exactly one is given to pip: old releases of pip take no more,
    /// and one is enough to choose the same file on every machine.
    pub(crate) platform: &'static str,
    pub(crate) bytes: u64,
    pub(crate) sha256: &'static str,
}

/// A folder of the cache and the wheels it is taken from.
pub(crate) trait Package: Copy {
    /// The name of its folder in the cache.
    fn folder(self) -> String;

    /// Largest first, so that the space needed for downloads is needed while the rest is small.
    fn wheels(self) -> &'static [Wheel];

    /// The most disk space an installation takes at any moment, with some air.
    fn disk_space(self) -> u64;

    /// Where a file of a wheel goes, if it is wanted at all.
    fn destination(self, entry: &str) -> Option<String>;

    /// Adds what the wheels lack.
    fn complete(self, tree: &Path) -> Result<()>;

    /// Whether `dir` was installed by us and is still whole.
    fn intact(self, dir: &Path) -> std::result::Result<(), Damage>;
}
