//! `cargo xtask kernels`: the CUDA sources of `gateloop-scan` compiled to PTX.
//!
//! The PTX is kept in the repository, so that neither building nor running needs a CUDA compiler:
//! the driver of whoever has a GPU compiles it further. Here the compilers are pinned, so the same
//! sources give the same text everywhere, and `--check` can compare.

mod files;
mod nvrtc;
mod pair;
mod ptxas;
mod report;
mod split;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use self::files::{Difference, Sources, Texts};
use self::nvrtc::Nvrtc;
use self::ptxas::Job;
use self::report::{ARCHS, Report};
use self::toolchain::Toolchain;
use crate::error::{Error, Result};
use crate::workspace::{Workspace, cache_dir};

/// Options of `cargo xtask kernels`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Write nothing; fail when the PTX in the repository is not what the sources give
    #[arg(long)]
    check: bool,
    /// Write the table of registers and memory into a file, too
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Sources from elsewhere, to try something out
    #[arg(long, value_name = "FOLDER", hide = true)]
    folder: Option<PathBuf>,
}

/// The task. Everything is printed before anything fails, so that one run tells all.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let folder = options
        .folder
        .clone()
        .unwrap_or_else(|| workspace.root().join("crates/gateloop-scan/kernels"));
    let sources = Sources::read(&folder)?;
    let toolchain = Toolchain::ensure(&cache_dir()?)?;

    let generated = generate(&toolchain, &sources)?;
    let differences = files::compare(&generated, &files::committed(&folder)?);
    if !options.check {
        files::settle(&folder, &generated, &differences)?;
    }
    let report = measure(&toolchain, &generated)?;
    print!("{report}");
    if let Some(path) = &options.report {
        fs::write(path, report.to_string()).map_err(|e| Error::io("write", path, e))?;
    }
    if options.check && !differences.is_empty() {
        return Err(Error::StalePtx { list: list(&folder, &differences) });
    }
    match report.faults().len() {
        0 => Ok(()),
        count => Err(Error::Spills { count, total: report.total() }),
    }
}

/// The PTX of every source.
fn generate(toolchain: &Toolchain, sources: &Sources) -> Result<Texts> {
    let nvrtc = Nvrtc::load(&toolchain.nvrtc())?;
    let file =
        |(kernel, ptx): (String, String)| (files::ptx_name(&kernel), files::with_title(&ptx));
    let units: Vec<(&String, &String)> = sources.units.iter().collect();
    let compiled = pair::map(&units, |(name, source)| {
        eprintln!("compiling {name}");
        nvrtc.compile(name, source, &sources.headers)
    });
    let (mut generated, mut refused) = (Texts::new(), Vec::new());
    for ((name, _), compiled) in units.into_iter().zip(compiled) {
        let compiled = compiled?;
        if !compiled.log.is_empty() {
            eprintln!("{}", compiled.log);
        }
        match compiled.ptx {
            Some(ptx) => generated.extend(split::by_kernel(&ptx).into_iter().map(file)),
            None => refused.push(name.as_str()),
        }
    }
    if refused.is_empty() {
        Ok(generated)
    } else {
        Err(Error::Refused { files: refused.join(", ") })
    }
}

/// Compiles the PTX for every architecture of the report.
fn measure(toolchain: &Toolchain, generated: &Texts) -> Result<Report> {
    let folder =
        tempfile::tempdir().map_err(|e| Error::io("create a folder in", &temporary(), e))?;
    let mut jobs = Vec::new();
    for (name, text) in generated {
        let ptx = folder.path().join(name);
        fs::write(&ptx, text).map_err(|e| Error::io("write", &ptx, e))?;
        for (index, arch) in ARCHS.into_iter().enumerate() {
            let newest = index == ARCHS.len() - 1;
            let program = if newest { toolchain.ptxas_13() } else { toolchain.ptxas_12() };
            jobs.push((index, Job { program, arch, name: name.clone(), ptx: ptx.clone() }));
        }
    }
    let usages = pair::map(&jobs, |(_, job)| job.run(folder.path()));
    let mut report = Report::default();
    for ((arch, _), usages) in jobs.iter().zip(usages) {
        report.add(*arch, usages?);
    }
    Ok(report)
}

fn temporary() -> PathBuf {
    std::env::temp_dir()
}

fn list(folder: &Path, differences: &[(Difference, String)]) -> String {
    let ptx = files::ptx_folder(folder);
    let line = |(difference, name): &(Difference, String)| {
        format!("  {difference}: {}", ptx.join(name).display())
    };
    differences.iter().map(line).collect::<Vec<_>>().join("\n")
}
