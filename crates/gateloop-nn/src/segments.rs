//! Where sequences begin inside the rows of a batch: documents that were packed one after the other.

use crate::error::{NnError, Result};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// The tokens of a batch [B, T] at which a new sequence begins, so that nothing is known there of the tokens before.
#[derive(Debug)]
pub struct Segments {
    starts: Arc<[bool]>,
    mask: Tensor,
}

impl Segments {
    /// From flags in row-major order.
    ///
    /// # Errors
    /// [`NnError::Shape`] unless there are B x T of them.
    pub fn new(starts: &[bool], [batch, seqlen]: [i64; 2], device: Device) -> Result<Self> {
        if i64::try_from(starts.len()).ok() != batch.checked_mul(seqlen) {
            return Err(NnError::Shape {
                operand: "segment_starts",
                expected: format!("[{batch}, {seqlen}]"),
                actual: vec![starts.len() as i64],
            });
        }
        let mask = Tensor::f_from_slice(starts)?.f_view([batch, seqlen])?.f_to_device(device)?;
        Ok(Self { starts: starts.into(), mask })
    }

    /// The flags in row-major order.
    pub fn starts(&self) -> &[bool] {
        &self.starts
    }

    pub(crate) fn shared_starts(&self) -> Arc<[bool]> {
        Arc::clone(&self.starts)
    }

    /// The flags, Bool [B, T].
    pub fn mask(&self) -> &Tensor {
        &self.mask
    }

    /// The number of starts up to and including each token, Int64 [B, T]: alike for tokens of one sequence.
    pub(crate) fn ids(&self) -> Result<Tensor> {
        Ok(self.mask.f_cumsum(1, Kind::Int64)?)
    }

    /// Whether two tokens are of one sequence, Bool [B, T, T].
    pub(crate) fn same(&self) -> Result<Tensor> {
        let ids = self.ids()?;
        Ok(ids.f_unsqueeze(2)?.f_eq_tensor(&ids.f_unsqueeze(1)?)?)
    }

    /// Errs unless these are the segments of a sequence [B, T, ..].
    pub(crate) fn check(&self, x: &Tensor) -> Result<()> {
        let dims = self.mask.size();
        match x.size().get(..2) {
            Some(actual) if actual == dims => Ok(()),
            _ => Err(NnError::Shape {
                operand: "x",
                expected: format!("[{}, {}, ..], the shape of its segments,", dims[0], dims[1]),
                actual: x.size(),
            }),
        }
    }
}
