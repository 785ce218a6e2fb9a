//! Lines that end with what stood in them: what a state must remember, and nothing else.

use super::Draws;

/// `payload|payload`: 8 to `longest` random letters, a marker, the same letters.
pub(super) fn copy_line(draws: &mut Draws, longest: usize, out: &mut Vec<u8>) {
    let len = 8 + draws.below(longest.saturating_sub(7));
    let start = out.len();
    out.extend((0..len).map(|_| draws.letter(26)));
    out.push(b'|');
    out.extend_from_within(start..start + len);
    out.push(b'\n');
}

/// `..k...a.p..|kap`: `tokens` letters among noise of `len` bytes in all, a marker, the letters in order.
pub(super) fn selective_line(draws: &mut Draws, len: usize, tokens: usize, out: &mut Vec<u8>) {
    let mut letters = Vec::with_capacity(tokens);
    for place in 0..len {
        // Every choice of places is equally likely (Knuth, algorithm S).
        if draws.below(len - place) < tokens - letters.len().min(tokens) {
            let letter = draws.letter(16);
            letters.push(letter);
            out.push(letter);
        } else {
            out.push(b'.');
        }
    }
    out.push(b'|');
    out.extend(letters);
    out.push(b'\n');
}
