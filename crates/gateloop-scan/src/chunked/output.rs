//! An output array that several threads fill, each its own rectangle.

use core::marker::PhantomData;
use core::mem::size_of;
use core::ops::Range;

use crate::ScanElement;

use super::dispatch::{Isa, LINE};

/// A `&mut [E]` that can be written from several threads, at disjoint places.
///
/// Tiles of channels interleave in memory, so they cannot be told apart by splitting the slice;
/// the disjointness is kept by [`super::drive`] instead.
pub(super) struct Output<'a, E> {
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
    pub(super) fn new(data: &'a mut [E], streaming: bool) -> Self {
        Self { data: data.as_mut_ptr(), len: data.len(), streaming, borrow: PhantomData }
    }

    /// Elements between the beginning of the array and the first cache line boundary.
    pub(super) fn misalignment(&self) -> usize {
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
    pub(super) unsafe fn row(&self, at: usize, width: usize) -> OutputRow<'_, E> {
        assert!(at <= self.len && width <= self.len - at);
        // SAFETY: the range was checked to lie in the array, which is borrowed for 'a, and the
        // caller promises that nobody else touches it.
        let data = unsafe { core::slice::from_raw_parts_mut(self.data.add(at), width) };
        OutputRow { data, streaming: self.streaming }
    }
}

/// Makes this thread's streamed rows visible before anything it does afterwards.
pub(super) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        core::arch::x86_64::_mm_sfence();
    }
}

/// Elements of a cache line.
pub(super) const fn line_of<E>() -> usize {
    LINE / size_of::<E>()
}

#[inline(always)]
fn misalignment<E>(data: *const E) -> usize {
    // Every element's size divides a cache line, and its alignment is at most its size, so the
    // boundary may still fall inside an element: then alignment is out of reach.
    let bytes = data.addr().wrapping_neg() % LINE;
    if bytes.is_multiple_of(size_of::<E>()) { bytes / size_of::<E>() } else { 0 }
}

/// A row of an [`Output`].
pub(super) struct OutputRow<'r, E> {
    data: &'r mut [E],
    streaming: bool,
}

impl<E: ScanElement> OutputRow<'_, E> {
    /// The lanes that make up whole cache lines to be streamed; the rest is to be written as usual.
    #[inline(always)]
    pub(super) fn streamed(&self) -> Range<usize> {
        let width = self.data.len();
        if !self.streaming {
            return width..width;
        }
        let head = misalignment(self.data.as_ptr());
        if !self.data.as_ptr().wrapping_add(head).addr().is_multiple_of(LINE) || head > width {
            return width..width;
        }
        head..width - (width - head) % line_of::<E>()
    }

    /// Lanes to write as usual.
    #[inline(always)]
    pub(super) fn lanes(&mut self, lanes: Range<usize>) -> &mut [E] {
        &mut self.data[lanes]
    }

    /// Streams one cache line to the lanes from `at` on; `at` must lie a whole number of lines
    /// into [`OutputRow::streamed`].
    #[inline(always)]
    pub(super) fn stream<I: Isa>(&mut self, at: usize, line: &Line<E>) {
        let target = &mut self.data[at..at + line_of::<E>()];
        debug_assert!(target.as_ptr().addr().is_multiple_of(LINE));
        // SAFETY: the target is a cache line long and, by the choice of `streamed`, aligned to
        // one; `Line` is at least as long and aligned by its type. The instruction set is that
        // of the running kernel.
        unsafe { I::stream_line(target.as_mut_ptr().cast(), core::ptr::from_ref(line).cast()) };
    }
}

/// A cache line of elements that is about to be streamed; its first [`line_of`] count.
#[repr(align(64))]
pub(super) struct Line<E>(pub(super) [E; 16]);

impl<E: ScanElement> Line<E> {
    #[inline(always)]
    pub(super) const fn zero() -> Self {
        Self([E::ZERO; 16])
    }

    #[inline(always)]
    pub(super) fn lanes(&mut self) -> &mut [E] {
        &mut self.0[..line_of::<E>()]
    }
}
