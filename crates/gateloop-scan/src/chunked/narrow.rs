//! Rows of few channels: their state stays in registers, and the rows of a walk are one stretch of memory.

use crate::ScanElement;

use super::rows::Fold;

/// Channels that there is a loop for.
pub(super) const WIDTHS: [usize; 3] = [4, 8, 16];

/// What a walk through narrow rows does with each.
pub(super) struct NarrowWalk<'w, 's, E> {
    pub(super) state: &'w mut [E],
    pub(super) fold: Option<&'w mut Fold<'s, E>>,
    /// Whether memory is walked through from its end to its beginning.
    pub(super) backwards: bool,
}

impl<E: ScanElement> NarrowWalk<'_, '_, E> {
    /// Walks through the rows of `a` and `b`, all of them with something before; of no others than
    /// [`WIDTHS`] channels.
    #[inline(always)]
    pub(super) fn run(self, a: &[E], b: &[E], out: Option<&mut [E]>) {
        match self.state.len() {
            4 => self.of_width::<4>(a, b, out),
            8 => self.of_width::<8>(a, b, out),
            16 => self.of_width::<16>(a, b, out),
            width => unreachable!("there is no loop for {width} channels"),
        }
    }

    #[inline(always)]
    fn of_width<const W: usize>(self, a: &[E], b: &[E], out: Option<&mut [E]>) {
        let Self { state, fold, backwards } = self;
        let mut h = [E::ZERO; W];
        h.copy_from_slice(state);
        let (mut factor, mut offset) = ([E::ONE; W], [E::ZERO; W]);
        if let Some(fold) = &fold {
            factor.copy_from_slice(fold.factor);
            offset.copy_from_slice(fold.offset);
        }
        let rows = a.as_chunks::<W>().0.iter().zip(b.as_chunks::<W>().0);
        match (out, fold.is_some()) {
            (Some(out), true) => {
                each(rows.zip(out.as_chunks_mut::<W>().0), backwards, |((a, b), out)| {
                    step(&mut h, a, b);
                    *out = h;
                    map(&mut factor, &mut offset, a, b);
                });
            }
            (Some(out), false) => {
                each(rows.zip(out.as_chunks_mut::<W>().0), backwards, |((a, b), out)| {
                    step(&mut h, a, b);
                    *out = h;
                });
            }
            (None, true) => each(rows, backwards, |(a, b)| {
                step(&mut h, a, b);
                map(&mut factor, &mut offset, a, b);
            }),
            (None, false) => each(rows, backwards, |(a, b)| step(&mut h, a, b)),
        }
        state.copy_from_slice(&h);
        if let Some(fold) = fold {
            fold.factor.copy_from_slice(&factor);
            fold.offset.copy_from_slice(&offset);
        }
    }
}

#[inline(always)]
fn each<I: DoubleEndedIterator>(rows: I, backwards: bool, then: impl FnMut(I::Item)) {
    if backwards { rows.rev().for_each(then) } else { rows.for_each(then) }
}

/// `h <- a h + b`
#[inline(always)]
fn step<E: ScanElement, const W: usize>(h: &mut [E; W], a: &[E; W], b: &[E; W]) {
    for i in 0..W {
        h[i] = a[i] * h[i] + b[i];
    }
}

/// The map of `h -> a h + b`, after another.
#[inline(always)]
fn map<E: ScanElement, const W: usize>(
    factor: &mut [E; W],
    offset: &mut [E; W],
    a: &[E; W],
    b: &[E; W],
) {
    for i in 0..W {
        factor[i] = a[i] * factor[i];
        offset[i] = a[i] * offset[i] + b[i];
    }
}
