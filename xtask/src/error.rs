//! What can go wrong in a chore: the message names the thing, [`Error::remedy`] says what to do.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::setup::libtorch::Damage;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Every message fits one line, except that the words of pip or ptxas, or a list of files, may
/// follow it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Error {
    #[error("there are no ready-made libraries for {os} on {arch}")]
    Platform { os: &'static str, arch: &'static str },

    #[error("no folder to keep downloads in: HOME is not set")]
    NoHome,

    #[error("no working Python 3 found (tried {tried})")]
    NoPython { tried: String },

    #[error("`{python} -m pip` does not work: {reason}")]
    NoPip { python: String, reason: String },

    #[error("no C++17 compiler found (tried {tried})")]
    NoCompiler { tried: String },

    #[error("pip could not download {requirement}; its last words:\n{words}")]
    Download { requirement: &'static str, words: String },

    #[error("the wheel {wheel} has the wrong checksum: sha256 {found}, expected {expected}")]
    Checksum { wheel: String, found: String, expected: &'static str },

    #[error("the wheel {wheel} cannot be unpacked: {source}")]
    Unpack { wheel: String, source: zip::result::ZipError },

    #[error("the disk is full: no space left below {}", path.display())]
    DiskFull { path: PathBuf },

    #[error(
        "too little space below {}: {} free, {} needed",
        path.display(), crate::table::size(*free), crate::table::size(*needed)
    )]
    TooLittleSpace { path: PathBuf, free: u64, needed: u64 },

    #[error("LIBTORCH={} cannot be used: {damage}", path.display())]
    ExportedLibtorch { path: PathBuf, damage: Damage },

    #[error("{} cannot be used: {damage}", path.display())]
    OwnLibtorch { path: PathBuf, damage: Damage },

    #[error("what was just installed in {} is not sound: {damage}", path.display())]
    Installed { path: PathBuf, damage: Damage },

    #[error("the cache folder {} cannot be used: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },

    #[error("could not {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },

    #[error("could not run `{program}`: {source}")]
    Spawn { program: String, source: io::Error },

    #[error("could not listen for signals: {source}")]
    Signals { source: io::Error },

    #[error("`{what}` printed what is no answer: {reason}")]
    BadAnswer { what: &'static str, reason: String },

    #[error("{what} ended with exit code {code}")]
    Child { what: String, code: u8 },

    #[error("stopped by a signal during {what}")]
    Interrupted { what: String, code: u8 },

    #[error("no CUDA sources (*.cu) in {}", path.display())]
    NoKernels { path: PathBuf },

    #[error("NVRTC in {} cannot be used: {reason}", path.display())]
    Nvrtc { path: PathBuf, reason: String },

    #[error("NVRTC refuses {files}; its words are above")]
    Refused { files: String },

    #[error("ptxas refuses {file} for {arch}; its words:\n{words}")]
    Ptxas { file: String, arch: &'static str, words: String },

    #[error("the generated PTX does not match its sources:\n{list}")]
    StalePtx { list: String },

    #[error("{count} of {total} compilations spill registers or use the stack; see the list above")]
    Spills { count: usize, total: usize },

    #[error(
        "the bundle takes {}, more than the {} that it may", crate::table::size(*bytes),
        crate::table::size(*limit)
    )]
    BundleTooLarge { bytes: u64, limit: u64 },

    #[error("the packages could not be installed with {python}; pip's words are above")]
    ParityInstall { python: String },

    #[error("the packages were installed, but do not start: {words}")]
    ParityPackages { words: String },

    #[error("`{program}` does not have the references: {words}")]
    ParityPython { program: String, words: String },

    #[error("not in agreement with the references:\n  {list}")]
    Parity { list: String },

    #[error("the committed cases are not what the references give")]
    StaleFixtures,

    #[error("no work is called `{only}` or holds it in its name")]
    NoWork { only: String },

    #[error("git cannot check out `{revision}`; its words are above")]
    BaseRevision { revision: String },

    #[error("revision `{revision}` has no worker: benches/cpu is missing there")]
    BaseWithoutWorker { revision: String },

    #[error("the picture {} cannot be drawn: {reason}", path.display())]
    Picture { path: PathBuf, reason: String },

    #[error("answers that were wrong, and not timed:\n  {list}")]
    BenchAnswers { list: String },

    #[error("something this project needs is missing; see the rows marked MISSING")]
    Doctor,
}

