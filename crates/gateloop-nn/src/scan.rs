//! The differentiable scan: gateloop-scan with libtorch's gradients.

mod slice;

use crate::autograd::{self, Function, Saved};
use crate::cuda;
use crate::device::on_gpu;
use crate::elements::{Elements, Output, TensorElement, dispatch_kind};
use crate::error::{NnError, Result};
use crate::threads::TorchThreads;
use gateloop_scan::{Algorithm, Scan, ScanGrads, ScanShape};
use tch::Tensor;

pub use slice::{ScannedSlice, scan_over_ranks};

/// How a [`scan_with`] is to be done; the default is a forward scan by the fastest algorithm over
/// sequences without inner boundaries.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// The algorithm; all compute the same function.
    pub algorithm: Algorithm,
    /// Whether time runs from the last token to the first.
    pub reverse: bool,
    /// Where a new sequence begins, [B, T] in row-major order: nothing crosses from the token
    /// before.
    pub segment_starts: Option<Vec<bool>>,
}

/// `h[t] = a[t] h[t-1] + b[t]`, differentiable in every operand and through both results.
///
/// # Shapes
/// - `a`, `b`: [B, T, C], of one kind: Float, Double, ComplexFloat or ComplexDouble
/// - `h0`: [B, C], the state before the first token; zeros if `None`
/// - returns `h` [B, T, C] and `h_last` [B, C]
///
/// CUDA tensors may also be `BFloat16` or `Half`: the state is then Float, and so are `h0` and `h_last`.
///
/// Gradients of complex operands follow libtorch's convention (the conjugate Wirtinger derivative).
pub fn scan(a: &Tensor, b: &Tensor, h0: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
    scan_with(a, b, h0, &ScanOptions::default())
}

/// [`scan`] with a choice of algorithm and direction, and with segments.
pub fn scan_with(
    a: &Tensor,
    b: &Tensor,
    h0: Option<&Tensor>,
    options: &ScanOptions,
) -> Result<(Tensor, Tensor)> {
    let function = ScanFunction::of(a, b, h0, options)?;
    let inputs: Vec<&Tensor> = [a, b].into_iter().chain(h0).collect();
    let mut outputs = autograd::apply(function, &inputs)?.into_iter();
    match (outputs.next(), outputs.next()) {
        (Some(h), Some(h_last)) => Ok((h, h_last)),
        _ => Err(NnError::Function { message: "the scan returned too few outputs".into() }),
    }
}

fn check_shape(operand: &'static str, tensor: &Tensor, expected: &[i64]) -> Result<()> {
    if tensor.size() == expected {
        return Ok(());
    }
    let expected = format!("{expected:?}, to agree with `a`,");
    Err(NnError::Shape { operand, expected, actual: tensor.size() })
}

struct ScanFunction {
    shape: ScanShape,
    options: ScanOptions,
}

impl ScanFunction {
    /// With the shapes checked.
    fn of(a: &Tensor, b: &Tensor, h0: Option<&Tensor>, options: &ScanOptions) -> Result<Self> {
        let [batch, seqlen, channels] = a.size()[..] else {
            return Err(NnError::Shape {
                operand: "a",
                expected: "[B, T, C]".into(),
                actual: a.size(),
            });
        };
        check_shape("b", b, &[batch, seqlen, channels])?;
        if let Some(h0) = h0 {
            check_shape("h0", h0, &[batch, channels])?;
        }
        let shape = ScanShape::new(batch as usize, seqlen as usize, channels as usize)?;
        Ok(Self { shape, options: options.clone() })
    }

    fn sequence_dims(&self) -> [i64; 3] {
        let ScanShape { batch, seqlen, channels, .. } = self.shape;
        [batch as i64, seqlen as i64, channels as i64]
    }

    fn state_dims(&self) -> [i64; 2] {
        [self.shape.batch as i64, self.shape.channels as i64]
    }

