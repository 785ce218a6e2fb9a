//! `data.documents`: where one document ends and the next begins.

use super::ConfigError;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What the data's documents are; written as one string in a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Documents {
    /// `files`: each file of the folder.
    Files,
    /// `separator:TEXT`: one begins behind each TEXT.
    Separator(String),
}

impl FromStr for Documents {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        match text.split_once(':') {
            _ if text == "files" => Ok(Self::Files),
            Some(("separator", separator)) if !separator.is_empty() => {
                Ok(Self::Separator(separator.to_owned()))
            }
            _ => Err(ConfigError::UnknownDocuments { text: text.to_owned() }),
        }
    }
}

impl TryFrom<String> for Documents {
    type Error = ConfigError;

    fn try_from(text: String) -> Result<Self, ConfigError> {
        text.parse()
    }
}

impl From<Documents> for String {
    fn from(documents: Documents) -> Self {
        documents.to_string()
    }
}

impl fmt::Display for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => f.write_str("files"),
            Self::Separator(separator) => write!(f, "separator:{separator}"),
        }
    }
}
