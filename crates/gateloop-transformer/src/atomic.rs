//! Replacing a file in one step.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// How the names of temporary files end.
const PARTIAL: &str = ".partial";

/// Deletes the temporary files that killed processes left in a folder.
pub(crate) fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.file_name().is_some_and(is_temporary) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Whether a file of this name is a temporary one.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.to_string_lossy().ends_with(PARTIAL)
}

/// Writes a whole file; see [`replace`].
pub(crate) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Lets `fill` write a temporary file beside `path`, syncs it and renames it into place.
///
/// After a failure, a crash or a power cut, `path` holds the old file or the new one, whole; after a
/// failure, the temporary file is gone.
pub(crate) fn replace(
    path: &Path,
    fill: impl FnOnce(&mut NamedTempFile) -> io::Result<()>,
) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file would have; the default of a temporary file shuts everyone else out.
        builder.permissions(fs::Permissions::from_mode(0o644));
    }
    let mut file = builder.suffix(PARTIAL).tempfile_in(folder)?;
    fill(&mut file)?;
    // `fill` may have put another file in this one's place; it gets the same permissions, and is
    // reopened by name to be synced.
    fs::set_permissions(file.path(), file.as_file().metadata()?.permissions())?;
    File::open(file.path())?.sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself is durable once the folder is.
    File::open(folder)?.sync_all()
}
