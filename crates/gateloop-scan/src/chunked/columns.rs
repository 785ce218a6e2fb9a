//! Rows that stay in the caches are walked through in blocks of a few, column by column: the state of a column
//! stays in registers from row to row, and what is to be known about a row is worked out once for many lanes.

use core::mem::size_of;
use core::ops::Range;

use crate::ScanElement;

use super::drive::Walk;
use super::rows::Fold;
use super::tile::Tile;

/// Bytes of a block of one operand: a few of them fit a first-level cache.
const BLOCK_BYTES: usize = 8192;
/// Rows of a block.
const MIN_ROWS: usize = 4;
const MAX_ROWS: usize = 64;
/// A column is at most this wide, so that there are registers for it; and for its affine map as well.
const MAX_BYTES: usize = 256;
const MAX_FOLDED_BYTES: usize = 64;

/// Lanes of the widest column.
pub(super) const MAX_WIDTH: usize = 64;

/// Whether rows are walked through by columns. More than one wide one would not be faster than row by row: the
/// hardware no longer foresees what comes next.
pub(super) const fn suit<E>(width: usize) -> bool {
    width * size_of::<E>() <= MAX_BYTES
}

/// A pass that can be walked through by columns.
pub(super) trait ByColumns<E> {
    /// Advances the W lanes from `first` of `tile` on through `positions`, all of which have something before.
    ///
    /// # Safety
    /// As for [`Pass::walk`](super::drive::Pass::walk).
    unsafe fn column<const W: usize>(
        &self,
        tile: Tile,
        first: usize,
        positions: Range<usize>,
        walk: &mut Walk<'_, E>,
    );
}

/// Advances `walk` through `positions`, all of which have something before.
///
/// # Safety
/// As for [`Pass::walk`](super::drive::Pass::walk).
#[inline(always)]
pub(super) unsafe fn walk<E: ScanElement, P: ByColumns<E>>(
    pass: &P,
    tile: Tile,
    positions: Range<usize>,
    walk: &mut Walk<'_, E>,
) {
    let rows = (BLOCK_BYTES / (tile.width * size_of::<E>())).clamp(MIN_ROWS, MAX_ROWS);
    let most = if walk.fold.is_some() { MAX_FOLDED_BYTES } else { MAX_BYTES };
    for begin in positions.clone().step_by(rows) {
        let block = begin..(begin + rows).min(positions.end);
        let mut first = 0;
        macro_rules! columns_of {
            ($($width:literal)*) => {$(
                if const { $width * size_of::<E>() <= MAX_BYTES } && $width * size_of::<E>() <= most {
                    while tile.width - first >= $width {
                        // SAFETY: the caller's promise.
                        unsafe { pass.column::<$width>(tile, first, block.clone(), walk) };
                        first += $width;
                    }
                }
            )*};
        }
        columns_of!(64 32 16 8 4 2 1);
    }
}

/// The W elements from `at` on.
///
/// # Panics
/// If there are not so many.
#[inline(always)]
pub(super) fn part<E, const W: usize>(row: &[E], at: usize) -> &[E; W] {
    row[at..].first_chunk().expect("lanes lie in their array")
}

/// [`part`] to write to.
///
/// # Panics
/// If there are not so many.
#[inline(always)]
pub(super) fn part_mut<E, const W: usize>(row: &mut [E], at: usize) -> &mut [E; W] {
    row[at..].first_chunk_mut().expect("lanes lie in their array")
}

/// From a row of a walk to the next one, in elements.
#[inline(always)]
pub(super) const fn step(channels: usize, backwards: bool) -> isize {
    if backwards { -(channels as isize) } else { channels as isize }
}

/// Where lanes lie, row after row of a walk.
#[inline(always)]
pub(super) fn rows(first: usize, step: isize, len: usize) -> impl Iterator<Item = usize> {
    (0..len as isize).map(move |row| first.wrapping_add_signed(row * step))
}

/// The affine map of W lanes, in registers.
pub(super) struct Map<E, const W: usize> {
    factor: [E; W],
    offset: [E; W],
}

impl<E: ScanElement, const W: usize> Map<E, W> {
    #[inline(always)]
    pub(super) fn load(fold: &Fold<'_, E>, first: usize) -> Self {
        Self { factor: *part(fold.factor, first), offset: *part(fold.offset, first) }
    }

    #[inline(always)]
    pub(super) fn store(self, fold: &mut Fold<'_, E>, first: usize) {
        *part_mut(fold.factor, first) = self.factor;
        *part_mut(fold.offset, first) = self.offset;
    }

    /// Followed by `h -> a h + b`.
    #[inline(always)]
    pub(super) fn forward(&mut self, a: &[E; W], b: &[E; W]) {
        for i in 0..W {
            self.factor[i] = a[i] * self.factor[i];
            self.offset[i] = a[i] * self.offset[i] + b[i];
        }
    }

    /// Followed by `c -> conj(a) (dh + c)`.
    #[inline(always)]
    pub(super) fn backward(&mut self, a: &[E; W], dh: &[E; W]) {
        for i in 0..W {
            self.factor[i] = a[i].conj() * self.factor[i];
            self.offset[i] = (dh[i] + self.offset[i]) * a[i].conj();
        }
    }
}
