//! A Python that has the references, or TensorBoard: packages in a folder of our cache, there entirely
//! or not at all. No virtual environment, for Debian's Python comes without the means to make one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::Children;
use crate::error::{Error, Result};
use crate::python::Python;
use crate::setup::{lock, remove_leftovers, require_space, staging, swap};
use crate::workspace::Workspace;

/// Packages that belong together.
#[derive(Debug)]
pub(crate) struct Packages {
    /// What is said before they are fetched.
    notice: &'static str,
    /// Their folder in the cache.
    folder: &'static str,
    /// What pip is to install; a file of the workspace.
    requirements: &'static str,
    /// Bytes that they may take.
    disk_space: u64,
    /// What shows that they are all there.
    imports: &'static str,
}

/// The references, and the peers of the benches.
pub(crate) const REFERENCES: Packages = Packages {
    notice: "installing the references (about 3 GB to download, 6 GB on disk, once a user)",
    folder: "parity-python",
    requirements: "xtask/parity/requirements.txt",
    // PyTorch's wheel brings a CUDA along.
    disk_space: 9_000_000_000,
    imports: "import torch, jax, equinox, numpy, safetensors, rotary_embedding_torch, \
              gateloop_transformer.gateloop_transformer_jax",
};

/// TensorBoard.
pub(crate) const TENSORBOARD: Packages = Packages {
    notice: "installing TensorBoard (about 50 MB to download, once a user)",
    folder: "tensorboard-python",
    requirements: "xtask/tensorboard/requirements.txt",
    disk_space: 500_000_000,
    imports: "import tensorboard.backend.event_processing.event_accumulator",
};

/// On how many threads the packages compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// One: products are then split, and rounded, alike everywhere.
    One,
    /// As many as the packages like: for timing.
    All,
}

/// A Python and, if they are ours, its packages.
#[derive(Debug)]
pub(crate) struct Environment {
    program: String,
    packages: Option<PathBuf>,
    imports: &'static str,
}

impl Environment {
    /// A Python of the user's, which has the references.
    pub(crate) fn given(program: &str) -> Result<Self> {
        let imports = REFERENCES.imports;
        let environment = Self { program: program.to_owned(), packages: None, imports };
        match environment.fault() {
            None => Ok(environment),
            Some(words) => Err(Error::ParityPython { program: program.to_owned(), words }),
        }
    }

    /// Installs the packages unless they are there and work.
    pub(crate) fn ensure(
        packages: &Packages,
        children: &Children,
        workspace: &Workspace,
        cache: &Path,
    ) -> Result<Self> {
        let requirements = workspace.root().join(packages.requirements);
        let wanted =
            fs::read_to_string(&requirements).map_err(|e| Error::io("read", &requirements, e))?;
        let python = Python::find()?;
        let target = cache.join(packages.folder);
        let (program, imports) = (python.program.clone(), packages.imports);
        let environment = Self { program, packages: Some(target.clone()), imports };
        if environment.is_ready(&target, &wanted, &python) {
            return Ok(environment);
        }
        python.pip_version()?;
        fs::create_dir_all(cache)
            .map_err(|source| Error::Cache { path: cache.to_path_buf(), source })?;
        // Held until the end of this function.
        let _lock = lock(cache)?;
        remove_leftovers(cache)?;
        if environment.is_ready(&target, &wanted, &python) {
            return Ok(environment);
        }
        require_space(cache, packages.disk_space)?;
        let staging = staging(cache)?;
        let tree = staging.path().join("packages");
        eprintln!("{}", packages.notice);
        install(children, &python, &requirements, &tree)?;
        let program = python.program.clone();
        let fresh = Self { program, packages: Some(tree.clone()), imports };
        if let Some(words) = fresh.fault() {
            return Err(Error::ParityPackages { words });
        }
        let stamp = tree.join(STAMP);
        fs::write(&stamp, contents(&wanted, &python)).map_err(|e| Error::io("write", &stamp, e))?;
        swap(&tree, &target, &staging.path().join("replaced"))?;
        Ok(environment)
    }

    /// The program and, for those who start it themselves, the value of `PYTHONPATH` that goes with it.
    pub(crate) fn program(&self) -> (&str, Option<&Path>) {
        (&self.program, self.packages.as_deref())
    }

    /// Python in a state that the user's own packages and settings do not reach.
    pub(crate) fn command(&self, threads: Threads) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .stdin(Stdio::null());
        if threads == Threads::One {
            command.env("OMP_NUM_THREADS", "1").env("MKL_NUM_THREADS", "1");
        }
        if let Some(packages) = &self.packages {
            command.arg("-s").env("PYTHONPATH", packages);
        }
        command
    }

    fn is_ready(&self, target: &Path, wanted: &str, python: &Python) -> bool {
        let stamp = fs::read_to_string(target.join(STAMP));
        stamp.is_ok_and(|stamp| stamp == contents(wanted, python)) && self.fault().is_none()
    }

    /// Why the packages cannot be imported.
    fn fault(&self) -> Option<String> {
        let output = self.command(Threads::One).args(["-W", "ignore", "-c", self.imports]).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let last = words.lines().rev().find(|line| !line.trim().is_empty());
                Some(last.unwrap_or("it ended without a word").trim().to_owned())
            }
            Err(error) => Some(error.to_string()),
        }
    }
}

/// A file beside the packages, written when all of them are there.
const STAMP: &str = "gateloop-parity.txt";

/// Packages are built for one version of Python.
fn contents(wanted: &str, python: &Python) -> String {
    format!("{python}\n{wanted}")
}

fn install(children: &Children, python: &Python, list: &Path, tree: &Path) -> Result<()> {
    let mut pip = Command::new(&python.program);
    pip.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check"])
        .args(["--no-cache-dir", "--only-binary", "torch,jaxlib,numpy,safetensors", "--target"])
        .arg(tree)
        .arg("--requirement")
        .arg(list)
        .env("PIP_REQUIRE_VIRTUALENV", "0")
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    match children.run("pip", &mut pip) {
        Err(Error::Child { .. }) => Err(Error::ParityInstall { python: python.to_string() }),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_without_the_packages_says_which_one_is_missing() {
        // `-s` and an empty folder hide what this machine may have.
        let dir = tempfile::tempdir().unwrap();
        let python = Python::find().unwrap();
        let imports = REFERENCES.imports;
        let packages = Some(dir.path().into());
        let empty = Environment { program: python.program, packages, imports };
        if let Some(words) = empty.fault() {
            assert!(words.contains("No module named"), "{words}");
        }
        let error = Environment::given("/no/such/python").unwrap_err();
        assert!(error.remedy().unwrap().contains("requirements.txt"), "{error}");
    }

    #[test]
    fn an_environment_is_ready_only_with_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let python = Python::find().unwrap();
        let packages = Some(dir.path().to_path_buf());
        let imports = REFERENCES.imports;
        let environment = Environment { program: python.program.clone(), packages, imports };
        assert!(!environment.is_ready(dir.path(), "torch", &python));
        fs::write(dir.path().join(STAMP), contents("torch==1", &python)).unwrap();
        assert!(!environment.is_ready(dir.path(), "torch", &python), "another version");
    }
}
