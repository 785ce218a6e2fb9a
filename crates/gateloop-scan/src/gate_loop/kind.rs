//! The two operators, row by row: how a decay comes from its pre-activation, and the way back.
//!
//! Every function here is a loop over the channels of one row, with the parts of complex numbers in
//! arrays of their own, so that it vectorises.

use crate::ScanElement;

use super::GateMode;
use super::planes::{Decays, Planes, Scratch};
use super::real::Real;

/// What the fused operators differ in. Sealed: [`MaxHeads`](super::MaxHeads) and
/// [`Simple`](super::Simple).
pub trait Kind: Sized + Send + Sync + 'static {
    /// The operands' numbers.
    type Real: Real;
    /// The state of a channel.
    type State: ScanElement;
    /// The operator's name.
    const NAME: &'static str;
    #[doc(hidden)]
    const GATE_PARTS: usize;

    #[doc(hidden)]
    fn load(state: &[Self::State], planes: &mut Planes<Self::Real>);
    #[doc(hidden)]
    fn store(planes: &Planes<Self::Real>, state: &mut [Self::State]);
    #[doc(hidden)]
    fn decays(mode: GateMode, z: &[Self::Real], decays: &mut Decays<'_, Self::Real>);
    #[doc(hidden)]
    fn advance(
        decays: &Decays<'_, Self::Real>,
        input: Input<'_, Self::Real>,
        before: &Planes<Self::Real>,
        h: &mut Planes<Self::Real>,
    );
    /// `offset <- a offset + input`, `factor <- a factor`: the map of the rows so far, and then this one.
    #[doc(hidden)]
    fn compose(
        decays: &Decays<'_, Self::Real>,
        input: Input<'_, Self::Real>,
        offset: &mut Planes<Self::Real>,
        factor: &mut Planes<Self::Real>,
    );
    #[doc(hidden)]
    fn retreat(row: &Row<'_, Self::Real>, grads: &mut Grads<'_, Self::Real>);
}

/// What enters the state: k and v, or kv alone.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Input<'r, R> {
    pub(super) k: &'r [R],
    pub(super) v: Option<&'r [R]>,
}

impl<R: Real> Input<'_, R> {
    /// The state that has nothing before it.
    #[inline(always)]
    pub(super) fn begin(&self, h: &mut Planes<R>) {
        h.clear();
        let x = h.re_mut();
        match self.v {
            Some(v) => {
                for ((x, &k), &v) in x.iter_mut().zip(self.k).zip(v) {
                    *x = k * v;
                }
            }
            None => x.copy_from_slice(&self.k[..x.len()]),
        }
    }
}

/// One row on the way back.
#[doc(hidden)]
#[derive(Debug)]
pub struct Row<'r, R> {
    pub(super) q: &'r [R],
    pub(super) input: Input<'r, R>,
    pub(super) dy: &'r [R],
    pub(super) decays: Decays<'r, R>,
    /// The state before the row, if anything comes before it.
    pub(super) before: Option<(&'r [R], &'r [R])>,
    /// The real part of the state after it.
    pub(super) after: &'r [R],
    /// How much of its gradient z receives.
    pub(super) fraction: R,
}

/// The gradients of one row, and what the row hands to the one before it.
#[doc(hidden)]
#[derive(Debug)]
pub struct Grads<'r, R> {
    pub(super) c: &'r mut Planes<R>,
    pub(super) dq: &'r mut [R],
    pub(super) dk: &'r mut [R],
    pub(super) dv: &'r mut [R],
    pub(super) dz: &'r mut [R],
    pub(super) scratch: &'r mut Scratch<R>,
}
