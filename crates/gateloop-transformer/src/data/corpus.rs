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
use super::{DataError, Progress, Split, Tokens, documents, enwik8, folder, synthetic};
use crate::config::{DataConfig, Documents, Source};
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
    /// Where documents begin in each split, in tokens and in ascending order, if that is to make a difference.
    documents: Option<Arc<[Vec<usize>; 3]>>,
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
                let (cuts, rule) = (sizes.cuts(), Rule::of(*kind));
                let corpus = Self { bytes: Arc::new(bytes), cuts, name, rule, ..Self::empty() };
                let documents = corpus.documents(config, None)?;
                return corpus.encoded(vocabulary, documents);
            }
        };
        let cuts = cuts(bytes.len(), config, &name)?;
        let corpus = Self { bytes: Arc::new(bytes), cuts, name, ..Self::empty() };
        let documents = corpus.documents(config, files)?;
        corpus.encoded(vocabulary, documents)
    }

    fn empty() -> Self {
        Self {
            bytes: Arc::new(Bytes::Owned(Vec::new())),
            cuts: [0, 0],
            name: String::new(),
            rule: None,
            vocabulary: Vocabulary::bytes(),
            subwords: None,
            documents: None,
        }
    }

    /// Where documents begin in all of the bytes, if they are to be told apart; `files` are those of a folder.
    fn documents(
        &self,
        config: &DataConfig,
        files: Option<Vec<usize>>,
    ) -> Result<Option<Vec<usize>>, DataError> {
        Ok(Some(match (&config.documents, files) {
            (None, _) => return Ok(None),
            (Some(Documents::Files), Some(files)) => files,
            (Some(Documents::Files), None) => {
                return Err(DataError::NoFiles { source_name: self.name.clone() });
            }
            (Some(Documents::Separator(separator)), _) => {
                documents::behind_each(separator, &self.bytes)?
            }
        }))
    }

    /// Makes tokens of the bytes, split by split and document by document.
    fn encoded(
        mut self,
        vocabulary: Vocabulary,
        documents: Option<Vec<usize>>,
    ) -> Result<Self, DataError> {
        if !vocabulary.is_bytes() {
            // A character belongs to one split.
            for cut in &mut self.cuts {
                let is_inside = |byte: &u8| byte & 0xC0 == 0x80;
                let near = (cut.saturating_sub(3)..=*cut).rev();
                let begins = |at: &usize| !self.bytes.get(*at).is_some_and(is_inside);
                *cut = near.into_iter().find(begins).unwrap_or(*cut);
            }
        }
        let ranges = Split::ALL.map(|split| self.range(split));
        let mut starts = documents.map(|all| ranges.each_ref().map(|range| within(&all, range)));
        if !vocabulary.is_bytes() {
            let label = format!("encoding {}", self.name);
            let mut meter = Meter::start(Progress::Auto, label, Some(self.bytes.len() as u64));
            let mut splits = [const { Vec::new() }; 3];
            for (n, ids) in splits.iter_mut().enumerate() {
                let name = format!("the {} split of {}", Split::ALL[n], self.name);
                let mut none = Vec::new();
                let starts = starts.as_mut().map_or(&mut none, |starts| &mut starts[n]);
                let (text, begin) = (&self.bytes[ranges[n].clone()], ranges[n].start as u64);
                *ids =
                    encode(&vocabulary, text, starts, &name, &mut |done| meter.at(begin + done))?;
            }
            drop(meter);
            self.subwords = Some(Arc::new(splits));
        }
        self.vocabulary = vocabulary;
        self.documents = starts.map(Arc::new);
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
        let tokens = match &self.subwords {
            Some(splits) => Tokens::subwords(&splits[place], bytes.len()),
            None => Tokens::of_task(bytes, self.rule),
        };
        tokens.with_documents(self.documents.as_ref().map(|splits| splits[place].as_slice()))
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

/// The places inside a range, counted from its beginning, where there is nothing before.
fn within(places: &[usize], range: &Range<usize>) -> Vec<usize> {
    let inside = places.iter().filter(|place| **place > range.start && **place < range.end);
    inside.map(|place| place - range.start).collect()
}

/// The subwords of a text whose documents begin at `starts`, which become the places of their first tokens: no token has a
/// part in two documents.
fn encode(
    vocabulary: &Vocabulary,
    text: &[u8],
    starts: &mut Vec<usize>,
    name: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<u32>, DataError> {
    let edges: Vec<usize> = [0].iter().chain(&*starts).chain(&[text.len()]).copied().collect();
    let mut ids = Vec::new();
    starts.clear();
    for edge in edges.windows(2) {
        if edge[0] > 0 {
            starts.push(ids.len());
        }
        let document = &text[edge[0]..edge[1]];
        let found = vocabulary
            .encode_long(document, name, &mut |done| progress(edge[0] as u64 + done))
            .map_err(|error| error.shifted(edge[0]))?
            .unwrap_or_default();
        if ids.is_empty() {
            ids = found;
        } else {
            ids.extend_from_slice(&found);
        }
    }
    // A document without a token begins nowhere.
    starts.dedup();
    starts.retain(|start| (1..ids.len()).contains(start));
    Ok(ids)
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
