//! The JAX reference's parameters and how they lie in this crate's.
//!
//! The JAX model multiplies from the right (x W, so a matrix is [in, out]), keeps q, k and v apart and
//! has the real parts of all decays before the imaginary ones. Every conversion here is a permutation
//! of elements, so it holds for gradients as well.

use super::ExchangeError;
use crate::weights::{Mismatch, Tensors};
use std::collections::BTreeMap;
use tch::Tensor;

/// One parameter of this crate and the arrays that it is made of.
struct Entry {
    pytorch: String,
    jax: Vec<String>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    Same,
    /// Transposed, and put below each other.
    Transposed,
    /// Transposed, and real and imaginary parts brought side by side.
    Interleaved,
}

/// The parameters of a model of `depth` layers, in the order in which Equinox walks its fields.
fn entries(depth: usize) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |pytorch: String, jax: &[String], how| {
        entries.push(Entry { pytorch, jax: jax.to_vec(), how });
    };
    add("token_emb.weight".into(), &["embedding".into()], How::Same);
    add("to_logits.0.gamma".into(), &["norm.gamma".into()], How::Same);
    for n in 0..depth {
        let (ours, theirs) =
            (|name: &str| format!("layers.{n}.{name}"), |name: &str| format!("layers.{n}.{name}"));
        let qkv = ["0.wq", "0.wk", "0.wv"].map(theirs);
        add(ours("0.norm.gamma"), &[theirs("0.norm.gamma")], How::Same);
        add(ours("0.fn.to_qkv.weight"), &qkv, How::Transposed);
        add(ours("0.fn.to_a.0.weight"), &[theirs("0.wa")], How::Interleaved);
        add(ours("0.fn.to_gates.0.weight"), &[theirs("0.wg")], How::Transposed);
        add(ours("0.fn.to_out.weight"), &[theirs("0.wo")], How::Transposed);
        add(ours("1.norm.gamma"), &[theirs("1.norm.gamma")], How::Same);
        for (ours_at, theirs_at) in [("1.fn.0", "1.proj_in"), ("1.fn.2", "1.proj_out")] {
            let (ours, theirs) = (ours(ours_at), theirs(theirs_at));
            add(format!("{ours}.weight"), &[format!("{theirs}.weight")], How::Transposed);
            add(format!("{ours}.bias"), &[format!("{theirs}.bias")], How::Same);
        }
    }
    entries
}

/// Arrays of the JAX model in one layer, and outside of them.
const LEAVES_A_LAYER: usize = 12;
const LEAVES_OUTSIDE: usize = 2;

/// `.layers[0][1].proj_in.weight` and `layers/0/1/proj_in/weight` as `layers.0.1.proj_in.weight`.
pub fn plain_name(name: &str) -> String {
    let pieces = name.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    pieces.filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(".")
}

/// Names for arrays that come in Equinox's order.
pub fn name_leaves(leaves: Vec<Tensor>) -> Result<Tensors, ExchangeError> {
    let count = leaves.len();
    let in_layers = count.checked_sub(LEAVES_OUTSIDE).filter(|n| n.is_multiple_of(LEAVES_A_LAYER));
    let Some(in_layers) = in_layers else { return Err(ExchangeError::LeafCount { count }) };
    let names = entries(in_layers / LEAVES_A_LAYER).into_iter().flat_map(|entry| entry.jax);
    Ok(names.zip(leaves).collect())
}

/// The arrays in Equinox's order.
pub fn leaves(arrays: &Tensors) -> Result<Vec<&Tensor>, ExchangeError> {
    check(arrays)?;
    let names = entries(depth(arrays)).into_iter().flat_map(|entry| entry.jax);
    Ok(names.filter_map(|name| arrays.get(&name)).collect())
}

