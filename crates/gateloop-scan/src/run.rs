//! Uncut stretches of a sequence, in the order in which the pass visits them.
//!
//! An algorithm that works on one [`Run`] knows neither segments nor directions: a boundary cannot
//! leak, because no run spans one.

use core::ops::Range;

use crate::{Scan, ScanElement};

/// Rows of channels, in the order of the pass.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a, E> {
    data: &'a [E],
    channels: usize,
    reversed: bool,
}

impl<'a, E> Rows<'a, E> {
    pub(crate) const fn forward(data: &'a [E], channels: usize) -> Self {
        Self { data, channels, reversed: false }
    }

    pub(crate) const fn len(&self) -> usize {
        self.data.len() / self.channels
    }

    pub(crate) fn get(&self, position: usize) -> &'a [E] {
        &self.data[row_range(position, self.len(), self.channels, self.reversed)]
    }
}

/// [`Rows`] to write to.
pub(crate) struct RowsMut<'a, E> {
    data: &'a mut [E],
    channels: usize,
    reversed: bool,
}

impl<'a, E> RowsMut<'a, E> {
    pub(crate) const fn forward(data: &'a mut [E], channels: usize) -> Self {
        Self { data, channels, reversed: false }
    }

    pub(crate) fn get(&self, position: usize) -> &[E] {
        let len = self.data.len() / self.channels;
        &self.data[row_range(position, len, self.channels, self.reversed)]
    }

    pub(crate) fn get_mut(&mut self, position: usize) -> &mut [E] {
        let len = self.data.len() / self.channels;
        &mut self.data[row_range(position, len, self.channels, self.reversed)]
    }

    /// The row at `position`, and the one that the pass visited before it; `position >= 1`.
    pub(crate) fn with_previous(&mut self, position: usize) -> (&mut [E], &[E]) {
        let len = self.data.len() / self.channels;
        let this = row_range(position, len, self.channels, self.reversed);
        let previous = row_range(position - 1, len, self.channels, self.reversed);
        if self.reversed {
            let (left, right) = self.data.split_at_mut(previous.start);
            (&mut left[this], &right[..self.channels])
        } else {
            let (left, right) = self.data.split_at_mut(this.start);
            (&mut right[..self.channels], &left[previous])
        }
    }
}

fn row_range(position: usize, len: usize, channels: usize, reversed: bool) -> Range<usize> {
    let row = if reversed { len - 1 - position } else { position };
    row * channels..(row + 1) * channels
}

/// One uncut stretch.
pub(crate) struct Run<'a, E> {
    /// Decays.
    pub(crate) a: Rows<'a, E>,
    /// Inputs.
    pub(crate) b: Rows<'a, E>,
    /// State before the first row, `[C]`.
    pub(crate) initial: Option<&'a [E]>,
}

/// Hands every uncut stretch of `scan` to `solve`, with the part of `h` that it must fill.
pub(crate) fn for_each_run<'a, E: ScanElement>(
    scan: &Scan<'a, E>,
    h: &mut [E],
    mut solve: impl FnMut(&Run<'a, E>, RowsMut<'_, E>),
) {
    let shape = scan.shape();
    let channels = shape.channels;
    for batch in 0..shape.batch {
        let mut begin = 0;
        for end in 1..=shape.seqlen {
            if end < shape.seqlen && !scan.is_cut(batch, scan.token(end)) {
                continue;
            }
            // The lowest token of the stretch is its last position when the pass runs backwards.
            let first = scan.token(if scan.is_reversed() { end - 1 } else { begin });
            let at = shape.row(batch, first);
            let elements = at..at + (end - begin) * channels;
            let rows = |data: &'a [E]| Rows {
                data: &data[elements.clone()],
                channels,
                reversed: scan.is_reversed(),
            };
            let initial = scan
                .h0()
                .filter(|_| begin == 0 && !scan.is_cut(batch, scan.token(0)))
                .map(|h0| &h0[batch * channels..(batch + 1) * channels]);
            let run = Run { a: rows(scan.a()), b: rows(scan.b()), initial };
            let out =
                RowsMut { data: &mut h[elements.clone()], channels, reversed: scan.is_reversed() };
            solve(&run, out);
            begin = end;
        }
    }
}
