//! Rows of numbers inside a larger array: what a projection wrote, without a copy.

use core::marker::PhantomData;
use core::ops::Range;

use crate::chunked::output::{Output, OutputRow};
use crate::{ScanElement, ScanError, ScanShape};

/// Where rows lie: `width` numbers a token, tokens `row` numbers apart, sequences `batch` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    batch: usize,
    seqlen: usize,
    width: usize,
    batch_stride: usize,
    row_stride: usize,
}

impl Layout {
    fn contiguous(shape: ScanShape) -> Self {
        let ScanShape { batch, seqlen, channels: width } = shape;
        Self { batch, seqlen, width, batch_stride: seqlen * width, row_stride: width }
    }

    /// Numbers from the first one to the last one, if they can be counted.
    fn span(&self) -> Option<usize> {
        let batches = (self.batch - 1).checked_mul(self.batch_stride)?;
        let rows = (self.seqlen - 1).checked_mul(self.row_stride)?;
        batches.checked_add(rows)?.checked_add(self.width)
    }

    fn check(&self, operand: &'static str, len: usize) -> Result<(), ScanError> {
        match self.span() {
            Some(span) if span <= len => Ok(()),
            needed => Err(ScanError::Stride {
                operand,
                row_stride: self.row_stride,
                batch_stride: self.batch_stride,
                needed: needed.unwrap_or(usize::MAX),
                actual: len,
            }),
        }
    }

    fn at(&self, batch: usize, t: usize) -> usize {
        batch * self.batch_stride + t * self.row_stride
    }
}

/// `[B, T, width]` numbers to read, at any distance from row to row.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, F> {
    data: &'a [F],
    layout: Layout,
}

impl<'a, F> Rows<'a, F> {
    /// Rows one after the other: `data` is `[B, T, C]` of `shape`.
    pub fn contiguous(
        operand: &'static str,
        data: &'a [F],
        shape: ScanShape,
    ) -> Result<Self, ScanError> {
        crate::error::check_len(operand, "[B, T, C]", data.len(), shape.len())?;
        Ok(Self { data, layout: Layout::contiguous(shape) })
    }

    /// Rows of `shape.channels` numbers, `row_stride` numbers from token to token and `batch_stride`
    /// from sequence to sequence, from the beginning of `data` on.
    ///
    /// # Errors
    /// [`ScanError::Stride`] if a row would leave `data`.
    pub fn strided(
        operand: &'static str,
        data: &'a [F],
        shape: ScanShape,
        [batch_stride, row_stride]: [usize; 2],
    ) -> Result<Self, ScanError> {
        let layout = Layout { batch_stride, row_stride, ..Layout::contiguous(shape) };
        layout.check(operand, data.len())?;
        Ok(Self { data, layout })
    }

    /// Some columns of the rows: a part of a packed projection.
    ///
    /// # Errors
    /// [`ScanError::Length`] if there are not so many columns.
    pub fn columns(self, operand: &'static str, columns: Range<usize>) -> Result<Self, ScanError> {
        check_columns(operand, &columns, self.layout.width)?;
        let width = columns.len();
        Ok(Self { data: &self.data[columns.start..], layout: Layout { width, ..self.layout } })
    }

    /// The columns in `N` parts of equal width.
    ///
    /// # Errors
    /// [`ScanError::Length`] if they cannot be divided so.
    pub fn split<const N: usize>(self, operand: &'static str) -> Result<[Self; N], ScanError> {
        let part = part_width::<N>(operand, self.layout.width)?;
        let layout = Layout { width: part, ..self.layout };
        Ok(core::array::from_fn(|i| Self { data: &self.data[i * part..], layout }))
    }

    pub(super) fn check(
        &self,
        operand: &'static str,
        shape: ScanShape,
        parts: usize,
    ) -> Result<(), ScanError> {
        check_shape(operand, &self.layout, shape, parts)
    }

    pub(super) fn shape(&self) -> Result<ScanShape, ScanError> {
        ScanShape::new(self.layout.batch, self.layout.seqlen, self.layout.width)
    }

    /// Some columns of one row.
    #[inline(always)]
    pub(super) fn row(&self, batch: usize, t: usize, columns: Range<usize>) -> &'a [F] {
        let at = self.layout.at(batch, t);
        &self.data[at..at + self.layout.width][columns]
    }
}

/// `[B, T, width]` numbers to write. What they held before is not read.
#[derive(Debug)]
pub struct RowsMut<'a, F> {
    data: *mut F,
    len: usize,
    layout: Layout,
    borrow: PhantomData<&'a mut [F]>,
}

