//! The three parts of a corpus.

use std::fmt;
use std::str::FromStr;

use super::DataError;

/// A part of a corpus; a figure in bits per character belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// What the model learns from: the start of the data.
    Train,
    /// What is watched during training.
    Valid,
    /// What is left for the last word: the end of the data.
    Test,
}

impl Split {
    /// All splits, in the order in which they lie in the data.
    pub const ALL: [Self; 3] = [Self::Train, Self::Valid, Self::Test];

    /// The name, as in `valid/bpc`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(name: &str) -> Result<Self, DataError> {
        Self::ALL
            .into_iter()
            .find(|split| split.name() == name)
            .ok_or_else(|| DataError::UnknownSplit { name: name.to_owned() })
    }
}
