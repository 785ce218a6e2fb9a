//! The fused operators of a sequence that several ranks share.

use super::FusedFunction;
use crate::error::Result;
use crate::gate_loop::pre_activation_product;
use crate::slices::{Pass, Recurrence, StateKind, product_of_logarithms};
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

    fn product(&self, operands: &[Tensor]) -> Result<Tensor> {
        let kind = self.state(&operands[0])?.kind;
        let channels = self.shape.channels as i64;
        if self.is_complex {
            return pre_activation_product(&operands[1], channels, self.options.mode, kind);
        }
        let z = operands[0].f_narrow(-1, 2 * channels, channels)?;
        product_of_logarithms(&z.f_log_sigmoid()?, None, kind)
    }
}
