//! Heads of any width on the CPU: the chunkwise form in the scan's own kernels, which read q, k and v where a projection
//! has written them and keep nothing but the states at the chunks' ends.

use super::operator::{Before, Dims, Operands};
use super::transition::complex_kind;
use crate::autograd::{Function, Saved};
use crate::elements::{Elements, Output, StridedRows, TensorElement};
use crate::error::{NnError, Result};
use crate::slices::{self, Pass, Recurrence, StateKind, Summary};
use crate::threads::TorchThreads;
use gateloop_scan::gate_loop::{
    Real, RowsMut, WideHeads, WideHeadsGrads, WideHeadsUpstream, WideStates,
};
use gateloop_scan::{Complex, ScanShape};
use tch::{Kind, Tensor};

/// `y` and the last state.
pub(super) fn run(
    operands: &Operands<'_>,
    before: Before<'_>,
    dims: &Dims,
    chunk_len: i64,
) -> Result<(Tensor, Tensor)> {
    let function = HeadsFunction { dims: *dims, chunk_len: chunk_len as usize };
    let transition = operands.transition;
    let (log_magnitude, phase) = (transition.log_magnitude(), transition.phase());
    let inputs = [operands.q, operands.k, operands.v, log_magnitude, phase];
    let (state, ranks) = match before {
        Before::State(state) => (state, None),
        Before::Ranks(ranks) => (None, Some(ranks)),
    };
    let state = state.map(|state| state.f_reshape(function.state_dims())).transpose()?;
    let mut outputs = slices::apply(function, &inputs, state.as_ref(), ranks)?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(y), Some(last)) => Ok((y, last.f_view(dims.state())?)),
        _ => Err(NnError::Function { message: "the operator returned too few outputs".into() }),
    }
}

/// Inputs q, k, v [B, T, H d], ln|a| and arg a [B, T, H], and, if there is one, the state [B H, d d].
struct HeadsFunction {
    dims: Dims,
    chunk_len: usize,
}

/// How many inputs there are without the state.
const OPERANDS: usize = 5;

/// The operands where they lie.
struct Given {
    rows: [StridedRows; OPERANDS],
    state: Option<Elements>,
}

const NAMES: [&str; OPERANDS] = ["q", "k", "v", "log_magnitude", "phase"];

impl Given {
    fn new<R: TensorElement>(inputs: &[Tensor], state: Option<&Tensor>) -> Result<Self>
    where
        Complex<R>: TensorElement,
    {
        let row = |i: usize| StridedRows::of::<R>(NAMES[i], &inputs[i]);
        let rows = [row(0)?, row(1)?, row(2)?, row(3)?, row(4)?];
        let state = state.map(|state| Elements::of::<Complex<R>>("state", state)).transpose()?;
        Ok(Self { rows, state })
    }
}

impl HeadsFunction {
    /// [B, T, H d]
    fn wide(&self) -> Result<ScanShape> {
        let Dims { batch, seqlen, heads, head_dim } = self.dims;
        Ok(ScanShape::new(batch as usize, seqlen as usize, (heads * head_dim) as usize)?)
    }

    /// [B, T, H]
    fn of_heads(&self) -> Result<ScanShape> {
        let Dims { batch, seqlen, heads, .. } = self.dims;
        Ok(ScanShape::new(batch as usize, seqlen as usize, heads as usize)?)
    }

    fn state_dims(&self) -> [i64; 2] {
        let Dims { batch, heads, head_dim, .. } = self.dims;
        [batch * heads, head_dim * head_dim]
    }

