//! Small scans, where what surrounds the arithmetic would take longer than it: row after row on the calling
//! thread. The state of a token is the row of results before it, and nothing else is kept.

use core::ops::Range;

use crate::adjoint::{ScanGrads, Upstream};
use crate::{Scan, ScanElement, ScanShape};

use super::backward::Backward;
use super::columns;
use super::dispatch::{Isa, Kernel};
use super::drive::{Pass, Walk};
use super::forward::Forward;
use super::output::Output;
use super::rows::{Adjoint, add, adjoint_into, advance_into, retreat};
use super::tile::Tile;

/// The forward pass.
pub(super) struct SmallForward<'p, 'a, E> {
    pub(super) scan: &'p Scan<'a, E>,
    pub(super) h: &'p mut [E],
}

impl<E: ScanElement> Kernel for SmallForward<'_, '_, E> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { scan, h } = self;
        if is_narrow(scan) {
            return walk_narrow::<I, _>(&Forward { scan, h: Output::new(h, false) }, scan.shape());
        }
        let channels = scan.shape().channels;
        for batch in 0..scan.shape().batch {
            for position in 0..scan.shape().seqlen {
                let t = scan.token(position);
                let row = row(scan, batch, t);
                let (a, b) = (&scan.a()[row.clone()], &scan.b()[row.clone()]);
                if scan.is_cut(batch, t) {
                    h[row].copy_from_slice(b);
                    continue;
                }
                if position > 0 {
                    let (before, now) =
                        neighbours(h, row.start, scan.token(position - 1) < t, channels);
                    advance_into(before, a, b, now);
                    continue;
                }
                match scan.h0() {
                    Some(h0) => {
                        advance_into(&h0[batch * channels..][..channels], a, b, &mut h[row]);
                    }
                    None => h[row].copy_from_slice(b),
                }
            }
        }
    }
}

/// The adjoint.
pub(super) struct SmallBackward<'p, 'a, E> {
    pub(super) scan: &'p Scan<'a, E>,
    pub(super) upstream: Upstream<'p, E>,
    pub(super) grads: ScanGrads<'p, E>,
}

impl<E: ScanElement> Kernel for SmallBackward<'_, '_, E> {
    #[inline(always)]
    fn run<I: Isa>(self) {
        let Self { scan, upstream, grads } = self;
        let ScanGrads { da, db, mut dh0 } = grads;
        if is_narrow(scan) {
            let [da, db] = [da, db].map(|out| Output::new(out, false));
            let dh0 = dh0.map(|out| Output::new(out, false));
            return walk_narrow::<I, _>(&Backward { scan, upstream, da, db, dh0 }, scan.shape());
        }
        let channels = scan.shape().channels;
        let mut c = vec![E::ZERO; channels];
        for batch in 0..scan.shape().batch {
            let of_batch = batch * channels..(batch + 1) * channels;
            match upstream.dh_last {
                Some(last) => c.copy_from_slice(&last[of_batch.clone()]),
                None => c.fill(E::ZERO),
            }
            for position in (0..scan.shape().seqlen).rev() {
                let t = scan.token(position);
                let row = row(scan, batch, t);
                let is_cut = scan.is_cut(batch, t);
                let before = match position {
                    _ if is_cut => None,
                    0 => scan.h0().map(|h0| &h0[of_batch.clone()]),
                    _ => Some(&upstream.h[self::row(scan, batch, scan.token(position - 1))]),
                };
                let (a, dh) = (&scan.a()[row.clone()], &upstream.dh[row.clone()]);
                let (da, db) = (&mut da[row.clone()], &mut db[row]);
                if let Some(before) = before {
                    adjoint_into(&mut c, &Adjoint { a, dh, before }, da, db);
                } else {
                    da.fill(E::ZERO);
                    add(db, dh, &c);
                    retreat(&mut c, a, dh);
                }
                if is_cut {
                    c.fill(E::ZERO);
                }
            }
            if let Some(dh0) = &mut dh0 {
                dh0[of_batch].copy_from_slice(&c);
            }
        }
    }
}

/// Whether the state stays in registers.
fn is_narrow<E: ScanElement>(scan: &Scan<'_, E>) -> bool {
    columns::suit::<E>(scan.shape().channels) && !scan.has_segments()
}

#[inline(always)]
fn walk_narrow<I: Isa, P: Pass>(pass: &P, shape: ScanShape) {
    let mut state = [P::Element::ZERO; columns::MAX_WIDTH];
    let state = &mut state[..shape.channels];
    for tile in (0..shape.batch).map(|batch| Tile::sequence(batch, shape.channels)) {
        pass.start(tile, state);
        // SAFETY: this is the only thread.
        unsafe {
            pass.walk::<I>(tile, 0..shape.seqlen, &mut Walk::writing(state, None, 0));
            pass.finish(tile, state);
        }
    }
}

/// Where token `t` lies.
#[inline(always)]
fn row<E: ScanElement>(scan: &Scan<'_, E>, batch: usize, t: usize) -> Range<usize> {
    let at = scan.shape().row(batch, t);
    at..at + scan.shape().channels
}

/// The row at `at` and the one next to it, before it or after it.
#[inline(always)]
fn neighbours<E>(h: &mut [E], at: usize, is_before: bool, channels: usize) -> (&[E], &mut [E]) {
    if is_before {
        let (before, now) = h.split_at_mut(at);
        (&before[at - channels..], &mut now[..channels])
    } else {
        let (now, after) = h.split_at_mut(at + channels);
        (&after[..channels], &mut now[at..])
    }
}
