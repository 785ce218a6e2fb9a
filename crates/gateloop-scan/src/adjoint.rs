//! The gradient of a scan: one scan in the other direction.
//!
//! With `L` a real loss and `d` the gradient in libtorch's convention for complex numbers
//! (`dL/dre + i dL/dim`), the chain rule through `h[t] = a[t] h[t-1] + b[t]` reads
//!
//! ```text
//! g[t]  = dh[t] + conj(a[t+1]) g[t+1]
//! db[t] = g[t]
//! da[t] = g[t] conj(h[t-1])
//! dh0   = conj(a[0]) g[0]
//! ```
//!
//! where `t + 1` is the token that the pass visits next. docs/math.md derives it.

use crate::error::check_len;
use crate::{Algorithm, Scan, ScanElement, ScanError};

/// Where the gradients go; each is overwritten, and what it held before is not read.
#[derive(Debug)]
pub struct ScanGrads<'a, E> {
    /// Gradient of the decays, `[B, T, C]`. It is exactly zero where nothing comes before a
    /// token: at a segment start, and at the first token of a scan without initial state.
    pub da: &'a mut [E],
    /// Gradient of the inputs, `[B, T, C]`.
    pub db: &'a mut [E],
    /// Gradient of the initial state, `[B, C]`; of the implied zero if the scan was given none.
    pub dh0: Option<&'a mut [E]>,
}

/// The gradients as [`Scan::adjoint`] allocates them.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedGrads<E> {
    /// Gradient of the decays, `[B, T, C]`.
    pub da: Vec<E>,
    /// Gradient of the inputs, `[B, T, C]`.
    pub db: Vec<E>,
    /// Gradient of the initial state, `[B, C]`, if the scan has one.
    pub dh0: Option<Vec<E>>,
}

/// What the adjoint reads: states and their gradients, lengths checked.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a, E> {
    /// States, `[B, T, C]`.
    pub(crate) h: &'a [E],
    /// Gradient of the states, `[B, T, C]`.
    pub(crate) dh: &'a [E],
    /// Gradient of the last state, `[B, C]`.
    pub(crate) dh_last: Option<&'a [E]>,
}

impl<E: ScanElement> Scan<'_, E> {
    /// The gradients of decays, inputs and initial state.
    ///
    /// # Shapes
    /// `h`: `[B, T, C]`, the states of this scan by any algorithm; `dh`: `[B, T, C]`, the gradient
    /// of `h`; `dh_last`: `[B, C]`, the gradient of [`Scan::last_state`], added to that of the
    /// last token.
    ///
    /// ```
    /// use gateloop_scan::{Algorithm, Scan, ScanShape};
    ///
    /// let scan = Scan::new(ScanShape::new(1, 3, 1)?, &[0.5_f64, 0.5, 0.5], &[1.0, 2.0, 3.0])?;
    /// let h = scan.run(Algorithm::Auto)?;
    /// // The loss is the last state: its gradient reaches b[t] through T - 1 - t decays.
    /// let grads = scan.adjoint(Algorithm::Auto, &h, &[0.0; 3], Some(&[1.0]))?;
    /// assert_eq!(grads.db, [0.25, 0.5, 1.0]);
    /// assert_eq!(grads.da, [0.0, 0.5 * h[0], h[1]]);
    /// # Ok::<(), gateloop_scan::ScanError>(())
    /// ```
    pub fn adjoint(
        &self,
        algorithm: Algorithm,
        h: &[E],
        dh: &[E],
        dh_last: Option<&[E]>,
    ) -> Result<OwnedGrads<E>, ScanError> {
        let shape = self.shape();
        let mut grads = OwnedGrads {
            da: vec![E::ZERO; shape.len()],
            db: vec![E::ZERO; shape.len()],
            dh0: self.h0().map(|h0| vec![E::ZERO; h0.len()]),
        };
        let places =
            ScanGrads { da: &mut grads.da, db: &mut grads.db, dh0: grads.dh0.as_deref_mut() };
        self.adjoint_into(algorithm, h, dh, dh_last, places)?;
        Ok(grads)
    }

    /// [`Scan::adjoint`] into slices of the caller. `Chunked` reads `a`, `h`, `dh` once and writes
    /// `da`, `db` once; the other algorithms run a scan of their own kind over shifted copies.
    pub fn adjoint_into(
        &self,
        algorithm: Algorithm,
        h: &[E],
        dh: &[E],
        dh_last: Option<&[E]>,
        mut grads: ScanGrads<'_, E>,
    ) -> Result<(), ScanError> {
        let (len, state_len) = (self.shape().len(), self.shape().state_len());
        check_len("h", "[B, T, C]", h.len(), len)?;
        check_len("dh", "[B, T, C]", dh.len(), len)?;
        check_len("da", "[B, T, C]", grads.da.len(), len)?;
        check_len("db", "[B, T, C]", grads.db.len(), len)?;
        if let Some(dh_last) = dh_last {
            check_len("dh_last", "[B, C]", dh_last.len(), state_len)?;
        }
        if let Some(dh0) = grads.dh0.as_deref() {
            check_len("dh0", "[B, C]", dh0.len(), state_len)?;
        }

        let upstream = Upstream { h, dh, dh_last };
        match algorithm.resolve_for(&self.shape()) {
            Algorithm::Auto | Algorithm::Chunked => E::adjoint(self, upstream, grads),
            concrete => by_scan(self, concrete, upstream, &mut grads)?,
        }
        Ok(())
    }
}

