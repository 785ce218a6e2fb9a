//! The bytes and their splits.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::fingerprint::fingerprint;
use super::progress::Meter;
use super::synthetic::Rule;
use super::unpack::Packing;
use super::{DataError, Progress, Split, Tokens, enwik8, folder, synthetic};
use crate::config::{DataConfig, Source};
use crate::vocabulary::Vocabulary;

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
    vocabulary: Vocabulary,
    /// The splits as subwords; `None` where bytes are the tokens.
    subwords: Option<Arc<[Vec<u32>; 3]>>,
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
        Self::open_with(config, Vocabulary::of(config)?)
    }

    /// The same with a vocabulary of one's own; `data.tokenizer` is not read.
    pub fn open_with(config: &DataConfig, vocabulary: Vocabulary) -> Result<Self, DataError> {
        let name = config.source.to_string();
        let bytes = match &config.source {
            Source::Enwik8 => {
                let path = enwik8::fetch(&enwik8::Places::from_env(), Progress::Auto)?;
                read(&path).map_err(|source| DataError::Open { path, source })?
            }
            Source::File(path) if path.is_dir() => Bytes::Owned(folder::read(path)?),
            Source::File(path) => open_file(path)?,
            Source::Synthetic(kind) => {
                let sizes = synthetic::Sizes::new(config.train_bytes, config.valid_bytes)?;
                let bytes = Arc::new(Bytes::Owned(synthetic::generate(*kind, sizes)));
                return Self {
                    bytes,
                    cuts: sizes.cuts(),
                    name,
                    rule: Rule::of(*kind),
                    ..Self::empty()
                }
                .encoded(vocabulary);
            }
        };
        let cuts = cuts(bytes.len(), config, &name)?;
        Self { bytes: Arc::new(bytes), cuts, name, ..Self::empty() }.encoded(vocabulary)
    }

    fn empty() -> Self {
        Self {
            bytes: Arc::new(Bytes::Owned(Vec::new())),
            cuts: [0, 0],
            name: String::new(),
            rule: None,
            vocabulary: Vocabulary::bytes(),
            subwords: None,
        }
    }

    /// Makes tokens of the bytes, split by split.
    fn encoded(mut self, vocabulary: Vocabulary) -> Result<Self, DataError> {
        if vocabulary.is_bytes() {
            return Ok(self);
        }
        // A character belongs to one split.
        for cut in &mut self.cuts {
            let is_inside = |byte: &u8| byte & 0xC0 == 0x80;
            let near = (cut.saturating_sub(3)..=*cut).rev();
            let begins = |at: &usize| !self.bytes.get(*at).is_some_and(is_inside);
            *cut = near.into_iter().find(begins).unwrap_or(*cut);
        }
        let label = format!("encoding {}", self.name);
        let mut meter = Meter::start(Progress::Auto, label, Some(self.bytes.len() as u64));
        let mut splits = [const { Vec::new() }; 3];
        for (split, ids) in Split::ALL.into_iter().zip(&mut splits) {
            let begin = self.range(split).start as u64;
            let name = format!("the {split} split of {}", self.name);
            let found = vocabulary
                .encode_long(self.split(split), &name, &mut |done| meter.at(begin + done))?;
            *ids = found.unwrap_or_default();
        }
        drop(meter);
        self.vocabulary = vocabulary;
        self.subwords = Some(Arc::new(splits));
        Ok(self)
    }

    /// What its token ids stand for.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The bytes of a split.
    pub fn split(&self, split: Split) -> &[u8] {
        &self.bytes[self.range(split)]
    }

    /// A split as token ids.
    pub fn tokens(&self, split: Split) -> Tokens<'_> {
        let bytes = self.split(split);
        let place = Split::ALL.iter().position(|other| *other == split).unwrap_or_default();
        match &self.subwords {
            Some(splits) => Tokens::subwords(&splits[place], bytes.len()),
            None => Tokens::of_task(bytes, self.rule),
        }
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
        text.push_str(" bytes");
        if self.subwords.is_some() {
            let tokens = Split::ALL.map(|split| grouped(self.tokens(split).len()));
            let _ = write!(text, " in {} subwords", tokens.join(", "));
        }
        text
    }

    /// Errs if a token has no place in a model of `num_tokens`, naming the tokenizer or the first such byte.
    pub fn check_vocabulary(&self, num_tokens: usize) -> Result<(), DataError> {
        self.vocabulary.check(num_tokens)?;
        if num_tokens > usize::from(u8::MAX) || !self.vocabulary.is_bytes() {
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

    /// How many different windows of `window_len` tokens a split holds; at least 1.
    pub(super) fn window_starts(
        &self,
        split: Split,
        window_len: usize,
    ) -> Result<usize, DataError> {
        let len = self.tokens(split).len();
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
