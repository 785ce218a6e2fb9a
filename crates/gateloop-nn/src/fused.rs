//! The fused operators of CPU tensors: gate, scan and readout in one pass over what the projections
//! wrote; the backward pass computes the states again, so that training keeps the projections only.

mod gated;
mod slice;

pub(crate) use gated::gated_gate_loop;

use crate::autograd::{Function, Saved};
use crate::elements::{Elements, Output, TensorElement};
use crate::error::{NnError, Result};
use crate::slices::{self, SequenceRanks};
use crate::threads::TorchThreads;
use gateloop_scan::gate_loop::{
    GateLoop, GateLoopGrads, GateMode, Real, Rows, RowsMut, SimpleGateLoop, SimpleGateLoopGrads,
    States, Upstream,
};
use gateloop_scan::{Complex, ScanElement, ScanShape};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// How a fused operator is to be run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// How the decay is computed from z.
    pub(crate) mode: GateMode,
    /// Whether time runs from the last token to the first.
    pub(crate) reverse: bool,
    /// Where sequences begin inside, [B, T] in row-major order.
    pub(crate) segment_starts: Option<Arc<[bool]>>,
    /// The ranks that share the sequence, if there are several.
    pub(crate) ranks: Option<Arc<dyn SequenceRanks>>,
}

/// GateLoop with heads of width 1: `y` and the last state.
///
/// # Shapes
/// - `qkv`: [B, T, 3 C], q, k and v side by side; `z`: [B, T, 2 C], pairs
/// - `state`: complex [B, C]
/// - returns `y` [B, T, C] and the last state, complex [B, C]
pub(crate) fn gate_loop(
    qkv: &Tensor,
    z: &Tensor,
    state: Option<&Tensor>,
    options: Options,
) -> Result<(Tensor, Tensor)> {
    let function = FusedFunction { shape: shape(qkv)?, options, is_complex: true };
    function.apply(&[qkv, z], state)
}

/// SimpleGateLoop: `y` and the last state.
///
/// # Shapes
/// - `packed`: [B, T, 3 C], q, kv and z side by side
/// - `state`: [B, C]
/// - returns `y` [B, T, C] and the last state [B, C]
pub(crate) fn simple_gate_loop(
    packed: &Tensor,
    state: Option<&Tensor>,
    options: Options,
) -> Result<(Tensor, Tensor)> {
    let shape = shape(packed)?;
    if let Some(state) = state {
        let expected = [shape.batch as i64, shape.channels as i64];
        if state.size() != expected {
            let (operand, expected) = ("state", format!("{expected:?}"));
            return Err(NnError::Shape { operand, expected, actual: state.size() });
        }
    }
    let function = FusedFunction { shape, options, is_complex: false };
    function.apply(&[packed], state)
}

fn shape(packed: &Tensor) -> Result<ScanShape> {
    match packed.size()[..] {
        [batch, seqlen, width] if width % 3 == 0 => {
            Ok(ScanShape::new(batch as usize, seqlen as usize, width as usize / 3)?)
        }
        _ => Err(NnError::Shape {
            operand: "packed",
            expected: "[B, T, 3 C]".into(),
            actual: packed.size(),
        }),
    }
}

struct FusedFunction {
    shape: ScanShape,
    options: Options,
    is_complex: bool,
}

/// What was saved, in this order: the projections, the checkpoints, and the state if there was one.
struct Kept<'s> {
    inputs: &'s [Tensor],
    checkpoints: &'s Tensor,
    state: Option<&'s Tensor>,
}

impl FusedFunction {
    fn apply(self, inputs: &[&Tensor], state: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        let ranks = self.options.ranks.clone();
        let mut outputs = slices::apply(self, inputs, state, ranks.as_ref())?.into_iter();
        match (outputs.next(), outputs.next()) {
            (Some(y), Some(last)) => Ok((y, last)),
            _ => Err(NnError::Function { message: "the operator returned too few outputs".into() }),
        }
    }

