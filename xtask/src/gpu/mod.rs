//! `cargo xtask gpu bundle | run`: what a machine with a GPU is to run, built where there is none.

mod bundle;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};

use crate::child::Children;
use crate::error::{Error, Result};
use crate::table::size;
use crate::workspace::Workspace;

/// Options of `cargo xtask gpu`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build a folder that runs with an NVIDIA driver and a Python that has torch 2.11, without Rust
    Bundle(Place),
    /// The same, and run it here
    Run(Place),
}

#[derive(Debug, Args)]
struct Place {
    /// The folder [default: target/gpu-bundle]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The largest bundle: it may have to travel.
const LIMIT: u64 = 60 << 20;

/// The task.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let (place, runs) = match &options.task {
        Task::Bundle(place) => (place, false),
        Task::Run(place) => (place, true),
    };
    let folder = place.out.clone().unwrap_or_else(|| workspace.root().join("target/gpu-bundle"));
    let children = Children::new()?;
    let bytes = bundle::build(workspace, &children, &folder)?;
    println!("{}: {}", folder.display(), size(bytes));
    if bytes > LIMIT {
        return Err(Error::BundleTooLarge { bytes, limit: LIMIT });
    }
    if runs {
        return children.run("run.sh", Command::new("sh").arg(script(&folder)));
    }
    println!("copy it to the machine with the GPU and run `sh run.sh` in it");
    Ok(())
}

fn script(folder: &Path) -> PathBuf {
    folder.join("run.sh")
}
