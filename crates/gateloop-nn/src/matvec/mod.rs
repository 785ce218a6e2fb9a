//! Products of weight matrices with a few vectors, bound by reading the weights once ([`few`]), or with a few dozen
//! ([`many`]).
//!
//! libtorch's matrix products pack their operands, which pays for many rows and costs as much as the
//! product for one. Here every weight is read once, in the order of memory, by all threads.

// A kernel is compiled for the instruction set of the function that it is inlined into.
#![allow(clippy::inline_always)]

mod few;
mod isa;
mod many;
mod panels;
mod places;
mod team;
mod tile;

use crate::feed_forward::Gelu;
use crate::pointwise::Before;
use crate::threads::TorchThreads;
use few::FewRows;
use gateloop_scan::ParallelFor;
pub(crate) use isa::{Isa, Kernel, LANES, dispatch};
use many::ManyRows;
use panels::Panels;
use places::{Columns, Lines, Place};
use tile::Weight;

/// A matrix [out, in], row after row.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Matrix<'a> {
    /// As it was trained.
    F32(&'a [f32]),
    /// The upper halves of f32.
    Bf16(&'a [u16]),
    /// Whole numbers, and for each row what they are multiples of.
    Int8(&'a [i8], &'a [f32]),
}

impl Matrix<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::F32(weights) => size_of_val(*weights),
            Self::Bf16(weights) => size_of_val(*weights),
            Self::Int8(weights, _) => weights.len(),
        }
    }

    /// The number of weights.
    fn len(&self) -> usize {
        match self {
            Self::F32(weights) => weights.len(),
            Self::Bf16(weights) => weights.len(),
            Self::Int8(weights, _) => weights.len(),
        }
    }
}

/// An affine map.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Map<'a> {
    /// w, [out, in].
    pub(crate) matrix: Matrix<'a>,
    /// `[out]`
    pub(crate) bias: Option<&'a [f32]>,
}

/// One product to be computed: y[m, o] = sum_i x[m, i] w[o, i] + bias[o].
#[derive(Debug)]
pub(crate) struct Product<'a> {
    pub(crate) map: Map<'a>,
    /// y, [M, out].
    pub(crate) y: &'a mut [f32],
}

/// Weights that one thread takes at a time: a few microseconds' work, so that a thread that is late
/// holds nobody up for long.
const PIECE_BYTES: usize = 64 << 10;

/// From so many rows of x on, arithmetic takes longer than reading the weights.
const MANY_ROWS: usize = 9;

/// Computes all products with what `before` makes of the rows of one x, [rows, in].
///
/// # Panics
/// If a length does not fit: the caller has the shapes.
pub(crate) fn multiply(x: &[f32], rows: usize, before: Before<'_>, products: &mut [Product<'_>]) {
    let in_dim = in_dim(x, rows);
    if rows < MANY_ROWS {
        let pieces = products.iter_mut().flat_map(|product| {
            let (out_dim, y) = product.columns(rows);
            pieces(product.map, [out_dim, in_dim], few::BLOCK, y)
        });
        few(before.of(0, x, &mut Vec::new()), &pieces.collect::<Vec<_>>());
    } else {
        let block = many::rows_at_once();
        let pieces = products.iter_mut().flat_map(|product| {
            let (out_dim, y) = product.columns(rows);
            pieces(product.map, [out_dim, in_dim], block, Place::Rows(y))
        });
        many(&Panels::of(x, in_dim, before), &pieces.collect::<Vec<_>>());
    }
}

/// Computes `product` with gelu(W x + b), which `expand` and what `before` makes of the rows of x, [rows, in], give:
/// two products, of which the first may write what the second reads.
///
/// # Panics
/// As [`multiply`].
pub(crate) fn multiply_twice(
    x: &[f32],
    rows: usize,
    before: Before<'_>,
    (expand, gelu): (Map<'_>, Gelu),
    mut product: Product<'_>,
) {
    let in_dim = in_dim(x, rows);
    assert!(expand.matrix.len().is_multiple_of(in_dim), "the matrix is not [inner, in]");
    let inner = expand.matrix.len() / in_dim;
    if rows < MANY_ROWS {
        let mut h = vec![0.0; rows * inner];
        multiply(x, rows, before, &mut [Product { map: expand, y: &mut h }]);
        multiply(&h, rows, Before::Gelu(gelu), &mut [product]);
        return;
    }
    let block = many::rows_at_once();
    let panels = Panels::of(x, in_dim, before);
    let mut h = Panels::unwritten(rows, inner);
    let place = Place::Panels(Lines::new(h.lines_mut(), inner), gelu);
    many(&panels, &pieces(expand, [inner, in_dim], block, place).collect::<Vec<_>>());
    let (out_dim, y) = product.columns(rows);
    let pieces = pieces(product.map, [out_dim, inner], block, Place::Rows(y));
    many(&h, &pieces.collect::<Vec<_>>());
}

fn in_dim(x: &[f32], rows: usize) -> usize {
    assert!(rows > 0 && x.len() >= rows && x.len().is_multiple_of(rows), "x is not [rows, in]");
    x.len() / rows
}

impl Product<'_> {
    /// The width of y, and its places.
    fn columns(&mut self, rows: usize) -> (usize, Columns) {
        assert!(self.y.len().is_multiple_of(rows), "y is not [rows, out]");
        let out_dim = self.y.len() / rows;
        (out_dim, Columns::new(self.y, out_dim))
    }
}

