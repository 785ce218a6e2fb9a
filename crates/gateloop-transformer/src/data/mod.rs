//! Bytes to learn from: enwik8, any file, or generated text, as windows of token ids.
//!
//! A [`Corpus`] holds the bytes and their three splits, [`WindowSampler`] draws training batches
//! that are the same for the same seed on every machine, and [`fixed_windows`] gives the windows
//! that every validation sees. [`Tokens`] is how all of them read.
//!
//! ```
//! use gateloop_transformer::config::DataConfig;
//! use gateloop_transformer::data::{Corpus, Split, WindowSampler};
//!
//! let config = DataConfig {
//!     source: "synthetic:text".parse()?,
//!     train_bytes: Some(100_000),
//!     valid_bytes: Some(10_000),
//!     ..DataConfig::default()
//! };
//! let corpus = Corpus::open(&config)?;
//! let mut windows = WindowSampler::new(&corpus, Split::Train, 256, 42)?;
//! let batch = windows.next_batch(8);
//! assert_eq!(batch.ids.len(), 8 * 257);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod corpus;
mod documents;
mod draw;
pub mod enwik8;
mod error;
mod fingerprint;
mod folder;
mod progress;
mod split;
mod synthetic;
mod tokens;
mod unpack;
mod windows;

pub use corpus::Corpus;
pub use error::DataError;
pub use progress::Progress;
pub use split::Split;
pub use synthetic::Mark;
pub use tokens::Tokens;
pub use windows::{Batch, SamplerState, Share, StreamSampler, WindowSampler, fixed_windows};

#[cfg(test)]
mod tests;
