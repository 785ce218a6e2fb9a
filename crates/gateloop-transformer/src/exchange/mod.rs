//! Weights from and for the reference implementations.
//!
//! | layout | files | names |
//! | --- | --- | --- |
//! | PyTorch | `state_dict()` as `.safetensors` | `token_emb.weight`, `layers.0.0.fn.to_qkv.weight` .. |
//! | JAX | `.npz`, `.safetensors`; `.eqx`, what `equinox.tree_serialise_leaves` writes, has no names | `embedding`, `layers.0.0.wq` .. |
//!
//! A [`Model`](crate::model::Model)'s own names are PyTorch's, so that a `state_dict` needs no
//! conversion. [`infer`] tells a configuration from the names and shapes.

mod error;
mod infer;
pub mod jax;
mod numpy;

pub use error::ExchangeError;
pub use infer::{Inferred, infer};

use crate::checkpoint;
use crate::weights::{self, Metadata, Tensors, WeightFile};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Whose names and shapes a set of weights has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The PyTorch reference's and this crate's.
    PyTorch,
    /// The JAX reference's.
    Jax,
}

/// The files that hold weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Safetensors,
    Npz,
    Eqx,
}

impl Format {
    /// By the first bytes, whatever the name says.
    fn of_content(path: &Path) -> Result<Self, ExchangeError> {
        let io = |source| ExchangeError::Io { action: "read", path: path.to_owned(), source };
        let mut start = [0; 9];
        let mut file = File::open(path).map_err(io)?;
        let mut len = 0;
        while len < start.len() {
            match file.read(&mut start[len..]).map_err(io)? {
                0 => break,
                read => len += read,
            }
        }
        match &start[..len] {
            [b'P', b'K', ..] => Ok(Self::Npz),
            [0x93, b'N', b'U', b'M', b'P', b'Y', ..] => Ok(Self::Eqx),
            // Eight bytes of length, then the header.
            [_, _, _, _, _, _, _, _, b'{'] => Ok(Self::Safetensors),
            _ => Err(ExchangeError::Format { path: path.to_owned() }),
        }
    }

    fn of_extension(path: &Path) -> Result<Self, ExchangeError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npz") => Ok(Self::Npz),
            Some("eqx") => Ok(Self::Eqx),
            _ => Err(ExchangeError::Extension { path: path.to_owned() }),
        }
    }
}

/// Reads a weight file of either layout; the tensors come under this crate's names.
pub fn read(path: &Path) -> Result<(Tensors, Layout), ExchangeError> {
    let arrays = match Format::of_content(path)? {
        Format::Safetensors => WeightFile::open(path)?.tensors(|name| Some(name.to_owned()))?,
        Format::Npz => numpy::read_npz(path)?,
        Format::Eqx => jax::name_leaves(numpy::read_sequence(path)?)?,
    };
    if arrays.keys().any(|name| name.starts_with(checkpoint::OPTIMIZER_PREFIX)) {
        return Err(ExchangeError::Checkpoint { path: path.to_owned() });
    }
    let arrays = without_wrapper(arrays);
    if arrays.contains_key("token_emb.weight") {
        return Ok((arrays, Layout::PyTorch));
    }
    let arrays: Tensors =
        arrays.into_iter().map(|(name, tensor)| (jax::plain_name(&name), tensor)).collect();
    if arrays.contains_key("embedding") {
        return Ok((jax::to_pytorch(&arrays)?, Layout::Jax));
    }
    let names = arrays.into_keys().collect();
    Err(ExchangeError::Unknown { path: path.to_owned(), names })
}

/// Writes a model's tensors for an implementation: in the JAX layout as `.npz`, `.eqx` or `.safetensors`,
/// in the PyTorch layout as `.safetensors`. After a failure the file is the old one.
pub fn write(path: &Path, tensors: &Tensors, layout: Layout) -> Result<(), ExchangeError> {
    let format = Format::of_extension(path)?;
    match (layout, format) {
        (Layout::PyTorch, Format::Safetensors) => {
            // What the ecosystem's tools look for in a file of PyTorch parameters.
            let metadata = Metadata::from([("format".to_owned(), "pt".to_owned())]);
            Ok(weights::write(path, tensors, metadata)?)
        }
        (Layout::PyTorch, _) => Err(ExchangeError::Extension { path: path.to_owned() }),
        (Layout::Jax, format) => {
            let arrays = jax::from_pytorch(tensors)?;
            match format {
                Format::Safetensors => Ok(weights::write(path, &arrays, Metadata::new())?),
                Format::Npz => numpy::write_npz(path, &arrays),
                Format::Eqx => numpy::write_sequence(path, &jax::leaves(&arrays)?),
            }
        }
    }
}

/// Names without the prefix that PyTorch's wrappers put before all of them.
fn without_wrapper(tensors: Tensors) -> Tensors {
    for prefix in ["module.", "_orig_mod."] {
        if !tensors.is_empty() && tensors.keys().all(|name| name.starts_with(prefix)) {
            let strip = |(name, tensor): (String, _)| (name[prefix.len()..].to_owned(), tensor);
            return without_wrapper(tensors.into_iter().map(strip).collect());
        }
    }
    tensors
}
