//! The decays of heads and their products, in double precision: neither a logarithm nor an angle is summed up, so
//! that long phases keep their digits and a decay of zero is as good as any other.

use crate::chunked::output::Output;
use crate::{Complex, ParallelFor};

use super::super::real::Real;
use super::super::rows::Rows;
use super::site::{Dims, Site};

/// A complex number of the products.
pub(super) type Wide = Complex<f64>;

const ONE: Wide = Complex { re: 1.0, im: 0.0 };

/// `a = e^{log |a| + i arg a}` of every head and token, and their products.
pub(super) struct Decays {
    tokens: Vec<Wide>, // [B, H, T]
    totals: Vec<Wide>, // [B, H, N]: the products over chunks
}

impl Decays {
    /// From logarithms and angles, [B, T, H].
    pub(super) fn new<R: Real>(
        dims: &Dims,
        log_magnitude: Rows<'_, R>,
        phase: Rows<'_, R>,
        threads: &dyn ParallelFor,
    ) -> Self {
        let (streams, chunks) = (dims.batch * dims.heads, dims.chunks());
        let mut tokens = vec![ONE; streams * dims.seqlen];
        let mut totals = vec![ONE; streams * chunks];
        let (all, products) = (Output::new(&mut tokens, false), Output::new(&mut totals, false));
        threads.for_each(streams, &|index| {
            let (batch, head) = (index / dims.heads, index % dims.heads);
            // SAFETY: each head of each sequence is one task's.
            let (mut row, mut of_chunks) = unsafe {
                (all.row(index * dims.seqlen, dims.seqlen), products.row(index * chunks, chunks))
            };
            let row = row.lanes(0..dims.seqlen);
            for (t, a) in row.iter_mut().enumerate() {
                let part = |rows: Rows<'_, R>| rows.row(batch, t, head..head + 1)[0].widen().re;
                let (sin, cos) = part(phase).sin_cos();
                let modulus = part(log_magnitude).exp();
                // Nothing is kept, at whatever angle.
                *a = if modulus == 0.0 {
                    Wide::new(0.0, 0.0)
                } else {
                    Wide::new(modulus * cos, modulus * sin)
                };
            }
            let of_chunks = of_chunks.lanes(0..chunks);
            for (total, a) in of_chunks.iter_mut().zip(row.chunks(dims.chunk_len)) {
                *total = a.iter().product();
            }
        });
        Self { tokens, totals }
    }

    /// Those of a chunk's tokens.
    pub(super) fn of(&self, dims: &Dims, site: &Site) -> &[Wide] {
        let first = site.stream(dims) * dims.seqlen;
        &self.tokens[first..][site.tokens.clone()]
    }

    /// The product over a chunk.
    pub(super) fn total(&self, dims: &Dims, site: &Site) -> Wide {
        self.totals[site.stream(dims) * dims.chunks() + site.chunk]
    }
}

/// For each token the product of the decays from the chunk's start up to and including its own: what is left there of
/// the state that enters.
pub(super) fn from_start(a: &[Wide]) -> impl Iterator<Item = Wide> {
    a.iter().scan(ONE, |product, a| {
        *product *= a;
        Some(*product)
    })
}

/// For each token, the last one first, the product of the decays after its own: what is left of it at the chunk's end.
pub(super) fn to_end(a: &[Wide]) -> impl Iterator<Item = Wide> {
    a.iter().rev().scan(ONE, |product, a| {
        let here = *product;
        *product *= a;
        Some(here)
    })
}

/// What is left of the earlier tokens of a chunk at one token after the other: the products `a[j+1] .. a[i]`.
pub(super) struct Remaining {
    re: Vec<f64>,
    im: Vec<f64>,
}

impl Remaining {
    pub(super) fn new(chunk_len: usize) -> Self {
        Self { re: vec![0.0; chunk_len], im: vec![0.0; chunk_len] }
    }

    /// Goes on to token `i` with its decay; tokens come one by one from 0. Returns those of the tokens up to i, real and
    /// imaginary parts.
    #[inline(always)]
    pub(super) fn at(&mut self, i: usize, a: Wide) -> [&[f64]; 2] {
        let (re, im) = (&mut self.re[..=i], &mut self.im[..=i]);
        for (re, im) in re[..i].iter_mut().zip(&mut im[..i]) {
            (*re, *im) = (*re * a.re - *im * a.im, *re * a.im + *im * a.re);
        }
        (re[i], im[i]) = (1.0, 0.0);
        [re, im]
    }
}
