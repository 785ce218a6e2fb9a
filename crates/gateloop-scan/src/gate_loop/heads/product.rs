//! Matrix products of the size of a chunk, in registers: the operands lie in the caches, and what a triangular
//! factor does not hold is not computed.

use core::ops::Range;

use crate::chunked::dispatch::{Isa, Kernel};

use super::super::real::Real;
use super::vector::Vector;

/// A matrix to read, any way round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix<'a, R> {
    data: &'a [R],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a, R: Real> Matrix<'a, R> {
    /// `rows` rows of `cols` numbers, one after the other.
    #[inline(always)]
    pub(super) fn new(data: &'a [R], rows: usize, cols: usize) -> Self {
        Self { data: &data[..rows * cols], rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Its rows for columns; nothing is moved.
    #[inline(always)]
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
}

/// Which products count. What does not count is not read either: a NaN there goes nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All.
    Whole,
    /// Results on and below the diagonal; those above it are arbitrary afterwards.
    LowerResult,
    /// The left factor is zero above the diagonal.
    LowerLeft,
    /// The left factor is zero below the diagonal.
    UpperLeft,
}

/// `c = a b`, or `c += a b`; `b` and `c` are row by row.
#[inline(always)]
pub(super) fn multiply<I: Isa, R: Real>(
    a: Matrix<'_, R>,
    b: Matrix<'_, R>,
    c: &mut [R],
    part: Part,
    adds: bool,
) {
    // What the unsafe reads below rely on.
    assert!(a.cols == b.rows && b.col_stride == 1 && c.len() >= a.rows * b.cols);
    assert!(part == Part::Whole || part == Part::LowerResult || a.rows == a.cols);
    // SAFETY: the caller runs with this instruction set.
    unsafe { I::call(Product { a, b, c: c.as_mut_ptr(), part, adds }) };
}

/// A number, as a vector of one: for columns that are too few to fill a register.
#[derive(Clone, Copy)]
struct One<R>(R);

impl<R: Real> Vector<R> for One<R> {
    const LEN: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(R::ZERO)
    }

    #[inline(always)]
    unsafe fn splat(x: R) -> Self {
        Self(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const R) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { *from })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut R) {
        // SAFETY: the caller's promise.
        unsafe { *to = self.0 };
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(self.0 * b.0 + c.0)
    }
}

struct Product<'a, R> {
    a: Matrix<'a, R>,
    b: Matrix<'a, R>,
    c: *mut R,
    part: Part,
    adds: bool,
}

impl<R: Real> Kernel for Product<'_, R> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let len = <R::Vector<I> as Vector<R>>::LEN;
        let cols = self.b.cols;
        let mut first = 0;
        while cols - first >= 2 * len {
            self.columns::<R::Vector<I>, 2>(first);
            first += 2 * len;
        }
        if cols - first >= len {
            self.columns::<R::Vector<I>, 1>(first);
            first += len;
        }
        while first < cols {
            self.columns::<One<R>, 1>(first);
            first += 1;
        }
    }
}

