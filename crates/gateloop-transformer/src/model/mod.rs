//! The language model: embedding, blocks of a mixer and a feed-forward, logits.

mod block;
mod error;
mod gates;
mod loss;
mod mixer;
mod quantize;

pub use error::ModelError;
pub use loss::LossInput;
pub use mixer::LayerState;

use crate::config::ModelConfig;
use crate::hex::hex;
use crate::weights::Tensors;
use block::{Block, Reading};
use error::ids_error;
use gateloop_nn::autograd::gradients_are_recorded;
use gateloop_nn::{Bias, Linear, RmsNorm, Segments, SequenceLayer, SequenceRanks, WeightKind};
use mixer::{Mixer, transition_mode};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tch::nn::{Init, VarStore};
use tch::{Device, Kind, Tensor};

/// A GateLoop language model with its parameters.
#[derive(Debug)]
pub struct Model {
    vs: VarStore,
    config: ModelConfig,
    token_emb: Tensor,
    blocks: Vec<Arc<Block>>,
    /// Those of each block, to compute it again in the backward pass; none if that is not to be done.
    recomputed: Vec<Vec<Tensor>>,
    final_norm: Option<RmsNorm>,
    /// None where the embedding makes the logits.
    to_logits: Option<Linear>,
    weights: WeightKind,
    bytes_per_step: usize,
}

/// libtorch has one random generator for the process: a model that is built beside another must not
/// take numbers from the other's seed.
static INITIALISING: Mutex<()> = Mutex::new(());

