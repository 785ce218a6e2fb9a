//! What is done to one row of channels. These loops are the ones that must vectorise.

use core::ops::Range;

use crate::ScanElement;

use super::dispatch::Isa;
use super::line::{Line, LineStarts};
use super::output::{OutputRow, Parts, line_of, prefetch_line};
use super::plan::MAX_LANES;

/// Room for a row of a tile, on the stack. Unaligned, every vector would straddle two cache lines.
#[repr(align(64))]
pub(crate) struct Lanes<E>(pub(crate) [E; MAX_LANES]);

impl<E: ScanElement> Lanes<E> {
    #[inline(always)]
    pub(crate) const fn zero() -> Self {
        Self([E::ZERO; MAX_LANES])
    }
}

/// The affine map of the rows walked so far, lane by lane.
pub(crate) struct Fold<'s, E> {
    /// Product of the decays.
    pub(crate) factor: &'s mut [E],
    /// State reached from zero.
    pub(crate) offset: &'s mut [E],
    /// Lanes before the first cache line boundary.
    pub(crate) lead: usize,
}

impl<E: ScanElement> Fold<'_, E> {
    /// Back to the map that changes nothing.
    pub(crate) fn reset(&mut self) {
        self.factor.fill(E::ONE);
        self.offset.fill(E::ZERO);
    }

    /// Calls `then(factor, offset, x, y)` for each lane, vectors on cache lines.
    #[inline(always)]
    fn each(&mut self, x: &[E], y: &[E], mut then: impl FnMut(&mut E, &mut E, E, E)) {
        for lanes in [0..self.lead, self.lead..x.len()] {
            let factor = self.factor[lanes.clone()].iter_mut();
            let map = factor.zip(self.offset[lanes.clone()].iter_mut());
            for (((factor, offset), &x), &y) in map.zip(&x[lanes.clone()]).zip(&y[lanes]) {
                then(factor, offset, x, y);
            }
        }
    }
}

/// Rows that a walk will come to, of equal width; of none if nothing is to be asked for.
#[derive(Clone, Copy)]
pub(crate) struct Later<'r, E, const N: usize>(pub(crate) [&'r [E]; N]);

impl<E, const N: usize> Later<'_, E, N> {
    /// Nothing to ask for.
    pub(crate) const fn none() -> Self {
        Self([&[]; N])
    }

    /// Whether there is nothing to ask for.
    #[inline(always)]
    fn is_none(&self) -> bool {
        self.0.iter().all(|row| row.is_empty())
    }

    /// Some lanes of them.
    #[inline(always)]
    fn part(self, lanes: &Range<usize>) -> Self {
        Self(self.0.map(|row| row.get(lanes.clone()).unwrap_or(&[])))
    }

    /// Asks for the line at lane `at`.
    #[inline(always)]
    fn ask(&self, at: usize) {
        for row in self.0 {
            if let Some(first) = row.get(at) {
                prefetch_line(first);
            }
        }
    }
}

/// `state <- a state + b`.
#[inline(always)]
pub(crate) fn advance<E: ScanElement>(state: &mut [E], a: &[E], b: &[E]) {
    for ((h, &a), &b) in state.iter_mut().zip(a).zip(b) {
        *h = a * *h + b;
    }
}

/// `now = a before + b`.
#[inline(always)]
pub(crate) fn advance_into<E: ScanElement>(before: &[E], a: &[E], b: &[E], now: &mut [E]) {
    for (((now, &before), &a), &b) in now.iter_mut().zip(before).zip(a).zip(b) {
        *now = a * before + b;
    }
}

