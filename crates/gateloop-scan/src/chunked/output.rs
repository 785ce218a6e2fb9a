//! An output array that several threads fill, each its own rectangle.

use core::marker::PhantomData;
use core::mem::size_of;
use core::ops::Range;

use crate::ScanElement;

use super::dispatch::{Isa, LINE};
use super::line::Line;

/// A `&mut [E]` that can be written from several threads, at disjoint places.
///
/// Tiles of channels interleave in memory, so they cannot be told apart by splitting the slice;
/// the disjointness is kept by [`super::drive`] instead.
pub(crate) struct Output<'a, E> {
    data: *mut E,
    len: usize,
    streaming: bool,
    borrow: PhantomData<&'a mut [E]>,
}

// SAFETY: an `Output` is a `&mut [E]` (which is Send for E: Send) whose only access through a
// shared reference is the unsafe `row`, and its contract rules out races.
unsafe impl<E: Send> Sync for Output<'_, E> {}
// SAFETY: as for `&mut [E]`.
unsafe impl<E: Send> Send for Output<'_, E> {}

impl<'a, E: ScanElement> Output<'a, E> {
    /// `streaming` writes past the caches: right for an array that is larger than they are, since
    /// an ordinary store first reads the line that it is about to overwrite.
    pub(crate) fn new(data: &'a mut [E], streaming: bool) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), streaming, borrow: PhantomData }
    }

    /// [`Output::new`] of a part of an array whose other parts are written through other outputs.
    ///
    /// # Safety
    /// `data` points to `len` elements that are borrowed mutably for `'a`, and those that are written
    /// through this output are written or read through nothing else.
    pub(crate) unsafe fn from_raw(data: *mut E, len: usize, streaming: bool) -> Self {
        Self { data, len, streaming, borrow: PhantomData }
    }

    /// Whether there are lanes that are written past the caches.
    pub(crate) fn is_streaming(&self) -> bool {
        self.streaming
    }

    /// Elements between the beginning of the array and the first cache line boundary.
    pub(crate) fn misalignment(&self) -> usize {
        misalignment(self.data)
    }

    /// The row of `width` elements at element `at`, to write to.
    ///
    /// # Safety
    /// As long as the row lives, and until [`fence`] is called after it, nobody else reads or
    /// writes these elements.
    ///
    /// # Panics
    /// If the row leaves the array.
    #[inline(always)]
    pub(crate) unsafe fn row(&self, at: usize, width: usize) -> OutputRow<'_, E> {
        assert!(at <= self.len && width <= self.len - at);
        // SAFETY: the range was checked to lie in the array, which is borrowed for 'a, and the
        // caller promises that nobody else touches it.
        let data = unsafe { core::slice::from_raw_parts_mut(self.data.add(at), width) };
        OutputRow { data, streaming: self.streaming }
    }
}

/// Rows of outputs that wait to be sent to their places.
#[derive(Debug)]
pub(crate) struct Staged<E> {
    /// [outputs, rows, stride], from the first cache line boundary on.
    data: Vec<E>,
    lead: usize,
    rows: usize,
    stride: usize,
    /// The position of the first row, and the width of all.
    first: usize,
    width: usize,
}

impl<E: ScanElement> Staged<E> {
    /// Room for so many rows of so many outputs.
    pub(crate) fn new(outputs: usize, rows: usize, widest: usize) -> Self {
        let stride = widest.next_multiple_of(line_of::<E>());
        let data = vec![E::ZERO; outputs * rows * stride + line_of::<E>()];
        let lead = misalignment(data.as_ptr());
        Self { data, lead, rows, stride, first: 0, width: 0 }
    }

    /// From now on rows begin at position `first` and are of this width.
    pub(crate) fn begin(&mut self, first: usize, width: usize) {
        debug_assert!(width <= self.stride);
        (self.first, self.width) = (first, width);
    }

    #[inline(always)]
    fn lanes(&self, output: usize, position: usize) -> Range<usize> {
        debug_assert!(position - self.first < self.rows);
        let at = self.lead + (output * self.rows + position - self.first) * self.stride;
        at..at + self.width
    }

    /// The row of `output` at `position`.
    #[inline(always)]
    pub(crate) fn row(&self, output: usize, position: usize) -> &[E] {
        &self.data[self.lanes(output, position)]
    }

    /// The row of `output` at `position`, to write to.
    #[inline(always)]
    pub(crate) fn row_mut(&mut self, output: usize, position: usize) -> OutputRow<'_, E> {
        let lanes = self.lanes(output, position);
        OutputRow { data: &mut self.data[lanes], streaming: false }
    }

    /// The rows of two outputs at `position`, to write to.
    #[inline(always)]
    pub(crate) fn both_mut(&mut self, position: usize) -> [OutputRow<'_, E>; 2] {
        let (first, second) = (self.lanes(0, position), self.lanes(1, position));
        let (before, rest) = self.data.split_at_mut(second.start);
        [&mut before[first], &mut rest[..self.width]]
            .map(|data| OutputRow { data, streaming: false })
    }
}

/// Makes this thread's streamed rows visible before anything it does afterwards.
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

/// Asks for a row that will be read soon. The hardware foresees the next row of a tile only if tiles are whole
/// rows.
#[inline(always)]
pub(crate) fn prefetch<E>(row: &[E]) {
    for first in row.iter().step_by(line_of::<E>()) {
        prefetch_line(first);
    }
}