impl<'a, F: ScanElement> RowsMut<'a, F> {
    /// Rows one after the other: `data` is `[B, T, C]` of `shape`.
    pub fn contiguous(
        operand: &'static str,
        data: &'a mut [F],
        shape: ScanShape,
    ) -> Result<Self, ScanError> {
        crate::error::check_len(operand, "[B, T, C]", data.len(), shape.len())?;
        Ok(Self::of(data, Layout::contiguous(shape)))
    }

    /// Rows at these distances, as [`Rows::strided`].
    ///
    /// # Errors
    /// [`ScanError::Stride`] if a row would leave `data`, [`ScanError::Overlap`] if two rows would
    /// share numbers.
    pub fn strided(
        operand: &'static str,
        data: &'a mut [F],
        shape: ScanShape,
        [batch_stride, row_stride]: [usize; 2],
    ) -> Result<Self, ScanError> {
        let layout = Layout { batch_stride, row_stride, ..Layout::contiguous(shape) };
        layout.check(operand, data.len())?;
        let sequence = (layout.seqlen - 1) * row_stride + layout.width;
        let rows_meet = layout.seqlen > 1 && row_stride < layout.width;
        if rows_meet || (layout.batch > 1 && batch_stride < sequence) {
            return Err(ScanError::Overlap { operand, row_stride, batch_stride });
        }
        Ok(Self::of(data, layout))
    }

    /// The columns in `N` parts of equal width, to be written apart from each other.
    ///
    /// # Errors
    /// [`ScanError::Length`] if they cannot be divided so.
    pub fn split<const N: usize>(self, operand: &'static str) -> Result<[Self; N], ScanError> {
        let part = part_width::<N>(operand, self.layout.width)?;
        let layout = Layout { width: part, ..self.layout };
        Ok(core::array::from_fn(|i| Self {
            data: self.data.wrapping_add(i * part),
            len: self.len - i * part,
            layout,
            borrow: PhantomData,
        }))
    }

    fn of(data: &'a mut [F], layout: Layout) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), layout, borrow: PhantomData }
    }

    pub(super) fn check(
        &self,
        operand: &'static str,
        shape: ScanShape,
        parts: usize,
    ) -> Result<(), ScanError> {
        check_shape(operand, &self.layout, shape, parts)
    }

    /// The rows as several threads write to them.
    pub(super) fn shared(self, streaming: bool) -> SharedRows<'a, F> {
        // SAFETY: the pointer came from a `&'a mut [F]` of which this is the only view of its columns.
        let output = unsafe { Output::from_raw(self.data, self.len, streaming) };
        SharedRows { output, layout: self.layout }
    }
}

/// [`RowsMut`] for several threads, each at its own place.
pub(super) struct SharedRows<'a, F> {
    output: Output<'a, F>,
    layout: Layout,
}

impl<F: ScanElement> SharedRows<'_, F> {
    /// Some columns of one row.
    ///
    /// # Safety
    /// As for [`Output::row`].
    #[inline(always)]
    pub(super) unsafe fn row(
        &self,
        batch: usize,
        t: usize,
        columns: Range<usize>,
    ) -> OutputRow<'_, F> {
        debug_assert!(columns.end <= self.layout.width);
        let at = self.layout.at(batch, t) + columns.start;
        // SAFETY: the caller's promise.
        unsafe { self.output.row(at, columns.len()) }
    }
}

fn check_columns(
    operand: &'static str,
    columns: &Range<usize>,
    width: usize,
) -> Result<(), ScanError> {
    if columns.start < columns.end && columns.end <= width {
        return Ok(());
    }
    let layout = "[.., columns]";
    Err(ScanError::Length { operand, layout, expected: columns.end, actual: width })
}

fn part_width<const N: usize>(operand: &'static str, width: usize) -> Result<usize, ScanError> {
    if N > 0 && width >= N && width.is_multiple_of(N) {
        return Ok(width / N);
    }
    let expected = width.next_multiple_of(N.max(1)).max(N);
    Err(ScanError::Length { operand, layout: "[.., parts x C]", expected, actual: width })
}

fn check_shape(
    operand: &'static str,
    layout: &Layout,
    shape: ScanShape,
    parts: usize,
) -> Result<(), ScanError> {
    let expected = [shape.batch, shape.seqlen, parts * shape.channels];
    let actual = [layout.batch, layout.seqlen, layout.width];
    if expected == actual {
        return Ok(());
    }
    Err(ScanError::Rows { operand, expected, actual })
}
