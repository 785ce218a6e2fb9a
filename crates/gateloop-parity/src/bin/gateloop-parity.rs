//! Runs cases and prints a line of JSON for each; `cargo xtask parity` is what people call.

use clap::{Parser, Subcommand};
use gateloop_parity::{ParityError, check, plot, trajectory};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Compares the layers and models with cases that a reference has written.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every case of a folder.
    Cases {
        /// The folder.
        folder: PathBuf,
        /// Where the weights go that the reference is to load.
        #[arg(long, value_name = "DIR")]
        back: Option<PathBuf>,
    },
    /// Train every trajectory of a folder.
    Trajectories {
        /// The folder.
        folder: PathBuf,
        /// Where the plot goes.
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
}

/// How the files of trajectories begin.
const TRAJECTORY: &str = "trajectory-";

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Cases { folder, back } => cases(&folder, back.as_deref()),
        Task::Trajectories { folder, plot } => trajectories(&folder, plot.as_deref()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn cases(folder: &Path, back: Option<&Path>) -> Result<(), ParityError> {
    for path in files(folder, false)? {
        // A case that cannot be run must not hide the others.
        let line = match check(&path, back) {
            Ok(report) => {
                let ok = report.ok();
                serde_json::json!({ "ok": ok, "report": report })
            }
            Err(error) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                serde_json::json!({ "ok": false, "case": name, "error": error.to_string() })
            }
        };
        print(&line)?;
    }
    Ok(())
}

fn trajectories(folder: &Path, plot: Option<&Path>) -> Result<(), ParityError> {
    let mut done = Vec::new();
    for path in files(folder, true)? {
        let trajectory = trajectory::check(&path)?;
        print(&serde_json::json!({ "ok": trajectory.ok, "trajectory": trajectory }))?;
        done.push(trajectory);
    }
    match plot {
        Some(path) if !done.is_empty() => plot::write(&done, path),
        _ => Ok(()),
    }
}

fn files(folder: &Path, trajectories: bool) -> Result<Vec<PathBuf>, ParityError> {
    let io = |source| ParityError::Io { action: "read", path: folder.to_owned(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") && name.starts_with(TRAJECTORY) == trajectories {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn print(line: &serde_json::Value) -> Result<(), ParityError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|source| ParityError::Io {
        action: "write to",
        path: "standard output".into(),
        source,
    })
}
