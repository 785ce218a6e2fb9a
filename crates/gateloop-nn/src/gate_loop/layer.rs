//! The layer: projections, the operator, gates and the decoding state.

mod config;

pub use config::GateLoopConfig;

use super::operator::{Form, Operands, gate_loop, gate_loop_over_ranks};
use super::transition::{StateTransition, TransitionMode, scale_gradient};
use crate::autocast::FullPrecision;
use crate::cuda::{Fused, fused as fused_on_cuda, fused_side_by_side};
use crate::device::on_cpu;
use crate::error::{NnError, Result};
use crate::fused;
use crate::layer::{LayerInput, ONLY_FORWARD, SequenceLayer, sequence_dims, token_dims};
use crate::lean::swish_linear;
use crate::linear::{HasLinears, Linear, Side};
use crate::norm::LayerNorm;
use crate::precision::widen;
use crate::recompute::recompute;
use crate::segments::Segments;
use crate::slices::SequenceRanks;
use gateloop_scan::cuda::Operation;
use gateloop_scan::gate_loop::GateMode;
use std::sync::Arc;
use tch::Tensor;

/// The GateLoop layer of the reference (there `GateLoopedAttention`), with a state for decoding.
#[derive(Debug)]
pub struct GateLoop {
    to_qkv: Linear,
    to_a: Linear,
    to_gates: Option<Linear>,
    sub_ln: Option<LayerNorm>,
    to_out: Option<Linear>,
    dim_inner: i64,
    heads: i64,
    config: GateLoopConfig,
}

/// What a [`GateLoop`] remembers: one head_dim x head_dim complex matrix for each head.
#[derive(Debug)]
pub struct GateLoopState(Option<Tensor>);

impl GateLoopState {
    /// The state, complex [B, H, head_dim, head_dim]; `None` before the first token.
    pub fn tensor(&self) -> Option<&Tensor> {
        self.0.as_ref()
    }

    /// A state from a tensor that [`tensor`](Self::tensor) gave; its shape is checked when used.
    pub fn from_tensor(state: Tensor) -> Self {
        Self(Some(state))
    }
}

impl GateLoop {
    /// The configuration that the layer was built from.
    pub fn config(&self) -> &GateLoopConfig {
        &self.config
    }

    /// Real numbers in the state of one sequence.
    pub fn state_len(&self) -> i64 {
        let head_dim = self.dim_inner / self.heads;
        2 * self.heads * head_dim * head_dim
    }

