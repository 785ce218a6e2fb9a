//! The machine's C++ compiler, which builds what stands in for a GPU from `kernels/host`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::{env, fs, process};

/// What all is built with, and with it once: the name of what was built has a hash of its sources.
const FLAGS: [&str; 2] = ["-std=c++17", "-O1"];

/// One test of a program builds, and the others wait for it.
static BUILDS: Mutex<()> = Mutex::new(());

fn compiler() -> Option<String> {
    let works = |name: &String| {
        Command::new(name).arg("--version").output().is_ok_and(|out| out.status.success())
    };
    if let Ok(name) = env::var("CXX") {
        assert!(works(&name), "CXX is {name}, which does not run");
        return Some(name);
    }
    ["c++", "g++"].map(str::to_owned).into_iter().find(works)
}

/// A hash of all that is built from.
fn content_hash(kernels: &Path, compiler: &str, flags: &[&str]) -> u64 {
    let mut files = BTreeMap::new();
    for folder in [kernels.to_owned(), kernels.join("host")] {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files.insert(path.clone(), fs::read(path).unwrap());
            }
        }
    }
    let mut hasher = DefaultHasher::new();
    (compiler, FLAGS, flags, files).hash(&mut hasher);
    hasher.finish()
}

/// Builds `kernels/host/<source>` under `folder`, in a folder of its own, as a file `name`, unless it is there; its path.
/// Without a compiler `None`, after a word about it.
pub(crate) fn build(
    kernels: &Path,
    folder: &Path,
    source: &str,
    flags: &[&str],
    name: &str,
) -> Option<PathBuf> {
    let Some(compiler) = compiler() else {
        println!("skipped: no C++ compiler");
        return None;
    };
    let own = folder.join(format!("{source}-{:016x}", content_hash(kernels, &compiler, flags)));
    let built = own.join(name);
    let _alone = BUILDS.lock().unwrap_or_else(PoisonError::into_inner);
    if built.is_file() {
        return Some(built);
    }
    fs::create_dir_all(&own).unwrap();
    // Another process may build the same: each has a file of its own until it is done.
    let unfinished = own.join(format!("{name}.{}", process::id()));
    let host = kernels.join("host");
    let output = Command::new(&compiler)
        .args(FLAGS)
        .args(flags)
        .arg("-I")
        .arg(&host)
        .arg(host.join(source))
        .arg("-o")
        .arg(&unfinished)
        .output()
        .unwrap();
    assert!(output.status.success(), "{compiler}:\n{}", String::from_utf8_lossy(&output.stderr));
    fs::rename(&unfinished, &built).unwrap();
    Some(built)
}