/// Asks for the line of a number that will be read soon.
#[inline(always)]
pub(crate) fn prefetch_line<E>(number: &E) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: SSE is part of x86-64, and a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(number).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}

/// Streams what is left of outgoing rows and brings incoming ones into the cache: `grain` lines of each in turn,
/// because memory is fastest while it is read and written at once, and the last line first if rows come last
/// row first, because the hardware foresees only what goes one way.
#[inline(always)]
pub(crate) fn exchange<I: Isa, E: ScanElement, const IN: usize, const OUT: usize>(
    incoming: [&[E]; IN],
    mut outgoing: [Lines<'_, E>; OUT],
    grain: usize,
    backwards: bool,
) {
    let lines = incoming.iter().map(|row| row.len().div_ceil(line_of::<E>()));
    let lines = lines.chain(outgoing.iter().map(Lines::len)).max().unwrap_or(0);
    for begin in (0..lines).step_by(grain) {
        let part = begin..begin.saturating_add(grain).min(lines);
        let part = if backwards { lines - part.end..lines - part.start } else { part };
        for row in &mut outgoing {
            row.stream::<I>(part.clone());
        }
        for row in incoming {
            touch(row, part.clone(), backwards);
        }
    }
}

/// Brings those of some lines into the cache that a row has.
#[inline(always)]
fn touch<E>(row: &[E], lines: Range<usize>, backwards: bool) {
    let end = lines.end.min(row.len().div_ceil(line_of::<E>()));
    for line in lines.start..end {
        let line = if backwards { lines.start + end - 1 - line } else { line };
        // Read, and not only asked for: the hardware foresees what comes after a row that is read.
        // SAFETY: the line begins in the row.
        unsafe { core::ptr::read_volatile(row.as_ptr().add(line * line_of::<E>())) };
    }
}

/// The whole cache lines of a row that is being written past the caches.
pub(crate) struct Lines<'r, E> {
    target: &'r mut [E],
    source: &'r [E],
}

impl<E: ScanElement> Lines<'_, E> {
    /// No line.
    pub(crate) const fn none() -> Self {
        Self { target: &mut [], source: &[] }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.target.len() / line_of::<E>()
    }

    /// Streams those of some lines that there are.
    #[inline(always)]
    fn stream<I: Isa>(&mut self, lines: Range<usize>) {
        debug_assert_eq!(self.target.len(), self.source.len());
        let (target, source) = (self.target.as_mut_ptr(), self.source.as_ptr());
        for line in lines.start..lines.end.min(self.len()) {
            let at = line * line_of::<E>();
            // SAFETY: both are of this many whole lines; the target's are aligned by the choice of [`Parts`],
            // and the instruction set is that of the running kernel.
            unsafe { E::Line::<I>::load(source.add(at)).stream(target.add(at)) };
        }
    }
}

/// Elements of a cache line.
pub(crate) const fn line_of<E>() -> usize {
    LINE / size_of::<E>()
}

#[inline(always)]
fn misalignment<E>(data: *const E) -> usize {
    // Every element's size divides a cache line, and its alignment is at most its size, so the
    // boundary may still fall inside an element: then alignment is out of reach.
    let bytes = data.addr().wrapping_neg() % LINE;
    if bytes.is_multiple_of(size_of::<E>()) { bytes / size_of::<E>() } else { 0 }
}

/// The lanes of a row of an [`Output`], in three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Up to the first cache line boundary, written as usual.
    pub(crate) head: Range<usize>,
    /// Whole cache lines, streamed; empty if nothing is.
    pub(crate) lines: Range<usize>,
    /// The rest, written as usual.
    pub(crate) tail: Range<usize>,
}

/// A row of an [`Output`].
pub(crate) struct OutputRow<'r, E> {
    data: &'r mut [E],
    streaming: bool,
}

impl<'r, E: ScanElement> OutputRow<'r, E> {
    /// How to go through the row. All that is written as usual is written through
    /// [`OutputRow::lanes`].
    #[inline(always)]
    pub(crate) fn parts(&self) -> Parts {
        let width = self.data.len();
        let head = misalignment(self.data.as_ptr()).min(width);
        let aligned = self.data.as_ptr().wrapping_add(head).addr().is_multiple_of(LINE);
        let tail =
            if self.streaming && aligned { width - (width - head) % line_of::<E>() } else { head };
        Parts { head: 0..head, lines: head..tail, tail: tail..width }
    }

    /// Writes the whole row, whatever its alignment is.
    #[inline(always)]
    pub(crate) fn write<I: Isa>(self, row: &[E]) {
        exchange::<I, E, 0, 1>([], [self.begin(row)], usize::MAX, false);
    }

    /// Writes what of the row is written as usual. The rest is to be streamed.
    #[inline(always)]
    pub(crate) fn begin(self, row: &'r [E]) -> Lines<'r, E> {
        let Parts { head, lines, tail } = self.parts();
        for edge in [head, tail] {
            self.data[edge.clone()].copy_from_slice(&row[edge]);
        }
        Lines { target: &mut self.data[lines.clone()], source: &row[lines] }
    }

    /// Lanes to write as usual.
    #[inline(always)]
    pub(crate) fn lanes(&mut self, lanes: Range<usize>) -> &mut [E] {
        &mut self.data[lanes]
    }
}
