//! The fused operators of a sequence that several ranks share.

use super::{FusedFunction, TensorReal, kind_error};
use crate::elements::{Elements, Output, TensorElement};
use crate::error::Result;
use crate::slices::{Pass, Recurrence, StateKind, Summary};
use gateloop_scan::Complex;
use gateloop_scan::gate_loop::{Kind as OperatorKind, Operator, Rows};
use tch::{Kind, Tensor};

impl Recurrence for FusedFunction {
    fn operands(&self) -> usize {
        self.projections()
    }

    fn pass(&self) -> Pass<'_> {
        Pass { reverse: self.options.reverse, starts: self.options.segment_starts.as_deref() }
    }

    fn state(&self, first: &Tensor) -> Result<StateKind> {
        let kind = match (first.kind(), self.is_complex) {
            (Kind::Float, true) => Kind::ComplexFloat,
            (Kind::Double, true) => Kind::ComplexDouble,
            (kind, _) => kind,
        };
        Ok(StateKind { dims: self.state_dims(), kind, device: first.device() })
    }

    fn product_width(&self, _operands: &[Tensor]) -> i64 {
        self.shape.channels as i64
    }

    fn summary(&self, operands: &[Tensor]) -> Result<Summary> {
        match (operands[0].kind(), self.is_complex) {
            (Kind::Float, true) => self.map_complex::<f32>(operands),
            (Kind::Double, true) => self.map_complex::<f64>(operands),
            (Kind::Float, false) => self.map_simple::<f32>(operands),
            (Kind::Double, false) => self.map_simple::<f64>(operands),
            (actual, _) => Err(kind_error(actual)),
        }
    }

    fn entry_gradient(&self, saved: &[Tensor], grad_outputs: &[Option<Tensor>]) -> Result<Tensor> {
        let dy = self.gradient_or_zeros(grad_outputs[0].as_ref(), &saved[0])?;
        let last = grad_outputs[1].as_ref();
        match (saved[0].kind(), self.is_complex) {
            (Kind::Float, true) => self.entry_complex::<f32>(saved, &dy, last),
            (Kind::Double, true) => self.entry_complex::<f64>(saved, &dy, last),
            (Kind::Float, false) => self.entry_simple::<f32>(saved, &dy, last),
            (Kind::Double, false) => self.entry_simple::<f64>(saved, &dy, last),
            (actual, _) => Err(kind_error(actual)),
        }
    }
}

impl FusedFunction {
    fn map_complex<R: TensorReal>(&self, operands: &[Tensor]) -> Result<Summary>
    where
        Complex<R>: TensorElement,
    {
        let (qkv, z) =
            (Elements::of::<R>("qkv", &operands[0])?, Elements::of::<R>("z", &operands[1])?);
        self.map_of(&self.complex_operator::<R>(&qkv, &z)?)
    }

    fn map_simple<R: TensorReal>(&self, operands: &[Tensor]) -> Result<Summary> {
        let packed = Elements::of::<R>("packed", &operands[0])?;
        self.map_of(&self.simple_operator::<R>(&packed)?)
    }

    fn map_of<K: OperatorKind>(&self, operator: &Operator<'_, K>) -> Result<Summary>
    where
        K::State: TensorElement,
    {
        let [mut product, mut last] =
            [Output::new(&self.state_dims())?, Output::new(&self.state_dims())?];
        operator.map_into(product.slice_mut(), last.slice_mut())?;
        Ok(Summary { product: product.into_tensor(), last: last.into_tensor() })
    }

    fn entry_complex<R: TensorReal>(
        &self,
        saved: &[Tensor],
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Tensor>
    where
        Complex<R>: TensorElement,
    {
        let (qkv, z) = (Elements::of::<R>("qkv", &saved[0])?, Elements::of::<R>("z", &saved[1])?);
        self.entry_of(&self.complex_operator::<R>(&qkv, &z)?, dy, dh_last)
    }

    fn entry_simple<R: TensorReal>(
        &self,
        saved: &[Tensor],
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Tensor> {
        let packed = Elements::of::<R>("packed", &saved[0])?;
        self.entry_of(&self.simple_operator::<R>(&packed)?, dy, dh_last)
    }

    fn entry_of<K: OperatorKind>(
        &self,
        operator: &Operator<'_, K>,
        dy: &Tensor,
        dh_last: Option<&Tensor>,
    ) -> Result<Tensor>
    where
        K::Real: TensorElement,
        K::State: TensorElement,
    {
        let dy = Elements::of::<K::Real>("dy", dy)?;
        let dh_last = dh_last.map(|d| Elements::of::<K::State>("dh_last", d)).transpose()?;
        let mut dh0 = Output::<K::State>::new(&self.state_dims())?;
        let rows = Rows::contiguous("dy", dy.slice(), self.shape)?;
        let dh_last = dh_last.as_ref().map(Elements::slice);
        operator.entry_gradient_into(rows, dh_last, dh0.slice_mut())?;
        Ok(dh0.into_tensor())
    }
}
