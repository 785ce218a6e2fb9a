//! The language model: embedding, blocks of a mixer and a feed-forward, logits.

mod error;
mod gates;
mod mixer;
mod quantize;

pub use error::ModelError;
pub use mixer::LayerState;

use crate::config::ModelConfig;
use crate::hex::hex;
use crate::weights::Tensors;
use error::ids_error;
use gateloop_nn::autograd::gradients_are_recorded;
use gateloop_nn::gate_loop::TransitionMode;
use gateloop_nn::{
    Bias, FeedForward, FeedForwardConfig, Linear, NnError, NormPlacement, Residual, RmsNorm,
    SequenceLayer, WeightKind,
};
use mixer::{Mixer, transition_mode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tch::nn::{Init, Path, VarStore};
use tch::{Device, Kind, Reduction, Tensor};

/// A GateLoop language model with its parameters.
#[derive(Debug)]
pub struct Model {
    vs: VarStore,
    config: ModelConfig,
    token_emb: Tensor,
    blocks: Vec<Block>,
    final_norm: Option<RmsNorm>,
    /// None where the embedding makes the logits.
    to_logits: Option<Linear>,
    weights: WeightKind,
    bytes_per_step: usize,
}

#[derive(Debug)]
struct Block {
    mixer: Residual<Mixer>,
    feed_forward: Residual<FeedForward>,
}

/// libtorch has one random generator for the process: a model that is built beside another must not
/// take numbers from the other's seed.
static INITIALISING: Mutex<()> = Mutex::new(());

/// What the model remembers while it decodes: one state a layer. Those of gate loops do not grow with
/// the number of tokens, those of attention do.
#[derive(Debug)]
pub struct DecodeState {
    layers: Vec<LayerState>,
}

impl DecodeState {
    /// The states of the layers, first to last.
    pub fn layers(&self) -> &[LayerState] {
        &self.layers
    }

    /// The same state, through which no gradient goes back.
    pub fn detached(self) -> Result<Self, ModelError> {
        let layers = self.layers.into_iter().map(LayerState::detached);
        Ok(Self { layers: layers.collect::<Result<_, _>>()? })
    }

    /// The tensors of all layers by name, all of them real: `LAYER.state.complex` [.., 2], `LAYER.state`,
    /// `LAYER.keys`, `LAYER.values`. None before the first token.
    pub fn tensors(&self) -> Result<Tensors, ModelError> {
        let mut tensors = Tensors::new();
        for (n, layer) in self.layers.iter().enumerate() {
            tensors.extend(layer.parts()?.into_iter().map(|(part, t)| (format!("{n}.{part}"), t)));
        }
        Ok(tensors)
    }

    /// The state of one sequence for `count` sequences that begin alike.
    pub fn repeated(self, count: usize) -> Result<Self, ModelError> {
        let rows = |state: LayerState| state.repeated(count as i64);
        Ok(Self { layers: self.layers.into_iter().map(rows).collect::<Result<_, _>>()? })
    }
}

/// Ablations for one call; what is `None` is as the model was configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ablation {
    /// Drop the imaginary part of the decay's projection.
    pub complex: Option<bool>,
    /// A decay of 1 everywhere.
    pub state_transition: Option<bool>,
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
        // The reference's: an embedding that makes the logits as well starts small.
        let stdev = if config.tie_embedding { 0.02 } else { 1.0 };
        let init = Init::Randn { mean: 0.0, stdev };
        let token_emb = (&root / "token_emb").f_var("weight", &[num_tokens, dim], init)?;
        let blocks = (0..config.depth)
            .map(|n| Block::new(&(&root / "layers" / n), n, config))
            .collect::<Result<_, _>>()?;
        let path = &root / "to_logits";
        // A post-norm block ends normalised, so the reference has no norm, and no index, here.
        let (final_norm, logits_path) = if config.post_ln_norm {
            (None, path)
        } else {
            (Some(RmsNorm::of_kind(&(&path / 0), dim, config.rms_norm.into())?), &path / 1)
        };
        let to_logits = (!config.tie_embedding)
            .then(|| Linear::new(&logits_path, dim, num_tokens, Bias::Without))
            .transpose()?;
        let config = config.clone();
        let weights = WeightKind::F32;
        let mut model = Self {
            vs,
            config,
            token_emb,
            blocks,
            final_norm,
            to_logits,
            weights,
            bytes_per_step: 0,
        };
        model.bytes_per_step = model.count_bytes();
        Ok(model)
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
        self.forward_with(ids, Ablation::default())
    }

    /// [`forward`](Self::forward) with ablations for this call.
    pub fn forward_with(&self, ids: &Tensor, ablation: Ablation) -> Result<Tensor, ModelError> {
        self.check_ids(ids, 2)?;
        self.run(ids, ablation)
    }

    /// [`forward_with`](Self::forward_with) for ids that have been checked.
    fn run(&self, ids: &Tensor, ablation: Ablation) -> Result<Tensor, ModelError> {
        let transition = transition_mode(
            ablation.complex.unwrap_or(self.config.ablate_complex),
            ablation.state_transition.unwrap_or(self.config.ablate_state_transition),
        );
        let mut x = self.embed(ids)?;
        for block in &self.blocks {
            x = block.forward(&x, transition)?;
        }
        self.logits(&x)
    }

    /// Mean cross entropy in nats of predicting each token from those before it.
    ///
    /// # Shapes
    /// - `windows`: Int64 [B, T + 1], T >= 1; returns a scalar
    ///
    /// Of a quantised model under [`tch::no_grad`] only.
    pub fn loss(&self, windows: &Tensor) -> Result<Tensor, ModelError> {
        self.loss_with(windows, Ablation::default())
    }

    /// [`loss`](Self::loss) with ablations for this call.
    pub fn loss_with(&self, windows: &Tensor, ablation: Ablation) -> Result<Tensor, ModelError> {
        self.check_windows(windows)?;
        let logits = self.run(&windows.f_narrow(1, 0, windows.size()[1] - 1)?, ablation)?;
        self.cross_entropy(&logits, windows)
    }

    /// [`loss`](Self::loss) of windows that go on from `state`, which is moved past the tokens that are read. The
    /// gradient goes back into `state`, unless it is [`detached`](DecodeState::detached).
    ///
    /// # Shapes
    /// - `windows`: Int64 [B, T + 1], T >= 1; returns a scalar
    pub fn loss_from(
        &self,
        windows: &Tensor,
        state: &mut DecodeState,
    ) -> Result<Tensor, ModelError> {
        self.check_windows(windows)?;
        let len = windows.size()[1];
        let logits = self.prefill_all(&windows.f_narrow(1, 0, len - 1)?, state)?;
        self.cross_entropy(&logits, windows)
    }

    /// Refuses what is no matrix of windows, and weights that cannot be trained where gradients are recorded.
    fn check_windows(&self, windows: &Tensor) -> Result<(), ModelError> {
        if gradients_are_recorded() {
            self.check_trainable()?;
        }
        let [_, len] = windows.size()[..] else { return Err(ids_error(windows, "[B, T + 1]")) };
        if len < 2 {
            return Err(ids_error(windows, "[B, T + 1] with T at least 1"));
        }
        self.check_ids(windows, 2)
    }

    /// Of logits [B, T, V] for all but the first token of windows [B, T + 1].
    fn cross_entropy(&self, logits: &Tensor, windows: &Tensor) -> Result<Tensor, ModelError> {
        let targets = windows.f_narrow(1, 1, windows.size()[1] - 1)?.f_reshape([-1])?;
        let logits = logits.f_reshape([-1, self.config.num_tokens as i64])?;
        Ok(logits.f_cross_entropy_loss(&targets, None::<Tensor>, Reduction::Mean, -100, 0.0)?)
    }

    /// The state before the first token.
    pub fn initial_state(&self, batch: i64) -> DecodeState {
        let layers = self.blocks.iter().map(|block| block.mixer.initial_state(batch)).collect();
        DecodeState { layers }
    }

    /// A state from tensors that [`DecodeState::tensors`] gave; their shapes are checked when it is used.
    pub fn state_from(&self, tensors: &Tensors) -> Result<DecodeState, ModelError> {
        let layer = |(n, block): (usize, &Block)| {
            let part = |part: &str| {
                let tensor = tensors.get(&format!("{n}.{part}"))?;
                tensor.f_to_device(self.device()).ok()
            };
            let problem = || ModelError::State { problem: format!("it lacks layer {n}") };
            block.mixer.layer().state(part).ok_or_else(problem)
        };
        let layers = self.blocks.iter().enumerate().map(layer).collect::<Result<_, _>>()?;
        Ok(DecodeState { layers })
    }

    /// A hash of the configuration and of every parameter: what a state must have been computed with.
    pub fn identity(&self) -> Result<String, ModelError> {
        let mut hash = Sha256::new();
        hash.update(format!("{:?}", self.config));
        for (name, parameter) in self.parameters() {
            let flat = parameter.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
            let mut bytes = vec![0; flat.numel() * flat.kind().elt_size_in_bytes()];
            flat.f_copy_data_u8(&mut bytes, flat.numel())?;
            hash.update(format!("{name}{:?}", flat.size()));
            hash.update(&bytes);
        }
        Ok(hex(&hash.finalize()[..16]))
    }

    /// Reads a piece of text at once and moves `state` to its end.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], T >= 1; returns the logits after the last token, [B, V]
    pub fn prefill(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.logits(&self.read(ids, state)?.f_select(1, -1)?)
    }

    /// [`prefill`](Self::prefill) with the logits after every token.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], T >= 1; returns [B, T, V]
    pub fn prefill_all(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.logits(&self.read(ids, state)?)
    }

    /// The features after every token, [B, T, D].
    fn read(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.check_state(state)?;
        self.check_ids(ids, 2)?;
        let mut x = self.embed(ids)?;
        for (block, state) in self.blocks.iter().zip(&mut state.layers) {
            x = block.feed_forward.forward(&block.mixer.prefill(&x, state)?)?;
        }
        Ok(x)
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

    /// Real numbers in the decoding state of one sequence after `tokens` tokens, at least one.
    pub fn state_len(&self, tokens: i64) -> i64 {
        self.blocks.iter().map(|block| block.mixer.layer().state_len(tokens)).sum()
    }

    fn embed(&self, ids: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(&self.token_emb, ids, -1, false, false)?)
    }

    fn logits(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let normed = self.final_norm.as_ref().map(|norm| norm.forward(x)).transpose()?;
        let x = normed.as_ref().unwrap_or(x);
        match &self.to_logits {
            Some(to_logits) => Ok(to_logits.forward(x)?),
            None => Ok(x.f_linear(&self.token_emb, None::<&Tensor>)?),
        }
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
        if expected != actual {
            let problem = format!("it has {actual} layers, the model has {expected}");
            return Err(ModelError::State { problem });
        }
        let mixers = self.blocks.iter().map(|block| block.mixer.layer());
        if !mixer::fits(mixers, &state.layers) {
            let problem = "its layers are of other kinds".to_owned();
            return Err(ModelError::State { problem });
        }
        Ok(())
    }
}

impl Block {
    fn new(path: &Path<'_>, n: usize, config: &ModelConfig) -> Result<Self, NnError> {
        let dim = config.dim as i64;
        let placement = if config.post_ln_norm {
            NormPlacement::Post
        } else {
            NormPlacement::Pre(config.rms_norm.into())
        };
        let feed_forward =
            FeedForwardConfig { dim, mult: config.ff_mult as i64, gelu: config.gelu.into() };
        let mixer = |path: &Path<'_>| Mixer::new(path, config.layer(n), config);
        Ok(Self {
            mixer: Residual::new(&(path / 0), dim, placement, mixer)?,
            feed_forward: Residual::new(&(path / 1), dim, placement, |p| feed_forward.init(p))?,
        })
    }

    fn forward(&self, x: &Tensor, transition: TransitionMode) -> Result<Tensor, NnError> {
        let mixed = self.mixer.around(x, |mixer, input| mixer.forward_with(input, transition))?;
        self.feed_forward.forward(&mixed)
    }
}
