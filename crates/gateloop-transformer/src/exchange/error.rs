//! Why weights cannot be exchanged.

use crate::config::ConfigError;
use crate::weights::{Mismatch, WeightsError};
use std::io;
use std::path::PathBuf;

/// Why weights cannot be exchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file of none of the formats.
    #[error(
        "`{}` is no safetensors, .npz or .eqx file; save a PyTorch model with \
         `safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")`", path.display()
    )]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// A pickle, which can run any program when it is read.
    #[error(
        "`{}` is a pickle of PyTorch; save it again with \
         `safetensors.torch.save_file(model.state_dict(), \"weights.safetensors\")`", path.display()
    )]
    Pickle {
        /// The file.
        path: PathBuf,
    },
    /// A file that needs no import.
    #[error(
        "`{}` is a checkpoint of this program: give it to --checkpoint as it is", path.display()
    )]
    Checkpoint {
        /// The file.
        path: PathBuf,
    },
    /// A name of a file that says nothing about its format, or the wrong thing.
    #[error(
        "the name `{}` does not say how to write: PyTorch weights go to .safetensors, JAX weights to \
         .npz, .eqx or .safetensors", path.display()
    )]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// An array that is damaged or of an element type that is not used here.
    #[error("`{}`: array {array}: {problem}", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// The array's name or number.
        array: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// Weights of something else.
    #[error(
        "`{}` has neither `token_emb.weight` (PyTorch) nor `embedding` (JAX), so it is no GateLoop \
         transformer; it has: {}", path.display(), names.join(", ")
    )]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it has.
        names: Vec<String>,
    },
    /// A sequence of arrays that is not that of the JAX model.
    #[error(
        "{count} arrays are no JAX model: it has 2 and 12 a layer; save it with \
         `equinox.tree_serialise_leaves`, or by name with `numpy.savez`"
    )]
    LeafCount {
        /// How many there are.
        count: usize,
    },
    /// Arrays of the JAX layout are missing, unexpected or misshapen.
    #[error("these are not the arrays of a JAX model: {0}")]
    Jax(Mismatch),
    /// The JAX model has no such parameters.
    #[error(
        "the JAX model has no such parameters as this model: {0}; it is pre-norm with max heads, gates, \
         a tied embedding and no bias of the state transition"
    )]
    NotForJax(Mismatch),
    /// Shapes that no configuration explains.
    #[error("no configuration can be told from the weights: {problem}")]
    Infer {
        /// What is missing or contradictory.
        problem: String,
    },
    /// A key that the shapes leave open.
    #[error("the weights do not tell {}: add --set {}", keys.join(" and "), examples.join(" --set "))]
    Ask {
        /// What is not known, in words.
        keys: Vec<String>,
        /// How it would be given.
        examples: Vec<String>,
    },
    /// The weight file is not usable.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The configuration is not usable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}
