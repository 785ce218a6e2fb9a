//! Tests of finding and fetching enwik8, on small stand-ins.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::*;

/// A stand-in for enwik8, and where it may lie.
struct Stage {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    sha256: String,
}

impl Stage {
    fn new() -> Self {
        let bytes: Vec<u8> =
            (0..200_000_u32).map(|index| (index.wrapping_mul(index) >> 7) as u8).collect();
        let sha256 = crate::hex::hex(&Sha256::digest(&bytes));
        let stage = Self { folder: tempfile::tempdir().unwrap(), bytes, sha256 };
        fs::create_dir(stage.path("data")).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn places(&self) -> Places {
        Places { search: vec![self.path("data")], cache: self.path("cache") }
    }

    fn expected(&self) -> Expected<'_> {
        Expected { len: self.bytes.len() as u64, sha256: &self.sha256 }
    }

    fn gz(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        let mut out = flate2::write::GzEncoder::new(
            File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        out.write_all(bytes).unwrap();
        out.finish().unwrap();
        path
    }

    fn zip(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let mut out = zip::ZipWriter::new(File::create(&path).unwrap());
        out.start_file("enwik8", zip::write::SimpleFileOptions::default()).unwrap();
        out.write_all(&self.bytes).unwrap();
        out.finish().unwrap();
        path
    }

    fn tarball(&self, name: &str, inner: &str) -> PathBuf {
        let gz = self.gz("inner.gz", &self.bytes);
        let file = self.gz(name, b"");
        let out = flate2::write::GzEncoder::new(
            File::create(&file).unwrap(),
            flate2::Compression::fast(),
        );
        let mut archive = tar::Builder::new(out);
        archive.append_path_with_name(&gz, inner).unwrap();
        archive.into_inner().unwrap().finish().unwrap();
        file
    }

    fn unpack(&self, path: &Path) -> Result<PathBuf, DataError> {
        install::from_packed(path, &self.places(), &self.expected(), Progress::Silent)
    }

    /// The cache holds no file, half-written or not.
    fn assert_cache_is_empty(&self) {
        let left = fs::read_dir(self.path("cache")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    }
}

#[test]
fn digests_are_lower_case_hexadecimal() {
    assert_eq!(crate::hex::hex(&[0, 0x0f, 0xa9]), "000fa9");
    assert!(SHA256.len() == 64 && SHA256.bytes().all(|digit| digit.is_ascii_hexdigit()));
}

#[test]
fn a_raw_file_goes_before_a_packed_one_and_the_search_before_the_cache() {
    let stage = Stage::new();
    let places = stage.places();
    assert_eq!(locate(&places), None);
    let packed = stage.gz("data/enwik8.gz", b"x");
    assert_eq!(locate(&places), Some(Found::Packed(packed)));
    fs::create_dir(&places.cache).unwrap();
    fs::write(places.cache.join("enwik8"), b"x").unwrap();
    assert_eq!(locate(&places), Some(Found::Raw(places.cache.join("enwik8"))));
    fs::write(stage.path("data/enwik8"), b"x").unwrap();
    assert_eq!(locate(&places), Some(Found::Raw(stage.path("data/enwik8"))));
}

#[test]
fn the_folders_come_from_the_environment() {
    let with = |pairs: &'static [(&str, &str)]| {
        Places::from_vars(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        })
    };
    let places = with(&[("GATELOOP_DATA", "/d"), ("GATELOOP_CACHE", "/c"), ("HOME", "/h")]);
    assert_eq!(places.search, [Path::new("/d"), Path::new("data")]);
    assert_eq!(places.cache, Path::new("/c/data"));
    let places = with(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]);
    assert_eq!(places.cache, Path::new("/x/gateloop/data"));
    assert_eq!(with(&[("HOME", "/h")]).cache, Path::new("/h/.cache/gateloop/data"));
    assert!(with(&[]).cache.ends_with("gateloop/data"));
}

#[test]
fn packed_files_are_unpacked_to_the_cache() {
    let stage = Stage::new();
    for packed in [stage.gz("a.gz", &stage.bytes), stage.zip("a.zip")] {
        let path = stage.unpack(&packed).unwrap();
        assert_eq!(path, stage.path("cache/enwik8"));
        assert_eq!(fs::read(&path).unwrap(), stage.bytes);
        assert_eq!(fs::read_dir(stage.path("cache")).unwrap().count(), 1);
    }
}

#[test]
fn a_source_archive_is_unpacked_to_the_cache() {
    let stage = Stage::new();
    let unpack = |tarball: &Path| {
        install::from_tarball(tarball, &stage.places(), &stage.expected(), Progress::Silent)
    };
    let empty = stage.tarball("b.tar.gz", "package-1.0/README");
    let error = unpack(&empty).unwrap_err().to_string();
    assert!(error.contains("no data/enwik8.gz"), "{error}");
    stage.assert_cache_is_empty();
    let path = unpack(&stage.tarball("a.tar.gz", "package-1.0/data/enwik8.gz")).unwrap();
    assert_eq!(fs::read(path).unwrap(), stage.bytes);
}

