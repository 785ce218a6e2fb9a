//! Work-efficient associative scan: pair neighbours, scan the pairs, fill in the rest.
//!
//! The recursion over even and odd elements is that of `jax.lax.associative_scan`, the engine of
//! the reference implementation: about `2 T` applications of the monoid and `log2 T` levels. Since
//! the initial state is folded into the first element, a prefix *is* a state, so only the inputs
//! of the combined maps have to come back up the tree.

use crate::run::{Rows, RowsMut, Run, for_each_run};
use crate::{Scan, ScanElement};

/// Writes every state of `scan` to `h`.
pub(crate) fn scan<E: ScanElement>(scan: &Scan<'_, E>, h: &mut [E]) {
    let shape = scan.shape();
    // Level k keeps three arrays of T / 2^k rows.
    let mut scratch = vec![E::ZERO; 3 * shape.seqlen * shape.channels];
    for_each_run(scan, h, |run, mut h| {
        first_state(run, h.get_mut(0));
        level(run.a, run.b, &mut h, &mut scratch);
    });
}

/// The state at the first token.
fn first_state<E: ScanElement>(run: &Run<'_, E>, h: &mut [E]) {
    h.copy_from_slice(run.b.get(0));
    if let Some(initial) = run.initial {
        advance(run.a.get(0), initial, run.b.get(0), h);
    }
}

/// Fills in every row of `h` after the first, which holds its state already.
fn level<E: ScanElement>(
    a: Rows<'_, E>,
    b: Rows<'_, E>,
    h: &mut RowsMut<'_, E>,
    scratch: &mut [E],
) {
    let pairs = a.len() / 2;
    if pairs == 0 {
        return;
    }
    let channels = a.get(0).len();
    let (pair_a, rest) = scratch.split_at_mut(pairs * channels);
    let (pair_b, rest) = rest.split_at_mut(pairs * channels);
    let (pair_h, rest) = rest.split_at_mut(pairs * channels);

    for i in 0..pairs {
        let row = i * channels..(i + 1) * channels;
        let (early, late) = (2 * i, 2 * i + 1);
        // The first element stands for itself and all that came before.
        let early_b = if i == 0 { h.get(0) } else { b.get(early) };
        multiply(a.get(late), a.get(early), &mut pair_a[row.clone()]);
        advance(a.get(late), early_b, b.get(late), &mut pair_b[row]);
    }

    pair_h[..channels].copy_from_slice(&pair_b[..channels]);
    let (pair_a, pair_b) = (Rows::forward(pair_a, channels), Rows::forward(pair_b, channels));
    level(pair_a, pair_b, &mut RowsMut::forward(pair_h, channels), rest);

    for (i, state) in pair_h.chunks_exact(channels).enumerate() {
        h.get_mut(2 * i + 1).copy_from_slice(state);
    }
    for t in (2..a.len()).step_by(2) {
        let (this, previous) = h.with_previous(t);
        advance(a.get(t), previous, b.get(t), this);
    }
}

/// `out = a x`, a row at a time.
fn multiply<E: ScanElement>(a: &[E], x: &[E], out: &mut [E]) {
    for ((out, &a), &x) in out.iter_mut().zip(a).zip(x) {
        *out = a * x;
    }
}

/// `out = a h + b`, a row at a time.
fn advance<E: ScanElement>(a: &[E], h: &[E], b: &[E], out: &mut [E]) {
    for (((out, &a), &h), &b) in out.iter_mut().zip(a).zip(h).zip(b) {
        *out = a * h + b;
    }
}
