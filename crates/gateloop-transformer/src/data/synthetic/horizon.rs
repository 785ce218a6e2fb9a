//! Lists that are reset: what must be remembered, and for how long, depends on the data.

use super::Draws;

/// Lists of a line.
const LISTS: usize = 3;

/// `5203=5|11|407=7`: lists of 1 to `longest` digits with `|`, the reset, between them. Behind the last one, and behind
/// every second one of the others, stands `=` and the largest digit since the last reset.
///
/// Each list has a largest digit of its own, any of the `values` equally likely to be the bound; a model that forgets
/// nothing answers with the largest of all lists, and one that forgets at a fixed rate loses the beginning of a list.
pub(super) fn horizon_line(draws: &mut Draws, longest: usize, values: usize, out: &mut Vec<u8>) {
    for list in 1..=LISTS {
        let bound = draws.below(values);
        let start = out.len();
        for _ in 0..=draws.below(longest) {
            out.push(b'0' + draws.below(bound + 1) as u8);
        }
        if list == LISTS || draws.one_in(2) {
            let largest = out[start..].iter().copied().max().unwrap_or(b'0');
            out.extend([b'=', largest]);
        }
        out.push(if list == LISTS { b'\n' } else { b'|' });
    }
}
