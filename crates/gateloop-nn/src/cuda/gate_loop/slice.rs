//! The fused operators of a sequence that several ranks share.

use super::{FusedFunction, dtype, kind};
use crate::error::Result;
use crate::gate_loop::pre_activation_product;
use crate::precision::widen;
use crate::slices::{Pass, Recurrence, StateKind, Summary, product_of_logarithms};
use tch::Tensor;

impl Recurrence for FusedFunction {
    fn operands(&self) -> usize {
        if self.is_complex() { 4 } else { 3 }
    }

    fn pass(&self) -> Pass<'_> {
        Pass { reverse: self.fused.reverse, starts: self.fused.segment_starts.as_deref() }
    }

    fn state(&self, first: &Tensor) -> Result<StateKind> {
        let dims = [self.shape.batch as i64, self.shape.channels as i64];
        let kind = kind(self.fused.operation.state(dtype("q", first.kind())?));
        Ok(StateKind { dims, kind, device: first.device() })
    }

    fn product_width(&self, _operands: &[Tensor]) -> i64 {
        self.shape.channels as i64
    }

    /// By the whole kernel: there is none for less.
    fn summary(&self, operands: &[Tensor]) -> Result<Summary> {
        let kind = self.state(&operands[0])?.kind;
        let product = if self.is_complex() {
            pre_activation_product(&operands[3], self.fused.mode, kind)?
        } else {
            product_of_logarithms(&widen(&operands[2])?.f_log_sigmoid()?, None, kind)?
        };
        Ok(Summary { product, last: self.last_state(operands)? })
    }
}
