//! A table of checks for a terminal: what was found, what is expected, what to do.

use std::fmt;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As it should be.
    Good,
    /// Absent, and the project does without it.
    Optional,
    /// Absent or wrong, and the project needs it.
    Missing,
}

/// One row: the remedy stands beside the finding, so that nobody has to look it up.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) verdict: Verdict,
    pub(crate) name: &'static str,
    pub(crate) found: String,
    pub(crate) expected: String,
    pub(crate) remedy: Option<String>,
}

/// Rows, printed with aligned columns.
#[derive(Debug)]
pub(crate) struct Table(pub(crate) Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As wide as the longest verdict, also where none is missing.
        let headings = ["       ", "", "found", "expected", "to do"];
        let mut rows = vec![headings.map(str::to_owned)];
        rows.extend(self.0.iter().map(|row| {
            let verdict = match row.verdict {
                Verdict::Good => "ok",
                Verdict::Optional => "-",
                Verdict::Missing => "MISSING",
            };
            let remedy = row.remedy.clone().unwrap_or_default();
            let (found, expected) = (row.found.clone(), row.expected.clone());
            [verdict.to_owned(), row.name.to_owned(), found, expected, remedy]
        }));
        f.write_str(&aligned(&rows))
    }
}

/// Rows of cells as text, every column as wide as its longest cell.
pub(crate) fn aligned<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes for people: `530.6 MB`, `2.4 GB`.
pub(crate) fn size(bytes: u64) -> String {
    let bytes = bytes as f64;
    if bytes < 1e6 {
        format!("{:.1} kB", bytes / 1e3)
    } else if bytes < 1e9 {
        format!("{:.1} MB", bytes / 1e6)
    } else {
        format!("{:.1} GB", bytes / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_remedy_is_on_the_row() {
        let row = |name, found: &str, verdict, remedy: Option<&str>| Row {
            verdict,
            name,
            found: found.to_owned(),
            expected: "3".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let table = Table(vec![
            row("a", "three and a half", Verdict::Good, None),
            row("longer", "none", Verdict::Missing, Some("install it")),
        ])
        .to_string();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[1], "ok       a       three and a half  3");
        assert_eq!(lines[2], "MISSING  longer  none              3         install it");
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(size(530_604_548), "530.6 MB");
        assert_eq!(size(2_400_000_000), "2.4 GB");
        assert_eq!(size(12), "0.0 kB");
    }
}
