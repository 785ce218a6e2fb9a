//! A configuration from the names and shapes of weights.

use super::{ExchangeError, Layout};
use crate::config::{Config, LayerKind, ModelConfig, RelPosVariant};
use crate::weights::Tensors;

/// What the weights told, and what they could not tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    /// The configuration; all but `model` is as the caller gave it.
    pub config: Config,
    /// Keys of the model that no shape shows and that were not given, with the values assumed: the
    /// reference's.
    pub assumed: Vec<(&'static str, String)>,
}

/// Infers `[model]` from tensors under this crate's names; `overrides`, such as `model.heads=8`, come
/// on top.
///
/// Attention is taken to be to all tokens, as the references' is; a window is for the overrides to say. What the shapes
/// leave open and has no usual value is asked for, in an error.
pub fn infer(
    tensors: &Tensors,
    layout: Layout,
    overrides: &[String],
) -> Result<Inferred, ExchangeError> {
    let given = Given(overrides);
    let shapes = Shapes(tensors);
    let mut model = match layout {
        Layout::PyTorch => ModelConfig::default(),
        Layout::Jax => ModelConfig::jax_reference(),
    };
    [model.num_tokens, model.dim] = shapes.matrix("token_emb.weight")?;
    let layers = shapes.layers()?;
    model.depth = layers.len();
    let has = |kind| layers.iter().position(|layer| *layer == kind);
    model.ff_mult = shapes.multiple("layers.0.1.fn.0.weight", model.dim)?;
    model.post_ln_norm = shapes.has("layers.0.0.norm.weight");
    let logits = if model.post_ln_norm { "to_logits.weight" } else { "to_logits.1.weight" };
    model.tie_embedding = !shapes.has(logits);
    let mut open = Vec::new();
    if let Some(n) = has(LayerKind::GateLoop) {
        gate_loop(&mut model, &shapes, n)?;
        open.extend(ASSUMED_OF_DECAYS);
    }
    if let Some(n) = has(LayerKind::Attention) {
        attention(&mut model, &shapes, n, &given)?;
        open.push("attn_softmax_normalize");
        if model.data_dependent_rel_pos {
            open.push("rel_pos");
            open.extend(ASSUMED_OF_DECAYS);
        }
    }
    if layers.iter().all(|layer| *layer == layers[0]) && layers[0] != LayerKind::SimpleGateLoop {
        model.use_gate_looped_attn = layers[0] == LayerKind::GateLoop;
    } else {
        model.layers = layers;
    }
    let base = Config { model, ..Config::default() };
    let config = Config::from_toml_str(&base.to_toml()?, "the weights", overrides)?;
    // The JAX model has no such options.
    open.retain(|key| layout == Layout::PyTorch && !given.has(key));
    open.sort_unstable();
    open.dedup();
    let assumed = open.into_iter().map(|key| (key, config.model.entry(key))).collect();
    Ok(Inferred { config, assumed })
}

/// Options that change numbers and no shape.
const ASSUMED_OF_DECAYS: [&str; 3] =
    ["ablate_complex", "ablate_state_transition", "frac_gradient_state_transition"];

fn gate_loop(model: &mut ModelConfig, shapes: &Shapes<'_>, n: usize) -> Result<(), ExchangeError> {
    let name = |name: &str| format!("layers.{n}.0.fn.{name}");
    let [qkv, _] = shapes.matrix(&name("to_qkv.weight"))?;
    let [decays, _] = shapes.matrix(&name("to_a.0.weight"))?;
    // Keys and values projected as one have one head a channel; no number of heads is more than the channels.
    model.direct_kv = qkv == decays;
    let inner = if model.direct_kv { qkv / 2 } else { qkv / 3 };
    model.dim_gate_looped_attn = Some(inner).filter(|inner| *inner != model.dim);
    model.gate_loop_heads = Some(decays / 2).filter(|heads| *heads != inner);
    model.state_transition_bias = shapes.has(&name("to_a.0.bias"));
    model.attn_add_swish_gating = shapes.has(&name("to_gates.0.weight"));
    model.sub_ln = shapes.has(&name("maybe_sub_ln.weight"));
    Ok(())
}