    /// [`forward`](SequenceLayer::forward) with another transition for this call, an ablation.
    ///
    /// # Shapes
    /// - `input`: [B, T, D], T >= 1; returns [B, T, D]
    pub fn forward_with<'a>(
        &self,
        input: impl Into<LayerInput<'a>>,
        transition: TransitionMode,
    ) -> Result<Tensor> {
        Ok(self.run(input.into(), None, transition)?.0)
    }

    /// ln|a| of every head at every token: how long the layer remembers what it reads.
    ///
    /// # Shapes
    /// - `input`: [B, T, D], T >= 1; returns [B, T, H], never positive
    pub fn log_gate_magnitude<'a>(&self, input: impl Into<LayerInput<'a>>) -> Result<Tensor> {
        let input = input.into();
        let (batch, seqlen) = sequence_dims(input.x, self.config.dim)?;
        let z = widen(&input.project(&[&self.to_a])?.remove(0))?;
        let z = z.f_view([batch, seqlen, self.heads, 2])?;
        let transition = StateTransition::from_pre_activation(&z, self.config.transition)?;
        Ok(transition.log_magnitude().shallow_clone())
    }

    fn run(
        &self,
        input: LayerInput<'_>,
        state: Option<&Tensor>,
        transition: TransitionMode,
    ) -> Result<(Tensor, Tensor)> {
        let (batch, seqlen) = sequence_dims(input.x, self.config.dim)?;
        input.segments.map_or(Ok(()), |segments| segments.check(input.x))?;
        let sides = self.sides();
        if let Some(projected) = input.side_by_side(&sides)? {
            return self.run_side_by_side(&projected, state, transition, input);
        }
        let maps: Vec<&Linear> = sides.iter().map(|side| side.map).collect();
        let projected = input.project(&maps)?;
        let z = &projected[1];
        let z = scale_gradient(z, self.config.frac_gradient_state_transition)?;
        let (y, state) = if self.is_fused() && on_cpu(input.x) {
            let qkv = self.with_keys(&projected[0])?;
            let gates = projected.get(2).filter(|_| state.is_none());
            if let Some(outputs) = self.run_gated(&qkv, &z, gates, transition, input)? {
                return Ok(outputs);
            }
            self.run_fused(&qkv, &z, state, transition, input)?
        } else {
            let z = z.f_view([batch, seqlen, self.heads, 2])?;
            let qkv = self.with_keys(&projected[0])?.f_chunk(3, -1)?;
            self.run_apart(&qkv, &z, state, transition, input)?
        };
        Ok((self.finish(y, projected.get(2))?, state))
    }

    /// What is projected, in the order in which it lies side by side.
    fn sides(&self) -> Vec<Side<'_>> {
        let fraction = self.config.frac_gradient_state_transition;
        let gates = self.to_gates.iter().map(|map| Side { map, fraction: 1.0 });
        [Side { map: &self.to_qkv, fraction: 1.0 }, Side { map: &self.to_a, fraction }]
            .into_iter()
            .chain(gates)
            .collect()
    }

    /// What follows the operator.
    fn finish(&self, mut y: Tensor, gates: Option<&Tensor>) -> Result<Tensor> {
        if let Some(norm) = &self.sub_ln {
            y = norm.forward(&y)?;
        }
        match (&self.to_out, gates) {
            (Some(out), Some(gates)) => swish_linear(&y, gates, out),
            (Some(out), None) => out.forward(&y),
            // A gated layer always has an output projection.
            (None, _) => Ok(y),
        }
    }

    /// The layer after its projections, which one product has written.
    fn run_side_by_side(
        &self,
        projected: &Tensor,
        state: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let (batch, seqlen) = sequence_dims(input.x, self.config.dim)?;
        let whole = self.is_fused()
            && self.dim_inner % 2 == 0
            && !self.config.direct_kv
            && self.sub_ln.is_none()
            && input.ranks.is_none();
        if whole {
            let state = state.map(|state| self.flat_state(state, batch)).transpose()?;
            let operator = on_cuda(transition, input);
            let gated = self.to_gates.is_some();
            let (y, last) = fused_side_by_side(operator, projected, gated, state.as_ref())?;
            let y = match &self.to_out {
                Some(out) => out.forward(&y)?,
                None => y,
            };
            return Ok((y, last.f_view([batch, self.heads, 1, 1])?));
        }
        // All in one go: each cut more would copy gradients together once more.
        let qkv = if self.config.direct_kv { 2 } else { 3 };
        let mut widths = vec![self.dim_inner; qkv];
        widths.push(2 * self.heads);
        widths.extend(self.to_gates.as_ref().map(|_| self.dim_inner));
        let mut parts = projected.f_split_with_sizes(widths, -1)?;
        let mut others = parts.split_off(qkv).into_iter();
        if self.config.direct_kv {
            parts.insert(1, parts[0].f_ones_like()?);
        }
        let z = others.next().ok_or_else(|| NnError::Function {
            message: "the projections were cut into too few parts".into(),
        })?;
        let z = z.f_view([batch, seqlen, self.heads, 2])?;
        let (y, state) = self.run_apart(&parts, &z, state, transition, input)?;
        Ok((self.finish(y, others.next().as_ref())?, state))
    }

    /// The operator on operands that lie apart, elsewhere than in the kernels of the CPU.
    fn run_apart(
        &self,
        qkv: &[Tensor],
        z: &Tensor,
        state: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        if self.is_fused() {
            self.run_on_cuda(qkv, z, state, transition, input)
        } else {
            self.run_in_parts(qkv, z, state, transition, input)
        }
    }

    /// q, k and v side by side, with keys of one beside what was projected directly.
    fn with_keys(&self, projected: &Tensor) -> Result<Tensor> {
        if !self.config.direct_kv {
            return Ok(projected.shallow_clone());
        }
        let parts = projected.f_chunk(2, -1)?;
        Ok(Tensor::f_cat(&[&parts[0], &parts[0].f_ones_like()?, &parts[1]], -1)?)
    }

    /// Whether one kernel does it all: where a state is one number.
    fn is_fused(&self) -> bool {
        self.heads == self.dim_inner && matches!(self.config.form, Form::Auto | Form::Scan)
    }

    /// The state [B, H, 1, 1] as [B, H].
    fn flat_state(&self, state: &Tensor, batch: i64) -> Result<Tensor> {
        let expected = [batch, self.heads, 1, 1];
        if state.size() != expected {
            let (operand, expected) = ("state", format!("{expected:?}"));
            return Err(NnError::Shape { operand, expected, actual: state.size() });
        }
        Ok(state.f_view([batch, self.heads])?)
    }

    /// Operator, gates and output projection as one, from a state of zero, where that keeps less for the backward pass.
    fn run_gated(
        &self,
        qkv: &Tensor,
        z: &Tensor,
        gates: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<Option<(Tensor, Tensor)>> {
        let (Some(gates), Some(out), None, None) = (gates, &self.to_out, &self.sub_ln, input.ranks)
        else {
            return Ok(None);
        };
        let options = fused_options(transition, input);
        let outputs = fused::gated_gate_loop([qkv, z, gates], out, options)?;
        let with_dims = |(y, last): (Tensor, Tensor)| {
            let batch = z.size()[0];
            Ok((y, last.f_view([batch, self.heads, 1, 1])?))
        };
        outputs.map(with_dims).transpose()
    }

    fn run_fused(
        &self,
        qkv: &Tensor,
        z: &Tensor,
        state: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let kind = qkv.kind();
        let options = fused_options(transition, input);
        let batch = z.size()[0];
        let state = state.map(|state| self.flat_state(state, batch)).transpose()?;
        let (y, last) = fused::gate_loop(&widen(qkv)?, &widen(z)?, state.as_ref(), options)?;
        Ok((y.f_to_kind(kind)?, last.f_view([batch, self.heads, 1, 1])?))
    }

    fn run_on_cuda(
        &self,
        qkv: &[Tensor],
        z: &Tensor,
        state: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let operator = on_cuda(transition, input);
        let batch = z.size()[0];
        let state = state.map(|state| self.flat_state(state, batch)).transpose()?;
        let inputs = [&qkv[0], &qkv[1], &qkv[2], z];
        let (y, last) = fused_on_cuda(operator, &inputs, state.as_ref())?;
        Ok((y, last.f_view([batch, self.heads, 1, 1])?))
    }

    /// The operator as libtorch's own operations around a scan.
    fn run_in_parts(
        &self,
        qkv: &[Tensor],
        z: &Tensor,
        state: Option<&Tensor>,
        transition: TransitionMode,
        input: LayerInput<'_>,
    ) -> Result<(Tensor, Tensor)> {
        let form = self.config.form;
        let starts = input.segments.map(|segments| segments.mask().shallow_clone());
        let ranks = input.ranks.cloned();
        let inputs: Vec<&Tensor> = qkv.iter().chain([z]).chain(state).collect();
        if self.config.recompute && inputs.iter().any(|input| input.requires_grad()) {
            // Flags have no gradient; as an input of the function they are shared between threads.
            let flags = usize::from(starts.is_some());
            let inputs: Vec<&Tensor> = starts.iter().chain(inputs).collect();
            let run = move |inputs: &[Tensor]| {
                let (flags, inputs) = inputs.split_at(flags);
                let (y, last) = operator(inputs, transition, form, flags.first(), ranks.as_ref())?;
                Ok([y, last])
            };
            let [y, last] = recompute(run, &inputs)?;
            return Ok((y, last));
        }
        let inputs: Vec<Tensor> = inputs.into_iter().map(Tensor::shallow_clone).collect();
        operator(&inputs, transition, form, starts.as_ref(), input.ranks)
    }
}

