//! The states at the chunks' ends, and their gradients: what chunks add, and the recurrence over chunks.

use crate::chunked::dispatch::{Isa, Kernel, Level};
use crate::chunked::output::{Output, prefetch};
use crate::{Complex, ParallelFor};

use super::super::real::{Arithmetic, Real};
use super::super::rows::Rows;
use super::decays::{Decays, Wide, from_start, to_end};
use super::product::{Matrix, Part, multiply};
use super::site::{ChunkWork, Dims, Site};

/// Which way a pass goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// States, from the first chunk to the last.
    Forth,
    /// Their gradients, from the last chunk to the first.
    Back,
}

/// What the tokens of each chunk add to the state at its end, `sum_j w[j] k[j]^T v[j]`, or, on the way back, to the
/// gradient of the state that enters it, `sum_i conj(u[i]) q[i]^T dy[i]`.
pub(super) struct Additions<'w, R> {
    pub(super) dims: &'w Dims,
    pub(super) decays: &'w Decays,
    pub(super) way: Way,
    pub(super) left: Rows<'w, R>,
    pub(super) right: Rows<'w, R>,
    /// [B, H, N, 2, d, d]
    pub(super) states: &'w Output<'w, R>,
}

/// The left operand, and the right one weighed with real and with imaginary parts: each [C, d].
pub(super) struct AdditionScratch<R>([Vec<R>; 3]);

impl<R: Real> ChunkWork for Additions<'_, R> {
    type Scratch = AdditionScratch<R>;

    fn scratch(&self) -> AdditionScratch<R> {
        AdditionScratch([0; 3].map(|_| vec![R::ZERO; self.dims.chunk_len * self.dims.head_dim]))
    }

    #[inline(always)]
    fn chunk<I: Isa>(&self, site: &Site, scratch: &mut AdditionScratch<R>) {
        let (d, len) = (self.dims.head_dim, site.tokens.len());
        let [left, re, im] = scratch.0.each_mut();
        gather(self.left, self.dims, site, left);
        let a = self.decays.of(self.dims, site);
        match self.way {
            Way::Forth => {
                for (i, w) in (0..len).rev().zip(to_end(a)) {
                    self.weigh(site, i, w, [re, im]);
                }
            }
            Way::Back => {
                for (i, u) in from_start(a).enumerate() {
                    self.weigh(site, i, u.conj(), [re, im]);
                }
            }
        }
        // SAFETY: each chunk's state is one piece's.
        let mut out = unsafe { self.states.row(site.state(self.dims), self.dims.state()) };
        let (out_re, out_im) = out.lanes(0..self.dims.state()).split_at_mut(d * d);
        let left = Matrix::new(left, len, d).transposed();
        multiply::<I, R>(left, Matrix::new(re, len, d), out_re, Part::Whole, false);
        multiply::<I, R>(left, Matrix::new(im, len, d), out_im, Part::Whole, false);
    }
}

impl<R: Real> Additions<'_, R> {
    /// The right operand at token i of a chunk, times real and imaginary part.
    #[inline(always)]
    fn weigh(&self, site: &Site, i: usize, weight: Wide, [re, im]: [&mut [R]; 2]) {
        let d = self.dims.head_dim;
        let right = self.right.row(site.batch, site.tokens.start + i, site.columns(self.dims));
        scale(right, weight.re, &mut re[i * d..][..d]);
        scale(right, weight.im, &mut im[i * d..][..d]);
    }
}

/// Copies the rows of a chunk together.
#[inline(always)]
pub(super) fn gather<R: Real>(from: Rows<'_, R>, dims: &Dims, site: &Site, to: &mut [R]) {
    let columns = site.columns(dims);
    for (row, t) in to.chunks_exact_mut(dims.head_dim).zip(site.tokens.clone()) {
        row.copy_from_slice(from.row(site.batch, t, columns.clone()));
        // Rows of all heads lie too far apart for the hardware to foresee the next chunk's.
        let next = t + dims.chunk_len;
        if next < dims.seqlen {
            prefetch(from.row(site.batch, next, columns.clone()));
        }
    }
}

/// `to = factor x`
#[inline(always)]
pub(super) fn scale<R: Real>(x: &[R], factor: f64, to: &mut [R]) {
    let factor = narrow::<R>(factor);
    for (to, &x) in to.iter_mut().zip(x) {
        *to = factor * x;
    }
}