fn attention(
    model: &mut ModelConfig,
    shapes: &Shapes<'_>,
    n: usize,
    given: &Given<'_>,
) -> Result<(), ExchangeError> {
    let name = |name: &str| format!("layers.{n}.0.fn.{name}");
    let [qkv, _] = shapes.matrix(&name("to_qkv.0.weight"))?;
    let inner = qkv / 3;
    let freqs = name("rotary_emb.freqs");
    model.simple_gate_loop_before_attention =
        shapes.has(&format!("layers.{n}.front.fn.to_qkva.0.weight"));
    model.rotary_emb = shapes.has(&freqs);
    model.attn_add_swish_gating = shapes.has(&name("to_gates.0.weight"));
    model.data_dependent_rel_pos = shapes.has(&name("to_a.0.weight"));
    model.attn_softmax_normalize = Some(!model.data_dependent_rel_pos);
    // What was trained with the fault goes on with it.
    model.rel_pos = RelPosVariant::AsReference;
    let split = |part: usize| inner.checked_div(part).unwrap_or(0);
    (model.heads, model.dim_head) = match (given.number("heads"), given.number("dim_head")) {
        _ if model.rotary_emb => {
            let dim_head = 2 * shapes.len(&freqs);
            (split(dim_head), dim_head)
        }
        (Some(heads), _) => (heads, split(heads)),
        (None, Some(dim_head)) => (split(dim_head), dim_head),
        (None, None) => {
            let keys = vec![format!("how attention's {inner} features are split into heads")];
            let examples =
                vec![format!("model.heads=N (the reference's default is {})", model.heads)];
            return Err(ExchangeError::Ask { keys, examples });
        }
    };
    Ok(())
}

/// The tensors, asked for their shapes.
struct Shapes<'a>(&'a Tensors);

impl Shapes<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn len(&self, name: &str) -> usize {
        self.0.get(name).map_or(0, tch::Tensor::numel)
    }

    fn matrix(&self, name: &str) -> Result<[usize; 2], ExchangeError> {
        let problem = match self.0.get(name).map(tch::Tensor::size).as_deref() {
            Some(&[rows, columns]) => return Ok([rows as usize, columns as usize]),
            Some(shape) => format!("`{name}` is {shape:?}, not a matrix"),
            None => format!("`{name}` is missing"),
        };
        Err(ExchangeError::Infer { problem })
    }

    /// How many times `dim` the rows of a matrix are.
    fn multiple(&self, name: &str, dim: usize) -> Result<usize, ExchangeError> {
        let [rows, _] = self.matrix(name)?;
        match rows.checked_div(dim) {
            Some(multiple) if multiple * dim == rows => Ok(multiple),
            _ => {
                let problem = format!("`{name}` has {rows} rows, not a multiple of {dim}");
                Err(ExchangeError::Infer { problem })
            }
        }
    }

    /// The kind of every layer.
    fn layers(&self) -> Result<Vec<LayerKind>, ExchangeError> {
        const SIGNS: [(&str, LayerKind); 3] = [
            ("to_qkv.weight", LayerKind::GateLoop),
            ("to_qkv.0.weight", LayerKind::Attention),
            ("to_qkva.0.weight", LayerKind::SimpleGateLoop),
        ];
        let mut layers = Vec::new();
        while self.0.keys().any(|name| name.starts_with(&format!("layers.{}.", layers.len()))) {
            let n = layers.len();
            let has = |sign: &&(&str, LayerKind)| self.has(&format!("layers.{n}.0.fn.{}", sign.0));
            let Some((_, kind)) = SIGNS.iter().find(has) else {
                let problem = format!(
                    "layer {n} is of no known kind: it has none of layers.{n}.0.fn.to_qkv.weight, \
                     layers.{n}.0.fn.to_qkv.0.weight, layers.{n}.0.fn.to_qkva.0.weight"
                );
                return Err(ExchangeError::Infer { problem });
            };
            layers.push(*kind);
        }
        if layers.is_empty() {
            return Err(ExchangeError::Infer { problem: "there are no layers".into() });
        }
        Ok(layers)
    }
}

/// What the caller said about the model.
struct Given<'a>(&'a [String]);

impl Given<'_> {
    fn value(&self, key: &str) -> Option<&str> {
        self.0.iter().rev().find_map(|text| {
            let (name, value) = text.split_once('=')?;
            (name.trim().strip_prefix("model.")? == key).then(|| value.trim())
        })
    }

    fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    fn number(&self, key: &str) -> Option<usize> {
        self.value(key)?.parse().ok()
    }
}
