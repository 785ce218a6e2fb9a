//! The root-mean-square norm of CUDA tensors: one pass each way, in the kind of the product that follows, and together with
//! the shortcut around it.

use super::memory::{Place, address, address_of, dtype};
use crate::autograd::{self, Function, Saved};
use crate::device::on_gpu;
use crate::error::Result;
use crate::norm::RmsNormKind;
use gateloop_scan::cuda::{RmsNormAdjointArgs, RmsNormArgs, RowLength};
use tch::{Kind, Tensor};

/// What [`rms_norm`] gives.
#[derive(Debug)]
pub(crate) struct Normed {
    /// The normed x, of the kind that was asked for.
    pub(crate) y: Tensor,
    /// x again. What goes around the norm by this has its gradient added where that of x is computed.
    pub(crate) shortcut: Tensor,
}

/// `None` where no kernel does it: elsewhere than on a GPU, for other kinds, and for rows that are too long.
///
/// # Shapes
/// - `x`: [.., D]; `gamma`: `[D]`; gives [.., D]
pub(crate) fn rms_norm(
    [x, gamma]: [&Tensor; 2],
    kind: RmsNormKind,
    low: Option<Kind>,
) -> Result<Option<Normed>> {
    let y_kind = low.unwrap_or(x.kind());
    let applies = on_gpu(x)
        && gamma.kind() == x.kind()
        && gamma.device() == x.device()
        && gamma.numel() <= RmsNormArgs::MAX_WIDTH
        && match x.kind() {
            Kind::Float => matches!(y_kind, Kind::Float | Kind::BFloat16),
            Kind::Double => y_kind == Kind::Double,
            _ => false,
        };
    if !applies {
        return Ok(None);
    }
    let length = match kind {
        RmsNormKind::Clamped => RowLength::Clamped,
        RmsNormKind::Epsilon => RowLength::Epsilon,
    };
    let mut outputs = autograd::apply(RmsNorm { length, y_kind }, &[x, gamma])?.into_iter();
    Ok(outputs.next().zip(outputs.next()).map(|(y, shortcut)| Normed { y, shortcut }))
}

/// Inputs x and gamma; outputs y and x.
struct RmsNorm {
    length: RowLength,
    y_kind: Kind,
}

impl RmsNorm {
    fn args(&self, x: &Tensor, gamma: &Tensor) -> Result<RmsNormArgs> {
        let width = gamma.numel();
        Ok(RmsNormArgs {
            dtype: dtype("x", x.kind())?,
            y_dtype: dtype("y", self.y_kind)?,
            rows: x.numel() / width.max(1),
            width,
            length: self.length,
            x: address(x),
            gamma: address(gamma),
            y: 0,
        })
    }
}

impl Function for RmsNorm {
    const OUTPUTS: usize = 2;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let place = Place::of("x", &inputs[0])?;
        let (x, gamma) = (inputs[0].f_contiguous()?, inputs[1].f_contiguous()?);
        let y = place.empty(&x.size(), self.y_kind)?;
        let args = RmsNormArgs { y: address(&y), ..self.args(&x, &gamma)? };
        // SAFETY: the tensors have the sizes that are told and are alive until the launch is in the stream; torch reuses
        // their memory in stream order only.
        unsafe { place.cuda.rms_norm(place.stream, &args) }?;
        saved.push(&x);
        saved.push(&gamma);
        Ok(vec![y, inputs[0].shallow_clone()])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let (x, gamma, dshortcut) = (&saved[0], &saved[1], grad_outputs[1].as_ref());
        let Some(dy) = &grad_outputs[0] else {
            return Ok(vec![dshortcut.map(Tensor::shallow_clone), None]);
        };
        let place = Place::of("x", x)?;
        let dy = place.plain("dy", dy, self.y_kind)?.f_contiguous()?;
        let whole = |d: &Tensor| -> Result<Tensor> {
            Ok(place.plain("dshortcut", d, x.kind())?.f_contiguous()?)
        };
        let dshortcut = dshortcut.map(whole).transpose()?;
        let forward = self.args(x, gamma)?;
        let dx = place.empty(&x.size(), x.kind())?;
        let parts = forward.parts(place.cuda.limits()) as i64;
        let dgamma = place.empty(&[parts, forward.width as i64], x.kind())?;
        let args = RmsNormAdjointArgs {
            forward,
            dy: address(&dy),
            dshortcut: address_of(dshortcut.as_ref()),
            dx: address(&dx),
            dgamma: address(&dgamma),
        };
        // SAFETY: as in `forward`.
        unsafe { place.cuda.rms_norm_adjoint(place.stream, &args) }?;
        Ok(vec![Some(dx), Some(dgamma.f_sum_dim_intlist(0i64, false, x.kind())?)])
    }
}