impl Error {
    /// An input/output error that knows whether it means a full disk.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path },
            _ => Self::Io { action, path, source },
        }
    }

    /// What a person can do about it.
    pub(crate) fn remedy(&self) -> Option<String> {
        let by_hand = "unpack a C++ distribution of libtorch 2.11.0 for this machine and run with \
                       LIBTORCH=<that folder> exported";
        Some(match self {
            Self::Platform { .. } => by_hand.to_owned(),
            Self::NoHome => "set GATELOOP_CACHE to a folder with a few GB free".to_owned(),
            Self::NoPython { .. } => {
                "install Python 3.8 or newer (Debian, Ubuntu: `apt install python3 python3-pip`), \
                 or set PYTHON to one"
                    .to_owned()
            }
            Self::NoPip { python, .. } => format!(
                "install pip (Debian, Ubuntu: `apt install python3-pip`; elsewhere `{python} -m \
                 ensurepip`), or set PYTHON to a Python 3 that has it"
            ),
            Self::NoCompiler { .. } => "install one (Debian, Ubuntu: `apt install g++`; Fedora: \
                                        `dnf install gcc-c++`), or set CXX to one"
                .to_owned(),
            Self::Download { .. } => format!(
                "check the network, HTTPS_PROXY and PIP_INDEX_URL, then run this again; for \
                 libtorch without a network, {by_hand}"
            ),
            Self::Checksum { .. } => "run this again; if it stays, a mirror or a proxy hands out \
                                      another file: unset PIP_INDEX_URL and PIP_FIND_LINKS, or \
                                      ask whoever runs it"
                .to_owned(),
            // Nothing was put in place, so the next run begins anew.
            Self::Unpack { .. } | Self::Installed { .. } => "run this again".to_owned(),
            Self::DiskFull { .. } | Self::TooLittleSpace { .. } => {
                "free some space, or set GATELOOP_CACHE to a folder on a larger disk".to_owned()
            }
            Self::Cache { .. } => "set GATELOOP_CACHE to a folder you can write to".to_owned(),
            Self::ExportedLibtorch { .. } => "unset LIBTORCH and run `cargo xtask setup`, or \
                                              export the folder of a libtorch 2.11.0"
                .to_owned(),
            Self::OwnLibtorch { path, .. } => {
                format!("move {} away and run `cargo xtask setup`", path.display())
            }
            Self::NoKernels { .. } => {
                "run `cargo xtask kernels` in a complete checkout of the repository".to_owned()
            }
            Self::Nvrtc { path, .. } => {
                let toolchain = path.parent().and_then(Path::parent).unwrap_or(path);
                format!("remove {} and run this again", toolchain.display())
            }
            Self::Refused { .. } => "mend the lines named above".to_owned(),
            Self::Ptxas { .. } => "use only what compute_80 has, also in inline PTX; NVRTC itself \
                                   does not check that"
                .to_owned(),
            Self::StalePtx { .. } => "`cargo xtask kernels`".to_owned(),
            Self::Spills { .. } => "give a thread fewer values to hold, allow it more registers \
                                    in `__launch_bounds__`, or index its arrays by constants only"
                .to_owned(),
            Self::ParityInstall { .. } => {
                "check the network, HTTPS_PROXY and PIP_INDEX_URL; a Python \
                                           of 3.11 or newer is needed (set PYTHON to one), or \
                                           --python with one that has xtask/parity/requirements.txt"
                    .to_owned()
            }
            Self::ParityPackages { .. } => "run this again; if it stays, set PYTHON to another \
                                            Python of 3.11 or newer"
                .to_owned(),
            Self::ParityPython { program, .. } => format!(
                "`{program} -m pip install -r xtask/parity/requirements.txt`, or leave --python out"
            ),
            Self::NoWork { .. } => {
                "leave --only out, or take a part of a name that `cargo xtask bench` prints"
                    .to_owned()
            }
            Self::BaseRevision { .. } => {
                "give --base a revision that `git rev-parse` knows".to_owned()
            }
            Self::BaseWithoutWorker { .. } => {
                "give --base a revision that has `cargo xtask bench`".to_owned()
            }
            Self::StaleFixtures => "`cargo xtask parity --write-fixtures`".to_owned(),
            _ => return None,
        })
    }

    /// The exit code of the whole program: a child's own, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Child { code, .. } | Self::Interrupted { code, .. } => *code,
            _ => 1,
        }
    }
}