/// The tensors of a [`Model`](crate::model::Model) from a JAX model's arrays.
///
/// Arrays that are missing, unexpected or misshapen are all named.
pub fn to_pytorch(arrays: &Tensors) -> Result<Tensors, ExchangeError> {
    check(arrays)?;
    let mut tensors = Tensors::new();
    for entry in entries(depth(arrays)) {
        let parts: Vec<&Tensor> = entry.jax.iter().filter_map(|name| arrays.get(name)).collect();
        let tensor = match entry.how {
            How::Same => parts[0].shallow_clone(),
            How::Transposed => {
                let transposed =
                    parts.iter().map(|part| part.f_tr()).collect::<Result<Vec<_>, _>>()?;
                Tensor::f_cat(&transposed, 0)?
            }
            How::Interleaved => {
                let [dim, width] = parts[0].size2()?.into();
                parts[0]
                    .f_tr()?
                    .f_reshape([2, width / 2, dim])?
                    .f_transpose(0, 1)?
                    .f_flatten(0, 1)?
            }
        };
        tensors.insert(entry.pytorch, tensor.f_contiguous()?);
    }
    Ok(tensors)
}

/// The arrays of a JAX model from a [`Model`](crate::model::Model)'s tensors.
///
/// A model that the JAX reference cannot express is refused, and the parameters that tell so are named.
pub fn from_pytorch(tensors: &Tensors) -> Result<Tensors, ExchangeError> {
    let entries = entries(depth(tensors));
    let mut mismatch = Mismatch::default();
    for entry in &entries {
        if !tensors.contains_key(&entry.pytorch) {
            mismatch.missing.push(entry.pytorch.clone());
        }
    }
    let known = |name: &String| entries.iter().any(|entry| entry.pytorch == *name);
    mismatch.unexpected = tensors.keys().filter(|name| !known(name)).cloned().collect();
    if !mismatch.is_empty() {
        return Err(ExchangeError::NotForJax(mismatch));
    }
    let mut arrays = Tensors::new();
    for entry in entries {
        let tensor = tensors[&entry.pytorch].f_detach()?;
        let parts = match entry.how {
            How::Same => vec![tensor],
            How::Transposed => tensor.f_chunk(entry.jax.len() as i64, 0)?,
            How::Interleaved => {
                let [width, dim] = tensor.size2()?.into();
                vec![tensor.f_reshape([width / 2, 2, dim])?.f_transpose(0, 1)?.f_flatten(0, 1)?]
            }
        };
        for (name, part) in entry.jax.into_iter().zip(parts) {
            let part = if let How::Same = entry.how { part } else { part.f_tr()? };
            arrays.insert(name, part.f_contiguous()?);
        }
    }
    // Heads of width above 1 have the right names and the wrong shapes.
    check(&arrays).map_err(|error| match error {
        ExchangeError::Jax(mismatch) => ExchangeError::NotForJax(mismatch),
        other => other,
    })?;
    Ok(arrays)
}

/// The number of layers that the names speak of.
fn depth(tensors: &Tensors) -> usize {
    let layers = tensors
        .keys()
        .filter_map(|name| name.strip_prefix("layers.")?.split('.').next()?.parse::<usize>().ok());
    // A single stray index must not make a list of millions of missing names.
    let largest = layers.max().map_or(0, |n| n + 1);
    largest.min(tensors.len())
}

/// Compares names and shapes with those of a JAX model of the size that the arrays have.
fn check(arrays: &Tensors) -> Result<(), ExchangeError> {
    let size = |name: &str, axis: usize| {
        arrays.get(name).and_then(|array| array.size().get(axis).copied()).unwrap_or(0)
    };
    let (num_tokens, dim) = (size("embedding", 0), size("embedding", 1));
    let inner = size("layers.0.1.proj_in.weight", 1);
    let shape = |name: &str| match name.rsplit('.').next() {
        Some("embedding") => vec![num_tokens, dim],
        Some("wa") => vec![dim, 2 * dim],
        Some("wq" | "wk" | "wv" | "wg" | "wo") => vec![dim, dim],
        _ if name.ends_with("proj_in.weight") => vec![dim, inner],
        _ if name.ends_with("proj_in.bias") => vec![inner],
        _ if name.ends_with("proj_out.weight") => vec![inner, dim],
        _ => vec![dim],
    };
    let expected: BTreeMap<String, Vec<i64>> = entries(depth(arrays))
        .into_iter()
        .flat_map(|entry| entry.jax)
        .map(|name| {
            let shape = shape(&name);
            (name, shape)
        })
        .collect();
    let mismatch = Mismatch::between(arrays, &expected);
    if mismatch.is_empty() { Ok(()) } else { Err(ExchangeError::Jax(mismatch)) }
}
