//! Bytes that arrive one by one, as text that a terminal can show.

/// Decodes byte tokens to UTF-8 as they come.
///
/// A character of several bytes is held back until it is complete; bytes that form none come out as
/// U+FFFD. Control characters other than line feed and tab become spaces, as in the reference's
/// decoder: raw ones could reprogram the terminal.
#[derive(Debug, Default)]
pub struct TextStream {
    pending: Vec<u8>,
}

impl TextStream {
    /// Takes a token; returns what can be shown now, often one character, sometimes nothing.
    pub fn push(&mut self, token: i64) -> String {
        // A vocabulary larger than bytes has no text for its other tokens.
        let Ok(byte) = u8::try_from(token) else {
            return format!("{}\u{FFFD}", self.finish());
        };
        self.pending.push(byte);
        self.decode()
    }

    /// Takes the bytes of a token.
    pub fn push_bytes(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        self.decode()
    }

    /// Takes several tokens.
    pub fn push_all(&mut self, tokens: &[i64]) -> String {
        tokens.iter().map(|&token| self.push(token)).collect()
    }

    /// What is left at the end: U+FFFD for an incomplete character.
    pub fn finish(&mut self) -> String {
        if self.pending.is_empty() {
            return String::new();
        }
        self.pending.clear();
        "\u{FFFD}".to_owned()
    }

    fn decode(&mut self) -> String {
        let mut shown = String::new();
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            shown.extend(chunk.valid().chars().map(printable));
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            if could_become_a_character(invalid, used + invalid.len() == self.pending.len()) {
                break;
            }
            if !invalid.is_empty() {
                shown.push('\u{FFFD}');
            }
            used += invalid.len();
        }
        self.pending.drain(..used);
        shown
    }
}

/// Whether bytes at the end of the input are the beginning of a character.
fn could_become_a_character(invalid: &[u8], at_end: bool) -> bool {
    at_end && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none())
}

fn printable(c: char) -> char {
    if c.is_control() && c != '\n' && c != '\t' { ' ' } else { c }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> String {
        let mut stream = TextStream::default();
        let mut text: String = bytes.iter().map(|&b| stream.push(i64::from(b))).collect();
        text.push_str(&stream.finish());
        text
    }

    #[test]
    fn characters_come_out_whole() {
        let mut stream = TextStream::default();
        let parts: Vec<String> = "é€".bytes().map(|b| stream.push(i64::from(b))).collect();
        assert_eq!(parts, ["", "é", "", "", "€"]);
    }

    #[test]
    fn text_survives_and_broken_bytes_do_not_stop_it() {
        assert_eq!(decoded("naïve 日本\n\tend".as_bytes()), "naïve 日本\n\tend");
        assert_eq!(decoded(b"a\xFFb\xE6\x97c"), "a\u{FFFD}b\u{FFFD}c");
        assert_eq!(decoded(b"cut \xE6\x97"), "cut \u{FFFD}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(decoded(b"\x1b[2J\x07\r\nx"), " [2J  \nx");
        assert_eq!(decoded("\u{9b}2J".as_bytes()), " 2J");
    }

    #[test]
    fn tokens_beyond_bytes_are_marked() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push_all(&[0xE6, 300, 65]), "\u{FFFD}\u{FFFD}A");
    }
}