/// `state <- a state + b`, written out.
#[inline(always)]
pub(crate) fn advance_out<I: Isa, E: ScanElement>(
    state: &mut [E],
    a: &[E],
    b: &[E],
    mut out: OutputRow<'_, E>,
    later: Later<'_, E, 2>,
    backwards: bool,
) {
    #[inline(always)]
    fn lanes<E: ScanElement>(state: &mut [E], a: &[E], b: &[E], out: &mut [E]) {
        for (((h, out), &a), &b) in state.iter_mut().zip(out).zip(a).zip(b) {
            *h = a * *h + b;
            *out = *h;
        }
    }

    let (Parts { head, lines, tail }, streams) = in_lines([&out]);
    for edge in [head, tail] {
        let row = edge.clone();
        lanes(&mut state[row.clone()], &a[row.clone()], &b[row], out.lanes(edge));
    }
    let (a, b, later) = (&a[lines.clone()], &b[lines.clone()], later.part(&lines));
    let (state, out) = (&mut state[lines.clone()], out.lanes(lines));
    let starts = LineStarts::new::<E>(state.len(), backwards);
    assert!(starts.fit(a) && starts.fit(b) && starts.fit(out));
    let row = Advancing {
        a: a.as_ptr(),
        b: b.as_ptr(),
        state: state.as_mut_ptr(),
        out: out.as_mut_ptr(),
    };
    // SAFETY: all lines lie in the four, and are the output's if they are streamed.
    unsafe {
        if streams && later.is_none() {
            return row.walk::<I, true>(starts, later, true);
        }
        row.walk::<I, false>(starts, later, streams);
    }
}

/// The lines of a row of the scan.
struct Advancing<E> {
    a: *const E,
    b: *const E,
    state: *mut E,
    out: *mut E,
}

impl<E: ScanElement> Advancing<E> {
    /// `LEAN` if the lines are streamed and none are asked for: the fewer pointers there are, the more of them are in
    /// registers.
    ///
    /// # Safety
    /// Every line lies in all four, and may be streamed if `streams`.
    #[inline(always)]
    unsafe fn walk<I: Isa, const LEAN: bool>(
        self,
        starts: LineStarts,
        later: Later<'_, E, 2>,
        streams: bool,
    ) {
        for at in starts {
            if !LEAN {
                later.ask(at);
            }
            // SAFETY: the caller's promise.
            unsafe {
                let by_decay = load::<I, E>(self.a.add(at)).mul(load::<I, E>(self.state.add(at)));
                let h = by_decay.add(load::<I, E>(self.b.add(at)));
                h.store(self.state.add(at));
                h.write(self.out.add(at), LEAN || streams);
            }
        }
    }
}

/// The line of numbers at `from`.
///
/// # Safety
/// As for [`Line::load`].
#[inline(always)]
unsafe fn load<I: Isa, E: ScanElement>(from: *const E) -> E::Line<I> {
    // SAFETY: the caller's promise.
    unsafe { E::Line::load(from) }
}

/// How to go through rows of equal width by lines, and whether these may be streamed.
#[inline(always)]
fn in_lines<E: ScanElement, const N: usize>(rows: [&OutputRow<'_, E>; N]) -> (Parts, bool) {
    let parts = rows[0].parts();
    if !parts.lines.is_empty() && rows.iter().all(|row| row.parts() == parts) {
        return (parts, true);
    }
    let width = parts.tail.end;
    let end = width - width % line_of::<E>();
    (Parts { head: 0..0, lines: 0..end, tail: end..width }, false)
}

/// One row of the adjoint, lanes of equal number.
pub(crate) struct Adjoint<'r, E> {
    pub(crate) a: &'r [E],
    pub(crate) dh: &'r [E],
    /// The states that the row multiplied.
    pub(crate) before: &'r [E],
}

impl<E> Adjoint<'_, E> {
    #[inline(always)]
    fn part(&self, lanes: Range<usize>) -> Self {
        Self { a: &self.a[lanes.clone()], dh: &self.dh[lanes.clone()], before: &self.before[lanes] }
    }
}

/// `g = dh + c`, `da = g conj(before)`, `c <- conj(a) g`.
#[inline(always)]
pub(crate) fn adjoint_into<E: ScanElement>(
    c: &mut [E],
    row: &Adjoint<'_, E>,
    da: &mut [E],
    g: &mut [E],
) {
    let outputs = da.iter_mut().zip(g.iter_mut());
    let inputs = row.a.iter().zip(row.dh).zip(row.before);
    for ((c, (da, g)), ((&a, &dh), &before)) in c.iter_mut().zip(outputs).zip(inputs) {
        *g = dh + *c;
        *da = *g * before.conj();
        *c = *g * a.conj();
    }
}

