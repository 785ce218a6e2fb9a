//! What is done to one row of channels. These loops are the ones that must vectorise.

use crate::ScanElement;

use super::dispatch::Isa;
use super::output::{Line, OutputRow, line_of};
use super::plan::MAX_LANES;

/// Room for a row of a tile, on the stack. Unaligned, every vector would straddle two cache lines.
#[repr(align(64))]
pub(super) struct Lanes<E>(pub(super) [E; MAX_LANES]);

impl<E: ScanElement> Lanes<E> {
    #[inline(always)]
    pub(super) const fn zero() -> Self {
        Self([E::ZERO; MAX_LANES])
    }
}

/// The affine map of the rows walked so far, lane by lane.
pub(super) struct Fold<'s, E> {
    /// Product of the decays.
    pub(super) factor: &'s mut [E],
    /// State reached from zero.
    pub(super) offset: &'s mut [E],
}

impl<E: ScanElement> Fold<'_, E> {
    /// Back to the map that changes nothing.
    pub(super) fn reset(&mut self) {
        self.factor.fill(E::ONE);
        self.offset.fill(E::ZERO);
    }
}

/// `state <- a state + b`.
#[inline(always)]
pub(super) fn advance<E: ScanElement>(state: &mut [E], a: &[E], b: &[E]) {
    for ((h, &a), &b) in state.iter_mut().zip(a).zip(b) {
        *h = a * *h + b;
    }
}

/// `state <- a state + b`, written out.
#[inline(always)]
pub(super) fn advance_out<I: Isa, E: ScanElement>(
    state: &mut [E],
    a: &[E],
    b: &[E],
    mut out: OutputRow<'_, E>,
) {
    #[inline(always)]
    fn lanes<E: ScanElement>(state: &mut [E], a: &[E], b: &[E], out: &mut [E]) {
        for (((h, out), &a), &b) in state.iter_mut().zip(out).zip(a).zip(b) {
            *h = a * *h + b;
            *out = *h;
        }
    }

    let streamed = out.streamed();
    for edge in [0..streamed.start, streamed.end..state.len()] {
        let row = edge.clone();
        lanes(&mut state[row.clone()], &a[row.clone()], &b[row], out.lanes(edge));
    }
    let size = line_of::<E>();
    let inputs = a[streamed.clone()].chunks_exact(size).zip(b[streamed.clone()].chunks_exact(size));
    let mut at = streamed.start;
    for (state, (a, b)) in state[streamed].chunks_exact_mut(size).zip(inputs) {
        let mut line = Line::zero();
        lanes(state, a, b, line.lanes());
        out.stream::<I>(at, &line);
        at += size;
    }
}

/// One row of the adjoint, lanes of equal number.
pub(super) struct Adjoint<'r, E> {
    pub(super) a: &'r [E],
    pub(super) dh: &'r [E],
    /// The states that the row multiplied.
    pub(super) before: &'r [E],
}

/// `g = dh + c`, `da = g conj(before)`, `c <- conj(a) g`, with `da` and `g` written out.
#[inline(always)]
pub(super) fn adjoint_out<I: Isa, E: ScanElement>(
    c: &mut [E],
    row: &Adjoint<'_, E>,
    mut da_out: OutputRow<'_, E>,
    mut g_out: OutputRow<'_, E>,
) {
    #[inline(always)]
    fn lanes<E: ScanElement>(c: &mut [E], row: &Adjoint<'_, E>, da: &mut [E], g: &mut [E]) {
        let outputs = da.iter_mut().zip(g.iter_mut());
        let inputs = row.a.iter().zip(row.dh).zip(row.before);
        for ((c, (da, g)), ((&a, &dh), &before)) in c.iter_mut().zip(outputs).zip(inputs) {
            *g = dh + *c;
            *da = *g * before.conj();
            *c = *g * a.conj();
        }
    }

    let Adjoint { a, dh, before } = *row;
    let mut streamed = g_out.streamed();
    if streamed != da_out.streamed() {
        streamed = c.len()..c.len();
    }
    for edge in [0..streamed.start, streamed.end..c.len()] {
        let row =
            Adjoint { a: &a[edge.clone()], dh: &dh[edge.clone()], before: &before[edge.clone()] };
        lanes(&mut c[edge.clone()], &row, da_out.lanes(edge.clone()), g_out.lanes(edge));
    }
    let size = line_of::<E>();
    let inputs = a[streamed.clone()]
        .chunks_exact(size)
        .zip(dh[streamed.clone()].chunks_exact(size))
        .zip(before[streamed.clone()].chunks_exact(size));
    let mut at = streamed.start;
    for (c, ((a, dh), before)) in c[streamed].chunks_exact_mut(size).zip(inputs) {
        let (mut da, mut g) = (Line::zero(), Line::zero());
        lanes(c, &Adjoint { a, dh, before }, da.lanes(), g.lanes());
        da_out.stream::<I>(at, &da);
        g_out.stream::<I>(at, &g);
        at += size;
    }
}

/// `c <- conj(a) (dh + c)`.
#[inline(always)]
pub(super) fn retreat<E: ScanElement>(c: &mut [E], a: &[E], dh: &[E]) {
    for ((c, a), &dh) in c.iter_mut().zip(a).zip(dh) {
        *c = (dh + *c) * a.conj();
    }
}

/// `g = dh + c`.
#[inline(always)]
pub(super) fn add<E: ScanElement>(g: &mut [E], dh: &[E], c: &[E]) {
    for ((g, &dh), &c) in g.iter_mut().zip(dh).zip(c) {
        *g = dh + c;
    }
}

/// The map of `h -> a h + b`, after the one in `fold`.
#[inline(always)]
pub(super) fn fold_forward<E: ScanElement>(fold: &mut Fold<'_, E>, a: &[E], b: &[E]) {
    let lanes = fold.factor.iter_mut().zip(fold.offset.iter_mut());
    for (((factor, offset), &a), &b) in lanes.zip(a).zip(b) {
        *factor = a * *factor;
        *offset = a * *offset + b;
    }
}

/// The map of `c -> conj(a) (dh + c)`, after the one in `fold`.
#[inline(always)]
pub(super) fn fold_backward<E: ScanElement>(fold: &mut Fold<'_, E>, a: &[E], dh: &[E]) {
    let lanes = fold.factor.iter_mut().zip(fold.offset.iter_mut());
    for (((factor, offset), a), &dh) in lanes.zip(a).zip(dh) {
        *factor = a.conj() * *factor;
        *offset = (dh + *offset) * a.conj();
    }
}
