//! The program `gateloop`: arguments in, text and files out.

mod args;
mod data;
mod error;
mod eval;
mod exchange;
mod generate;
mod info;
mod log;
mod logits;
mod pace;
mod plot;
mod reporter;
mod runs;
mod train;
mod tui;

pub use args::{Cli, Command};
pub use error::CliError;

use crate::checkpoint::{self, Checkpoint};
use crate::model::Model;
use clap::Parser;
use gateloop_nn::{WeightKind, pool};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use tch::Device;
use tracing_subscriber::EnvFilter;

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(cli.verbose);
    report_panics_plainly();
    keep_memory();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A closed pipe behind standard error is no reason to panic.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Rounds a model's weights.
fn quantize(model: &mut Model, kind: WeightKind) -> Result<(), CliError> {
    if kind != WeightKind::F32 && model.device() != Device::Cpu {
        return Err(CliError::Usage(format!(
            "weights of {kind} are for the CPU: leave out `--device`, or use `--weights f32`"
        )));
    }
    Ok(model.quantize(kind)?)
}

/// Runs one command.
pub fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Train(args) => train::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Plot(args) => plot::run(&args),
        Command::Runs(args) => runs::run(&args),
        Command::Data { command } => data::run(&command),
        Command::Import(args) => exchange::import(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Logits(args) => logits::run(&args),
    }
}

/// `GATELOOP_LOG` has the last word, in the syntax of tracing's filters.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("GATELOOP_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| log::Writer)
        .without_time()
        .with_target(false)
        .init();
}

/// A step takes its memory from where the step before left it.
fn keep_memory() {
    if let Err(error) = pool::install() {
        tracing::warn!("training is slower: {error}");
    }
}

/// A panic is a fault of this program; it is reported in a line that says so.
fn report_panics_plainly() {
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(std::io::stderr(), "error: internal fault, please report it: {info}");
    }));
}

/// Opens a run folder's newest checkpoint, or a file, and says what had to be passed over.
fn open_checkpoint(path: &Path) -> Result<Checkpoint, CliError> {
    let opened = checkpoint::open(path)?;
    for error in &opened.passed_over {
        tracing::warn!("passed over a damaged checkpoint: {error}");
    }
    Ok(opened.checkpoint)
}

/// Writes a line to standard output; a reader that has gone away is not an error.
fn print_line(line: &str) -> Result<(), CliError> {
    print_bytes(format!("{line}\n").as_bytes()).map(|_| ())
}

/// Writes to standard output at once; false if its reader has gone away.
fn print_bytes(bytes: &[u8]) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => {
            Err(CliError::Io { action: "write to", what: "standard output".into(), source })
        }
    }
}
