//! `.libtorch`: what is there, what to do about it, and replacing it in one step.

use std::fs;
use std::path::Path;

use super::libtorch::{self, Damage};
use crate::error::{Error, Result};

/// What `.libtorch` is now, and whether there is a libtorch to build with behind it.
#[derive(Debug)]
pub(crate) enum Existing {
    Nothing,
    Link(std::result::Result<(), Damage>),
    Own(std::result::Result<(), Damage>),
}

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Keep,
    Install,
    Refuse(Damage),
}

pub(crate) fn look(path: &Path, cuda: bool) -> Existing {
    match fs::symlink_metadata(path) {
        Err(_) => Existing::Nothing,
        Ok(metadata) if metadata.is_symlink() => Existing::Link(libtorch::check(path, cuda)),
        Ok(_) => Existing::Own(libtorch::check(path, cuda)),
    }
}

/// A link costs nothing to replace. A folder may be someone's work: it is used or left alone.
pub(crate) fn decide(existing: Existing, force: bool) -> Step {
    match existing {
        Existing::Link(Ok(())) | Existing::Own(Ok(())) if !force => Step::Keep,
        Existing::Nothing | Existing::Link(_) => Step::Install,
        Existing::Own(Ok(())) => Step::Refuse(Damage::NotALink),
        Existing::Own(Err(damage)) => Step::Refuse(damage),
    }
}

/// Whether `path` is a link to `target`, even if nothing is there.
pub(crate) fn leads_to(path: &Path, target: &Path) -> bool {
    fs::read_link(path).is_ok_and(|found| found == target)
}

/// Points the link at `target`; at no moment is there no link.
pub(crate) fn replace(path: &Path, target: &Path) -> Result<()> {
    if leads_to(path, target) {
        return Ok(());
    }
    let fresh = path.with_extension(format!("{}.partial", std::process::id()));
    std::os::unix::fs::symlink(target, &fresh).map_err(|e| Error::io("link", &fresh, e))?;
    fs::rename(&fresh, path).map_err(|e| {
        // The error that matters is the rename's.
        let _ = fs::remove_file(&fresh);
        Error::io("replace", path, e)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::libtorch::tests::fake;
    use super::*;

    fn next(path: &Path, force: bool) -> Step {
        decide(look(path, false), force)
    }

    #[test]
    fn a_sound_libtorch_is_kept_and_a_broken_link_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join(".libtorch");
        let (good, old) = (dir.path().join("good"), dir.path().join("old"));
        fake(&good, 11);
        fake(&old, 7);

        assert_eq!(next(&link, false), Step::Install);
        symlink(dir.path().join("gone"), &link).unwrap();
        assert_eq!(next(&link, false), Step::Install);
        replace(&link, &old).unwrap();
        assert_eq!(next(&link, false), Step::Install);
        replace(&link, &good).unwrap();
        assert_eq!(next(&link, false), Step::Keep);
        assert_eq!(next(&link, true), Step::Install);
        assert!(leads_to(&link, &good));
        assert!(!leads_to(&link, &old));
    }

    #[test]
    fn a_folder_is_used_or_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".libtorch");
        fake(&path, 11);
        assert_eq!(next(&path, false), Step::Keep);
        assert_eq!(next(&path, true), Step::Refuse(Damage::NotALink));
        fake(&path, 10);
        assert!(matches!(next(&path, false), Step::Refuse(Damage::Version { .. })));
        assert!(replace(&path, &dir.path().join("good")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no half-made link is left");
    }
}
