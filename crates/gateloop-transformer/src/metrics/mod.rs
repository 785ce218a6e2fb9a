//! What a run writes down: one JSON object a line, and a picture of the learning curve.

mod error;
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
