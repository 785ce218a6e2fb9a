//! How large parameters and gradients are, part by part of the model.

use gateloop_nn::{NnError, foreach};
use std::collections::BTreeMap;
use tch::Tensor;

/// Euclidean norms by part of the model: `embedding`, `layers.N.mixer`, `layers.N.feed_forward`, `logits`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Norms {
    /// Of the gradient, before clipping.
    pub grad: BTreeMap<String, f64>,
    /// Of the parameters, after the update.
    pub param: BTreeMap<String, f64>,
}

impl Norms {
    /// The norms under the keys of a record, `norm/grad/PART` and `norm/param/PART`.
    pub(super) fn entries(self) -> impl Iterator<Item = (String, f64)> {
        let named = |what: &'static str| {
            move |(part, norm): (String, f64)| (format!("norm/{what}/{part}"), norm)
        };
        let grad = self.grad.into_iter().map(named("grad"));
        grad.chain(self.param.into_iter().map(named("param")))
    }
}

/// The norm of each part's tensors together, which are given by the names of parameters.
pub(super) fn by_part<'a>(
    tensors: impl Iterator<Item = (&'a str, Tensor)>,
) -> Result<BTreeMap<String, f64>, NnError> {
    let mut parts: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for (name, tensor) in tensors {
        parts.entry(part(name)).or_default().push(tensor);
    }
    tch::no_grad(|| {
        let norm = |(part, tensors): (String, Vec<Tensor>)| {
            let norm = foreach::total_norm(&tensors)?;
            Ok((part, norm))
        };
        parts.into_iter().map(norm).collect()
    })
}

/// The part of the model that a parameter belongs to; a norm belongs to what it stands before or after.
fn part(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["token_emb", ..] => "embedding".to_owned(),
        ["to_logits", ..] => "logits".to_owned(),
        ["layers", n, "0", ..] => format!("layers.{n}.mixer"),
        ["layers", n, "1", ..] => format!("layers.{n}.feed_forward"),
        ["layers", n, other, ..] => format!("layers.{n}.{other}"),
        [first, ..] => first.to_owned(),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_measured_with_those_of_their_part() {
        let tensor = |values: &[f32]| Tensor::from_slice(values);
        let named = [
            ("layers.3.0.fn.to_qkv.weight", tensor(&[3.0, 0.0])),
            ("layers.3.0.norm.gamma", tensor(&[4.0])),
            ("layers.3.1.fn.0.weight", tensor(&[2.0])),
            ("token_emb.weight", tensor(&[1.0])),
            ("to_logits.1.weight", tensor(&[-6.0, 8.0])),
        ];
        let norms = by_part(named.iter().map(|(name, t)| (*name, t.shallow_clone()))).unwrap();
        let expected = [
            ("embedding", 1.0),
            ("layers.3.feed_forward", 2.0),
            ("layers.3.mixer", 5.0),
            ("logits", 10.0),
        ];
        assert!(norms.iter().map(|(part, norm)| (part.as_str(), *norm)).eq(expected), "{norms:?}");
    }
}
