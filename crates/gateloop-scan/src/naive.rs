//! The ground truth: a loop that one checks by eye. It is never optimised.

use crate::{Scan, ScanElement};

/// Writes every state of `scan` to `h`.
pub(crate) fn scan<E: ScanElement>(scan: &Scan<'_, E>, h: &mut [E]) {
    let shape = scan.shape();
    for batch in 0..shape.batch {
        for position in 0..shape.seqlen {
            let t = scan.token(position);
            for c in 0..shape.channels {
                let at = shape.row(batch, t) + c;
                let before = if scan.is_cut(batch, t) {
                    None
                } else if position == 0 {
                    scan.h0().map(|h0| h0[batch * shape.channels + c])
                } else {
                    Some(h[shape.row(batch, scan.token(position - 1)) + c])
                };
                h[at] = match before {
                    Some(before) => scan.a()[at] * before + scan.b()[at],
                    None => scan.b()[at],
                };
            }
        }
    }
}