    /// `y` and the last state; the checkpoints, if they are wanted.
    fn run(&self, inputs: &[Tensor], wants_checkpoints: bool) -> Result<Ran> {
        match (inputs[0].kind(), self.is_complex) {
            (Kind::Float, true) => self.run_complex::<f32>(inputs, wants_checkpoints),
            (Kind::Double, true) => self.run_complex::<f64>(inputs, wants_checkpoints),
            (Kind::Float, false) => self.run_simple::<f32>(inputs, wants_checkpoints),
            (Kind::Double, false) => self.run_simple::<f64>(inputs, wants_checkpoints),
            (actual, _) => Err(kind_error(actual)),
        }
    }

    /// The gradients of the projections and, if there was one, of the state.
    fn gradients(
        &self,
        kept: &Kept<'_>,
        dy: Option<&Tensor>,
        dh_last: Option<&Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let packed = &kept.inputs[0];
        let dy = self.gradient_or_zeros(dy, packed)?;
        match (packed.kind(), self.is_complex) {
            (Kind::Float, true) => self.adjoint_complex::<f32>(kept, &dy, dh_last),
            (Kind::Double, true) => self.adjoint_complex::<f64>(kept, &dy, dh_last),
            (Kind::Float, false) => self.adjoint_simple::<f32>(kept, &dy, dh_last),
            (Kind::Double, false) => self.adjoint_simple::<f64>(kept, &dy, dh_last),
            (actual, _) => Err(kind_error(actual)),
        }
    }

    fn projections(&self) -> usize {
        if self.is_complex { 2 } else { 1 }
    }

    /// [B, T, `width` C]
    fn wide(&self, width: usize) -> Result<ScanShape> {
        let ScanShape { batch, seqlen, channels, .. } = self.shape;
        Ok(ScanShape::new(batch, seqlen, width * channels)?)
    }

    fn state_dims(&self) -> [i64; 2] {
        [self.shape.batch as i64, self.shape.channels as i64]
    }

    /// The gradient of y, for the projections.
    fn gradient_or_zeros(&self, dy: Option<&Tensor>, packed: &Tensor) -> Result<Tensor> {
        if let Some(dy) = dy {
            return Ok(dy.shallow_clone());
        }
        let ScanShape { batch, seqlen, channels, .. } = self.shape;
        let dims = [batch as i64, seqlen as i64, channels as i64];
        Ok(Tensor::f_zeros(dims, (packed.kind(), packed.device()))?)
    }

    fn run_complex<R: TensorReal>(&self, inputs: &[Tensor], wants_checkpoints: bool) -> Result<Ran>
    where
        Complex<R>: TensorElement,
    {
        let (qkv, z) = (Elements::of::<R>("qkv", &inputs[0])?, Elements::of::<R>("z", &inputs[1])?);
        let h0 = inputs.get(2).map(|h0| Elements::of::<Complex<R>>("state", h0)).transpose()?;
        let mut operator = self.complex_operator(&qkv, &z)?;
        if let Some(h0) = &h0 {
            operator = operator.with_initial_state(h0.slice())?;
        }
        let checkpoints = wants_checkpoints.then(|| operator.checkpoints_len());
        let mut outputs = Outputs::<R, Complex<R>>::new(self, checkpoints)?;
        let (y, states) = outputs.places(self.shape)?;
        operator.forward_into(y, states)?;
        Ok(outputs.finish())
    }

    fn run_simple<R: TensorReal>(&self, inputs: &[Tensor], wants_checkpoints: bool) -> Result<Ran> {
        let packed = Elements::of::<R>("packed", &inputs[0])?;
        let h0 = inputs.get(1).map(|h0| Elements::of::<R>("state", h0)).transpose()?;
        let mut operator = self.simple_operator(&packed)?;
        if let Some(h0) = &h0 {
            operator = operator.with_initial_state(h0.slice())?;
        }
        let checkpoints = wants_checkpoints.then(|| operator.checkpoints_len());
        let mut outputs = Outputs::<R, R>::new(self, checkpoints)?;
        let (y, states) = outputs.places(self.shape)?;
        operator.forward_into(y, states)?;
        Ok(outputs.finish())
    }

