//! What can be wrong with a configuration.

use std::path::PathBuf;

/// Why a configuration was refused. Every message names the key and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {}: {source}; check the path, or run without one for the defaults", path.display())]
    Read {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{origin} is not valid TOML: {message}")]
    Syntax {
        /// The file, or what the caller called the text.
        origin: String,
        /// The parser's message, with line and column.
        message: String,
    },
    /// A key that no table has.
    #[error("{origin}: unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The file or the override that holds the key.
        origin: String,
        /// The full path of the key.
        key: String,
        /// The nearest known key, or the list of those that exist.
        hint: String,
    },
    /// A value of the wrong type, or one that does not parse.
    #[error("{origin}: `{key}` has an unusable value: {message}")]
    BadValue {
        /// The file that was loaded.
        origin: String,
        /// The full path of the key.
        key: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A value outside its range.
    #[error("`{key}` = {value} is out of range; allowed: {allowed}")]
    OutOfRange {
        /// The full path of the key.
        key: &'static str,
        /// The value given.
        value: String,
        /// The values that are allowed.
        allowed: &'static str,
    },
    /// The heads do not split the inner dimension evenly.
    #[error(
        "`model.gate_loop_heads` = {heads} does not divide the inner dimension {inner_dim} (`model.dim_gate_looped_attn`, or else `model.dim`); nearby divisors: {}; leave the key out for one head a channel",
        list(nearby)
    )]
    HeadsDoNotDivide {
        /// The number of heads asked for.
        heads: usize,
        /// The dimension that they should split.
        inner_dim: usize,
        /// The closest numbers of heads that do divide it.
        nearby: Vec<usize>,
    },
    /// Pairs of features are turned, and one has no partner.
    #[error(
        "`model.dim_head` = {dim_head} is odd, but `model.{because}` turns pairs of features; make it even"
    )]
    OddHead {
        /// The width of a head.
        dim_head: usize,
        /// The option that needs pairs.
        because: &'static str,
    },
    /// The scan form was asked for where a state is more than one number.
    #[error(
        "`model.gate_loop_form` = \"scan\" needs heads of width 1, but {heads} heads share an inner dimension of {inner_dim}; take \"chunkwise\" or \"auto\", or leave `model.gate_loop_heads` out"
    )]
    ScanOfWideHeads {
        /// The number of heads.
        heads: usize,
        /// The dimension that they split.
        inner_dim: usize,
    },
    /// Two options that cannot both be meant.
    #[error("`{first}` and `{second}` contradict each other: {problem}")]
    Contradiction {
        /// The one, with its value.
        first: String,
        /// The other, with its value.
        second: String,
        /// Why, and what to do.
        problem: &'static str,
    },
    /// An override that is not of the form `table.key=value`.
    #[error("malformed override `{text}`: {problem}; write table.key=value, as in train.steps=100")]
    MalformedOverride {
        /// The override as given.
        text: String,
        /// What is missing.
        problem: &'static str,
    },
    /// A source of data that does not exist.
    #[error("unknown synthetic data `{name}` in `data.source`; {hint}")]
    UnknownSynthetic {
        /// The name after `synthetic:`.
        name: String,
        /// The nearest known name, or the list of them.
        hint: String,
    },
    /// A parameter of a synthetic source that it does not have, or that is no number.
    #[error("synthetic data `{name}` in `data.source` cannot take `{text}`: {problem}; {allowed}")]
    SyntheticParameter {
        /// The name after `synthetic:`.
        name: &'static str,
        /// The parameter as given.
        text: String,
        /// What is wrong with it.
        problem: String,
        /// What could be given.
        allowed: String,
    },
    /// `data.source` is empty.
    #[error("`data.source` is empty; give enwik8, synthetic:NAME or the path of a file")]
    EmptySource,
    /// `data.documents` is not of a known form.
    #[error(
        "`data.documents` = {text:?} is neither \"files\" nor \"separator:TEXT\", as in \"separator:\\n\\n\""
    )]
    UnknownDocuments {
        /// The value.
        text: String,
    },
    /// The configuration cannot be written as TOML.
    #[error("cannot write the configuration as TOML: {message}")]
    Serialize {
        /// What the writer said.
        message: String,
    },
}

fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}
