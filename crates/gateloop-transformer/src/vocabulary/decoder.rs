//! Tokens as bytes, as they come.

use super::subwords::Subwords;
use std::sync::Arc;

/// Turns tokens into the bytes of a text, one token after the other. Bytes of a character may come in parts.
#[derive(Debug, Clone)]
pub struct TokenDecoder {
    how: How,
}

#[derive(Debug, Clone)]
enum How {
    Bytes,
    Spelled(Arc<Subwords>),
    InContext(Context),
}

/// Tokens whose text depends on those before, in the way of `tokenizers::DecodeStream`.
#[derive(Debug, Clone)]
struct Context {
    subwords: Arc<Subwords>,
    /// The last tokens, whose text has not been given whole.
    ids: Vec<u32>,
    /// The text of these that has been given.
    given: String,
    index: usize,
}

const REPLACEMENT: &str = "\u{FFFD}";

impl TokenDecoder {
    pub(super) fn bytes() -> Self {
        Self { how: How::Bytes }
    }

    pub(super) fn subwords(subwords: &Arc<Subwords>) -> Self {
        let subwords = subwords.clone();
        let how = if subwords.spelling.is_some() {
            How::Spelled(subwords)
        } else {
            let (ids, given) = (Vec::new(), String::new());
            How::InContext(Context { subwords, ids, given, index: 0 })
        };
        Self { how }
    }

    /// Takes a token; returns the bytes that are certain now. Of a token that the vocabulary does not have, U+FFFD.
    pub fn push(&mut self, token: i64) -> Vec<u8> {
        let unknown = || REPLACEMENT.as_bytes().to_vec();
        match &mut self.how {
            How::Bytes => u8::try_from(token).map_or_else(|_| unknown(), |byte| vec![byte]),
            How::Spelled(subwords) => {
                let spelling = subwords.spelling.as_deref().unwrap_or_default();
                let spelled = usize::try_from(token).ok().and_then(|id| spelling.get(id));
                spelled.cloned().unwrap_or_else(unknown)
            }
            How::InContext(context) => {
                let known = u32::try_from(token).ok();
                match known.filter(|id| (*id as usize) < context.subwords.len) {
                    Some(id) => context.push(id),
                    None => [context.finish(), unknown()].concat(),
                }
            }
        }
    }

    /// What is left at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        match &mut self.how {
            How::Bytes | How::Spelled(_) => Vec::new(),
            How::InContext(context) => context.finish(),
        }
    }
}

impl Context {
    fn push(&mut self, id: u32) -> Vec<u8> {
        let Self { subwords, ids, given, index } = self;
        let step =
            tokenizers::step_decode_stream(&subwords.tokenizer, vec![id], false, ids, given, index);
        match step {
            Ok(text) => text.unwrap_or_default().into_bytes(),
            // The text before would have to change: it cannot be taken back, so that what follows begins anew.
            Err(_) => self.finish(),
        }
    }

    fn finish(&mut self) -> Vec<u8> {
        let text = self.subwords.tokenizer.decode(&self.ids, false).unwrap_or_default();
        let rest = text.strip_prefix(&self.given).unwrap_or_default().as_bytes().to_vec();
        (self.ids, self.given, self.index) = (Vec::new(), String::new(), 0);
        rest
    }
}