    fn complex_operator<'e, R: TensorReal>(
        &'e self,
        qkv: &'e Elements,
        z: &'e Elements,
    ) -> Result<GateLoop<'e, R>>
    where
        Complex<R>: ScanElement,
    {
        let [q, k, v] = Rows::contiguous("qkv", qkv.slice(), self.wide(3)?)?.split("qkv")?;
        let z = Rows::contiguous("z", z.slice(), self.wide(2)?)?;
        let mut operator =
            GateLoop::new(q, k, v, z)?.with_mode(self.options.mode).on(&TorchThreads);
        if let Some(starts) = &self.options.segment_starts {
            operator = operator.with_segment_starts(starts)?;
        }
        Ok(if self.options.reverse { operator.reversed() } else { operator })
    }

    fn simple_operator<'e, R: TensorReal>(
        &'e self,
        packed: &'e Elements,
    ) -> Result<SimpleGateLoop<'e, R>> {
        let rows = Rows::contiguous("packed", packed.slice(), self.wide(3)?)?;
        let [q, kv, z] = rows.split("packed")?;
        let mut operator = SimpleGateLoop::new(q, kv, z)?.on(&TorchThreads);
        if let Some(starts) = &self.options.segment_starts {
            operator = operator.with_segment_starts(starts)?;
        }
        Ok(if self.options.reverse { operator.reversed() } else { operator })
    }

    fn adjoint_complex<R: TensorReal>(
        &self,
        kept: &Kept<'_>,
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Vec<Option<Tensor>>>
    where
        Complex<R>: TensorElement,
    {
        let (qkv, z) =
            (Elements::of::<R>("qkv", &kept.inputs[0])?, Elements::of::<R>("z", &kept.inputs[1])?);
        let h0 = kept.state.map(|h0| Elements::of::<Complex<R>>("state", h0)).transpose()?;
        let mut operator = self.complex_operator::<R>(&qkv, &z)?;
        if let Some(h0) = &h0 {
            operator = operator.with_initial_state(h0.slice())?;
        }
        let given = Given::new::<R, Complex<R>>(kept.checkpoints, dy, dh_last)?;
        let mut dqkv = Output::<R>::new(&kept.inputs[0].size())?;
        let mut dz = Output::<R>::new(&kept.inputs[1].size())?;
        let mut dh0 =
            h0.as_ref().map(|_| Output::<Complex<R>>::new(&self.state_dims())).transpose()?;
        let [dq, dk, dv] =
            RowsMut::contiguous("dqkv", dqkv.slice_mut(), self.wide(3)?)?.split("dqkv")?;
        let grads = GateLoopGrads {
            dq,
            dk,
            dv,
            dz: RowsMut::contiguous("dz", dz.slice_mut(), self.wide(2)?)?,
            dh0: dh0.as_mut().map(Output::slice_mut),
        };
        operator.adjoint_into(given.upstream(self.shape)?, grads)?;
        // A decay of 1 does not depend on z.
        let dz = (self.options.mode != GateMode::Identity).then(|| dz.into_tensor());
        let mut grads = vec![Some(dqkv.into_tensor()), dz];
        grads.extend(dh0.map(|dh0| Some(dh0.into_tensor())));
        Ok(grads)
    }

    fn adjoint_simple<R: TensorReal>(
        &self,
        kept: &Kept<'_>,
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let packed = Elements::of::<R>("packed", &kept.inputs[0])?;
        let h0 = kept.state.map(|h0| Elements::of::<R>("state", h0)).transpose()?;
        let mut operator = self.simple_operator::<R>(&packed)?;
        if let Some(h0) = &h0 {
            operator = operator.with_initial_state(h0.slice())?;
        }
        let given = Given::new::<R, R>(kept.checkpoints, dy, dh_last)?;
        let mut grad = Output::<R>::new(&kept.inputs[0].size())?;
        let mut dh0 = h0.as_ref().map(|_| Output::<R>::new(&self.state_dims())).transpose()?;
        let [dq, dkv, dz] =
            RowsMut::contiguous("grad", grad.slice_mut(), self.wide(3)?)?.split("grad")?;
        let grads = SimpleGateLoopGrads { dq, dkv, dz, dh0: dh0.as_mut().map(Output::slice_mut) };
        operator.adjoint_into(given.upstream(self.shape)?, grads)?;
        let mut grads = vec![Some(grad.into_tensor())];
        grads.extend(dh0.map(|dh0| Some(dh0.into_tensor())));
        Ok(grads)
    }
}