#[test]
fn other_bytes_are_refused_and_nothing_stays() {
    let stage = Stage::new();
    let mut other = stage.bytes.clone();
    other[1000] ^= 1;
    let error = stage.unpack(&stage.gz("other.gz", &other)).unwrap_err();
    assert!(matches!(error, DataError::Checksum { .. }), "{error}");
    assert!(error.to_string().contains(&stage.sha256));
    stage.assert_cache_is_empty();

    other.extend_from_slice(&[0; 9]);
    let error = stage.unpack(&stage.gz("long.gz", &other)).unwrap_err();
    assert!(error.to_string().contains("more than 200000 bytes"), "{error}");
    stage.assert_cache_is_empty();

    let whole = fs::read(stage.gz("torn.gz", &stage.bytes)).unwrap();
    fs::write(stage.path("torn.gz"), &whole[..whole.len() / 2]).unwrap();
    let error = stage.unpack(&stage.path("torn.gz")).unwrap_err();
    assert!(matches!(error, DataError::Unpack { .. }), "{error}");
    stage.assert_cache_is_empty();
}

#[test]
fn what_a_killed_process_left_is_removed_after_a_day() {
    let stage = Stage::new();
    let cache = stage.path("cache");
    fs::create_dir_all(cache.join(".enwik8-old-folder")).unwrap();
    for name in [".enwik8-old", ".enwik8-young", "mine"] {
        fs::write(cache.join(name), b"x").unwrap();
    }
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(100_000);
    for name in [".enwik8-old", ".enwik8-old-folder", "mine"] {
        File::open(cache.join(name)).unwrap().set_modified(long_ago).unwrap();
    }
    stage.unpack(&stage.gz("a.gz", &stage.bytes)).unwrap();
    let mut left: Vec<_> =
        fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, [".enwik8-young", "enwik8", "mine"]);
}

#[test]
fn a_file_of_another_length_is_refused() {
    let stage = Stage::new();
    fs::write(stage.path("data/enwik8"), b"not all of it").unwrap();
    let error = fetch(&stage.places(), Progress::Silent).unwrap_err();
    assert!(matches!(error, DataError::WrongSize { found: 13, expected: LEN, .. }), "{error}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let stage = Stage::new();
    fs::write(stage.path("cache"), b"a file where a folder should be").unwrap();
    let error = stage.unpack(&stage.gz("a.gz", &stage.bytes)).unwrap_err();
    assert!(matches!(error, DataError::Cache { .. }), "{error}");
    assert!(error.to_string().contains("GATELOOP_CACHE"), "{error}");
}

#[test]
fn without_python_every_attempt_is_told() {
    let stage = Stage::new();
    let error =
        download::download("no-such-python", &stage.places(), &stage.expected(), Progress::Silent)
            .unwrap_err();
    let DataError::Unavailable { tried } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 3);
    let message = error.to_string();
    for part in ["no-such-python could not be run", "./data/enwik8", "GATELOOP_DATA", "data.source"]
    {
        assert!(message.contains(part), "{message}");
    }
    stage.assert_cache_is_empty();
}

/// A stand-in for Python: does `home` for the download and `pip` for the package.
///
/// A shell writes it. A process that another test starts inherits what this one has open until it
/// becomes its program, and a file that anyone has open for writing cannot be run.
#[cfg(unix)]
fn python(stage: &Stage, home: &str, pip: &str) -> String {
    let path = stage.path("python");
    // -c CODE URL PATH, or -m pip download ... --dest FOLDER ...
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -c ]; then out=$4; {home}\n\
         else while [ \"$1\" != --dest ]; do shift; done; out=$2; {pip}\nfi\n"
    );
    let written = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", &script])
        .arg(&path)
        .status()
        .unwrap();
    assert!(written.success());
    path.to_str().unwrap().to_owned()
}

#[cfg(unix)]
fn download_with(stage: &Stage, home: &str, pip: &str) -> Result<PathBuf, DataError> {
    let python = python(stage, home, pip);
    download::download(&python, &stage.places(), &stage.expected(), Progress::Silent)
}

#[cfg(unix)]
#[test]
fn the_usual_home_is_asked_first() {
    let stage = Stage::new();
    let zip = stage.zip("a.zip");
    let home = format!("cp {} \"$out\"; echo 10 20; echo 20 20", zip.display());
    let path = download_with(&stage, &home, "exit 1").unwrap();
    assert_eq!(fs::read(path).unwrap(), stage.bytes);
    assert_eq!(fs::read_dir(stage.path("cache")).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn the_package_is_asked_next_even_if_pip_fails_after_the_download() {
    let stage = Stage::new();
    let tarball = stage.tarball("a.tar.gz", "package-1.0/data/enwik8.gz");
    let pip = format!("cp {} \"$out/\"; exit 1", tarball.display());
    let path = download_with(&stage, "echo error: no route; exit 1", &pip).unwrap();
    assert_eq!(fs::read(path).unwrap(), stage.bytes);
}

#[cfg(unix)]
#[test]
fn each_failure_is_told_and_nothing_stays() {
    let stage = Stage::new();
    let pip = "echo ERROR: no such release >&2; echo hint >&2; exit 1";
    let error = download_with(&stage, "echo error: no route to it; exit 1", pip).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("enwik8.zip: no route to it"), "{message}");
    assert!(message.contains("pip: ERROR: no such release"), "{message}");
    stage.assert_cache_is_empty();
}

/// Downloads 36 MB, so only when asked: `GATELOOP_TEST_DOWNLOAD=1 cargo test`.
#[test]
fn enwik8_can_be_fetched() {
    if std::env::var_os("GATELOOP_TEST_DOWNLOAD").is_none() {
        println!("skipped: GATELOOP_TEST_DOWNLOAD is not set, so nothing is downloaded");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let places = Places { search: Vec::new(), cache: folder.path().join("cache") };
    let path = fetch(&places, Progress::Lines).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), LEN);
    assert_eq!(fs::read_dir(&places.cache).unwrap().count(), 1);
    assert_eq!(fetch(&places, Progress::Silent).unwrap(), path);
}
