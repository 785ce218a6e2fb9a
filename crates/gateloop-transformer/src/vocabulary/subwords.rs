//! A tokenizer file, and what its tokens spell.

use super::VocabularyError;
use std::collections::HashMap;
use tokenizers::{DecoderWrapper, Tokenizer};

/// Bytes of a piece that is encoded on its own.
pub(super) const PIECE: usize = 64 << 10;
/// Where no line ends for so long, a piece ends anywhere.
pub(super) const LONGEST: usize = 16 * PIECE;
/// Pieces between two reports of progress.
const BATCH: usize = 64;

/// A tokenizer of the library `tokenizers`.
#[derive(Debug)]
pub(super) struct Subwords {
    pub(super) tokenizer: Tokenizer,
    /// The file.
    pub(super) json: String,
    /// One more than the largest id.
    pub(super) len: usize,
    /// What each token spells, where that does not depend on its neighbours: in byte-level tokenizers.
    pub(super) spelling: Option<Vec<Vec<u8>>>,
    /// The tokens of single bytes.
    bytes: Vec<Option<u32>>,
}

impl Subwords {
    pub(super) fn new(json: String, origin: &str) -> Result<Self, VocabularyError> {
        let unusable =
            |problem: String| VocabularyError::Parse { origin: origin.to_owned(), problem };
        let mut tokenizer =
            Tokenizer::from_bytes(&json).map_err(|error| unusable(error.to_string()))?;
        // These are for batches of sentences; here they would cut and fill the data.
        tokenizer.with_truncation(None).map_err(|error| unusable(error.to_string()))?;
        tokenizer.with_padding(None);
        let ids = tokenizer.get_vocab(true);
        let len = ids.values().max().map_or(0, |id| *id as usize + 1);
        if len == 0 {
            return Err(unusable("it has no tokens".to_owned()));
        }
        let characters = byte_characters();
        let is_byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let bytes = (0..=u8::MAX)
            .map(|byte| {
                let character = characters[usize::from(byte)].to_string();
                let token = if is_byte_level { character } else { format!("<0x{byte:02X}>") };
                tokenizer.token_to_id(&token)
            })
            .collect();
        let spelling = is_byte_level.then(|| spelling(&tokenizer, &ids, len, &characters));
        Ok(Self { tokenizer, json, len, spelling, bytes })
    }

    /// The ids of a text; `progress` hears of bytes done.
    ///
    /// The text is encoded in pieces, side by side. A piece ends behind the end of a line between two characters that are
    /// no white space, where tokenizers end a word anyway.
    pub(super) fn encode(
        &self,
        text: &[u8],
        name: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<u32>, VocabularyError> {
        let mut ids = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let mut parts = Vec::new();
            for _ in 0..BATCH {
                let end = piece_end(text, start);
                let mut at = start;
                for chunk in text[start..end].utf8_chunks() {
                    let invalid = at + chunk.valid().len();
                    at = invalid + chunk.invalid().len();
                    parts.push((chunk.valid(), invalid..at));
                }
                start = end;
            }
            let texts = parts.iter().map(|(valid, _)| *valid).collect();
            let encodings = self
                .tokenizer
                .encode_batch_fast(texts, false)
                .map_err(|error| VocabularyError::Encode { problem: error.to_string() })?;
            for (encoding, (_, invalid)) in encodings.iter().zip(parts) {
                ids.extend_from_slice(encoding.get_ids());
                for offset in invalid {
                    let byte = text[offset];
                    let id = self.bytes[usize::from(byte)].ok_or_else(|| {
                        VocabularyError::NotText { byte, offset, text: name.to_owned() }
                    })?;
                    ids.push(id);
                }
            }
            progress(start as u64);
        }
        Ok(ids)
    }
}

/// Where the piece ends that begins at `start`.
pub(super) fn piece_end(text: &[u8], start: usize) -> usize {
    let is_inner_line_end = |window: &[u8]| {
        window[1] == b'\n' && !window[0].is_ascii_whitespace() && !window[2].is_ascii_whitespace()
    };
    let (least, most) = ((start + PIECE).min(text.len()), (start + LONGEST).min(text.len()));
    match text[least..most].windows(3).position(is_inner_line_end) {
        Some(place) => least + place + 2,
        None if most == text.len() => most,
        // Before a character's first byte.
        None => (most - 3..=most).rev().find(|end| text[*end] & 0xC0 != 0x80).unwrap_or(most),
    }
}

/// What each token spells in a byte-level tokenizer.
fn spelling(
    tokenizer: &Tokenizer,
    ids: &HashMap<String, u32>,
    len: usize,
    characters: &[char],
) -> Vec<Vec<u8>> {
    let bytes: HashMap<char, u8> = characters.iter().copied().zip(0..=u8::MAX).collect();
    let added = tokenizer.get_added_tokens_decoder();
    // An id without a token is shown as what it is: nothing that can be read.
    let mut spelling = vec!["\u{FFFD}".as_bytes().to_vec(); len];
    for (token, id) in ids {
        let spelled = if added.contains_key(id) {
            None
        } else {
            token.chars().map(|character| bytes.get(&character).copied()).collect()
        };
        spelling[*id as usize] = spelled.unwrap_or_else(|| token.as_bytes().to_vec());
    }
    spelling
}

/// The characters that byte-level tokenizers write for bytes: printable ones stand for themselves, the others for those
/// from U+0100 on (as in GPT-2).
fn byte_characters() -> Vec<char> {
    let is_printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = '\u{100}'..;
    (0..=u8::MAX)
        .map(
            |byte| if is_printable(byte) { char::from(byte) } else { others.next().unwrap_or(' ') },
        )
        .collect()
}
