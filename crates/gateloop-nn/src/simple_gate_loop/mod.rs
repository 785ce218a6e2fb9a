//! The simplified layer: a real gate for every feature and no heads.

mod heinsen;

use crate::cuda::{Fused, fused as fused_on_cuda, fused_side_by_side};
use crate::device::{on_cpu, on_gpu};
use crate::error::{NnError, Result};
use crate::fused;
use crate::layer::{LayerInput, ONLY_FORWARD, SequenceLayer, sequence_dims, token_dims};
use crate::linear::{Bias, HasLinears, Linear};
use crate::norm::{LayerNorm, RmsNorm};
use crate::precision::widen;
use crate::scan::{ScanOptions, scan_over_ranks, scan_with};
use crate::segments::Segments;
use gateloop_scan::Algorithm;
use gateloop_scan::cuda::Operation;
use gateloop_scan::gate_loop::GateMode;
use tch::Tensor;
use tch::nn::Path;

/// A [`SimpleGateLoop`] to be built; the defaults are the reference's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimpleGateLoopConfig {
    /// Features of a token, D.
    pub dim: i64,
    /// Whether an RMSNorm comes first.
    pub prenorm: bool,
    /// Whether a LayerNorm comes last.
    pub post_ln: bool,
    /// Whether time runs from the last token to the first; such a layer cannot decode.
    pub reverse: bool,
    /// How the recurrence is computed.
    pub engine: Engine,
}

/// How a [`SimpleGateLoop`] computes its recurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// By a scan; on the CPU by this algorithm. All compute the same function, `Heinsen` too, and the
    /// gradient is exact with each of them.
    Scan(Algorithm),
    /// The reference's `use_heinsen` with its faults: the scan in log space, differentiated through
    /// the logarithms. Inputs of exactly 0 have a wrong gradient, long sequences an inexact one.
    HeinsenAsReference,
}

impl Default for Engine {
    fn default() -> Self {
        Self::Scan(Algorithm::Auto)
    }
}

impl SimpleGateLoopConfig {
    /// The reference's defaults for a dimension.
    pub fn new(dim: i64) -> Self {
        Self { dim, prenorm: true, post_ln: false, reverse: false, engine: Engine::default() }
    }

    /// Registers `norm.gamma`, `to_qkva.0.weight` and `maybe_post_ln.{weight,bias}` under `path`,
    /// the reference's names.
    pub fn init(&self, path: &Path<'_>) -> Result<SimpleGateLoop> {
        if self.dim < 1 {
            let problem = format!("{} is given, but at least 1 is needed", self.dim);
            return Err(NnError::Config { key: "dim", problem });
        }
        let norm = self.prenorm.then(|| RmsNorm::new(&(path / "norm"), self.dim));
        let post_ln = self.post_ln.then(|| LayerNorm::new(&(path / "maybe_post_ln"), self.dim));
        Ok(SimpleGateLoop {
            norm: norm.transpose()?,
            to_qkva: Linear::new(&(path / "to_qkva" / 0), self.dim, 3 * self.dim, Bias::Without)?,
            post_ln: post_ln.transpose()?,
            config: self.clone(),
        })
    }
}

/// `q, kv, z = W x`; `h[t] = sigmoid(z[t]) h[t-1] + kv[t]`; `y = q h`. There is no shortcut inside.
#[derive(Debug)]
pub struct SimpleGateLoop {
    norm: Option<RmsNorm>,
    to_qkva: Linear,
    post_ln: Option<LayerNorm>,
    config: SimpleGateLoopConfig,
}

/// What a [`SimpleGateLoop`] remembers: one number for each feature.
#[derive(Debug)]
pub struct SimpleGateLoopState(Option<Tensor>);

impl SimpleGateLoopState {
    /// The state, [B, D]; `None` before the first token.
    pub fn tensor(&self) -> Option<&Tensor> {
        self.0.as_ref()
    }

    /// A state from a tensor that [`tensor`](Self::tensor) gave; its shape is checked when used.
    pub fn from_tensor(state: Tensor) -> Self {
        Self(Some(state))
    }
}

impl SimpleGateLoop {
    /// The configuration that the layer was built from.
    pub fn config(&self) -> &SimpleGateLoopConfig {
        &self.config
    }

    /// Real numbers in the state of one sequence.
    pub fn state_len(&self) -> i64 {
        self.config.dim
    }