/// A real element of tensors.
trait TensorReal: TensorElement + Real {}
impl TensorReal for f32 {}
impl TensorReal for f64 {}

/// `y` and the last state; the checkpoints, if they were wanted.
type Ran = ([Tensor; 2], Option<Tensor>);

/// What the forward pass writes.
struct Outputs<R, S> {
    y: Output<R>,
    last: Output<S>,
    checkpoints: Option<Output<S>>,
}

impl<R: TensorReal, S: TensorElement> Outputs<R, S> {
    fn new(function: &FusedFunction, checkpoints: Option<usize>) -> Result<Self> {
        let ScanShape { batch, seqlen, channels, .. } = function.shape;
        Ok(Self {
            y: Output::new(&[batch as i64, seqlen as i64, channels as i64])?,
            last: Output::new(&function.state_dims())?,
            checkpoints: checkpoints.map(|len| Output::new(&[len as i64])).transpose()?,
        })
    }

    fn places(&mut self, shape: ScanShape) -> Result<(RowsMut<'_, R>, States<'_, S>)> {
        let y = RowsMut::contiguous("y", self.y.slice_mut(), shape)?;
        let checkpoints = self.checkpoints.as_mut().map(Output::slice_mut);
        Ok((y, States { h_last: Some(self.last.slice_mut()), checkpoints }))
    }

    fn finish(self) -> Ran {
        let outputs = [self.y.into_tensor(), self.last.into_tensor()];
        (outputs, self.checkpoints.map(Output::into_tensor))
    }
}

/// What the adjoint reads.
struct Given {
    checkpoints: Elements,
    dy: Elements,
    dh_last: Option<Elements>,
}

impl Given {
    fn new<R: TensorReal, S: TensorElement>(
        checkpoints: &Tensor,
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Self> {
        Ok(Self {
            checkpoints: Elements::of::<S>("checkpoints", checkpoints)?,
            dy: Elements::of::<R>("dy", dy)?,
            dh_last: dh_last.map(|d| Elements::of::<S>("dh_last", d)).transpose()?,
        })
    }

    fn upstream<R: TensorReal, S: TensorElement>(
        &self,
        shape: ScanShape,
    ) -> Result<Upstream<'_, R, S>> {
        Ok(Upstream {
            checkpoints: self.checkpoints.slice(),
            dy: Rows::contiguous("dy", self.dy.slice(), shape)?,
            dh_last: self.dh_last.as_ref().map(Elements::slice),
        })
    }
}

impl Function for FusedFunction {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let (outputs, checkpoints) = self.run(inputs, saved.is_wanted())?;
        let (projections, state) = inputs.split_at(self.projections());
        for tensor in projections.iter().chain(&checkpoints).chain(state) {
            saved.push(tensor);
        }
        Ok(outputs.into())
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let n = self.projections();
        let kept = Kept { inputs: &saved[..n], checkpoints: &saved[n], state: saved.get(n + 1) };
        self.gradients(&kept, grad_outputs[0].as_ref(), grad_outputs[1].as_ref())
    }
}

fn kind_error(actual: Kind) -> NnError {
    NnError::Kind { operand: "q", expected: "Float or Double", actual }
}
