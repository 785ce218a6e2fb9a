//! The outputs of a chunk: what its tokens say to each other, and what comes from the state that enters.

use crate::chunked::dispatch::Isa;

use super::super::real::Real;
use super::super::rows::{Rows, SharedRows};
use super::decays::{Decays, Remaining, from_start};
use super::product::{Matrix, Part, multiply, transpose};
use super::site::{ChunkWork, Dims, Site};
use super::states::{gather, narrow, scale};

/// Writes `y[i] = sum_{j<=i} Re(D[i,j]) (q[i].k[j]) v[j] + q[i] Re(u[i] S)`.
pub(super) struct Outputs<'w, R> {
    pub(super) dims: &'w Dims,
    pub(super) decays: &'w Decays,
    pub(super) q: Rows<'w, R>,
    pub(super) k: Rows<'w, R>,
    pub(super) v: Rows<'w, R>,
    /// The state that enters each chunk, [B, H, N, 2, d, d].
    pub(super) entries: &'w [R],
    /// Whether something enters the first chunk.
    pub(super) has_h0: bool,
    pub(super) y: &'w SharedRows<'w, R>,
}

/// [C, d] each, but for `scores`, [C, C], and `turned`, [C, 2 d].
pub(super) struct OutputScratch<R> {
    q: Vec<R>,
    k: Vec<R>,
    v: Vec<R>,
    keys: Vec<R>, // [d, C]
    scores: Vec<R>,
    turned: Vec<R>,
    y: Vec<R>,
    remaining: Remaining,
}

impl<R: Real> ChunkWork for Outputs<'_, R> {
    type Scratch = OutputScratch<R>;

    fn scratch(&self) -> OutputScratch<R> {
        let (c, d) = (self.dims.chunk_len, self.dims.head_dim);
        let room = |len: usize| vec![R::ZERO; len];
        OutputScratch {
            q: room(c * d),
            k: room(c * d),
            v: room(c * d),
            keys: room(c * d),
            scores: room(c * c),
            turned: room(2 * c * d),
            y: room(c * d),
            remaining: Remaining::new(c),
        }
    }

    #[inline(always)]
    fn chunk<I: Isa>(&self, site: &Site, scratch: &mut OutputScratch<R>) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let OutputScratch { q, k, v, keys, scores, turned, y, remaining } = scratch;
        for (from, to) in [(self.q, &mut *q), (self.k, &mut *k), (self.v, &mut *v)] {
            gather(from, self.dims, site, to);
        }
        let a = self.decays.of(self.dims, site);

        transpose(k, [len, d], keys, len);
        let (q_rows, keys) = (Matrix::new(q, len, d), Matrix::new(keys, d, len));
        multiply::<I, R>(q_rows, keys, scores, Part::LowerResult, false);
        for (i, (&a, row)) in a.iter().zip(scores.chunks_exact_mut(len)).enumerate() {
            let [re, _] = remaining.at(i, a);
            for (score, &re) in row.iter_mut().zip(re) {
                *score = *score * narrow(re);
            }
        }
        let (scores, v) = (Matrix::new(scores, len, len), Matrix::new(v, len, d));
        multiply::<I, R>(scores, v, y, Part::LowerLeft, false);

        if self.has_h0 || site.chunk > 0 {
            let rows = q.chunks_exact(d).zip(turned.chunks_exact_mut(2 * d));
            for ((q, turned), left) in rows.zip(from_start(a)) {
                let (by_re, by_im) = turned.split_at_mut(d);
                scale(q, left.re, by_re);
                scale(q, -left.im, by_im);
            }
            let entry = &self.entries[site.state(self.dims)..][..self.dims.state()];
            let (turned, entry) = (Matrix::new(turned, len, 2 * d), Matrix::new(entry, 2 * d, d));
            multiply::<I, R>(turned, entry, y, Part::Whole, true);
        }
        scatter::<I, R>(y, self.dims, site, self.y);
    }
}

/// Writes the rows of a chunk to their places.
#[inline(always)]
pub(super) fn scatter<I: Isa, R: Real>(
    from: &[R],
    dims: &Dims,
    site: &Site,
    to: &SharedRows<'_, R>,
) {
    for (row, t) in from.chunks_exact(dims.head_dim).zip(site.tokens.clone()) {
        // SAFETY: these columns of these tokens are this chunk's alone.
        unsafe { to.row(site.batch, t, site.columns(dims)) }.write::<I>(row);
    }
}
