//! `cargo xtask setup`: libtorch on this machine, linked as `.libtorch`.
//!
//! An exported `LIBTORCH` wins, then whatever sound libtorch `.libtorch` leads to; only without
//! either is one installed into the user's cache, from the wheels of the Python package index.

mod build;
mod install;
pub(crate) mod libtorch;
mod link;
mod manifest;
mod package;
mod pip;
mod progress;
mod unpack;

use std::path::PathBuf;

use clap::Args;

pub(crate) use self::build::Build;
pub(crate) use self::install::{install, lock, remove_leftovers, require_space, staging, swap};
use self::link::Step;
pub(crate) use self::package::{Package, Wheel};
use crate::compiler::Compiler;
use crate::error::{Error, Result};
use crate::workspace::{Workspace, cache_dir};

/// Options of `cargo xtask setup`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Options {
    /// The CUDA build (2.5 GB to download, 4 GB on disk) in place of the CPU build (0.5 GB)
    #[arg(long)]
    cuda: bool,
    /// Install again, even over a sound one
    #[arg(long)]
    force: bool,
}

/// What every later step needs to know.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The folder with `include` and `lib`.
    pub(crate) libtorch: PathBuf,
    pub(crate) compiler: Compiler,
}

/// The task: sets up and says where libtorch is.
pub(crate) fn run(workspace: &Workspace, options: Options) -> Result<()> {
    let ready = ensure(workspace, options)?;
    println!("libtorch {} is ready in {}", libtorch::VERSION, ready.libtorch.display());
    Ok(())
}

/// Sets up; silent where there is nothing to do.
pub(crate) fn ensure(workspace: &Workspace, options: Options) -> Result<Ready> {
    let compiler = Compiler::find()?;
    if let Some(path) = workspace.exported_libtorch() {
        return match libtorch::check(&path, options.cuda) {
            Ok(()) => Ok(Ready { libtorch: path, compiler }),
            Err(damage) => Err(Error::ExportedLibtorch { path, damage }),
        };
    }
    let path = workspace.libtorch_link();
    match link::decide(link::look(&path, options.cuda), options.force) {
        Step::Keep => {}
        Step::Refuse(damage) => return Err(Error::OwnLibtorch { path, damage }),
        Step::Install => {
            let cache = cache_dir()?;
            // A damaged CUDA build is mended as one, not turned into a CPU build in passing.
            let was_cuda = link::leads_to(&path, &cache.join(Build::Cuda.folder()));
            let build = if options.cuda || was_cuda { Build::Cuda } else { Build::Cpu };
            let installed = install(&cache, build, options.force)?;
            link::replace(&path, &installed)?;
            eprintln!("linked {} to {}", path.display(), installed.display());
        }
    }
    Ok(Ready { libtorch: path, compiler })
}