    fn operator<'g, R: TensorElement + Real>(&self, given: &'g Given) -> Result<WideHeads<'g, R>>
    where
        Complex<R>: TensorElement,
    {
        let (wide, of_heads) = (self.wide()?, self.of_heads()?);
        let rows =
            |i: usize| given.rows[i].rows::<R>(NAMES[i], if i < 3 { wide } else { of_heads });
        let mut operator = WideHeads::new(rows(0)?, rows(1)?, rows(2)?, rows(3)?, rows(4)?)?
            .with_chunk_len(self.chunk_len)?
            .on(&TorchThreads);
        if let Some(state) = &given.state {
            operator = operator.with_initial_state(state.slice())?;
        }
        Ok(operator)
    }

    fn run<R: TensorElement + Real>(
        &self,
        inputs: &[Tensor],
        saved: &mut Saved,
    ) -> Result<Vec<Tensor>>
    where
        Complex<R>: TensorElement,
    {
        let given = Given::new::<R>(inputs, inputs.get(OPERANDS))?;
        let operator = self.operator::<R>(&given)?;
        let mut y = Output::<R>::new(&inputs[0].size())?;
        let mut last = Output::<Complex<R>>::new(&self.state_dims())?;
        let mut entries = Output::<R>::new(&[operator.entries_len() as i64])?;
        operator.forward_into(
            RowsMut::contiguous("y", y.slice_mut(), self.wide()?)?,
            WideStates { h_last: Some(last.slice_mut()), entries: Some(entries.slice_mut()) },
        )?;
        let (operands, state) = inputs.split_at(OPERANDS);
        let entries = entries.into_tensor();
        for tensor in operands.iter().chain([&entries]).chain(state) {
            saved.push(tensor);
        }
        Ok(vec![y.into_tensor(), last.into_tensor()])
    }

    fn run_back<R: TensorElement + Real>(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
    ) -> Result<Vec<Option<Tensor>>>
    where
        Complex<R>: TensorElement,
    {
        let given = Given::new::<R>(saved, saved.get(OPERANDS + 1))?;
        let operator = self.operator::<R>(&given)?;
        let entries = Elements::of::<R>("entries", &saved[OPERANDS])?;
        let arriving = Arriving::new::<R>(&saved[0], grad_outputs)?;
        let (wide, of_heads) = (self.wide()?, self.of_heads()?);
        let mut grads = Vec::with_capacity(OPERANDS);
        for operand in &saved[..OPERANDS] {
            grads.push(Output::<R>::new(&operand.size())?);
        }
        let mut dh0 = Output::<Complex<R>>::new(&self.state_dims())?;
        let [dq, dk, dv, dlog_magnitude, dphase] = &mut grads[..] else {
            unreachable!("one for each operand")
        };
        operator.adjoint_into(
            WideHeadsUpstream {
                entries: entries.slice(),
                dy: arriving.dy.rows("dy", wide)?,
                dh_last: arriving.dh_last.as_ref().map(Elements::slice),
            },
            WideHeadsGrads {
                dq: RowsMut::contiguous("dq", dq.slice_mut(), wide)?,
                dk: RowsMut::contiguous("dk", dk.slice_mut(), wide)?,
                dv: RowsMut::contiguous("dv", dv.slice_mut(), wide)?,
                dlog_magnitude: RowsMut::contiguous(
                    "dlog_magnitude",
                    dlog_magnitude.slice_mut(),
                    of_heads,
                )?,
                dphase: RowsMut::contiguous("dphase", dphase.slice_mut(), of_heads)?,
                dh0: given.state.is_some().then(|| dh0.slice_mut()),
            },
        )?;
        let mut grads: Vec<_> = grads.into_iter().map(|grad| Some(grad.into_tensor())).collect();
        grads.extend(given.state.is_some().then(|| Some(dh0.into_tensor())));
        Ok(grads)
    }

    fn map<R: TensorElement + Real>(&self, operands: &[Tensor]) -> Result<Summary>
    where
        Complex<R>: TensorElement,
    {
        let given = Given::new::<R>(operands, None)?;
        let [streams, numbers] = self.state_dims();
        let mut product = Output::<Complex<R>>::new(&[streams, 1])?;
        let mut last = Output::<Complex<R>>::new(&[streams, numbers])?;
        self.operator::<R>(&given)?.map_into(product.slice_mut(), last.slice_mut())?;
        Ok(Summary { product: product.into_tensor(), last: last.into_tensor() })
    }

    fn entry<R: TensorElement + Real>(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
    ) -> Result<Tensor>
    where
        Complex<R>: TensorElement,
    {
        let given = Given::new::<R>(saved, None)?;
        let arriving = Arriving::new::<R>(&saved[0], grad_outputs)?;
        let mut dh0 = Output::<Complex<R>>::new(&self.state_dims())?;
        self.operator::<R>(&given)?.entry_gradient_into(
            arriving.dy.rows("dy", self.wide()?)?,
            arriving.dh_last.as_ref().map(Elements::slice),
            dh0.slice_mut(),
        )?;
        Ok(dh0.into_tensor())
    }
}

/// The gradients that arrive; that of y is zero if none does.
struct Arriving {
    dy: StridedRows,
    dh_last: Option<Elements>,
}

impl Arriving {
    fn new<R: TensorElement>(q: &Tensor, grad_outputs: &[Option<Tensor>]) -> Result<Self>
    where
        Complex<R>: TensorElement,
    {
        let dy = match &grad_outputs[0] {
            Some(dy) => StridedRows::of::<R>("dy", dy)?,
            None => StridedRows::of::<R>("dy", &q.f_zeros_like()?)?,
        };
        let last = grad_outputs[1].as_ref();
        let dh_last = last.map(|d| Elements::of::<Complex<R>>("dh_last", d)).transpose()?;
        Ok(Self { dy, dh_last })
    }
}

/// Calls a method for the numbers that a tensor has.
macro_rules! by_kind {
    ($self:ident.$method:ident($tensor:expr $(, $arg:expr)*)) => {
        match $tensor.kind() {
            Kind::Float => $self.$method::<f32>($($arg),*),
            Kind::Double => $self.$method::<f64>($($arg),*),
            actual => Err(NnError::Kind { operand: "q", expected: "Float or Double", actual }),
        }
    };
}

impl Function for HeadsFunction {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        by_kind!(self.run(inputs[0], inputs, saved))
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        by_kind!(self.run_back(saved[0], saved, grad_outputs))
    }
}

impl Recurrence for HeadsFunction {
    fn operands(&self) -> usize {
        OPERANDS
    }

    fn pass(&self) -> Pass<'_> {
        Pass { reverse: false, starts: None }
    }

    fn state(&self, first: &Tensor) -> Result<StateKind> {
        let kind = complex_kind(first.kind())?;
        Ok(StateKind { dims: self.state_dims(), kind, device: first.device() })
    }

    fn product_width(&self, _operands: &[Tensor]) -> i64 {
        1
    }

    fn summary(&self, operands: &[Tensor]) -> Result<Summary> {
        by_kind!(self.map(operands[0], operands))
    }

    fn entry_gradient(&self, saved: &[Tensor], grad_outputs: &[Option<Tensor>]) -> Result<Tensor> {
        by_kind!(self.entry(saved[0], saved, grad_outputs))
    }
}
