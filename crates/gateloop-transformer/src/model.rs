//! The language model: embedding, GateLoop and feed-forward blocks, logits.

use crate::config::ModelConfig;
use gateloop_nn::{
    Bias, FeedForward, FeedForwardConfig, GateLoop, GateLoopConfig, GateLoopState, Linear, NnError,
    NormPlacement, Residual, RmsNorm, SequenceLayer, gate_loop::TransitionMode,
};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

/// Why a model cannot be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Token ids are not a matrix or a vector of 64-bit integers.
    #[error("`ids` is {kind:?} {shape:?}, but Int64 {expected} is needed")]
    Ids {
        /// The shape given.
        shape: Vec<i64>,
        /// The element type given.
        kind: Kind,
        /// The shape needed, in words.
        expected: &'static str,
    },
    /// A token id that the vocabulary does not have.
    #[error(
        "token id {id} is outside the vocabulary 0..{num_tokens}: raise `model.num_tokens` or map the ids"
    )]
    OutOfVocabulary {
        /// The smallest or largest offending id.
        id: i64,
        /// The size of the vocabulary.
        num_tokens: i64,
    },
    /// A state that belongs to a model of another depth.
    #[error(
        "the decoding state has {actual} layers, the model has {expected}: take it from `initial_state` of the same model"
    )]
    StateDepth {
        /// Layers of the model.
        expected: usize,
        /// Layers of the state.
        actual: usize,
    },
    /// A layer refused its configuration or its input.
    #[error(transparent)]
    Layer(#[from] NnError),
    /// libtorch reported a failure.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
}

/// A GateLoop language model with its parameters.
#[derive(Debug)]
pub struct Model {
    vs: VarStore,
    config: ModelConfig,
    token_emb: Tensor,
    blocks: Vec<Block>,
    final_norm: Option<RmsNorm>,
    to_logits: Linear,
}

#[derive(Debug)]
struct Block {
    mixer: Residual<GateLoop>,
    feed_forward: Residual<FeedForward>,
}

/// libtorch has one random generator for the process: a model that is built beside another must not
/// take numbers from the other's seed.
static INITIALISING: Mutex<()> = Mutex::new(());

/// What the model remembers while it decodes: one state a layer, whatever the number of tokens.
#[derive(Debug)]
pub struct DecodeState {
    layers: Vec<GateLoopState>,
}

impl DecodeState {
    /// The states of the layers, first to last; each complex [B, H, head_dim, head_dim].
    pub fn layers(&self) -> &[GateLoopState] {
        &self.layers
    }
}

impl Model {
    /// A model whose random weights follow from a seed.
    pub fn seeded(config: &ModelConfig, device: Device, seed: u64) -> Result<Self, ModelError> {
        let _alone = INITIALISING.lock().unwrap_or_else(PoisonError::into_inner);
        tch::manual_seed(seed as i64);
        Self::build(config, device)
    }

    /// A model with new random weights.
    ///
    /// Parameter names are the PyTorch reference's: `token_emb.weight`, `layers.N.0.fn.*`,
    /// `layers.N.1.fn.*`, `layers.N.{0,1}.norm.*`, `to_logits.*`.
    pub fn new(config: &ModelConfig, device: Device) -> Result<Self, ModelError> {
        let _alone = INITIALISING.lock().unwrap_or_else(PoisonError::into_inner);
        Self::build(config, device)
    }

    fn build(config: &ModelConfig, device: Device) -> Result<Self, ModelError> {
        let vs = VarStore::new(device);
        let root = vs.root();
        let (dim, num_tokens) = (config.dim as i64, config.num_tokens as i64);
        let init = Init::Randn { mean: 0.0, stdev: 1.0 };
        let token_emb = (&root / "token_emb").f_var("weight", &[num_tokens, dim], init)?;
        let blocks = (0..config.depth)
            .map(|n| Block::new(&(&root / "layers" / n), config))
            .collect::<Result<_, _>>()?;
        let path = &root / "to_logits";
        // A post-norm block ends normalised, so the reference has no norm, and no index, here.
        let (final_norm, logits_path) = if config.post_ln_norm {
            (None, path)
        } else {
            (Some(RmsNorm::new(&(&path / 0), dim)?), &path / 1)
        };
        let to_logits = Linear::new(&logits_path, dim, num_tokens, Bias::Without)?;
        let config = config.clone();
        Ok(Self { vs, config, token_emb, blocks, final_norm, to_logits })
    }