/// What the model remembers while it decodes: one state for each layer, and one more, before it, for a gate loop in
/// front of attention. Those of gate loops do not grow with the number of tokens, those of attention do, up to its window.
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
    /// `LAYER.keys`, `LAYER.values`, `LAYER.tokens`. None before the first token.
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
            .map(|n| Block::new(&(&root / "layers" / n), n, config).map(Arc::new))
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
            recomputed: Vec::new(),
            final_norm,
            to_logits,
            weights,
            bytes_per_step: 0,
        };
        model.bytes_per_step = model.count_bytes()?;
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
        self.run(ids, ablation, None, None)
    }

    /// [`forward`](Self::forward) of several texts packed into each row, which know nothing of one another.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], like the segments; returns [B, T, V]
    pub fn forward_packed(
        &self,
        ids: &Tensor,
        segments: &Arc<Segments>,
    ) -> Result<Tensor, ModelError> {
        self.check_ids(ids, 2)?;
        self.run(ids, Ablation::default(), Some(segments), None)
    }

    /// [`forward`](Self::forward) of this rank's slice of texts that several ranks have together, packed or not. Collective
    /// among them.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], the slice; returns [B, T, V]
    pub fn forward_slice(
        &self,
        ids: &Tensor,
        segments: Option<&Arc<Segments>>,
        ranks: &Arc<dyn SequenceRanks>,
    ) -> Result<Tensor, ModelError> {
        self.check_ids(ids, 2)?;
        self.run(ids, Ablation::default(), segments, Some(ranks))
    }

    /// [`forward_with`](Self::forward_with) for ids that have been checked.
    fn run(
        &self,
        ids: &Tensor,
        ablation: Ablation,
        segments: Option<&Arc<Segments>>,
        ranks: Option<&Arc<dyn SequenceRanks>>,
    ) -> Result<Tensor, ModelError> {
        let transition = transition_mode(
            ablation.complex.unwrap_or(self.config.ablate_complex),
            ablation.state_transition.unwrap_or(self.config.ablate_state_transition),
        );
        let reading = Reading { transition, segments, ranks };
        let mut x = self.embed(ids)?;
        for (n, block) in self.blocks.iter().enumerate() {
            x = match self.recomputed.get(n) {
                Some(parameters) if gradients_are_recorded() => {
                    block.recomputed(&x, reading, parameters)?
                }
                _ => block.forward(&x, reading)?,
            };
        }
        self.logits(&x)
    }

    /// Whether layers are computed again in the backward pass of whole sequences, rather than kept: the same numbers,
    /// to within rounding, for less memory and more time.
    pub fn set_recompute(&mut self, recompute: bool) {
        let parameters = self.parameters();
        let of_block = |n: usize| -> Vec<Tensor> {
            let prefix = format!("layers.{n}.");
            let own = parameters.iter().filter(|(name, _)| name.starts_with(&prefix));
            own.map(|(_, parameter)| parameter.shallow_clone()).collect()
        };
        let blocks = if recompute { self.blocks.len() } else { 0 };
        self.recomputed = (0..blocks).map(of_block).collect();
    }

    /// The state before the first token.
    pub fn initial_state(&self, batch: i64) -> DecodeState {
        let layers = self.mixers().map(|mixer| mixer.initial_state(batch)).collect();
        DecodeState { layers }
    }

    /// What has a state, in the order of the states.
    fn mixers(&self) -> impl Iterator<Item = &Mixer> {
        self.blocks.iter().flat_map(|block| block.mixers())
    }

    /// The blocks with their states.
    fn with_states<'a>(
        &'a self,
        state: &'a mut DecodeState,
    ) -> impl Iterator<Item = (&'a Block, &'a mut [LayerState])> {
        let mut rest = state.layers.as_mut_slice();
        self.blocks.iter().map(move |block| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(block.mixers().count());
            rest = others;
            (block.as_ref(), own)
        })
    }

    /// A state from tensors that [`DecodeState::tensors`] gave; their shapes are checked when it is used.
    pub fn state_from(&self, tensors: &Tensors) -> Result<DecodeState, ModelError> {
        let layer = |(n, mixer): (usize, &Mixer)| {
            let part = |part: &str| {
                let tensor = tensors.get(&format!("{n}.{part}"))?;
                tensor.f_to_device(self.device()).ok()
            };
            let problem = || ModelError::State { problem: format!("it lacks layer {n}") };
            mixer.state(part).ok_or_else(problem)
        };
        let layers = self.mixers().enumerate().map(layer).collect::<Result<_, _>>()?;
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
        self.logits(&self.read(ids, state, None)?.f_select(1, -1)?)
    }

    /// [`prefill`](Self::prefill) with the logits after every token.
    ///
    /// # Shapes
    /// - `ids`: Int64 [B, T], T >= 1; returns [B, T, V]
    pub fn prefill_all(&self, ids: &Tensor, state: &mut DecodeState) -> Result<Tensor, ModelError> {
        self.logits(&self.read(ids, state, None)?)
    }

    /// [`prefill_all`](Self::prefill_all) of texts that begin inside; the state goes into the first one of each row.
    ///
    /// # Errors
    /// If there are such texts and the model has attention, whose state cannot begin anew in the middle of a row.
    pub fn prefill_packed(
        &self,
        ids: &Tensor,
        state: &mut DecodeState,
        segments: Option<&Arc<Segments>>,
    ) -> Result<Tensor, ModelError> {
        self.logits(&self.read(ids, state, segments)?)
    }

    /// The features after every token, [B, T, D].
    fn read(
        &self,
        ids: &Tensor,
        state: &mut DecodeState,
        segments: Option<&Arc<Segments>>,
    ) -> Result<Tensor, ModelError> {
        self.check_state(state)?;
        self.check_ids(ids, 2)?;
        let mut x = self.embed(ids)?;
        for (block, states) in self.with_states(state) {
            x = block.prefill(&x, states, segments.map(Arc::as_ref))?;
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
        for (block, states) in self.with_states(state) {
            x = block.step(&x, states)?;
        }
        self.logits(&x)
    }

    /// Real numbers in the decoding state of one sequence after `tokens` tokens, at least one.
    pub fn state_len(&self, tokens: i64) -> i64 {
        self.mixers().map(|mixer| mixer.state_len(tokens)).sum()
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
        let (expected, actual) = (self.mixers().count(), state.layers.len());
        if expected != actual {
            let problem = format!("it has {actual} layers, the model has {expected}");
            return Err(ModelError::State { problem });
        }
        if !self.mixers().zip(&state.layers).all(|(mixer, state)| mixer.fits(state)) {
            let problem = "its layers are of other kinds".to_owned();
            return Err(ModelError::State { problem });
        }
        Ok(())
    }
}
