//! The gradients of a chunk.
//!
//! With `D[i,j] = a[j+1] .. a[i]`, `s = Re(D) (q.k)` and `ds[i,j] = dy[i].v[j]`, the logarithm of a decay at t has as
//! its gradient the sum of `s ds` over the pairs i >= t > j that it stands between, and so for its angle with
//! `-Im(D) (q.k) ds`. They come as sums over tokens i >= t of what each gets as the later one of a pair less what it gets
//! as the earlier one. Pairs wholly after t are in it twice, once of each sign, and have to vanish: both signs are taken
//! of one number, and added up in double precision. Derivation: docs/math.md.

use crate::chunked::dispatch::Isa;

use super::super::real::Real;
use super::super::rows::{Rows, SharedRows};
use super::decays::{Decays, Remaining, Wide, from_start, to_end};
use super::forward::scatter;
use super::product::{Matrix, Part, multiply, transpose};
use super::site::{ChunkWork, Dims, Site};
use super::states::{gather, narrow, scale};

/// Writes the gradients of the operands.
pub(super) struct Gradients<'w, R> {
    pub(super) dims: &'w Dims,
    pub(super) decays: &'w Decays,
    pub(super) q: Rows<'w, R>,
    pub(super) k: Rows<'w, R>,
    pub(super) v: Rows<'w, R>,
    pub(super) dy: Rows<'w, R>,
    /// The state that enters each chunk, [B, H, N, 2, d, d].
    pub(super) entries: &'w [R],
    /// The gradient of the state that leaves each chunk, likewise.
    pub(super) leaving: &'w [R],
    /// Whether something enters the first chunk.
    pub(super) has_h0: bool,
    /// Whether a gradient enters the last chunk.
    pub(super) has_dh_last: bool,
    pub(super) dq: &'w SharedRows<'w, R>,
    pub(super) dk: &'w SharedRows<'w, R>,
    pub(super) dv: &'w SharedRows<'w, R>,
    pub(super) dlog_magnitude: &'w SharedRows<'w, R>,
    pub(super) dphase: &'w SharedRows<'w, R>,
}

/// Room for the operands and more: [C, d], [C, C] the `scores` and `dscores`, [C, 2 d] and [d, 2 d] what is twice as wide.
pub(super) struct GradientScratch<R> {
    q: Vec<R>,
    k: Vec<R>,
    v: Vec<R>,
    dy: Vec<R>,
    across: Vec<R>, // [d, C]
    grad: Vec<R>,
    scores: Vec<R>,
    dscores: Vec<R>,
    wide: Vec<R>,
    states: Vec<R>,
    remaining: Remaining,
    pairs: Pairs,
}

/// What pairs give to their tokens: the gradients of the sums of logarithms and of angles up to each.
struct Pairs {
    log_magnitude: Vec<f64>,
    phase: Vec<f64>,
}

impl<R: Real> ChunkWork for Gradients<'_, R> {
    type Scratch = GradientScratch<R>;

    fn scratch(&self) -> GradientScratch<R> {
        let (c, d) = (self.dims.chunk_len, self.dims.head_dim);
        let room = |len: usize| vec![R::ZERO; len];
        GradientScratch {
            q: room(c * d),
            k: room(c * d),
            v: room(c * d),
            dy: room(c * d),
            across: room(c * d),
            grad: room(c * d),
            scores: room(c * c),
            dscores: room(c * c),
            wide: room(2 * c * d),
            states: room(2 * d * d),
            remaining: Remaining::new(c),
            pairs: Pairs { log_magnitude: vec![0.0; c], phase: vec![0.0; c] },
        }
    }

    #[inline(always)]
    fn chunk<I: Isa>(&self, site: &Site, scratch: &mut GradientScratch<R>) {
        let operands = [self.q, self.k, self.v, self.dy];
        let places = [&mut scratch.q, &mut scratch.k, &mut scratch.v, &mut scratch.dy];
        for (from, to) in operands.into_iter().zip(places) {
            gather(from, self.dims, site, to);
        }
        self.pairs::<I>(site, scratch);
        let state = site.state(self.dims)..site.state(self.dims) + self.dims.state();
        let enters = self.has_h0 || site.chunk > 0;
        let leaves = self.has_dh_last || site.chunk + 1 < self.dims.chunks();
        let entry = enters.then(|| &self.entries[state.clone()]);
        let leaving = leaves.then(|| &self.leaving[state]);
        self.of_queries::<I>(site, scratch, entry);
        self.of_keys::<I>(site, scratch, leaving);
        self.of_values::<I>(site, scratch, leaving);
        if let (Some(entry), Some(leaving)) = (entry, leaving) {
            self.of_total(site, &mut scratch.pairs, entry, leaving);
        }
        self.of_decays(site, &mut scratch.pairs);
    }
}

