//! `table.key=value` on top of a file.

use toml::{Table, Value};

use super::{ConfigError, parse};

/// Applies the overrides in order; the last one of a key wins.
pub(super) fn apply(tables: &mut Table, overrides: &[String]) -> Result<(), ConfigError> {
    for text in overrides {
        let (section, key, value) = split(text)?;
        parse::check_known(section, key, &format!("override `{text}`"))?;
        let table = tables.entry(section).or_insert_with(|| Value::Table(Table::new()));
        if let Value::Table(table) = table {
            table.insert(key.to_owned(), value);
        }
    }
    Ok(())
}

fn split(text: &str) -> Result<(&str, &str, Value), ConfigError> {
    let malformed = |problem| ConfigError::MalformedOverride { text: text.to_owned(), problem };
    let (path, raw) = text.split_once('=').ok_or_else(|| malformed("there is no `=`"))?;
    let (section, key) =
        path.trim().split_once('.').ok_or_else(|| malformed("the key names no table"))?;
    let raw = raw.trim();
    if raw.is_empty() {
        return Err(malformed("there is no value"));
    }
    Ok((section.trim(), key.trim(), value_of(raw)))
}

/// A TOML value, or else a bare string, so that a shell user need not quote twice.
fn value_of(raw: &str) -> Value {
    raw.parse().unwrap_or_else(|_| Value::String(raw.to_owned()))
}
