//! The two places where enwik8 can be had, through Python: it brings TLS, proxies and certificates
//! as the user has set them up, and the set-up of this project needs it anyway.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Places;
use super::install::{self, Expected};
use crate::data::progress::Meter;
use crate::data::{DataError, Progress};

/// Plain HTTP is enough: what arrives is held against the digest.
const HOME: &str = "http://mattmahoney.net/dc/enwik8.zip";

/// Writes a URL to a file, with the bytes done and in all on standard output.
const DOWNLOAD_PY: &str = r#"
import sys, urllib.request
url, path = sys.argv[1:]
try:
    with urllib.request.urlopen(url, timeout=10) as reply, open(path, "wb") as out:
        total = reply.headers.get("Content-Length", "")
        done = 0
        while chunk := reply.read(1 << 18):
            out.write(chunk)
            done += len(chunk)
            print(done, total, flush=True)
    if total and done != int(total):
        raise OSError(f"the connection ended after {done} of {total} bytes")
except Exception as error:
    print("error:", error, flush=True)
    sys.exit(1)
"#;

/// A source package that carries enwik8. pip checks the digest before it looks inside.
const PACKAGE: &str = "mingru-pytorch";
const REQUIREMENT: &str = "mingru-pytorch==0.2.1 \
    --hash=sha256:fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d\n";

/// Tries one place after the other and tells of all of them if none works.
///
/// `python` is the program that downloads.
pub(super) fn download(
    python: &str,
    places: &Places,
    expected: &Expected<'_>,
    progress: Progress,
) -> Result<PathBuf, DataError> {
    let cannot_write = |source| DataError::Cache { path: places.cache.clone(), source };
    fs::create_dir_all(&places.cache).map_err(cannot_write)?;
    install::sweep(&places.cache);
    // Beside the target, as the temporary folder of the system may be small.
    let folder = tempfile::Builder::new()
        .prefix(install::UNFINISHED)
        .tempdir_in(&places.cache)
        .map_err(cannot_write)?;

    let mut tried = vec![nowhere(places)];
    let from_home = from_home(python, folder.path(), progress)
        .and_then(|zip| Ok(install::from_packed(&zip, places, expected, progress)?));
    match from_home {
        Ok(path) => return Ok(path),
        Err(failure) => tried.push(format!("{HOME}: {}", failure.0)),
    }
    let from_package = from_package(python, folder.path(), progress)
        .and_then(|tarball| Ok(install::from_tarball(&tarball, places, expected, progress)?));
    match from_package {
        Ok(path) => Ok(path),
        Err(failure) => {
            tried.push(format!("the Python source package {PACKAGE} through pip: {}", failure.0));
            Err(DataError::Unavailable { tried })
        }
    }
}

/// How an attempt ended, as a line of the final error.
struct Failure(String);

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self(error.to_string())
    }
}

fn nowhere(places: &Places) -> String {
    let folders: Vec<_> = places
        .search
        .iter()
        .chain([&places.cache])
        .map(|folder| folder.display().to_string())
        .collect();
    format!("no enwik8, enwik8.gz or enwik8.zip in {}", folders.join(", "))
}

fn from_home(python: &str, folder: &Path, progress: Progress) -> Result<PathBuf, Failure> {
    let path = folder.join("enwik8.zip");
    let mut meter = Meter::start(progress, format!("downloading {HOME}"), None);
    let mut child = Command::new(python)
        .args([OsStr::new("-c"), DOWNLOAD_PY.as_ref(), HOME.as_ref(), path.as_os_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| no_python(python, &error))?;
    let mut complaint = None;
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let Ok(line) = line else { break };
        if let Some(message) = line.strip_prefix("error: ") {
            complaint = Some(message.to_owned());
        } else if let Some((done, total)) = line.split_once(' ') {
            if let Ok(total) = total.parse() {
                meter.set_total(total);
            }
            meter.at(done.parse().unwrap_or(0));
        }
    }
    let status = child.wait().map_err(|error| no_python(python, &error))?;
    if status.success() {
        Ok(path)
    } else {
        Err(Failure(complaint.unwrap_or_else(|| format!("{python} ended with {status}"))))
    }
}

fn from_package(python: &str, folder: &Path, progress: Progress) -> Result<PathBuf, Failure> {
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENT).map_err(|error| Failure(error.to_string()))?;
    let _meter = Meter::start(progress, format!("downloading {PACKAGE} through pip"), None);
    let output = Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--no-binary", PACKAGE, "--no-input"])
        .args(["--disable-pip-version-check", "--timeout", "15", "--retries", "1"])
        .args([OsStr::new("--dest"), folder.as_os_str()])
        .args([OsStr::new("--requirement"), requirements.as_os_str()])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| no_python(python, &error))?;
    // pip prepares the package's metadata after the download and may fail there, for want of a
    // build backend; the archive is complete by then or not there at all.
    tarball_in(folder).ok_or_else(|| Failure(pip_complaint(&output.stderr)))
}

fn tarball_in(folder: &Path) -> Option<PathBuf> {
    fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path()).find(|path| {
        path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.ends_with(".tar.gz"))
    })
}

/// The line of pip's output that says what is wrong.
fn pip_complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().rfind(|line| line.starts_with("ERROR:")).or_else(|| lines().next_back());
    line.map_or_else(|| "pip wrote no archive".to_owned(), str::to_owned)
}

fn no_python(python: &str, error: &std::io::Error) -> Failure {
    Failure(format!("{python} could not be run ({error})"))
}
