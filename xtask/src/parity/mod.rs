//! `cargo xtask parity`: the layers and models against the PyTorch and the JAX reference.
//!
//! The reference writes cases, the program `gateloop-parity` runs and compares them and writes the
//! weights back, and the reference loads those again. Everything of Python is in `xtask/parity`.

mod document;
mod fixtures;
mod outcome;
mod programs;

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value;

use self::outcome::Outcome;
use self::programs::Programs;
use crate::child::Children;
use crate::environment::{Environment, REFERENCES};
use crate::error::{Error, Result};
use crate::setup;
use crate::workspace::{Workspace, cache_dir};

/// Options of `cargo xtask parity`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Options {
    /// Only cases whose names contain this; nothing is written to docs
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Fewer cases that still cover every option, and no training; nothing is written to docs
    #[arg(long)]
    quick: bool,
    /// Print every result as a line of JSON
    #[arg(long)]
    json: bool,
    /// Write the cases that `cargo test` runs, and do nothing else
    #[arg(long, conflicts_with_all = ["filter", "quick", "check"])]
    write_fixtures: bool,
    /// Say whether these cases are what the references give today, and do nothing else
    #[arg(long, conflicts_with_all = ["filter", "quick"])]
    check: bool,
    /// A Python that has the references, in place of an environment of our own
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
    /// The text to train on [default: enwik8, fetched if need be]
    #[arg(long, value_name = "FILE")]
    enwik8: Option<PathBuf>,
}

impl Options {
    fn is_full(&self) -> bool {
        !self.quick && self.filter.is_empty()
    }
}

/// The task.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let children = Children::new()?;
    let python = match &options.python {
        Some(program) => Environment::given(program)?,
        None => Environment::ensure(&REFERENCES, &children, workspace, &cache_dir()?)?,
    };
    if options.write_fixtures {
        return fixtures::write(workspace, &children, &python);
    }
    if options.check {
        return fixtures::check(workspace, &children, &python);
    }
    let ready = setup::ensure(workspace, setup::Options::default())?;
    let programs = Programs::build(workspace, &children, &ready.compiler)?;
    let folder = fresh(&workspace.root().join("target/parity"))?;

    let mut outcome = Outcome::default();
    let tier = if options.quick { &["--quick"][..] } else { &[] };
    // In one word: a text that begins with a dash would be taken for an option.
    let filter = format!("--filter={}", options.filter);
    let arguments = [tier, &[filter.as_str()]].concat();
    let cases = folder.join("cases");
    outcome.versions = programs.write_cases(&children, &python, &cases, &arguments)?;

    let back = cases.join("back");
    let mut show = Show { json: options.json, header: false };
    programs.run_cases(&children, &cases, &back, |line| {
        show.case(&outcome.add_case(&line), &line);
    })?;
    programs.verify(&children, &python, &cases, |line| {
        outcome.add_back(&line);
        show.raw(&line);
    })?;
    if options.is_full() {
        let enwik8 = match &options.enwik8 {
            Some(path) => path.clone(),
            None => programs.fetch_enwik8(&children)?,
        };
        let trajectories = folder.join("trajectories");
        programs.write_trajectories(&children, &python, &enwik8, &trajectories)?;
        let plot = workspace.root().join(document::PLOT);
        programs.run_trajectories(&children, &trajectories, &plot, |line| {
            outcome.add_trajectory(&line);
            show.raw(&line);
        })?;
        let path = workspace.root().join(document::PATH);
        let text = document::text(&outcome);
        fs::write(&path, text).map_err(|e| Error::io("write", &path, e))?;
        eprintln!("written: {}", path.display());
    }
    if !options.json {
        println!("\n{}", outcome.summary());
    }
    match outcome.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => Err(Error::Parity { list: failures.join("\n  ") }),
    }
}

/// An empty folder: cases of an earlier run would be run again.
fn fresh(folder: &Path) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|e| Error::io("empty", folder, e))?;
    }
    fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    Ok(folder.to_path_buf())
}

/// Results as they come: rows of a table, or JSON.
struct Show {
    json: bool,
    header: bool,
}

impl Show {
    fn case(&mut self, row: &str, line: &Value) {
        if self.json {
            return println!("{line}");
        }
        if !self.header {
            println!("{}", outcome::header());
            self.header = true;
        }
        println!("{row}");
    }

    fn raw(&self, line: &Value) {
        if self.json {
            println!("{line}");
        }
    }
}
