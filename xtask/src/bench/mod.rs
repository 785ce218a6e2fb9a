//! `cargo xtask bench`: our speed on a CPU beside the peers' and beside the machine's limits, in one run.
//!
//! Every side is a worker, a process that is asked line by line; this program asks them in turn. What is
//! measured is in `plan`, what is to be reached in `targets`.

mod document;
mod format;
mod machine;
mod measure;
mod plan;
mod plot;
mod programs;
mod record;
mod report;
mod rest;
mod results;
mod targets;
mod worker;
mod workers;

use std::fs;
use std::time::{Duration, Instant};

use clap::Args;

use self::machine::Machine;
use self::measure::Effort;
use self::plan::Selection;
use self::results::Results;
use self::workers::{Programs, Workers};
use crate::child::Children;
use crate::environment::{Environment, REFERENCES};
use crate::error::{Error, Result};
use crate::setup;
use crate::workspace::{Workspace, cache_dir};

/// Options of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The most telling works and few samples, in some three minutes; nothing is written
    #[arg(long)]
    quick: bool,
    /// Only works whose names contain this; nothing is written
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Measure an earlier revision in turn with this tree
    #[arg(long, value_name = "REV")]
    base: Option<String>,
    /// Leave out JAX and PyTorch
    #[arg(long)]
    no_peers: bool,
    /// Write the record and the documents even so
    #[arg(long)]
    write: bool,
    /// A Python that has the peers, in place of an environment of our own
    #[arg(long, value_name = "PROGRAM")]
    python: Option<String>,
}

impl Options {
    fn selection(&self) -> Selection<'_> {
        Selection {
            quick: self.quick,
            only: &self.only,
            peers: !self.no_peers,
            base: self.base.is_some(),
        }
    }

    fn effort(&self) -> Effort {
        let (samples, most, seconds) = if self.quick { (5, 5, 2) } else { (9, 27, 30) };
        Effort { samples, most, budget: Duration::from_secs(seconds) }
    }

    /// How long a worker may take for an answer: compiling, checking and the slowest step are in it.
    fn patience(&self) -> Duration {
        Duration::from_secs(if self.quick { 90 } else { 900 })
    }

    fn is_full(&self) -> bool {
        !self.quick && !self.no_peers && self.only.is_empty() && self.base.is_none()
    }
}

/// The task.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let works = plan::works(options.selection());
    if works.is_empty() {
        return Err(Error::NoWork { only: options.only.clone() });
    }
    let ready = setup::ensure(workspace, setup::Options::default())?;
    let children = Children::new()?;
    let programs = programs(workspace, options, &children, &ready)?;
    let mut workers = Workers::new(&children, &programs, options.patience());
    let mut machine = Machine::look(workspace, &ready.compiler.version);
    machine.versions.extend(workers.versions()?);
    machine.versions.extend(options.base.clone().map(|base| ("base".to_owned(), base)));

    let (started, count) = (Instant::now(), works.len());
    let mut results = Results::default();
    for works in works.chunk_by(plan::Work::is_beside) {
        for (index, work) in works.iter().enumerate() {
            eprintln!("[{}/{count}] {}", results.0.len() + index + 1, work.name);
        }
        for measured in measure::measure(works.to_vec(), options.effort(), &mut workers)? {
            println!("{}", report::work(&measured));
            results.0.push(measured);
        }
    }
    println!("{}", report::target_table(&results));
    println!("works measured: {count}, in {:.0} s", started.elapsed().as_secs_f64());
    if options.write || options.is_full() {
        write(workspace, &machine, &results)?;
    }
    match results.failures() {
        failures if failures.is_empty() => Ok(()),
        failures => Err(Error::BenchAnswers { list: failures.join("\n  ") }),
    }
}

/// Builds ours; peers that cannot be had are left out, with the reason beside each of their rows.
fn programs(
    workspace: &Workspace,
    options: &Options,
    children: &Children,
    ready: &setup::Ready,
) -> Result<Programs> {
    let ours = programs::build_ours(workspace, children, ready)?;
    let base = match &options.base {
        Some(revision) => {
            let cache = cache_dir()?;
            Some(programs::build_base(workspace, children, ready, revision, &cache)?)
        }
        None => None,
    };
    let python = if options.no_peers {
        Err("left out".to_owned())
    } else {
        match environment(workspace, options, children) {
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(error) => {
                eprintln!("the peers in Python are left out: {error}");
                Err(error.to_string().lines().next().unwrap_or_default().to_owned())
            }
            Ok(python) => Ok(python),
        }
    };
    let script = workspace.root().join("benches/peers/cpu/worker.py");
    Ok(Programs { ours, base, python, script })
}

fn environment(
    workspace: &Workspace,
    options: &Options,
    children: &Children,
) -> Result<Environment> {
    match &options.python {
        Some(program) => Environment::given(program),
        None => Environment::ensure(&REFERENCES, children, workspace, &cache_dir()?),
    }
}

fn write(workspace: &Workspace, machine: &Machine, results: &Results) -> Result<()> {
    let path = record::path(workspace.root(), machine);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| Error::io("make", folder, e))?;
    }
    fs::write(&path, record::text(machine, results)).map_err(|e| Error::io("write", &path, e))?;
    eprintln!("written: {}", path.display());
    document::write(workspace.root(), machine, results)
}
