//! The Rust workers: of this tree, and of an earlier revision, built in a work tree of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::artifact::Artifact;
use crate::child::Children;
use crate::error::{Error, Result};
use crate::setup::Ready;
use crate::workspace::Workspace;

/// The package and the program of the worker.
const WORKER: &str = "gateloop-bench-cpu";

/// Builds the worker of this tree.
pub(crate) fn build_ours(
    workspace: &Workspace,
    children: &Children,
    ready: &Ready,
) -> Result<PathBuf> {
    build(children, workspace.cargo(), ready)
}

/// Builds the worker of a revision. The work tree is gone afterwards; what was built stays in the cache,
/// so that the next revision takes less long.
pub(crate) fn build_base(
    workspace: &Workspace,
    children: &Children,
    ready: &Ready,
    revision: &str,
    cache: &Path,
) -> Result<PathBuf> {
    let folder = cache.join("bench-base");
    std::fs::create_dir_all(&folder).map_err(|e| Error::io("make", &folder, e))?;
    let tree = Tree::check_out(workspace, children, revision, folder.join("tree"))?;
    if !tree.path.join("benches/cpu/Cargo.toml").is_file() {
        return Err(Error::BaseWithoutWorker { revision: revision.to_owned() });
    }
    let mut cargo = workspace.cargo();
    cargo
        .current_dir(&tree.path)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("LIBTORCH", &ready.libtorch);
    let built = build(children, cargo, ready)?;
    // The next build would replace it.
    let kept = folder.join(WORKER);
    std::fs::copy(&built, &kept).map_err(|e| Error::io("copy", &built, e))?;
    Ok(kept)
}

/// A work tree that git forgets when this value goes.
struct Tree<'a> {
    workspace: &'a Workspace,
    path: PathBuf,
}

impl<'a> Tree<'a> {
    fn check_out(
        workspace: &'a Workspace,
        children: &Children,
        revision: &str,
        path: PathBuf,
    ) -> Result<Self> {
        let tree = Self { workspace, path };
        // One that a killed run has left.
        tree.remove();
        let mut git = tree.git();
        git.args(["worktree", "add", "--quiet", "--force", "--detach"])
            .arg(&tree.path)
            .arg(revision);
        match children.run("git worktree add", &mut git) {
            Err(Error::Child { .. }) => Err(Error::BaseRevision { revision: revision.to_owned() }),
            done => done.map(|()| tree),
        }
    }

    fn git(&self) -> Command {
        let mut git = Command::new("git");
        git.current_dir(self.workspace.root()).stdin(Stdio::null());
        git
    }

    fn remove(&self) {
        // Absent is as good as removed.
        let mut git = self.git();
        git.args(["worktree", "remove", "--force"]).arg(&self.path).stderr(Stdio::null());
        let _ = git.status();
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

fn build(children: &Children, mut cargo: Command, ready: &Ready) -> Result<PathBuf> {
    ready.compiler.pass_to(&mut cargo);
    cargo
        .args(["build", "--release", "-p", WORKER])
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null());
    let mut program = None;
    children.run_lines("cargo build", &mut cargo, |line| {
        let artifact = Artifact::from_line(line).filter(|artifact| artifact.name == WORKER);
        program = artifact.map(|artifact| artifact.path).or(program.take());
    })?;
    program.ok_or_else(|| Error::BadAnswer {
        what: "cargo build",
        reason: format!("it does not name the program `{WORKER}`"),
    })
}