/// A real number of the operands' precision.
#[inline(always)]
pub(super) fn narrow<R: Real>(x: f64) -> R {
    R::narrow(x.into())
}

/// The recurrence over chunks, `S <- A S + added`, or `S <- conj(A) S + added` from the last chunk to the first. In
/// `states` what is added is overwritten with the state that the chunk begins with.
pub(super) struct Carry<'w, R> {
    pub(super) dims: &'w Dims,
    pub(super) decays: &'w Decays,
    pub(super) way: Way,
    /// [B, H, N, 2, d, d]
    pub(super) states: &'w Output<'w, R>,
    /// The state to begin with, [B, H, d, d].
    pub(super) first: Option<&'w [Complex<R>]>,
    /// Where the last state goes.
    pub(super) last: Option<Output<'w, Complex<R>>>,
}

impl<R: Real> Carry<'_, R>
where
    Complex<R>: crate::ScanElement,
{
    pub(super) fn run(&self, level: Level, threads: &dyn ParallelFor) {
        /// Numbers that a thread takes at once.
        const PIECE: usize = 1024;
        let numbers = self.dims.head_dim * self.dims.head_dim;
        let pieces = numbers.div_ceil(PIECE);
        let streams = self.dims.batch * self.dims.heads;
        threads.for_each(streams * pieces, &|index| {
            let (stream, first) = (index / pieces, index % pieces * PIECE);
            let len = PIECE.min(numbers - first);
            level.dispatch(CarryPiece { carry: self, stream, first, len });
        });
    }
}

struct CarryPiece<'c, 'w, R> {
    carry: &'c Carry<'w, R>,
    stream: usize,
    first: usize,
    len: usize,
}

impl<R: Real> Kernel for CarryPiece<'_, '_, R>
where
    Complex<R>: crate::ScanElement,
{
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { carry, stream, first, len } = self;
        let Dims { head_dim, .. } = *carry.dims;
        let (numbers, chunks) = (head_dim * head_dim, carry.dims.chunks());
        let here = stream * numbers + first..stream * numbers + first + len;
        let mut state = [vec![R::ZERO; len], vec![R::ZERO; len]];
        if let Some(given) = carry.first {
            for (i, given) in given[here.clone()].iter().enumerate() {
                (state[0][i], state[1][i]) = (given.re, given.im);
            }
        }
        for step in 0..chunks {
            let chunk = if carry.way == Way::Forth { step } else { chunks - 1 - step };
            let site = Site::new(carry.dims, stream * chunks + chunk);
            let total = carry.decays.total(carry.dims, &site);
            let total = if carry.way == Way::Forth { total } else { total.conj() };
            let at = site.state(carry.dims) + first;
            // SAFETY: these numbers of these states are this task's.
            let (mut re, mut im) =
                unsafe { (carry.states.row(at, len), carry.states.row(at + numbers, len)) };
            let [state_re, state_im] = state.each_mut();
            advance(
                [narrow(total.re), narrow(total.im)],
                [state_re, state_im],
                [re.lanes(0..len), im.lanes(0..len)],
            );
        }
        if let Some(last) = &carry.last {
            // SAFETY: as above.
            let mut row = unsafe { last.row(here.start, len) };
            for (i, last) in row.lanes(0..len).iter_mut().enumerate() {
                *last = Arithmetic::complex(state[0][i], state[1][i]);
            }
        }
    }
}

/// `(state, added) <- (a state + added, state)`
#[inline(always)]
fn advance<R: Real>([a_re, a_im]: [R; 2], state: [&mut [R]; 2], added: [&mut [R]; 2]) {
    let ([re, im], [added_re, added_im]) = (state, added);
    let n = re.len();
    let (im, added_re, added_im) = (&mut im[..n], &mut added_re[..n], &mut added_im[..n]);
    for i in 0..n {
        let (before_re, before_im) = (re[i], im[i]);
        re[i] = a_re * before_re - a_im * before_im + added_re[i];
        im[i] = a_re * before_im + a_im * before_re + added_im[i];
        (added_re[i], added_im[i]) = (before_re, before_im);
    }
}