/// Runs `g` as a scan by `algorithm`, then reads the gradients off it.
fn by_scan<E: ScanElement>(
    scan: &Scan<'_, E>,
    algorithm: Algorithm,
    upstream: Upstream<'_, E>,
    grads: &mut ScanGrads<'_, E>,
) -> Result<(), ScanError> {
    // `da` is written last, so until then it holds the shifted decays.
    shifted_decays(scan, grads.da);
    let mut inputs = upstream.dh.to_vec();
    if let Some(dh_last) = upstream.dh_last {
        add_to_last(scan, dh_last, &mut inputs);
    }
    let mut backwards = Scan::new(scan.shape(), grads.da, &inputs)?;
    if let Some(starts) = scan.segment_starts() {
        backwards = backwards.with_segment_starts(starts)?;
    }
    if !scan.is_reversed() {
        backwards = backwards.reversed();
    }
    backwards.run_into(algorithm, grads.db)?;

    decay_gradients(scan, upstream.h, grads);
    if let Some(dh0) = grads.dh0.as_deref_mut() {
        initial_gradients(scan, grads.db, dh0);
    }
    Ok(())
}

/// `out[t] = conj(a[t+1])`, the factor between `g[t+1]` and `g[t]`.
fn shifted_decays<E: ScanElement>(scan: &Scan<'_, E>, out: &mut [E]) {
    let shape = scan.shape();
    for batch in 0..shape.batch {
        for position in 0..shape.seqlen {
            let row = &mut out[shape.row(batch, scan.token(position))..][..shape.channels];
            if position + 1 == shape.seqlen {
                // Nothing comes back from beyond the last token, so this is never used.
                row.fill(E::ZERO);
                continue;
            }
            let next = &scan.a()[shape.row(batch, scan.token(position + 1))..][..shape.channels];
            for (out, a) in row.iter_mut().zip(next) {
                *out = a.conj();
            }
        }
    }
}

fn add_to_last<E: ScanElement>(scan: &Scan<'_, E>, dh_last: &[E], dh: &mut [E]) {
    let shape = scan.shape();
    let last = scan.token(shape.seqlen - 1);
    for (batch, dh_last) in dh_last.chunks_exact(shape.channels).enumerate() {
        let row = &mut dh[shape.row(batch, last)..][..shape.channels];
        for (dh, &more) in row.iter_mut().zip(dh_last) {
            *dh = *dh + more;
        }
    }
}

/// `da[t] = g[t] conj(h[t-1])`, with `g` in `grads.db`.
fn decay_gradients<E: ScanElement>(scan: &Scan<'_, E>, h: &[E], grads: &mut ScanGrads<'_, E>) {
    let shape = scan.shape();
    for batch in 0..shape.batch {
        for position in 0..shape.seqlen {
            let at = shape.row(batch, scan.token(position));
            let da = &mut grads.da[at..at + shape.channels];
            let Some(before) = state_before(scan, h, batch, position) else {
                da.fill(E::ZERO);
                continue;
            };
            let g = &grads.db[at..at + shape.channels];
            for ((da, &g), before) in da.iter_mut().zip(g).zip(before) {
                *da = g * before.conj();
            }
        }
    }
}

/// `dh0 = conj(a[0]) g[0]`, zero if a segment starts at the first token.
fn initial_gradients<E: ScanElement>(scan: &Scan<'_, E>, g: &[E], dh0: &mut [E]) {
    let shape = scan.shape();
    let first = scan.token(0);
    for (batch, dh0) in dh0.chunks_exact_mut(shape.channels).enumerate() {
        if scan.is_cut(batch, first) {
            dh0.fill(E::ZERO);
            continue;
        }
        let at = shape.row(batch, first);
        let row = at..at + shape.channels;
        for ((dh0, a), &g) in dh0.iter_mut().zip(&scan.a()[row.clone()]).zip(&g[row]) {
            *dh0 = a.conj() * g;
        }
    }
}

/// The state that token `position` of the pass multiplies, `[C]`, if anything comes before it.
fn state_before<'h, E: ScanElement>(
    scan: &Scan<'h, E>,
    h: &'h [E],
    batch: usize,
    position: usize,
) -> Option<&'h [E]> {
    let shape = scan.shape();
    if scan.is_cut(batch, scan.token(position)) {
        return None;
    }
    if position == 0 {
        return scan.h0().map(|h0| &h0[batch * shape.channels..][..shape.channels]);
    }
    Some(&h[shape.row(batch, scan.token(position - 1))..][..shape.channels])
}