/// How the operator of one kernel on a CPU is run.
fn fused_options(transition: TransitionMode, input: LayerInput<'_>) -> fused::Options {
    fused::Options {
        mode: gate_mode(transition),
        reverse: false,
        segment_starts: input.segments.map(Segments::shared_starts),
        ranks: input.ranks.cloned(),
    }
}

/// The operator of one kernel on a GPU.
fn on_cuda(transition: TransitionMode, input: LayerInput<'_>) -> Fused {
    Fused {
        operation: Operation::GateLoop,
        mode: gate_mode(transition),
        reverse: false,
        segment_starts: input.segments.map(Segments::shared_starts),
        ranks: input.ranks.cloned(),
    }
}

fn gate_mode(transition: TransitionMode) -> GateMode {
    match transition {
        TransitionMode::Complex => GateMode::Complex,
        TransitionMode::Real => GateMode::Real,
        TransitionMode::Identity => GateMode::Identity,
    }
}

/// y and the last state, from q, k, v, z and, if there is one, the state.
/// `starts`, Bool [B, T], is where sequences begin inside; with `ranks` there is no state.
fn operator(
    inputs: &[Tensor],
    transition: TransitionMode,
    form: Form,
    starts: Option<&Tensor>,
    ranks: Option<&Arc<dyn SequenceRanks>>,
) -> Result<(Tensor, Tensor)> {
    // Under autocast the projections are in a low precision, the operator is not.
    let _full = FullPrecision::new();
    let (q, k, v) = (widen(&inputs[0])?, widen(&inputs[1])?, widen(&inputs[2])?);
    let mut transition = StateTransition::from_pre_activation(&widen(&inputs[3])?, transition)?;
    if let Some(starts) = starts {
        transition = transition.forgetting_at(starts)?;
    }
    let operands = Operands { q: &q, k: &k, v: &v, transition: &transition };
    let (y, last) = match ranks {
        Some(ranks) => gate_loop_over_ranks(&operands, form, ranks)?,
        None => gate_loop(&operands, inputs.get(4), form)?,
    };
    Ok((y.f_to_kind(inputs[0].kind())?, last))
}

