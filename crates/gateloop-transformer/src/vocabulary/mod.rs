//! What token ids stand for: bytes, or the subwords of a tokenizer file.

mod decoder;
mod error;
mod subwords;
#[cfg(test)]
mod tests;

pub use decoder::TokenDecoder;
pub use error::VocabularyError;

use crate::config::DataConfig;
use std::path::Path;
use std::sync::Arc;
use subwords::Subwords;

/// The tokens that a text is made of. Clones share what is large.
#[derive(Debug, Clone, Default)]
pub struct Vocabulary(Option<Arc<Subwords>>);

impl Vocabulary {
    /// The 256 bytes; any text can be written with them.
    pub fn bytes() -> Self {
        Self(None)
    }

    /// The vocabulary of a configuration: the tokenizer of `data.tokenizer`, else bytes.
    pub fn of(config: &DataConfig) -> Result<Self, VocabularyError> {
        config.tokenizer.as_deref().map_or_else(|| Ok(Self::bytes()), Self::open)
    }

    /// The subwords of a tokenizer.json.
    pub fn open(path: &Path) -> Result<Self, VocabularyError> {
        let json = std::fs::read_to_string(path)
            .map_err(|source| VocabularyError::Read { path: path.to_owned(), source })?;
        Self::from_json(json, &path.display().to_string())
    }

    /// The subwords of a tokenizer.json's content; `origin` is what error messages call it.
    pub fn from_json(json: String, origin: &str) -> Result<Self, VocabularyError> {
        Ok(Self(Some(Arc::new(Subwords::new(json, origin)?))))
    }

    /// The content of the tokenizer.json; `None` for bytes.
    pub fn json(&self) -> Option<&str> {
        self.0.as_ref().map(|subwords| subwords.json.as_str())
    }

    /// Whether every token is a byte.
    pub fn is_bytes(&self) -> bool {
        self.0.is_none()
    }

    /// One more than the largest id.
    pub fn num_tokens(&self) -> usize {
        self.0.as_ref().map_or(256, |subwords| subwords.len)
    }

    /// The ids of a text. What the model reads at its beginning is up to its caller: no special tokens are added.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<i64>, VocabularyError> {
        let Some(subwords) = &self.0 else {
            return Ok(text.iter().copied().map(i64::from).collect());
        };
        let ids = subwords.encode(text, "the text", &mut |_| {})?;
        Ok(ids.into_iter().map(i64::from).collect())
    }

    /// The ids of a long text, of which `name` speaks in errors and `progress` hears, in bytes done; `None` for bytes,
    /// which are their own ids.
    pub(crate) fn encode_long(
        &self,
        text: &[u8],
        name: &str,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<Vec<u32>>, VocabularyError> {
        self.0.as_ref().map(|subwords| subwords.encode(text, name, progress)).transpose()
    }

    /// Turns tokens back into text, from the beginning of one.
    pub fn decoder(&self) -> TokenDecoder {
        self.0.as_ref().map_or_else(TokenDecoder::bytes, TokenDecoder::subwords)
    }

    /// The bytes of a text.
    pub fn decode(&self, tokens: &[i64]) -> Vec<u8> {
        let mut decoder = self.decoder();
        let mut bytes: Vec<u8> = tokens.iter().flat_map(|token| decoder.push(*token)).collect();
        bytes.extend(decoder.finish());
        bytes
    }

    /// Errs if a subword has no place in a model of `num_tokens`. Of bytes it depends on the text
    /// ([`Corpus::check_vocabulary`](crate::data::Corpus::check_vocabulary)).
    pub fn check(&self, num_tokens: usize) -> Result<(), VocabularyError> {
        match &self.0 {
            Some(subwords) if subwords.len > num_tokens => {
                Err(VocabularyError::TooSmall { num_tokens, tokens: subwords.len })
            }
            _ => Ok(()),
        }
    }
}
