//! A cache line of numbers: what a walk over arrays that no cache holds reads, computes and writes at a time.
//!
//! Such a walk lives on the hardware's foresight of what is read next, and on how much of it lies within the
//! processor's view, a few hundred instructions. So a line costs as few of them as can be.

use crate::{Complex, ScanElement};

use super::dispatch::{Isa, LINE};
use super::output::line_of;

/// The numbers of a cache line, with the results of their own arithmetic, bit for bit.
pub trait Line<E>: Copy {
    /// Reads a line.
    ///
    /// # Safety
    /// `from` is valid for [`LINE`] bytes. The machine has the instruction set that this belongs to; so for all
    /// that follow.
    unsafe fn load(from: *const E) -> Self;

    /// Writes a line.
    ///
    /// # Safety
    /// `to` is valid for [`LINE`] bytes.
    unsafe fn store(self, to: *mut E);

    /// Writes a line past the caches, if there is a way.
    ///
    /// # Safety
    /// `to` is valid for [`LINE`] bytes and aligned to that.
    unsafe fn stream(self, to: *mut E);

    /// Writes a line, past the caches if so asked.
    ///
    /// # Safety
    /// As for [`Line::stream`] if `streams`, and for [`Line::store`] if not.
    #[inline(always)]
    unsafe fn write(self, to: *mut E, streams: bool) {
        // SAFETY: the caller's promise.
        unsafe { if streams { self.stream(to) } else { self.store(to) } }
    }

    /// The sums.
    unsafe fn add(self, other: Self) -> Self;

    /// The products.
    unsafe fn mul(self, other: Self) -> Self;

    /// The complex conjugates.
    unsafe fn conj(self) -> Self;
}

/// Where the lines of some lanes begin, the last one first if a walk goes backwards through memory: the hardware
/// foresees only what goes one way.
#[derive(Debug, Clone)]
pub(crate) struct LineStarts {
    next: usize,
    /// Wraps around for a step back.
    step: usize,
    left: usize,
    lanes: usize,
}

impl LineStarts {
    /// Of so many lanes, which are whole lines.
    #[inline(always)]
    pub(crate) fn new<E>(lanes: usize, backwards: bool) -> Self {
        let width = line_of::<E>();
        debug_assert!(lanes.is_multiple_of(width));
        let last = lanes.saturating_sub(width);
        let (next, step) = if backwards { (last, width.wrapping_neg()) } else { (0, width) };
        Self { next, step, left: lanes / width, lanes }
    }

    /// Whether every line lies in `row`.
    #[inline(always)]
    pub(crate) const fn fit<E>(&self, row: &[E]) -> bool {
        row.len() == self.lanes
    }
}

impl Iterator for LineStarts {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        self.next = at.wrapping_add(self.step);
        Some(at)
    }
}

/// Which kind of [`Line`] an element has.
pub trait InLines: Sized {
    /// It, by instruction set.
    type Line<I: Isa>: Line<Self>;
}

impl InLines for f32 {
    type Line<I: Isa> = I::F32;
}

impl InLines for f64 {
    type Line<I: Isa> = I::F64;
}

impl InLines for Complex<f32> {
    type Line<I: Isa> = I::C32;
}

impl InLines for Complex<f64> {
    type Line<I: Isa> = I::C64;
}

/// In plain Rust.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain<E, const W: usize>([E; W]);

impl<E: ScanElement, const W: usize> Line<E> for Plain<E, W> {
    #[inline(always)]
    unsafe fn load(from: *const E) -> Self {
        const { assert!(size_of::<[E; W]>() == LINE) };
        // SAFETY: the caller's promise; an array asks for no more alignment than its elements.
        Self(unsafe { *from.cast() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut E) {
        // SAFETY: the caller's promise.
        unsafe { *to.cast() = self.0 };
    }

    #[inline(always)]
    unsafe fn stream(self, to: *mut E) {
        // SAFETY: the caller's promise.
        unsafe { self.store(to) };
    }

    #[inline(always)]
    unsafe fn add(mut self, other: Self) -> Self {
        for i in 0..W {
            self.0[i] = self.0[i] + other.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn mul(mut self, other: Self) -> Self {
        for i in 0..W {
            self.0[i] = self.0[i] * other.0[i];
        }
        self
    }

    #[inline(always)]
    unsafe fn conj(self) -> Self {
        Self(self.0.map(E::conj))
    }
}
