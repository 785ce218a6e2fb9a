//! What can be wrong with data.

use std::path::PathBuf;

use super::Split;
use crate::vocabulary::VocabularyError;

/// Why data could not be had or used. Every message names the file, split or key and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file of `data.source` could not be read.
    #[error("cannot read {}: {source}; `data.source` takes enwik8, synthetic:NAME or the path of a file or folder, relative to the current directory", path.display())]
    Open {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without a text.
    #[error("there is nothing to read in the folder {}; `data.source` takes a folder of text files, packed or not", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The text that separates documents is nowhere in the data.
    #[error(
        "{separator:?} (`data.documents`) stands nowhere in the data: name a separator that does, or leave the key out"
    )]
    NoDocuments {
        /// The separator.
        separator: String,
    },
    /// Documents are files, and there is but one.
    #[error(
        "`data.documents` = files, but `data.source` = {source_name} is no folder: name one, or a separator (\"separator:TEXT\")"
    )]
    NoFiles {
        /// The source.
        source_name: String,
    },
    /// A compressed file is damaged, or an archive holds no single file.
    #[error("cannot unpack {}: {source}; unpack it yourself and point `data.source` to the result", path.display())]
    Unpack {
        /// The compressed file.
        path: PathBuf,
        /// What the decoder or the disk said.
        source: std::io::Error,
    },
    /// A folder or file of the cache could not be written.
    #[error("cannot write {}: {source}; free some space, or set GATELOOP_CACHE to another folder", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file called enwik8 that is not as long as enwik8.
    #[error("{} has {found} bytes where enwik8 has {expected}; remove it to have it fetched again, or use it as it is with `data.source` = its path", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that it should have.
        expected: u64,
    },
    /// Unpacked bytes that are not enwik8.
    #[error("{} does not hold enwik8: sha256 {found}, expected {expected}; remove it, or use it as it is with `data.source` = its path", path.display())]
    Checksum {
        /// The compressed file.
        path: PathBuf,
        /// The digest of what it holds, in hexadecimal.
        found: String,
        /// The digest of enwik8.
        expected: String,
    },
    /// Every way to get enwik8 failed.
    #[error(
        "enwik8 could not be had.\n{}\nPut the file at ./data/enwik8, set GATELOOP_DATA to the folder that holds it, or set `data.source` to another file or to synthetic:text.",
        bullets(tried)
    )]
    Unavailable {
        /// What was tried, and how each attempt ended.
        tried: Vec<String>,
    },
    /// The sizes asked for exceed the data.
    #[error(
        "`data.train_bytes` ({train}) and `data.valid_bytes` ({valid}) ask for more than the {len} bytes of {source_name}; lower them or leave them out (90 % and 5 %)"
    )]
    SplitsExceedData {
        /// The training split's size.
        train: usize,
        /// The validation split's size.
        valid: usize,
        /// The bytes that there are.
        len: usize,
        /// The source, as the configuration writes it.
        source_name: String,
    },
    /// More generated data than memory should be asked to hold.
    #[error(
        "`data.train_bytes` ({train}) and `data.valid_bytes` ({valid}) ask for more generated data than the {limit} bytes that are allowed in memory; lower them"
    )]
    SyntheticTooLarge {
        /// The training split's size.
        train: usize,
        /// The validation split's size.
        valid: usize,
        /// The largest sum of all three splits.
        limit: usize,
    },
    /// A split that does not hold one window.
    #[error(
        "the {split} split has {len} tokens (bytes, or with `data.tokenizer` subwords), but one window takes {needed} (train.seq_len + 1); lower `train.seq_len`, or give the split more with `data.train_bytes` or `data.valid_bytes`, or use a larger file"
    )]
    SplitTooShort {
        /// The split.
        split: Split,
        /// Its length.
        len: usize,
        /// The length of one window.
        needed: usize,
    },
    /// Stretches of a split that do not hold one window each.
    #[error(
        "the {split} split has {len} tokens (bytes, or with `data.tokenizer` subwords), but {streams} stretches of it (train.batch_size x train.grad_accum) take {needed} to hold a window each; lower one of these or `train.seq_len`, or use a larger file"
    )]
    StretchesTooShort {
        /// The split.
        split: Split,
        /// Its length.
        len: usize,
        /// The number of stretches.
        streams: usize,
        /// The least length.
        needed: usize,
    },
    /// Windows in which no line both begins and answers.
    #[error(
        "`train.loss_on` = \"answers\", but in the windows of {seq_len} tokens (train.seq_len) of the {split} split there is no answer whose line begins there; raise `train.seq_len` or `train.validate_windows`, or make the lines shorter in `data.source`"
    )]
    NoAnswers {
        /// The split.
        split: Split,
        /// Tokens of a window.
        seq_len: usize,
    },
    /// A byte that the model has no token for.
    #[error(
        "byte {byte} at offset {offset} of {source_name} is outside the vocabulary of {num_tokens} tokens; set `model.num_tokens` to {} or more (256 takes any byte)",
        usize::from(*byte) + 1
    )]
    OutOfVocabulary {
        /// The byte.
        byte: u8,
        /// Where it was first found.
        offset: usize,
        /// The size of the vocabulary.
        num_tokens: usize,
        /// The source, as the configuration writes it.
        source_name: String,
    },
    /// The tokenizer is not usable.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// A split's name that does not exist.
    #[error("unknown split `{name}`; the splits are train, valid and test")]
    UnknownSplit {
        /// The name given.
        name: String,
    },
}

fn bullets(tried: &[String]) -> String {
    tried.iter().map(|attempt| format!("  - {attempt}")).collect::<Vec<_>>().join("\n")
}
