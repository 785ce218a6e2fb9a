//! Lines that ask for what was seen once: associative recall and induction heads.

use super::Draws;

/// `k3m7a1?a1k3m7`: 4 to `most` different keys with a digit each, then all of them in another order.
pub(super) fn recall_line(draws: &mut Draws, most: usize, out: &mut Vec<u8>) {
    let mut keys: Vec<u8> = (b'a'..=b'z').collect();
    shuffle(draws, &mut keys);
    keys.truncate(4 + draws.below(most.saturating_sub(3)));
    let mut pairs: Vec<[u8; 2]> =
        keys.into_iter().map(|key| [key, b'0' + draws.below(10) as u8]).collect();
    out.extend(pairs.iter().flatten());
    out.push(b'?');
    shuffle(draws, &mut pairs);
    out.extend(pairs.iter().flatten());
    out.push(b'\n');
}

/// `dkf!appk!a`: `len` random letters, before one of which a special token stands; that again, and the letter that
/// stood behind it.
pub(super) fn induction_line(draws: &mut Draws, len: usize, out: &mut Vec<u8>) {
    // Not before the last letter, or the answer would stand beside the question.
    let special = draws.below(len.saturating_sub(1));
    let mut answer = b'\n';
    for place in 0..len {
        let letter = draws.letter(16);
        if place == special {
            out.push(b'!');
            answer = letter;
        }
        out.push(letter);
    }
    out.extend([b'!', answer, b'\n']);
}

fn shuffle<T>(draws: &mut Draws, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, draws.below(last + 1));
    }
}
