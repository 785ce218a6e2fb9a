//! The bytes and their splits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::fingerprint::fingerprint;
use super::synthetic::Rule;
use super::unpack::Packing;
use super::{DataError, Progress, Split, Tokens, documents, enwik8, folder, synthetic};
use crate::config::{DataConfig, Documents, Source};

/// The bytes of a data source, cut into training, validation and test splits.
///
/// A raw file is mapped into memory rather than read. It must not be shortened while a corpus holds
/// it; changed contents are merely other bytes. Clones share the bytes.
#[derive(Clone, Debug)]
pub struct Corpus {
    bytes: Arc<Bytes>,
    /// Where the validation and the test split start.
    cuts: [usize; 2],
    name: String,
    /// Of a synthetic task.
    rule: Option<Rule>,
    /// Where documents begin, in ascending order, if that is to make a difference.
    documents: Option<Arc<[usize]>>,
}

#[derive(Debug)]
pub(super) enum Bytes {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl Corpus {
    /// Opens the source of a configuration; enwik8 is fetched if it is nowhere to be found.
    pub fn open(config: &DataConfig) -> Result<Self, DataError> {
        let name = config.source.to_string();
        let mut files = None;
        let bytes = match &config.source {
            Source::Enwik8 => {
                let path = enwik8::fetch(&enwik8::Places::from_env(), Progress::Auto)?;
                read(&path).map_err(|source| DataError::Open { path, source })?
            }
            Source::File(path) if path.is_dir() => {
                let (bytes, starts) = folder::read(path)?;
                files = Some(starts);
                Bytes::Owned(bytes)
            }
            Source::File(path) => open_file(path)?,
            Source::Synthetic(kind) => {
                let sizes = synthetic::Sizes::new(config.train_bytes, config.valid_bytes)?;
                let bytes = Bytes::Owned(synthetic::generate(*kind, sizes));
                let documents = documents(config, &bytes, files, &name)?;
                let (bytes, cuts) = (Arc::new(bytes), sizes.cuts());
                return Ok(Self { bytes, cuts, name, rule: Rule::of(*kind), documents });
            }
        };
        let cuts = cuts(bytes.len(), config, &name)?;
        let documents = documents(config, &bytes, files, &name)?;
        Ok(Self { bytes: Arc::new(bytes), cuts, name, rule: None, documents })
    }

    /// The bytes of a split.
    pub fn split(&self, split: Split) -> &[u8] {
        &self.bytes[self.range(split)]
    }

    /// A split as token ids.
    pub fn tokens(&self, split: Split) -> Tokens<'_> {
        let documents = self.documents.as_deref();
        Tokens::of_task(self.split(split), self.rule)
            .with_documents(documents, self.range(split).start)
    }

    /// A short text that is another one if the bytes are others: their length and a hash, of data beyond 256 MiB
    /// a hash of samples.
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.bytes)
    }

    /// Source and sizes in one line, for a log.
    pub fn describe(&self) -> String {
        let mut text = self.name.clone();
        for (split, lead) in Split::ALL.into_iter().zip([": ", ", ", ", "]) {
            let _ = write!(text, "{lead}{} {split}", grouped(self.range(split).len()));
        }
        text + " bytes"
    }

    /// Errs if a byte has no token in a vocabulary of `num_tokens`, naming the first such byte.
    pub fn check_vocabulary(&self, num_tokens: usize) -> Result<(), DataError> {
        if num_tokens > usize::from(u8::MAX) {
            return Ok(());
        }
        let outside = self.bytes.iter().position(|byte| usize::from(*byte) >= num_tokens);
        outside.map_or(Ok(()), |offset| {
            Err(DataError::OutOfVocabulary {
                byte: self.bytes[offset],
                offset,
                num_tokens,
                source_name: self.name.clone(),
            })
        })
    }

    /// How many different windows of `window_len` bytes a split holds; at least 1.
    pub(super) fn window_starts(
        &self,
        split: Split,
        window_len: usize,
    ) -> Result<usize, DataError> {
        let len = self.range(split).len();
        match (len + 1).checked_sub(window_len) {
            Some(starts @ 1..) => Ok(starts),
            _ => Err(DataError::SplitTooShort { split, len, needed: window_len }),
        }
    }

    /// Makes a task of any bytes.
    #[cfg(test)]
    pub(super) fn set_rule(&mut self, rule: Option<Rule>) {
        self.rule = rule;
    }

    fn range(&self, split: Split) -> Range<usize> {
        let [valid, test] = self.cuts;
        match split {
            Split::Train => 0..valid,
            Split::Valid => valid..test,
            Split::Test => test..self.bytes.len(),
        }
    }
}

/// Where documents begin, if they are to be told apart.
fn documents(
    config: &DataConfig,
    bytes: &[u8],
    files: Option<Vec<usize>>,
    name: &str,
) -> Result<Option<Arc<[usize]>>, DataError> {
    let starts = match (&config.documents, files) {
        (None, _) => return Ok(None),
        (Some(Documents::Files), Some(files)) => files,
        (Some(Documents::Files), None) => {
            return Err(DataError::NoFiles { source_name: name.to_owned() });
        }
        (Some(Documents::Separator(separator)), _) => documents::behind_each(separator, bytes)?,
    };
    Ok(Some(starts.into()))
}

fn cuts(len: usize, config: &DataConfig, name: &str) -> Result<[usize; 2], DataError> {
    // For enwik8 these are the splits that everyone reports: 90, 5 and 5 million bytes.
    let train = config.train_bytes.unwrap_or(len - len / 10);
    let valid = config.valid_bytes.unwrap_or(len / 20);
    match train.checked_add(valid) {
        Some(end) if end <= len => Ok([train, end]),
        _ => Err(DataError::SplitsExceedData { train, valid, len, source_name: name.to_owned() }),
    }
}

pub(super) fn open_file(path: &Path) -> Result<Bytes, DataError> {
    let Some(packing) = Packing::of(path) else {
        return read(path).map_err(|source| DataError::Open { path: path.to_owned(), source });
    };
    // A missing file is not a damaged archive.
    File::open(path).map_err(|source| DataError::Open { path: path.to_owned(), source })?;
    let mut bytes = Vec::new();
    packing
        .copy(path, &mut bytes)
        .map_err(|source| DataError::Unpack { path: path.to_owned(), source })?;
    Ok(Bytes::Owned(bytes))
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Pipes cannot be mapped, and an empty mapping is an error on some systems.
    if !metadata.is_file() || metadata.len() == 0 {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        return Ok(Bytes::Owned(bytes));
    }
    // SAFETY: the map is read-only and read as plain bytes, for which every value is valid. That
    // the file must not be shortened meanwhile is a documented condition of `Corpus`.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Bytes::Mapped(map))
}

/// 90000000 as `90,000,000`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