    fn problem<'a, E: TensorElement>(
        &'a self,
        a: &'a Elements,
        b: &'a Elements,
        h0: Option<&'a Elements>,
    ) -> Result<Scan<'a, E>> {
        let mut problem = Scan::new(self.shape, a.slice(), b.slice())?.on(&TorchThreads);
        if let Some(h0) = h0 {
            problem = problem.with_initial_state(h0.slice())?;
        }
        if let Some(starts) = &self.options.segment_starts {
            problem = problem.with_segment_starts(starts)?;
        }
        Ok(if self.options.reverse { problem.reversed() } else { problem })
    }

    fn run<E: TensorElement>(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let a = Elements::of::<E>("a", &inputs[0])?;
        let b = Elements::of::<E>("b", &inputs[1])?;
        let h0 = inputs.get(2).map(|h0| Elements::of::<E>("h0", h0)).transpose()?;
        let problem = self.problem::<E>(&a, &b, h0.as_ref())?;
        let mut h = Output::<E>::new(&self.sequence_dims())?;
        problem.run_into(self.options.algorithm, h.slice_mut())?;
        let mut h_last = Output::<E>::new(&self.state_dims())?;
        problem.last_state_into(h.slice_mut(), h_last.slice_mut())?;
        Ok(vec![h.into_tensor(), h_last.into_tensor()])
    }

    fn adjoint<E: TensorElement>(
        &self,
        saved: &[Tensor],
        dh: Option<&Tensor>,
        dh_last: Option<&Tensor>,
    ) -> Result<Vec<Option<Tensor>>> {
        let a = Elements::of::<E>("a", &saved[0])?;
        let h = Elements::of::<E>("h", &saved[1])?;
        let h0 = saved.get(2).map(|h0| Elements::of::<E>("h0", h0)).transpose()?;
        let dh = match dh {
            Some(dh) => dh.shallow_clone(),
            None => saved[1].f_zeros_like()?,
        };
        let dh = Elements::of::<E>("dh", &dh)?;
        let dh_last = dh_last.map(|d| Elements::of::<E>("dh_last", d)).transpose()?;
        // The adjoint does not read b; the states stand in for a slice of the same length.
        let problem = self.problem::<E>(&a, &h, h0.as_ref())?;

        let mut da = Output::<E>::new(&self.sequence_dims())?;
        let mut db = Output::<E>::new(&self.sequence_dims())?;
        let mut dh0 = h0.is_some().then(|| Output::<E>::new(&self.state_dims())).transpose()?;
        problem.adjoint_into(
            self.options.algorithm,
            h.slice(),
            dh.slice(),
            dh_last.as_ref().map(Elements::slice),
            ScanGrads {
                da: da.slice_mut(),
                db: db.slice_mut(),
                dh0: dh0.as_mut().map(Output::slice_mut),
            },
        )?;
        let mut grads = vec![Some(da.into_tensor()), Some(db.into_tensor())];
        grads.extend(dh0.map(|dh0| Some(dh0.into_tensor())));
        Ok(grads)
    }
}

impl Function for ScanFunction {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let outputs = if on_gpu(&inputs[0]) {
            cuda::run(self.shape, &self.options, inputs)?
        } else {
            dispatch_kind!(inputs[0].kind(), "a", run_as(self, inputs))?
        };
        saved.push(&inputs[0]);
        saved.push(&outputs[0]);
        if let Some(h0) = inputs.get(2) {
            saved.push(h0);
        }
        Ok(outputs)
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (dh, dh_last) = (grad_outputs[0].as_ref(), grad_outputs[1].as_ref());
        if on_gpu(&saved[0]) {
            return cuda::adjoint(self.shape, &self.options, saved, dh, dh_last);
        }
        dispatch_kind!(saved[0].kind(), "a", adjoint_as(self, saved, dh, dh_last))
    }
}

fn run_as<E: TensorElement>(function: &ScanFunction, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    function.run::<E>(inputs)
}

fn adjoint_as<E: TensorElement>(
    function: &ScanFunction,
    saved: &[Tensor],
    dh: Option<&Tensor>,
    dh_last: Option<&Tensor>,
) -> Result<Vec<Option<Tensor>>> {
    function.adjoint::<E>(saved, dh, dh_last)
}
