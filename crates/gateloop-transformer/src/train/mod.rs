//! Training: steps, runs and what is left on the disk.
//!
//! [`Trainer`] does the mathematics, [`Run`] the rhythm of a run in its folder, an [`Observer`]
//! watches it, an [`Interrupt`] stops it between two steps.

mod begin;
mod buckets;
mod ema;
mod error;
mod feed;
mod gates;
mod interrupt;
mod lock;
mod memory;
mod norms;
mod observer;
mod optimizer;
mod output;
mod prefetch;
mod prepared;
mod run;
mod run_folder;
mod same;
mod schedule;
mod shard;
mod trainer;
mod validation;
mod verdict;

pub use error::TrainError;
pub use feed::Windows;
pub use gates::{GateMemory, gate_memory};
pub use interrupt::Interrupt;
pub use norms::Norms;
pub use observer::{Observer, Quiet, Tick};
pub use optimizer::Optimizer;
pub use run::{ChangedData, Outcome, Run, Summary};
pub use run_folder::{ExistingFolder, RunFolder};
pub use trainer::{StepReport, Trainer, bits_per_character};