impl<R: Real> Product<'_, R> {
    /// The results in `N` vectors of columns, from `first` on.
    #[inline(always)]
    fn columns<V: Vector<R>, const N: usize>(&self, first: usize) {
        let rows = self.a.rows;
        // Rows above the panel's first column are wholly above the diagonal.
        let mut row = if self.part == Part::LowerResult { first.min(rows) } else { 0 };
        while rows - row >= 6 {
            self.block::<V, 6, N>(row, first);
            row += 6;
        }
        match rows - row {
            5 => self.block::<V, 5, N>(row, first),
            4 => self.block::<V, 4, N>(row, first),
            3 => self.block::<V, 3, N>(row, first),
            2 => self.block::<V, 2, N>(row, first),
            1 => self.block::<V, 1, N>(row, first),
            _ => {}
        }
    }

    /// `M` rows of `N` vectors, summed up in registers.
    #[inline(always)]
    fn block<V: Vector<R>, const M: usize, const N: usize>(&self, row: usize, first: usize) {
        let ldc = self.b.cols;
        let depth = self.a.cols;
        // SAFETY: `multiply` checked that the operands are as large as they say, and calls with rows and columns
        // that lie in them; it was dispatched to this instruction set.
        unsafe {
            let c = self.c.add(row * ldc + first);
            let mut sums = [[V::zero(); N]; M];
            if self.adds {
                for r in 0..M {
                    for n in 0..N {
                        sums[r][n] = V::load(c.add(r * ldc + n * V::LEN));
                    }
                }
            }
            match self.part {
                Part::Whole | Part::LowerResult => self.add_to(&mut sums, row, first, 0..depth),
                Part::LowerLeft => {
                    self.add_to(&mut sums, row, first, 0..row);
                    for p in 0..M {
                        self.add_rows(&mut sums, p..M, [row, first], row + p);
                    }
                }
                Part::UpperLeft => {
                    for p in 0..M {
                        self.add_rows(&mut sums, 0..p + 1, [row, first], row + p);
                    }
                    self.add_to(&mut sums, row, first, row + M..depth);
                }
            }
            for r in 0..M {
                for n in 0..N {
                    sums[r][n].store(c.add(r * ldc + n * V::LEN));
                }
            }
        }
    }

    /// Adds the products of some columns of `a` with rows of `b`.
    #[inline(always)]
    unsafe fn add_to<V: Vector<R>, const M: usize, const N: usize>(
        &self,
        sums: &mut [[V; N]; M],
        row: usize,
        first: usize,
        depth: Range<usize>,
    ) {
        // In a place of its own, so that it stays in registers.
        let mut local = *sums;
        let Matrix { row_stride, col_stride, .. } = self.a;
        // SAFETY: the caller's promise.
        unsafe {
            let mut a = self.a.data.as_ptr().add(row * row_stride + depth.start * col_stride);
            let mut b = self.b.data.as_ptr().add(depth.start * self.b.row_stride + first);
            for _ in depth {
                let mut of_b = [V::zero(); N];
                for n in 0..N {
                    of_b[n] = V::load(b.add(n * V::LEN));
                }
                for r in 0..M {
                    let x = V::splat(*a.add(r * row_stride));
                    for n in 0..N {
                        local[r][n] = x.mul_add(of_b[n], local[r][n]);
                    }
                }
                a = a.wrapping_add(col_stride);
                b = b.wrapping_add(self.b.row_stride);
            }
        }
        *sums = local;
    }

    /// The same of one column, for some of the rows.
    #[inline(always)]
    unsafe fn add_rows<V: Vector<R>, const M: usize, const N: usize>(
        &self,
        sums: &mut [[V; N]; M],
        rows: Range<usize>,
        [row, first]: [usize; 2],
        p: usize,
    ) {
        let Matrix { row_stride, col_stride, .. } = self.a;
        // SAFETY: the caller's promise.
        unsafe {
            let a = self.a.data.as_ptr().add(row * row_stride + p * col_stride);
            let b = self.b.data.as_ptr().add(p * self.b.row_stride + first);
            for r in 0..M {
                // Not a loop over the range: indices that are known when it is compiled keep sums in registers.
                if rows.contains(&r) {
                    let x = V::splat(*a.add(r * row_stride));
                    for n in 0..N {
                        sums[r][n] = x.mul_add(V::load(b.add(n * V::LEN)), sums[r][n]);
                    }
                }
            }
        }
    }
}

/// Writes the transpose of `from`, `rows` by `cols`, to `to`, whose rows are `stride` numbers apart.
#[inline(always)]
pub(super) fn transpose<R: Real>(
    from: &[R],
    [rows, cols]: [usize; 2],
    to: &mut [R],
    stride: usize,
) {
    /// A square of it is turned over in registers.
    const SIDE: usize = 4;
    let (from, to) = (&from[..rows * cols], &mut to[..(cols - 1) * stride + rows]);
    for row in (0..rows).step_by(SIDE) {
        for col in (0..cols).step_by(SIDE) {
            let (end_row, end_col) = ((row + SIDE).min(rows), (col + SIDE).min(cols));
            if end_row - row == SIDE && end_col - col == SIDE {
                // SAFETY: the square lies in both.
                unsafe {
                    let (from, to) =
                        (&raw const from[row * cols + col], &raw mut to[col * stride + row]);
                    R::transpose_square(from, cols, to, stride);
                }
                continue;
            }
            for c in col..end_col {
                for r in row..end_row {
                    to[c * stride + r] = from[r * cols + c];
                }
            }
        }
    }
}
