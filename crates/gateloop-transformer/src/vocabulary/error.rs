//! What can be wrong with a tokenizer.

use std::path::PathBuf;

/// Why a tokenizer cannot be used. Every message names the file or the key and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// The file cannot be read.
    #[error("cannot read the tokenizer {}: {source}; `data.tokenizer` takes the path of a tokenizer.json, relative to the current directory", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is none of the library's.
    #[error(
        "{origin} is not a tokenizer ({problem}); `data.tokenizer` takes a tokenizer.json as the library `tokenizers` writes it"
    )]
    Parse {
        /// The file.
        origin: String,
        /// What the parser met.
        problem: String,
    },
    /// The tokenizer failed on a text.
    #[error("the tokenizer failed: {problem}; take another `data.tokenizer`")]
    Encode {
        /// What the library said.
        problem: String,
    },
    /// Bytes that are no text, and a tokenizer that has no tokens for single bytes.
    #[error(
        "byte {byte} at offset {offset} of {text} is not UTF-8, and `data.tokenizer` has no token for it; take a byte-level tokenizer, or leave `data.tokenizer` out to learn bytes"
    )]
    NotText {
        /// The byte.
        byte: u8,
        /// Where it stands in the text.
        offset: usize,
        /// The text: a split, or a prompt.
        text: String,
    },
    /// A model with fewer tokens than the tokenizer.
    #[error(
        "`model.num_tokens` = {num_tokens} is less than the {tokens} tokens of `data.tokenizer`; set `model.num_tokens` to {tokens} or more"
    )]
    TooSmall {
        /// The model's vocabulary.
        num_tokens: usize,
        /// The tokenizer's.
        tokens: usize,
    },
}

impl VocabularyError {
    /// The same of a text that begins `by` bytes into the one that is named.
    pub(crate) fn shifted(mut self, by: usize) -> Self {
        if let Self::NotText { offset, .. } = &mut self {
            *offset += by;
        }
        self
    }
}