    /// The configuration that the model was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        self.vs.device()
    }

    /// The parameters by name, in the order of their names.
    pub fn parameters(&self) -> BTreeMap<String, Tensor> {
        self.vs.variables().into_iter().collect()
    }

    /// Converts the parameters, in place.
    pub fn set_kind(&mut self, kind: Kind) {
        self.vs.set_kind(kind);
    }

    /// Logits for every position.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T]; returns [B, T, V]
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        self.check_ids(ids, 2)?;
        self.run(ids)
    }

    /// [`forward`](Self::forward) for ids that have been checked.
    fn run(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        let mut x = self.embed(ids)?;
        for block in &self.blocks {
            x = block.feed_forward.forward(&block.mixer.forward(&x)?)?;
        }
        self.logits(&x)
    }

    /// Mean cross entropy in nats of predicting each token from those before it.
    ///
    /// # Shapes
    /// - `windows`: Int64 [B, T + 1], T >= 1; returns a scalar
    pub fn loss(&self, windows: &Tensor) -> Result<Tensor, ModelError> {
        let [_, len] = windows.size()[..] else { return Err(ids_error(windows, "[B, T + 1]")) };
        if len < 2 {
            return Err(ids_error(windows, "[B, T + 1] with T at least 1"));
        }
        self.check_ids(windows, 2)?;
        let logits = self.run(&windows.f_narrow(1, 0, len - 1)?)?;
        let targets = windows.f_narrow(1, 1, len - 1)?.f_reshape([-1])?;
        let logits = logits.f_reshape([-1, self.config.num_tokens as i64])?;
        Ok(logits.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
    }

    /// The state before the first token.
    pub fn initial_state(&self, batch: i64) -> DecodeState {
        let layers = self.blocks.iter().map(|block| block.mixer.initial_state(batch)).collect();
        DecodeState { layers }
    }

    /// Reads a piece of text at once and moves `state` to its end.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], T >= 1; returns the logits after the last token, [B, V]
    pub fn prefill(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.check_state(state)?;
        self.check_ids(ids, 2)?;
        let mut x = self.embed(ids)?;
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            x = block.feed_forward.forward(&block.mixer.prefill(&x, state)?)?;
        }
        self.logits(&x.f_select(1, -1)?)
    }

    /// Reads one token of each sequence and moves `state` past it.
    ///
    /// # Shapes
    /// - `ids`: Int64 `[B]`; returns the logits `[B, V]`
    pub fn step(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.check_state(state)?;
        self.check_ids(ids, 1)?;
        let mut x = self.embed(ids)?;
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            x = block.feed_forward.step(&block.mixer.step(&x, state)?, &mut ())?;
        }
        self.logits(&x)
    }

    /// Real numbers in the decoding state of one sequence.
    pub fn state_len(&self) -> i64 {
        self.blocks.iter().map(|block| block.mixer.layer().state_len()).sum()
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(&self.token_emb, ids, -1, false, false)?)
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        Ok(match &self.final_norm {
            Some(norm) => self.to_logits.forward(&norm.forward(x)?)?,
            None => self.to_logits.forward(x)?,
        })
    }

    fn check_ids(&self, ids: &Tensor, dims: usize) -> Result<(), ModelError> {
        if ids.kind() != Kind::Int64 || ids.dim() != dims || ids.numel() == 0 {
            let expected =
                if dims == 2 { "[B, T] with B and T at least 1" } else { "[B] with B at least 1" };
            return Err(ids_error(ids, expected));
        }
        let num_tokens = self.config.num_tokens as i64;
        let (min, max) = (ids.f_min()?.int64_value(&[]), ids.f_max()?.int64_value(&[]));
        match [min, max].into_iter().find(|id| !(0..num_tokens).contains(id)) {
            Some(id) => Err(ModelError::OutOfVocabulary { id, num_tokens }),
            None => Ok(()),
        }
    }

    fn check_state(&self, state: &DecodeState) -> Result<(), ModelError> {
        let (expected, actual) = (self.blocks.len(), state.layers.len());
        if expected == actual { Ok(()) } else { Err(ModelError::StateDepth { expected, actual }) }
    }
}

impl Block {
    fn new(path: &Path<'_>, config: &ModelConfig) -> Result<Self, NnError> {
        let dim = config.dim as i64;
        let placement = if config.post_ln_norm { NormPlacement::Post } else { NormPlacement::Pre };
        let mixer = GateLoopConfig {
            dim_inner: Some(config.inner_dim() as i64),
            heads: Some(config.heads() as i64),
            swish_gating: config.attn_add_swish_gating,
            sub_ln: config.sub_ln,
            frac_gradient_state_transition: config.frac_gradient_state_transition,
            transition: transition_mode(config),
            ..GateLoopConfig::new(dim)
        };
        let feed_forward = FeedForwardConfig { dim, mult: config.ff_mult as i64 };
        Ok(Self {
            mixer: Residual::new(&(path / 0), dim, placement, |p| mixer.init(p))?,
            feed_forward: Residual::new(&(path / 1), dim, placement, |p| feed_forward.init(p))?,
        })
    }
}

/// As in the reference, a constant transition leaves nothing for the other ablation to act on.
fn transition_mode(config: &ModelConfig) -> TransitionMode {
    match (config.ablate_state_transition, config.ablate_complex) {
        (true, _) => TransitionMode::Identity,
        (false, true) => TransitionMode::Real,
        (false, false) => TransitionMode::Complex,
    }
}

fn ids_error(ids: &Tensor, expected: &'static str) -> ModelError {
    ModelError::Ids { shape: ids.size(), kind: ids.kind(), expected }
}