impl<R: Real> Gradients<'_, R> {
    /// s to `scores`, the gradient of q.k to `dscores`, and what the decays between two tokens of the chunk get.
    #[inline(always)]
    fn pairs<I: Isa>(&self, site: &Site, scratch: &mut GradientScratch<R>) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let GradientScratch { q, k, v, dy, across, scores, dscores, remaining, pairs, .. } =
            scratch;
        for (left, right, result) in [(&*q, &*k, &mut *scores), (&*dy, &*v, &mut *dscores)] {
            transpose(right, [len, d], across, len);
            let (left, right) = (Matrix::new(left, len, d), Matrix::new(across, d, len));
            multiply::<I, R>(left, right, result, Part::LowerResult, false);
        }
        pairs.log_magnitude[..len].fill(0.0);
        pairs.phase[..len].fill(0.0);
        let rows = scores.chunks_exact_mut(len).zip(dscores.chunks_exact_mut(len));
        for (i, (&a, (scores, dscores))) in
            self.decays.of(self.dims, site).iter().zip(rows).enumerate()
        {
            let [re, im] = remaining.at(i, a);
            // A token and itself cancel at once; where decays are near zero the rest would be lost beside them.
            let (earlier_log, later_log) = pairs.log_magnitude.split_at_mut(i);
            let (earlier_phase, later_phase) = pairs.phase.split_at_mut(i);
            let (of_log, of_phase) = contribute(
                [&scores[..i], &dscores[..i]],
                [&re[..i], &im[..i]],
                earlier_log,
                earlier_phase,
            );
            later_log[0] += of_log;
            later_phase[0] += of_phase;
            for ((score, dscore), &re) in scores.iter_mut().zip(dscores).zip(re) {
                let re = narrow(re);
                (*score, *dscore) = (*score * re, *dscore * re);
            }
        }
    }

    /// `dq[i] = sum_j d(q.k)[i,j] k[j] + Re(u[i] S) dy[i]`
    #[inline(always)]
    fn of_queries<I: Isa>(
        &self,
        site: &Site,
        scratch: &mut GradientScratch<R>,
        entry: Option<&[R]>,
    ) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let GradientScratch { q, k, dy, grad, dscores, wide, states, pairs, .. } = scratch;
        let (dscores, k) = (Matrix::new(dscores, len, len), Matrix::new(k, len, d));
        multiply::<I, R>(dscores, k, grad, Part::LowerLeft, false);
        if let Some(entry) = entry {
            turn_over(entry, d, states);
            let (dy, states) = (Matrix::new(dy, len, d), Matrix::new(states, d, 2 * d));
            multiply::<I, R>(dy, states, wide, Part::Whole, false);
            let left = from_start(self.decays.of(self.dims, site)).enumerate();
            for (i, u) in left {
                let ([by_re, by_im], row) = parts(wide, q, i, d);
                combine(&mut grad[i * d..][..d], [u.re, -u.im], [by_re, by_im]);
                let (re, im) = (dot(row, by_re), dot(row, by_im));
                pairs.log_magnitude[i] += u.re * re - u.im * im;
                pairs.phase[i] -= u.im * re + u.re * im;
            }
        }
        scatter::<I, R>(grad, self.dims, site, self.dq);
    }

    /// `dk[j] = sum_i d(q.k)[i,j] q[i] + Re(conj(w[j]) G) v[j]`
    #[inline(always)]
    fn of_keys<I: Isa>(
        &self,
        site: &Site,
        scratch: &mut GradientScratch<R>,
        leaving: Option<&[R]>,
    ) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let GradientScratch { q, k, v, grad, dscores, wide, states, pairs, .. } = scratch;
        let (dscores, q) = (Matrix::new(dscores, len, len).transposed(), Matrix::new(q, len, d));
        multiply::<I, R>(dscores, q, grad, Part::UpperLeft, false);
        if let Some(leaving) = leaving {
            turn_over(leaving, d, states);
            let (v, states) = (Matrix::new(v, len, d), Matrix::new(states, d, 2 * d));
            multiply::<I, R>(v, states, wide, Part::Whole, false);
            let (mut of_log, mut of_phase) = (0.0, 0.0);
            for (i, w) in (0..len).rev().zip(to_end(self.decays.of(self.dims, site))) {
                let ([by_re, by_im], row) = parts(wide, k, i, d);
                combine(&mut grad[i * d..][..d], [w.re, w.im], [by_re, by_im]);
                if i == len - 1 {
                    // There is no decay between the last token and the chunk's end.
                    continue;
                }
                let (re, im) = (dot(row, by_re), dot(row, by_im));
                let (log, phase) = (w.re * re + w.im * im, w.re * im - w.im * re);
                pairs.log_magnitude[i] -= log;
                pairs.phase[i] -= phase;
                of_log += log;
                of_phase += phase;
            }
            pairs.log_magnitude[len - 1] += of_log;
            pairs.phase[len - 1] += of_phase;
        }
        scatter::<I, R>(grad, self.dims, site, self.dk);
    }

    /// `dv[j] = sum_i s[i,j] dy[i] + k[j] Re(conj(w[j]) G)`
    #[inline(always)]
    fn of_values<I: Isa>(
        &self,
        site: &Site,
        scratch: &mut GradientScratch<R>,
        leaving: Option<&[R]>,
    ) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let GradientScratch { k, dy, grad, scores, wide, .. } = scratch;
        let (scores, dy) = (Matrix::new(scores, len, len).transposed(), Matrix::new(dy, len, d));
        multiply::<I, R>(scores, dy, grad, Part::UpperLeft, false);
        if let Some(leaving) = leaving {
            for (i, w) in (0..len).rev().zip(to_end(self.decays.of(self.dims, site))) {
                let (by_re, by_im) = wide[2 * i * d..][..2 * d].split_at_mut(d);
                scale(&k[i * d..][..d], w.re, by_re);
                scale(&k[i * d..][..d], w.im, by_im);
            }
            let (wide, leaving) = (Matrix::new(wide, len, 2 * d), Matrix::new(leaving, 2 * d, d));
            multiply::<I, R>(wide, leaving, grad, Part::Whole, true);
        }
        scatter::<I, R>(grad, self.dims, site, self.dv);
    }

    /// What all decays of the chunk get together, by which the state that enters goes on to the next chunk.
    #[inline(always)]
    fn of_total(&self, site: &Site, pairs: &mut Pairs, entry: &[R], leaving: &[R]) {
        let last = site.tokens.len() - 1;
        let numbers = self.dims.head_dim * self.dims.head_dim;
        let ((s_re, s_im), (g_re, g_im)) = (entry.split_at(numbers), leaving.split_at(numbers));
        // conj(S) G
        let product =
            Wide::new(dot(s_re, g_re) + dot(s_im, g_im), dot(s_re, g_im) - dot(s_im, g_re));
        let product = self.decays.total(self.dims, site).conj() * product;
        pairs.log_magnitude[last] += product.re;
        pairs.phase[last] += product.im;
    }

    /// A decay at t is in the sums of all tokens from t on.
    #[inline(always)]
    fn of_decays(&self, site: &Site, pairs: &mut Pairs) {
        let column = site.head..site.head + 1;
        let sums = [&pairs.log_magnitude, &pairs.phase];
        for (sums, out) in sums.into_iter().zip([self.dlog_magnitude, self.dphase]) {
            let mut sum = 0.0;
            for (t, x) in site.tokens.clone().zip(sums).rev() {
                sum += x;
                // SAFETY: this column of this token is this chunk's alone.
                let mut row = unsafe { out.row(site.batch, t, column.clone()) };
                row.lanes(0..1)[0] = narrow(sum);
            }
        }
    }
}

