//! What a run writes down: one JSON object a line, and pictures of it.

mod error;
pub mod memory;
pub mod plot;
mod record;
mod tensorboard;
mod writer;

pub use error::MetricsError;
pub use record::{Record, read};
pub use tensorboard::EventWriter;
pub use writer::{MetricsWriter, truncate_after};

#[cfg(test)]
mod tests;
