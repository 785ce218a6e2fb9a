//! GateLoop language models: model, data, training, generation.
//!
//! The program `gateloop` is a thin shell around this library. A model learns text and goes on with
//! it:
//!
//! ```
//! use gateloop_transformer::config::ModelConfig;
//! use gateloop_transformer::generate::{Generator, Sampler};
//! use gateloop_transformer::model::Model;
//! use tch::{Device, Tensor};
//!
//! let config = ModelConfig { dim: 32, depth: 2, ..ModelConfig::default() };
//! let model = Model::new(&config, Device::Cpu)?;
//!
//! // Training: mean cross entropy over windows of tokens, differentiable.
//! let windows = Tensor::from_slice(b"the quick brown fox").to_kind(tch::Kind::Int64).unsqueeze(0);
//! let loss = model.loss(&windows)?;
//! loss.backward();
//!
//! // Generation: the prompt at once, then token by token on a state of fixed size.
//! let prompt: Vec<i64> = b"the ".iter().map(|&byte| i64::from(byte)).collect();
//! let mut generator = Generator::new(&model, &prompt, Sampler::greedy())?;
//! let token = generator.next_token()?;
//! assert!((0..256).contains(&token));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! | --- | --- |
//! | configuration files | [`config`] |
//! | enwik8, files, synthetic streams; windows | [`data`] |
//! | what tokens stand for: bytes, or subwords | [`vocabulary`] |
//! | the model and its decoding state | [`model`] |
//! | steps, runs, the run folder | [`train`] |
//! | processes that train together | [`ranks`] |
//! | checkpoints, weight files | [`checkpoint`], [`weights`] |
//! | weights from and for PyTorch and JAX | [`exchange`] |
//! | metrics and loss curves | [`metrics`] |
//! | sampling, streaming | [`generate`] |
//! | the program | [`cli`] |

mod atomic;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod device;
pub mod evaluate;
pub mod exchange;
pub mod generate;
mod hex;
pub mod metrics;
pub mod model;
pub mod ranks;
pub mod train;
pub mod vocabulary;
pub mod weights;

/// The README's example is compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