/// Takes what each pair gives from its earlier token, and returns the sums for the later one.
#[inline(always)]
fn contribute<R: Real>(
    [scores, dscores]: [&[R]; 2],
    [re, im]: [&[f64]; 2],
    earlier_log: &mut [f64],
    earlier_phase: &mut [f64],
) -> (f64, f64) {
    /// Sums that do not wait for each other.
    const LANES: usize = 8;
    let n = scores.len();
    let (dscores, re, im) = (&dscores[..n], &re[..n], &im[..n]);
    let (earlier_log, earlier_phase) = (&mut earlier_log[..n], &mut earlier_phase[..n]);
    let (mut later_log, mut later_phase) = ([0.0; LANES], [0.0; LANES]);
    let whole = n - n % LANES;
    for first in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            let j = first + lane;
            let (log, phase) = pair([scores[j], dscores[j]], [re[j], im[j]]);
            earlier_log[j] -= log;
            earlier_phase[j] -= phase;
            later_log[lane] += log;
            later_phase[lane] += phase;
        }
    }
    for j in whole..n {
        let (log, phase) = pair([scores[j], dscores[j]], [re[j], im[j]]);
        earlier_log[j] -= log;
        earlier_phase[j] -= phase;
        later_log[0] += log;
        later_phase[0] += phase;
    }
    (later_log.iter().sum(), later_phase.iter().sum())
}

