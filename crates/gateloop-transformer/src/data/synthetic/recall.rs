//! Lines whose second half follows from the first: what a state must remember, and nothing else.

use super::Draws;

/// `payload|payload`: 8 to 64 random letters, a marker, the same letters.
pub(super) fn copy_line(draws: &mut Draws, out: &mut Vec<u8>) {
    let len = 8 + draws.below(57);
    let start = out.len();
    out.extend((0..len).map(|_| letter(draws)));
    out.push(b'|');
    out.extend_from_within(start..start + len);
    out.push(b'\n');
}

/// `k3m7a1?a1k3m7`: 4 to 16 different keys with a digit each, then all of them in another order.
pub(super) fn recall_line(draws: &mut Draws, out: &mut Vec<u8>) {
    let mut keys: Vec<u8> = (b'a'..=b'z').collect();
    shuffle(draws, &mut keys);
    keys.truncate(4 + draws.below(13));
    let mut pairs: Vec<[u8; 2]> =
        keys.into_iter().map(|key| [key, b'0' + draws.below(10) as u8]).collect();
    out.extend(pairs.iter().flatten());
    out.push(b'?');
    shuffle(draws, &mut pairs);
    out.extend(pairs.iter().flatten());
    out.push(b'\n');
}

fn letter(draws: &mut Draws) -> u8 {
    b'a' + draws.below(26) as u8
}

fn shuffle<T>(draws: &mut Draws, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, draws.below(last + 1));
    }
}
