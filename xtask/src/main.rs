//! The project's chores: `cargo xtask setup | doctor | train | parity | bench | tensorboard | kernels | gpu | test`.

mod artifact;
mod bench;
mod child;
mod compiler;
mod doctor;
mod driver;
mod environment;
mod error;
mod gpu;
mod kernels;
mod parity;
mod python;
mod setup;
mod table;
mod tensorboard;
mod test;
mod train;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Bring libtorch 2.11.0 onto this machine and link it as `.libtorch`
    Setup(setup::Options),
    /// Say what this machine has of what the project needs
    Doctor,
    /// Set up, build, fetch the data, train, evaluate and print a sample
    Train(train::Options),
    /// Compare every layer and model with the PyTorch and the JAX reference
    Parity(parity::Options),
    /// Measure the speed on the CPU beside the peers and the machine's limits
    Bench(bench::Options),
    /// Let TensorBoard's own package read what training writes for it, and compare
    Tensorboard,
    /// Compile the CUDA kernels to PTX and say what they take of a GPU; no GPU is needed
    Kernels(kernels::Options),
    /// What a machine with a GPU is to run: tests, benches, peers
    Gpu(gpu::Options),
    /// Run every check of the project, cheapest first
    Test(test::Options),
}

fn main() -> ExitCode {
    let workspace = workspace::Workspace::locate();
    let done = match Cli::parse().task {
        Task::Setup(options) => setup::run(&workspace, options),
        Task::Doctor => doctor::run(&workspace),
        Task::Train(options) => train::run(&workspace, &options),
        Task::Parity(options) => parity::run(&workspace, &options),
        Task::Bench(options) => bench::run(&workspace, &options),
        Task::Tensorboard => tensorboard::run(&workspace),
        Task::Kernels(options) => kernels::run(&workspace, &options),
        Task::Gpu(options) => gpu::run(&workspace, &options),
        Task::Test(options) => test::run(&workspace, &options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(remedy) = error.remedy() {
                eprintln!("  to fix it: {remedy}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