    /// ln of the gate of every feature at every token: how long the layer remembers what it reads.
    ///
    /// # Shapes
    /// - `input`: [B, T, D], T >= 1; returns [B, T, D], never positive
    pub fn log_gate_magnitude<'a>(&self, input: impl Into<LayerInput<'a>>) -> Result<Tensor> {
        let z = self.project(input.into())?.f_narrow(-1, 2 * self.config.dim, self.config.dim)?;
        Ok(widen(&z)?.f_log_sigmoid()?)
    }

    /// q, kv and z side by side, [B, T, 3 D].
    fn project(&self, input: LayerInput<'_>) -> Result<Tensor> {
        sequence_dims(input.x, self.config.dim)?;
        input.segments.map_or(Ok(()), |segments| segments.check(input.x))?;
        let maps = [&self.to_qkva];
        let mut packed = match &self.norm {
            Some(norm) => LayerInput::normed(norm, &input.tensor()?).project(&maps)?,
            None => input.project(&maps)?,
        };
        Ok(packed.remove(0))
    }

    fn run(&self, input: LayerInput<'_>, state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let packed = self.project(input)?;
        if self.is_fused() && on_cpu(&packed) {
            let (y, h_last) = self.run_fused(&packed, state, input)?;
            return self.finish(y, h_last);
        }
        if matches!(self.config.engine, Engine::Scan(_)) && on_gpu(&packed) {
            let (y, h_last) = self.run_on_cuda(&packed, state, input)?;
            return self.finish(y, h_last);
        }
        let projected = packed.f_chunk(3, -1)?;
        let (q, kv, z) = (&projected[0], &projected[1], &projected[2]);
        let (y, h_last) = match self.config.engine {
            Engine::Scan(algorithm) => self.run_scan(algorithm, [q, kv, z], state, input)?,
            Engine::HeinsenAsReference if input.segments.is_some() => {
                let problem = "the reference's log-space scan knows no sequences that begin inside";
                return Err(NnError::Config { key: "use_heinsen", problem: problem.into() });
            }
            Engine::HeinsenAsReference if input.ranks.is_some() => {
                let problem = "the reference's log-space scan cannot be split over ranks";
                return Err(NnError::Config { key: "use_heinsen", problem: problem.into() });
            }
            Engine::HeinsenAsReference => {
                let (h, h_last) = heinsen::scan(&z.f_sigmoid()?, kv, state, self.config.reverse)?;
                (q.f_mul(&h)?, h_last)
            }
        };
        self.finish(y, h_last)
    }

    /// Whether one kernel does it all.
    fn is_fused(&self) -> bool {
        matches!(self.config.engine, Engine::Scan(Algorithm::Auto | Algorithm::Chunked))
    }

    fn run_fused(
        &self,
        packed: &Tensor,
        state: Option<&Tensor>,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (mode, reverse) = (GateMode::default(), self.config.reverse);
        let segment_starts = input.segments.map(Segments::shared_starts);
        let ranks = input.ranks.cloned();
        let options = fused::Options { mode, reverse, segment_starts, ranks };
        let (y, h_last) = fused::simple_gate_loop(&widen(packed)?, state, options)?;
        Ok((y.f_to_kind(packed.kind())?, h_last))
    }

    fn run_on_cuda(
        &self,
        packed: &Tensor,
        state: Option<&Tensor>,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (operation, mode) = (Operation::SimpleGateLoop, GateMode::default());
        let segment_starts = input.segments.map(Segments::shared_starts);
        let (reverse, ranks) = (self.config.reverse, input.ranks.cloned());
        let operator = Fused { operation, mode, reverse, segment_starts, ranks };
        if input.ranks.is_none() {
            return fused_side_by_side(operator, packed, false, state);
        }
        let projected = packed.f_chunk(3, -1)?;
        fused_on_cuda(operator, &projected.iter().collect::<Vec<_>>(), state)
    }

    fn run_scan(
        &self,
        algorithm: Algorithm,
        [q, kv, z]: [&Tensor; 3],
        state: Option<&Tensor>,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let segment_starts = input.segments.map(|segments| segments.starts().to_vec());
        let options = ScanOptions { algorithm, reverse: self.config.reverse, segment_starts };
        let (a, kv) = (widen(z)?.f_sigmoid()?, widen(kv)?);
        let (h, h_last) = match input.ranks {
            Some(ranks) => {
                let slice = scan_over_ranks(&a, &kv, state, &options, ranks)?;
                (slice.h, slice.h_last)
            }
            None => scan_with(&a, &kv, state, &options)?,
        };
        Ok((q.f_mul(&h)?.f_to_kind(q.kind())?, h_last))
    }

    fn finish(&self, y: Tensor, h_last: Tensor) -> Result<(Tensor, Tensor)> {
        match &self.post_ln {
            Some(norm) => Ok((norm.forward(&y)?, h_last)),
            None => Ok((y, h_last)),
        }
    }
}

impl HasLinears for SimpleGateLoop {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        vec![&mut self.to_qkva]
    }
}

impl SequenceLayer for SimpleGateLoop {
    type State = SimpleGateLoopState;

    fn initial_state(&self, _batch: i64) -> SimpleGateLoopState {
        SimpleGateLoopState(None)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_of(x.into())
    }

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        Ok(self.run(input, None)?.0)
    }

    fn prefill(&self, x: &Tensor, state: &mut SimpleGateLoopState) -> Result<Tensor> {
        self.prefill_of(x.into(), state)
    }

    fn prefill_of(&self, input: LayerInput<'_>, state: &mut SimpleGateLoopState) -> Result<Tensor> {
        if self.config.reverse {
            let problem = "a reversed layer sees the future and has no state to go on from: use \
                           `forward`";
            return Err(NnError::Config { key: "reverse", problem: problem.into() });
        }
        input.without_ranks(ONLY_FORWARD)?;
        let (y, next) = self.run(input, state.0.as_ref())?;
        state.0 = Some(next);
        Ok(y)
    }

    fn step(&self, x: &Tensor, state: &mut SimpleGateLoopState) -> Result<Tensor> {
        self.step_of(x.into(), state)
    }

    fn step_of(&self, input: LayerInput<'_>, state: &mut SimpleGateLoopState) -> Result<Tensor> {
        input.without_segments()?;
        token_dims(input.x, self.config.dim)?;
        let x = input.x.f_unsqueeze(1)?;
        Ok(self.prefill_of(input.with_tensor(&x), state)?.f_squeeze_dim(1)?)
    }
}
