//! The scales against which rounding errors of a scan are measured.

use crate::{Algorithm, Scan, ScanElement, ScanError};

/// What [`Scan::adjoint_magnitude`] gives: the scales of the three gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct GradMagnitudes {
    /// Scale of `da`, `[B, T, C]`.
    pub da: Vec<f64>,
    /// Scale of `db`, `[B, T, C]`.
    pub db: Vec<f64>,
    /// Scale of `dh0`, `[B, C]`.
    pub dh0: Vec<f64>,
}

/// The absolute values of a problem, which are a problem themselves.
struct Absolute {
    a: Vec<f64>,
    b: Vec<f64>,
    h0: Option<Vec<f64>>,
}

impl Absolute {
    fn of<E: ScanElement>(scan: &Scan<'_, E>) -> Self {
        Self { a: moduli(scan.a()), b: moduli(scan.b()), h0: scan.h0().map(moduli) }
    }

    fn scan<E: ScanElement>(&self, like: &Scan<'_, E>) -> Result<Scan<'_, f64>, ScanError> {
        let mut scan = Scan::new(like.shape(), &self.a, &self.b)?;
        if let Some(h0) = &self.h0 {
            scan = scan.with_initial_state(h0)?;
        }
        Ok(if like.is_reversed() { scan.reversed() } else { scan })
    }
}

fn moduli<E: ScanElement>(xs: &[E]) -> Vec<f64> {
    xs.iter().map(|x| x.modulus()).collect()
}

impl<E: ScanElement> Scan<'_, E> {
    /// The running magnitude `m[t] = |a[t]| m[t-1] + |b[t]|`, `m[-1] = |h0|`: the size that `h[t]`
    /// would have without cancellation. No order of evaluation can promise an error that is small
    /// relative to `|h|` itself, only one that is small relative to `m` (docs/numerics.md).
    ///
    /// # Shapes
    /// The result is `[B, T, C]`.
    pub fn magnitude(&self) -> Result<Vec<f64>, ScanError> {
        let absolute = Absolute::of(self);
        let mut scan = absolute.scan(self)?;
        if let Some(starts) = self.segment_starts() {
            scan = scan.with_segment_starts(starts)?;
        }
        scan.run(Algorithm::Naive)
    }

    /// The running magnitudes of the gradients, by the adjoint of the absolute values.
    ///
    /// # Shapes
    /// `dh`: `[B, T, C]`; `dh_last`: `[B, C]`.
    pub fn adjoint_magnitude(
        &self,
        dh: &[E],
        dh_last: Option<&[E]>,
    ) -> Result<GradMagnitudes, ScanError> {
        let absolute = Absolute::of(self);
        let mut scan = absolute.scan(self)?;
        if let Some(starts) = self.segment_starts() {
            scan = scan.with_segment_starts(starts)?;
        }
        let h = scan.run(Algorithm::Naive)?;
        let dh_last = dh_last.map(moduli);
        let mut scales = GradMagnitudes {
            da: vec![0.0; h.len()],
            db: vec![0.0; h.len()],
            dh0: vec![0.0; self.shape().state_len()],
        };
        let places =
            crate::ScanGrads { da: &mut scales.da, db: &mut scales.db, dh0: Some(&mut scales.dh0) };
        scan.adjoint_into(Algorithm::Naive, &h, &moduli(dh), dh_last.as_deref(), places)?;
        Ok(scales)
    }
}