/// What the decays between two tokens get of them: their logarithms, and their angles.
#[inline(always)]
fn pair<R: Real>([score, dscore]: [R; 2], [re, im]: [f64; 2]) -> (f64, f64) {
    let product = score.widen().re * dscore.widen().re;
    (product * re, -product * im)
}

/// `[S_re^T, S_im^T]`, [d, 2 d], of the planes of a state.
#[inline(always)]
fn turn_over<R: Real>(state: &[R], d: usize, to: &mut [R]) {
    for plane in 0..2 {
        transpose(&state[plane * d * d..], [d, d], &mut to[plane * d..], 2 * d);
    }
}

/// Row i of either half of `wide`, and of `x`.
#[inline(always)]
fn parts<'r, R>(wide: &'r [R], x: &'r [R], i: usize, d: usize) -> ([&'r [R]; 2], &'r [R]) {
    let (re, im) = wide[2 * i * d..][..2 * d].split_at(d);
    ([re, im], &x[i * d..][..d])
}

/// `to += factors[0] x[0] + factors[1] x[1]`
#[inline(always)]
fn combine<R: Real>(to: &mut [R], factors: [f64; 2], [x, y]: [&[R]; 2]) {
    let [of_x, of_y] = factors.map(narrow::<R>);
    for ((to, &x), &y) in to.iter_mut().zip(x).zip(y) {
        *to = *to + of_x * x + of_y * y;
    }
}

/// The dot product, in sums of the operands' precision that do not wait for each other.
#[inline(always)]
fn dot<R: Real>(x: &[R], y: &[R]) -> f64 {
    const LANES: usize = 16;
    let mut sums = [R::ZERO; LANES];
    let (x_whole, x_rest) = x.as_chunks::<LANES>();
    let (y_whole, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in x_whole.iter().zip(y_whole) {
        for lane in 0..LANES {
            sums[lane] = sums[lane] + x[lane] * y[lane];
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(&x, &y)| (x * y).widen().re);
    sums.iter().map(|sum| sum.widen().re).sum::<f64>() + rest.sum::<f64>()
}