/// All pieces of products with a few rows x.
fn few(x: &[f32], pieces: &[Piece<'_, Columns>]) {
    team::for_each(pieces.len(), &|index| {
        let piece = &pieces[index];
        let y = &piece.place;
        match piece.map.matrix {
            Matrix::F32(w) => dispatch(FewRows { part: piece.part(w, None), x, y }),
            Matrix::Bf16(w) => dispatch(FewRows { part: piece.part(w, None), x, y }),
            Matrix::Int8(w, scale) => dispatch(FewRows { part: piece.part(w, Some(scale)), x, y }),
        }
    });
}

/// All pieces of products with many rows.
fn many(panels: &Panels, pieces: &[Piece<'_, Place>]) {
    fn run<'a, W: Weight>(
        panels: &Panels,
        piece: &Piece<'a, Place>,
        then: Option<&Piece<'a, Place>>,
        (w, scale): (&'a [W], Option<&'a [f32]>),
    ) {
        let then = then.and_then(Piece::weights).unwrap_or_default();
        dispatch(ManyRows { part: piece.part(w, scale), panels, then, place: &piece.place });
    }
    let threads = TorchThreads.threads();
    // What lies between two products runs on libtorch's threads, which had better not wait for others to leave
    // their cores.
    TorchThreads.for_each(pieces.len(), &|index| {
        let piece = &pieces[index];
        // With threads that keep step, a thread's next piece.
        let then = pieces.get(index + threads);
        match piece.map.matrix {
            Matrix::F32(w) => run(panels, piece, then, (w, None)),
            Matrix::Bf16(w) => run(panels, piece, then, (w, None)),
            Matrix::Int8(w, scale) => run(panels, piece, then, (w, Some(scale))),
        }
    });
}

/// The part of a product that one thread computes: rows `first..first + len` of the matrix.
struct Piece<'a, P> {
    map: Map<'a>,
    in_dim: usize,
    first: usize,
    len: usize,
    place: P,
}

impl<'a, P> Piece<'a, P> {
    /// From its first weight on, if it is stored in this way.
    fn weights<W: Weight>(&self) -> Option<&'a [W]> {
        W::of(&self.map.matrix)?.get(self.first * self.in_dim..)
    }

    fn part<W>(&self, w: &'a [W], scale: Option<&'a [f32]>) -> Part<'a, W> {
        let &Self { map: Map { bias, .. }, in_dim, first, len, .. } = self;
        Part { w, scale, bias, in_dim, first, len }
    }
}

/// Checks a map, [out, in], and cuts it into pieces of whole blocks of rows, but for the last.
fn pieces<P: Copy>(
    map: Map<'_>,
    [out_dim, in_dim]: [usize; 2],
    block: usize,
    place: P,
) -> impl Iterator<Item = Piece<'_, P>> {
    assert_eq!(map.matrix.len(), out_dim * in_dim, "the matrix is not [out, in]");
    assert!(map.bias.is_none_or(|bias| bias.len() == out_dim), "the bias is not [out]");
    if let Matrix::Int8(_, scale) = map.matrix {
        assert_eq!(scale.len(), out_dim, "scale is not [out]");
    }
    let row_bytes = map.matrix.bytes() / out_dim.max(1);
    let step = (PIECE_BYTES / row_bytes.max(1)).max(1).next_multiple_of(block);
    (0..out_dim).step_by(step).map(move |first| {
        let len = step.min(out_dim - first);
        Piece { map, in_dim, first, len, place }
    })
}

/// A piece with its weights as they are stored.
struct Part<'a, W> {
    /// The whole matrix.
    w: &'a [W],
    scale: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    in_dim: usize,
    first: usize,
    len: usize,
}

impl<'a, W> Part<'a, W> {
    #[inline(always)]
    fn row(&self, o: usize) -> &'a [W] {
        &self.w[o * self.in_dim..(o + 1) * self.in_dim]
    }

    /// What row o's products are multiplied with, and what is added then. Multiplying with one and adding nothing
    /// leaves their bits as they are.
    #[inline(always)]
    fn scale_and_bias(&self, o: usize) -> (f32, f32) {
        (self.scale.map_or(1.0, |scale| scale[o]), self.bias.map_or(0.0, |bias| bias[o]))
    }
}

#[cfg(test)]
mod tests;
