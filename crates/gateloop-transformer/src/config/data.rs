//! `[data]`: where the bytes come from and how they are split.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::check::positive;
use super::{ConfigError, Documents, Synthetic};

/// The bytes to learn from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// `enwik8`, `synthetic:NAME`, `synthetic:NAME?KEY=NUMBER&...` or the path of a file or of a folder of files.
    pub source: Source,
    /// `files` (of a folder) or `separator:TEXT`: a model knows nothing of the document before the one that it reads, and
    /// does not predict how one begins; unset: all is one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub documents: Option<Documents>,
    /// A tokenizer.json whose subwords are the tokens; unset: bytes are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<PathBuf>,
    /// Bytes of the training split, from the start; unset: 90 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_bytes: Option<usize>,
    /// Bytes of the validation split that follows; unset: 5 %. What remains is the test split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_bytes: Option<usize>,
}

impl DataConfig {
    /// Checks the ranges; whether the sizes fit the file is known when it is opened.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if let (Some(tokenizer), Source::Synthetic(kind)) = (&self.tokenizer, &self.source)
            && kind.has_answers()
        {
            return Err(ConfigError::Contradiction {
                first: format!("data.tokenizer = \"{}\"", tokenizer.display()),
                second: format!("data.source = \"{}\"", self.source),
                problem: "the answers of a task are bytes; leave the tokenizer out",
            });
        }
        self.train_bytes.map_or(Ok(()), |bytes| positive("data.train_bytes", bytes))?;
        self.valid_bytes.map_or(Ok(()), |bytes| positive("data.valid_bytes", bytes))
    }
}

/// A source of bytes, written as one string in a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Source {
    /// The first 100,000,000 bytes of an English Wikipedia dump.
    #[default]
    Enwik8,
    /// Generated data, the same on every machine.
    Synthetic(Synthetic),
    /// A file of any bytes, or a folder of them, one after the other; `.gz`, `.xz`, `.zst` and `.zip` are unpacked
    /// in memory. Relative to the current directory.
    File(PathBuf),
}

impl FromStr for Source {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            _ if text.is_empty() => Err(ConfigError::EmptySource),
            _ if text == "enwik8" => Ok(Self::Enwik8),
            Some(("synthetic", name)) => name.parse().map(Self::Synthetic),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl TryFrom<String> for Source {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl From<Source> for String {
    fn from(source: Source) -> Self {
        source.to_string()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enwik8 => f.write_str("enwik8"),
            Self::Synthetic(kind) => write!(f, "synthetic:{kind}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