impl HasLinears for GateLoop {
    fn linears_mut(&mut self) -> Vec<&mut Linear> {
        let Self { to_qkv, to_a, to_gates, to_out, .. } = self;
        [to_qkv, to_a].into_iter().chain(to_gates).chain(to_out).collect()
    }
}

impl SequenceLayer for GateLoop {
    type State = GateLoopState;

    fn initial_state(&self, _batch: i64) -> GateLoopState {
        GateLoopState(None)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_with(x, self.config.transition)
    }

    fn forward_of(&self, input: LayerInput<'_>) -> Result<Tensor> {
        self.forward_with(input, self.config.transition)
    }

    fn prefill(&self, x: &Tensor, state: &mut GateLoopState) -> Result<Tensor> {
        self.prefill_of(x.into(), state)
    }

    fn prefill_of(&self, input: LayerInput<'_>, state: &mut GateLoopState) -> Result<Tensor> {
        input.without_ranks(ONLY_FORWARD)?;
        let (y, next) = self.run(input, state.0.as_ref(), self.config.transition)?;
        state.0 = Some(next);
        Ok(y)
    }

    fn step(&self, x: &Tensor, state: &mut GateLoopState) -> Result<Tensor> {
        self.step_of(x.into(), state)
    }

    fn step_of(&self, input: LayerInput<'_>, state: &mut GateLoopState) -> Result<Tensor> {
        input.without_segments()?;
        token_dims(input.x, self.config.dim)?;
        let x = input.x.f_unsqueeze(1)?;
        Ok(self.prefill_of(input.with_tensor(&x), state)?.f_squeeze_dim(1)?)
    }
}

#[cfg(test)]
mod tests;
