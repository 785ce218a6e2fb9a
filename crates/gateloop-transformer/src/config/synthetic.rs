//! The kinds of generated data, and their sizes, as a source writes them: `NAME?KEY=NUMBER&KEY=NUMBER`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{ConfigError, suggest};

/// The kinds of generated data. All but [`Text`](Self::Text) are tasks: lines of which some bytes, the answers,
/// follow from what stands before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synthetic {
    /// Sentences of a small English vocabulary and grammar.
    Text,
    /// A random payload, a marker, the payload again: memory over a distance.
    Copy {
        /// Bytes of the longest payload, 8 to 1000.
        len: usize,
    },
    /// Letters scattered among noise, a marker, the letters in order (arXiv 2312.00752, section 4.1.1).
    SelectiveCopy {
        /// Bytes before the marker, 1 to 10000.
        len: usize,
        /// Letters among them, 1 to `len`.
        tokens: usize,
    },
    /// Key-value pairs, then queries: associative recall (arXiv 1610.06258, 2312.04927).
    Recall {
        /// The most pairs of a line, 4 to 26.
        pairs: usize,
    },
    /// What stood behind a special token is to be recalled when that comes again (arXiv 2312.00752, section 4.1.2).
    InductionHeads {
        /// Random letters of a line, 2 to 10000.
        len: usize,
    },
    /// Lists of digits, each reset by a token, of which the largest digit is asked for: modelled on the Memory
    /// Horizon task (arXiv 2311.01927, section 4.1).
    MemoryHorizon {
        /// Digits of the longest list, 1 to 3000.
        len: usize,
        /// Different digits, 2 to 10.
        values: usize,
    },
}

/// A name, the value and the range of a size.
type Parameter<'a> = (&'static str, &'a mut usize, RangeInclusive<usize>);

impl Synthetic {
    /// Every kind, in its default size.
    pub const ALL: [Self; 6] = [
        Self::Text,
        Self::Copy { len: 64 },
        Self::SelectiveCopy { len: 64, tokens: 8 },
        Self::Recall { pairs: 16 },
        Self::InductionHeads { len: 64 },
        Self::MemoryHorizon { len: 32, values: 10 },
    ];

    /// What stands after `synthetic:`, without sizes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Copy { .. } => "copy",
            Self::SelectiveCopy { .. } => "selective_copy",
            Self::Recall { .. } => "recall",
            Self::InductionHeads { .. } => "induction_heads",
            Self::MemoryHorizon { .. } => "memory_horizon",
        }
    }

    /// Whether some of its bytes follow from those before them in their line.
    pub const fn has_answers(self) -> bool {
        !matches!(self, Self::Text)
    }

    fn parameters(&mut self) -> Vec<Parameter<'_>> {
        match self {
            Self::Text => Vec::new(),
            Self::Copy { len } => vec![("len", len, 8..=1000)],
            Self::SelectiveCopy { len, tokens } => {
                // Of both, the range that holds alone; that they fit together is checked when both are known.
                vec![("len", len, 1..=10_000), ("tokens", tokens, 1..=10_000)]
            }
            Self::Recall { pairs } => vec![("pairs", pairs, 4..=26)],
            Self::InductionHeads { len } => vec![("len", len, 2..=10_000)],
            Self::MemoryHorizon { len, values } => {
                vec![("len", len, 1..=3000), ("values", values, 2..=10)]
            }
        }
    }

    /// Takes one `KEY=NUMBER`.
    fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let name = self.name();
        let error = |problem: String, allowed: String| ConfigError::SyntheticParameter {
            name,
            text: text.to_owned(),
            problem,
            allowed,
        };
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let mut parameters = self.parameters();
        let keys: Vec<&str> = parameters.iter().map(|(key, ..)| *key).collect();
        let Some(place) = keys.iter().position(|known| *known == key) else {
            let allowed = if keys.is_empty() {
                "it has no parameters, leave out what follows `?`".to_owned()
            } else {
                suggest::hint(key, "there are", &keys)
            };
            return Err(error(format!("there is no parameter `{key}`"), allowed));
        };
        let (_, size, range) = &mut parameters[place];
        let allowed = || format!("allowed: {key}={} to {key}={}", range.start(), range.end());
        let number = value
            .parse()
            .map_err(|_| error(format!("the value of `{key}` is not a whole number"), allowed()))?;
        if !range.contains(&number) {
            return Err(error(format!("`{key}` is out of range"), allowed()));
        }
        **size = number;
        Ok(())
    }
}

impl FromStr for Synthetic {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let (name, parameters) = text.split_once('?').map_or((text, None), |(n, p)| (n, Some(p)));
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        let mut kind = found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            ConfigError::UnknownSynthetic {
                name: name.to_owned(),
                hint: suggest::hint(name, "there are", &names),
            }
        })?;
        for parameter in parameters.into_iter().flat_map(|text| text.split('&')) {
            kind.set(parameter)?;
        }
        match kind {
            Self::SelectiveCopy { len, tokens } if tokens > len => {
                Err(ConfigError::Contradiction {
                    first: format!("len={len} in data.source"),
                    second: format!("tokens={tokens}"),
                    problem: "a line of selective_copy has no room for so many letters; raise len or lower tokens",
                })
            }
            kind => Ok(kind),
        }
    }
}

impl fmt::Display for Synthetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut lead = '?';
        for mut default in Self::ALL.into_iter().filter(|kind| kind.name() == self.name()) {
            let mut own = *self;
            let pairs = own.parameters().into_iter().zip(default.parameters());
            for ((key, value, _), _) in pairs.filter(|((_, own, _), (_, usual, _))| own != usual) {
                write!(f, "{lead}{key}={value}")?;
                lead = '&';
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Synthetic;
    use crate::config::Source;

    fn message(text: &str) -> String {
        text.parse::<Source>().unwrap_err().to_string()
    }

    #[test]
    fn sizes_are_read_and_written() {
        for text in [
            "synthetic:text",
            "synthetic:selective_copy",
            "synthetic:selective_copy?len=128",
            "synthetic:selective_copy?len=100&tokens=100",
            "synthetic:memory_horizon?values=4",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        let kind: Synthetic = "memory_horizon?values=4&len=7".parse().unwrap();
        assert_eq!(kind, Synthetic::MemoryHorizon { len: 7, values: 4 });
        // A default that is written out is the default.
        assert_eq!("copy?len=64".parse::<Synthetic>().unwrap().to_string(), "copy");
        for kind in Synthetic::ALL {
            assert_eq!(kind.name().parse::<Synthetic>().unwrap(), kind);
        }
    }

    #[test]
    fn sizes_that_cannot_be_name_their_key() {
        for (text, parts) in [
            ("synthetic:recall?pairs=27", ["`pairs` is out of range", "pairs=4 to pairs=26"]),
            ("synthetic:recall?pairs=", ["`pairs` is not a whole number", "`pairs=`"]),
            ("synthetic:copy?len=-1", ["`len=-1`", "whole number"]),
            ("synthetic:selective_copy?lenn=9", ["no parameter `lenn`", "did you mean `len`?"]),
            ("synthetic:selective_copy?x=9", ["no parameter `x`", "there are: len, tokens"]),
            ("synthetic:selective_copy?len=4", ["len=4", "tokens=8"]),
            ("synthetic:text?len=4", ["`text`", "no parameters"]),
            ("synthetic:copy?", ["no parameter ``", "there are: len"]),
        ] {
            let message = message(text);
            for part in parts {
                assert!(message.contains(part), "{text}: {message}");
            }
        }
    }
}
