//! `cargo xtask tensorboard`: TensorBoard's own package reads the event files of a run back.
//!
//! The test is `tests/tensorboard` of `gateloop-transformer`; it is skipped where no Python has the package.

use std::process::Stdio;

use crate::child::Children;
use crate::environment::{Environment, TENSORBOARD};
use crate::error::Result;
use crate::setup;
use crate::workspace::{Workspace, cache_dir};

/// The task.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let children = Children::new()?;
    let python = Environment::ensure(&TENSORBOARD, &children, workspace, &cache_dir()?)?;
    let ready = setup::ensure(workspace, setup::Options::default())?;
    let mut cargo = workspace.cargo();
    ready.compiler.pass_to(&mut cargo);
    cargo
        .args(["test", "-p", "gateloop-transformer", "--test", "tensorboard", "--", "--nocapture"])
        .stdin(Stdio::null());
    let (program, packages) = python.program();
    cargo.env("GATELOOP_TENSORBOARD_PYTHON", program);
    if let Some(packages) = packages {
        cargo.env("PYTHONPATH", packages);
    }
    children.run("cargo test", &mut cargo)
}
