//! Rows of channels on the stack, real and imaginary parts apart.

use super::real::Real;

/// Channels of a tile: 8 cache lines of f32.
pub(super) const MAX_WIDTH: usize = 128;

/// A row of states of `width` channels. What is real leaves the imaginary parts alone.
#[doc(hidden)]
#[derive(Debug)]
#[repr(align(64))]
pub struct Planes<R> {
    re: [R; MAX_WIDTH],
    im: [R; MAX_WIDTH],
    width: usize,
}

impl<R: Real> Planes<R> {
    #[inline(always)]
    pub(super) const fn zero(width: usize) -> Self {
        Self { re: [R::ZERO; MAX_WIDTH], im: [R::ZERO; MAX_WIDTH], width }
    }

    #[inline(always)]
    pub(super) fn re(&self) -> &[R] {
        &self.re[..self.width]
    }

    #[inline(always)]
    pub(super) fn im(&self) -> &[R] {
        &self.im[..self.width]
    }

    #[inline(always)]
    pub(super) fn re_mut(&mut self) -> &mut [R] {
        &mut self.re[..self.width]
    }

    #[inline(always)]
    pub(super) fn both_mut(&mut self) -> (&mut [R], &mut [R]) {
        (&mut self.re[..self.width], &mut self.im[..self.width])
    }

    /// The decays as states.
    #[inline(always)]
    pub(super) fn of_decays(decays: &Decays<'_, R>) -> Self {
        let width = decays.re.len();
        let mut planes = Self::zero(width);
        planes.re[..width].copy_from_slice(decays.re);
        planes.im[..width].copy_from_slice(decays.im);
        planes
    }

    /// Nothing is remembered.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.re_mut().fill(R::ZERO);
        self.im[..self.width].fill(R::ZERO);
    }
}

/// The decays of one row, and what their gradient wants to know again.
#[doc(hidden)]
#[derive(Debug)]
pub struct Decays<'r, R> {
    pub(super) re: &'r mut [R],
    pub(super) im: &'r mut [R],
    /// What the modulus makes of a gradient along the direction of z; the derivative of a real gate.
    pub(super) along: &'r mut [R],
    /// What the phase makes of a gradient across it.
    pub(super) across: &'r mut [R],
}

/// Room for the [`Decays`] of a row.
#[repr(align(64))]
pub(super) struct DecayRow<R>([[R; MAX_WIDTH]; 4]);

impl<R: Real> DecayRow<R> {
    #[inline(always)]
    pub(super) const fn zero() -> Self {
        Self([[R::ZERO; MAX_WIDTH]; 4])
    }

    #[inline(always)]
    pub(super) fn row(&mut self, width: usize) -> Decays<'_, R> {
        let [re, im, along, across] = &mut self.0;
        Decays {
            re: &mut re[..width],
            im: &mut im[..width],
            along: &mut along[..width],
            across: &mut across[..width],
        }
    }
}

/// Room for the [`Decays`] of `ROWS` rows, and the states before and after each.
pub(super) struct Block<R, const ROWS: usize> {
    decays: [DecayRow<R>; ROWS],
    entry: Planes<R>,
    states: [Planes<R>; ROWS],
}

impl<R: Real, const ROWS: usize> Block<R, ROWS> {
    #[inline(always)]
    pub(super) const fn zero(width: usize) -> Self {
        Self {
            decays: [const { DecayRow::zero() }; ROWS],
            entry: Planes::zero(width),
            states: [const { Planes::zero(0) }; ROWS],
        }
    }

    /// The state before the first row.
    #[inline(always)]
    pub(super) fn entry(&mut self) -> &mut Planes<R> {
        &mut self.entry
    }

    /// The decays of `row`, the state before it, and the one after it, to be written.
    #[inline(always)]
    pub(super) fn next(&mut self, row: usize) -> (Decays<'_, R>, &Planes<R>, &mut Planes<R>) {
        let width = self.entry.width;
        let (earlier, later) = self.states.split_at_mut(row);
        let after = &mut later[0];
        after.width = width;
        (self.decays[row].row(width), earlier.last().unwrap_or(&self.entry), after)
    }

    /// The decays of `row`, the state before it, and the real part of the one after it.
    #[inline(always)]
    pub(super) fn row(&mut self, row: usize) -> (Decays<'_, R>, &Planes<R>, &[R]) {
        let before = if row == 0 { &self.entry } else { &self.states[row - 1] };
        (self.decays[row].row(self.entry.width), before, self.states[row].re())
    }
}

/// Gradients that are used within a row.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct Scratch<R> {
    pub(super) g_re: [R; MAX_WIDTH],
    pub(super) g_im: [R; MAX_WIDTH],
    pub(super) da_re: [R; MAX_WIDTH],
    pub(super) da_im: [R; MAX_WIDTH],
}

impl<R: Real> Scratch<R> {
    #[inline(always)]
    pub(super) const fn zero() -> Self {
        let row = [R::ZERO; MAX_WIDTH];
        Self { g_re: row, g_im: row, da_re: row, da_im: row }
    }
}