/// [`adjoint_into`], with `da` and `g` written out.
#[inline(always)]
pub(crate) fn adjoint_out<I: Isa, E: ScanElement>(
    c: &mut [E],
    row: &Adjoint<'_, E>,
    [mut da_out, mut g_out]: [OutputRow<'_, E>; 2],
    later: Later<'_, E, 3>,
    backwards: bool,
) {
    let (Parts { head, lines, tail }, streams) = in_lines([&da_out, &g_out]);
    for edge in [head, tail] {
        let part = row.part(edge.clone());
        adjoint_into(&mut c[edge.clone()], &part, da_out.lanes(edge.clone()), g_out.lanes(edge));
    }
    let (row, later) = (row.part(lines.clone()), later.part(&lines));
    let (c, da, g) = (&mut c[lines.clone()], da_out.lanes(lines.clone()), g_out.lanes(lines));
    let starts = LineStarts::new::<E>(c.len(), backwards);
    assert!(starts.fit(row.a) && starts.fit(row.dh) && starts.fit(row.before));
    assert!(starts.fit(da) && starts.fit(g));
    let [a, dh, before] = [row.a, row.dh, row.before].map(<[E]>::as_ptr);
    let [c, da, g] = [c, da, g].map(<[E]>::as_mut_ptr);
    let row = Retreating { a, dh, before, c, da, g };
    // SAFETY: all lines lie in the six, and are the outputs' if they are streamed.
    unsafe {
        if streams && later.is_none() {
            return row.walk::<I, true>(starts, later, true);
        }
        row.walk::<I, false>(starts, later, streams);
    }
}

/// The lines of a row of the adjoint.
struct Retreating<E> {
    a: *const E,
    dh: *const E,
    before: *const E,
    c: *mut E,
    da: *mut E,
    g: *mut E,
}

impl<E: ScanElement> Retreating<E> {
    /// As [`Advancing::walk`].
    ///
    /// # Safety
    /// Every line lies in all six, and may be streamed if `streams`.
    #[inline(always)]
    unsafe fn walk<I: Isa, const LEAN: bool>(
        self,
        starts: LineStarts,
        later: Later<'_, E, 3>,
        streams: bool,
    ) {
        for at in starts {
            if !LEAN {
                later.ask(at);
            }
            // SAFETY: the caller's promise.
            unsafe {
                let g = load::<I, E>(self.dh.add(at)).add(load::<I, E>(self.c.add(at)));
                g.mul(load::<I, E>(self.a.add(at)).conj()).store(self.c.add(at));
                let da = g.mul(load::<I, E>(self.before.add(at)).conj());
                da.write(self.da.add(at), LEAN || streams);
                g.write(self.g.add(at), LEAN || streams);
            }
        }
    }
}

/// `c <- conj(a) (dh + c)`.
#[inline(always)]
pub(crate) fn retreat<E: ScanElement>(c: &mut [E], a: &[E], dh: &[E]) {
    for ((c, a), &dh) in c.iter_mut().zip(a).zip(dh) {
        *c = (dh + *c) * a.conj();
    }
}

/// `g = dh + c`.
#[inline(always)]
pub(crate) fn add<E: ScanElement>(g: &mut [E], dh: &[E], c: &[E]) {
    for ((g, &dh), &c) in g.iter_mut().zip(dh).zip(c) {
        *g = dh + c;
    }
}

/// The map of `h -> a h + b`, after the one in `fold`.
#[inline(always)]
pub(crate) fn fold_forward<E: ScanElement>(fold: &mut Fold<'_, E>, a: &[E], b: &[E]) {
    fold.each(a, b, |factor, offset, a, b| {
        *factor = a * *factor;
        *offset = a * *offset + b;
    });
}

/// The map of `c -> conj(a) (dh + c)`, after the one in `fold`.
#[inline(always)]
pub(crate) fn fold_backward<E: ScanElement>(fold: &mut Fold<'_, E>, a: &[E], dh: &[E]) {
    fold.each(a, dh, |factor, offset, a, dh| {
        *factor = a.conj() * *factor;
        *offset = (dh + *offset) * a.conj();
    });
}
