//! The root-mean-square norm in one pass each way. libtorch's operations one by one make four passes
//! forward and about ten back, and keep three more arrays.

use super::{EPSILON, MIN_LENGTH, RmsNormKind};
use crate::autograd::{Function, Saved};
use crate::elements::{Elements, Output, TensorElement};
use crate::error::{NnError, Result};
use crate::threads::for_each_piece;
use gateloop_scan::gate_loop::Real;
use std::ops::Div;
use tch::{Kind, Tensor};

/// Inputs x [.., D] and gamma `[D]`; output [.., D].
pub(super) struct RmsNormFunction {
    pub(super) kind: RmsNormKind,
}

/// Rows that one thread takes at a time. What is summed over rows is summed within such a block first, so
/// a result does not depend on the number of threads.
const BLOCK: usize = 64;

impl RmsNormFunction {
    fn run<R: TensorElement + Real + Div<Output = R>>(
        &self,
        [input, gamma, lengths]: [&Tensor; 3],
    ) -> Result<Tensor> {
        let (x, gamma) = (Elements::of::<R>("x", input)?, Elements::of::<R>("gamma", gamma)?);
        let (x, gamma) = (x.slice::<R>(), gamma.slice::<R>());
        let dim = gamma.len();
        let scale = R::narrow((dim as f64).sqrt().into());
        let kept = Elements::of::<R>("lengths", lengths)?;
        let kept = kept.slice::<R>();
        let mut y = Output::<R>::new(&input.size())?;
        let mut blocks = vec![(); kept.len().div_ceil(BLOCK)];
        for_each_piece((y.slice_mut(), &mut blocks), [BLOCK * dim, 1], |block, y, _| {
            let x = &x[block * BLOCK * dim..][..y.len()];
            let lengths = &kept[block * BLOCK..];
            for ((x, y), &length) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).zip(lengths) {
                self.normalise((x, gamma), length, scale, y);
            }
        });
        Ok(y.into_tensor())
    }

    /// y from x, gamma and the lengths of x's rows: what [`Function::forward`] saves.
    pub(super) fn normed(&self, saved: [&Tensor; 3]) -> Result<Tensor> {
        match saved[0].kind() {
            Kind::Float => self.run::<f32>(saved),
            Kind::Double => self.run::<f64>(saved),
            actual => Err(kind_error(actual)),
        }
    }

    /// The gradients of x and gamma.
    pub(super) fn gradients(&self, saved: &[Tensor], dy: &Tensor) -> Result<[Tensor; 2]> {
        match saved[0].kind() {
            Kind::Float => self.adjoint::<f32>(saved, dy),
            Kind::Double => self.adjoint::<f64>(saved, dy),
            actual => Err(kind_error(actual)),
        }
    }

    /// The length of each row; of the epsilon kind its inverse. By libtorch, and below in the order of the
    /// references' operations: their roundings are then ours, which matters where a later layer divides by
    /// a small number, as a complex gate does.
    fn lengths(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.kind {
            RmsNormKind::Clamped => {
                x.f_norm_scalaropt_dim(2.0, [-1i64], true)?.f_clamp_min(MIN_LENGTH)?
            }
            RmsNormKind::Epsilon => x
                .f_square()?
                .f_sum_dim_intlist(-1i64, true, None::<Kind>)?
                .f_add_scalar(EPSILON)?
                .f_rsqrt()?,
        })
    }

    fn normalise<R: Real>(&self, (x, gamma): (&[R], &[R]), length: R, scale: R, y: &mut [R]) {
        match self.kind {
            RmsNormKind::Clamped => {
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                    *y = x / length * scale * gamma;
                }
            }
            RmsNormKind::Epsilon => {
                let inverse = length;
                for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                    *y = x * inverse * gamma * scale;
                }
            }
        }
    }

    /// With `u = x / length`: `dx = scale / length (gamma dy - u (u . gamma dy))`, and
    /// `dgamma = sum scale u dy`.
    fn adjoint<R: TensorElement + Real>(
        &self,
        saved: &[Tensor],
        dy: &Tensor,
    ) -> Result<[Tensor; 2]> {
        let (x, gamma) =
            (Elements::of::<R>("x", &saved[0])?, Elements::of::<R>("gamma", &saved[1])?);
        let (lengths, dy) =
            (Elements::of::<R>("lengths", &saved[2])?, Elements::of::<R>("dy", dy)?);
        let (x, gamma, dy) = (x.slice::<R>(), gamma.slice::<R>(), dy.slice::<R>());
        let lengths = lengths.slice::<R>();
        let dim = gamma.len();
        let scale = (dim as f64).sqrt();
        let mut dx = Output::<R>::new(&saved[0].size())?;
        // One row of sums a block.
        let mut sums = vec![0.0_f64; lengths.len().div_ceil(BLOCK) * dim];
        for_each_piece((dx.slice_mut(), &mut sums), [BLOCK * dim, dim], |block, dx, sums| {
            let rows = block * BLOCK * dim..block * BLOCK * dim + dx.len();
            let rows = x[rows.clone()].chunks_exact(dim).zip(dy[rows].chunks_exact(dim));
            let lengths = &lengths[block * BLOCK..];
            for (((x, dy), dx), &length) in rows.zip(dx.chunks_exact_mut(dim)).zip(lengths) {
                self.row_adjoint((x, gamma, dy), length, scale, (dx, sums));
            }
        });
        let mut dgamma = Output::<R>::new(&saved[1].size())?;
        for (i, total) in dgamma.slice_mut().iter_mut().enumerate() {
            *total = R::narrow(sums.chunks_exact(dim).map(|sums| sums[i]).sum::<f64>().into());
        }
        Ok([dx.into_tensor(), dgamma.into_tensor()])
    }

    /// In double precision whatever the elements: the two terms may nearly cancel.
    fn row_adjoint<R: Real>(
        &self,
        (x, gamma, dy): (&[R], &[R], &[R]),
        length: R,
        scale: f64,
        (dx, sums): (&mut [R], &mut [f64]),
    ) {
        let wide = |x: R| x.widen().re;
        let inverse = match self.kind {
            RmsNormKind::Clamped => 1.0 / wide(length),
            RmsNormKind::Epsilon => wide(length),
        };
        // Sums that do not wait for each other.
        let mut dots = [0.0; 8];
        for (i, (((&x, &gamma), &dy), sum)) in x.iter().zip(gamma).zip(dy).zip(sums).enumerate() {
            let along = wide(x) * inverse * wide(dy);
            *sum += along * scale;
            dots[i % 8] += along * wide(gamma);
        }
        // A length that was raised to the smallest one does not turn with x.
        let is_clamped = self.kind == RmsNormKind::Clamped && wide(length) <= MIN_LENGTH;
        let dot = if is_clamped { 0.0 } else { dots.iter().sum::<f64>() };
        for (((dx, &x), &gamma), &dy) in dx.iter_mut().zip(x).zip(gamma).zip(dy) {
            let term = wide(gamma) * wide(dy) - wide(x) * inverse * dot;
            *dx = R::narrow((term * inverse * scale).into());
        }
    }
}

impl Function for RmsNormFunction {
    const OUTPUTS: usize = 1;

    fn forward(&self, inputs: &[Tensor], saved: &mut Saved) -> Result<Vec<Tensor>> {
        let (x, gamma) = (&inputs[0], &inputs[1]);
        let lengths = self.lengths(x)?;
        let y = self.normed([x, gamma, &lengths])?;
        for kept in [x, gamma, &lengths] {
            saved.push(kept);
        }
        Ok(vec![y])
    }

    fn backward(
        &self,
        saved: &[Tensor],
        grad_outputs: &[Option<Tensor>],
        _needs_grad: &[bool],
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(dy) = &grad_outputs[0] else { return Ok(vec![None, None]) };
        Ok(self.gradients(saved, dy)?.map(Some).into())
    }
}

fn kind_error(actual: Kind) -> NnError {
    NnError::Kind { operand: "x", expected: "Float or Double", actual }
}
